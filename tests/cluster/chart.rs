//! The chart: what it installs, what it allows, what it refuses, and what it leaves.
//!
//! That it installs with no value set, in a namespace that enforces Pod Security `restricted`, is what every test of
//! this ring stands on (see `installed.rs`).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use batchjob_crd::keys;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::installed::{SYSTEM, alone, chart, shared};
use crate::story::{phase, script, tell};

#[tokio::test]
async fn helm_test_runs_a_batchjob_to_its_end() -> Result<()> {
    let said = shared().await?.helm.run(&["test", "batchjob", "--logs"]).await?;
    assert!(said.contains("3 indexes") && said.contains("all is well"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_misspelt_value_is_refused() -> Result<()> {
    let said = shared().await?.helm.say(&["template", "batchjob", &chart()?, "--set", "image.tagg=1"]).await?;
    assert!(!said.succeeded && said.text.contains("tagg"), "{}", said.text);
    Ok(())
}

#[tokio::test]
async fn the_same_values_give_the_same_bytes() -> Result<()> {
    let helm = &shared().await?.helm;
    let (chart, template) = (chart()?, "template");
    let once = helm.run(&[template, "batchjob", &chart]).await?;
    assert!(once.contains("kind: Deployment"), "{once}");
    assert_eq!(once, helm.run(&[template, "batchjob", &chart]).await?);
    Ok(())
}

#[tokio::test]
async fn the_notes_print_three_commands_that_work() -> Result<()> {
    let installed = shared().await?;
    let notes = installed.helm.run(&["get", "notes", "batchjob"]).await?;
    let kubectl = installed.kubernetes.binaries().kubectl.parent().context("kubectl is in a folder")?;
    let path = format!("{}:{}", kubectl.display(), std::env::var("PATH")?);
    let run = |commands: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", commands]).env("PATH", &path).env("KUBECONFIG", installed.kubernetes.kubeconfig());
        let output = shell.output()?;
        ensure!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };

    run(part(&notes, "1. Run one:", "2. ")?)?;
    let watch = part(&notes, "2. Watch it end (Ctrl-C when it has):", "3. ")?;
    run("kubectl wait batchjob/first --namespace default --for=condition=Finished --timeout=60s")?;
    let row = run(watch.strip_suffix(" --watch").with_context(|| format!("it watches: {watch}"))?)?;
    assert!(row.contains("Succeeded") && row.contains("3/3"), "{row}");
    let said = run(part(&notes, "3. See what its pods said, or why it waits or failed:", "Is everything in order?")?)?;
    for expected in ["Hello from index 0.", "Hello from index 2.", "Events:", "SuccessfulCreate"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    run("kubectl delete batchjob first --namespace default")?;
    Ok(())
}

/// What stands between two lines.
fn part<'a>(notes: &'a str, from: &str, to: &str) -> Result<&'a str> {
    let (_, rest) = notes.split_once(from).with_context(|| format!("{from} in {notes}"))?;
    let (part, _) = rest.split_once(&format!("\n{to}")).with_context(|| format!("{to} in {notes}"))?;
    Ok(part.trim())
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let who = format!("system:serviceaccount:{SYSTEM}:batchjob");
    let groups = ["system:authenticated".to_owned(), "system:serviceaccounts".to_owned()];
    let may = Rights { client: shared().await?.kubernetes.client().await?, who, groups: groups.to_vec() };
    for (verbs, group, resource, expected) in [
        // Create is for the runs of BatchCronJobs.
        ("get list watch create delete", "batchjob.dev", "batchjobs", true),
        ("update patch deletecollection", "batchjob.dev", "batchjobs", false),
        ("get list watch", "batchjob.dev", "batchcronjobs", true),
        ("create update patch delete deletecollection", "batchjob.dev", "batchcronjobs", false),
        ("update", "batchjob.dev", "batchcronjobs/status", true),
        ("get patch", "batchjob.dev", "batchcronjobs/status", false),
        ("update", "batchjob.dev", "batchjobs/status", true),
        ("get patch", "batchjob.dev", "batchjobs/status", false),
        ("get list watch create delete patch", "", "pods", true),
        ("update deletecollection", "", "pods", false),
        ("create get", "", "pods/exec", false),
        ("get", "", "pods/log", false),
        ("create patch", "events.k8s.io", "events", true),
        ("get list delete", "events.k8s.io", "events", false),
        ("get list watch create update", "", "secrets", false),
        ("get list watch create update", "", "configmaps", false),
        ("get list patch", "", "nodes", false),
        ("get list", "", "namespaces", false),
        ("create", "", "serviceaccounts/token", false),
        // The shared cluster has managedJobs.enabled.
        ("get list watch", "batch", "jobs", true),
        ("create update patch delete deletecollection", "batch", "jobs", false),
        ("patch", "batch", "jobs/status", true),
        ("get update", "batch", "jobs/status", false),
        ("update", "batch", "jobs/finalizers", true),
        ("get list watch patch", "batch", "cronjobs", false),
        ("create patch", "apps", "deployments", false),
        ("bind escalate create", "rbac.authorization.k8s.io", "clusterroles", false),
        ("impersonate", "", "users", false),
        ("get patch", "apiextensions.k8s.io", "customresourcedefinitions", false),
    ] {
        for verb in verbs.split(' ') {
            assert_eq!(may.answer("default", verb, group, resource).await?, expected, "{verb} {resource}");
        }
    }
    for (verbs, namespace, expected) in
        [("create", SYSTEM, true), ("list watch delete", SYSTEM, false), ("get create", "default", false)]
    {
        for verb in verbs.split(' ') {
            let answer = may.answer(namespace, verb, "coordination.k8s.io", "leases").await?;
            assert_eq!(answer, expected, "{verb} leases in {namespace}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn jobs_are_its_business_only_if_somebody_says_so() -> Result<()> {
    const ENABLED: &str = "managedJobs.enabled=true";
    const POLICY: &str = "managedJobs.mutatingAdmissionPolicy.enabled=true";
    let (helm, chart) = (&shared().await?.helm, chart()?);
    let template = |values: &'static [&'static str]| {
        let set = values.iter().flat_map(|&value| ["--set", value]);
        let arguments: Vec<&str> = ["template", "batchjob", &*chart].into_iter().chain(set).collect();
        async move { helm.say(&arguments).await }
    };
    for (values, on) in [(&[][..], false), (&[ENABLED, "watchNamespace=team"], true), (&[ENABLED], true)] {
        let said = template(values).await?;
        assert!(said.succeeded, "{}", said.text);
        for words in
            ["apiGroups: [batch]", "[jobs/status]", "- --managed-jobs=true", "managedBy: batchjob.dev/operator"]
        {
            assert_eq!(said.text.contains(words), on, "{words} with {values:?}: {}", said.text);
        }
        assert!(!said.text.contains("MutatingAdmissionPolicy"), "{}", said.text);
    }
    let said = template(&[POLICY]).await?;
    assert!(!said.succeeded && said.text.contains("needs managedJobs.enabled"), "{}", said.text);
    let said =
        helm.say(&["template", "it", &chart, "--set", ENABLED, "--set", POLICY, "--kube-version", "1.35.9"]).await?;
    assert!(!said.succeeded && said.text.contains("needs Kubernetes 1.36 or later"), "{}", said.text);
    Ok(())
}

#[tokio::test]
async fn one_label_gives_the_new_jobs_of_a_namespace_to_the_operator() -> Result<()> {
    tell(shared().await?, "label", async |story| {
        let managed_by = |job: &str| story.kubectl.run(&["get", "job", job, "-o", "jsonpath={.spec.managedBy}"]);
        let create = |job: &str| story.kubectl.run(&["create", "job", job, "--image", "busybox:1", "--", "true"]);
        create("before")?;
        let namespace = story.jobs.namespace().context("the jobs have a namespace")?;
        story.kubectl.run(&["label", "namespace", namespace, "batchjob.dev/managed-jobs=true"])?;
        // The API server learns of the label a moment later.
        story
            .until("a new Job is ours", 30, async || {
                story.kubectl.run(&["delete", "job", "after", "--ignore-not-found"])?;
                create("after")?;
                Ok((managed_by("after")? == keys::MANAGED_BY).then_some(()))
            })
            .await?;
        story.kubectl.run(&["create", "cronjob", "nightly", "--image", "busybox:1", "--schedule", "0 3 * * *"])?;
        story.kubectl.run(&["create", "job", "tonight", "--from", "cronjob/nightly"])?;
        assert_eq!(managed_by("tonight")?, keys::MANAGED_BY);
        assert_eq!(managed_by("before")?, "", "what exists stays where it is");

        for other in ["kubernetes.io/job-controller", "example.com/other"] {
            let mut spec = script("Never", "true");
            spec["managedBy"] = json!(other);
            let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "other"}, "spec": spec});
            story.kubectl.apply(&job.to_string())?;
            assert_eq!(managed_by("other")?, other);
            story.kubectl.run(&["delete", "job", "other"])?;
        }
        Ok(())
    })
    .await
}

/// The same manifest as a Job and as a BatchJob, both only tried: the API server's own words are what ours are held against.
#[tokio::test]
async fn who_writes_a_batchjob_is_warned_of_what_a_jobs_author_is_warned_of() -> Result<()> {
    tell(shared().await?, "warned", async |story| {
        let warnings = |kind: (&str, &str), spec: &Value| -> Result<String> {
            let job = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "warned"}, "spec": spec});
            let said = story.kubectl.say(&["create", "--dry-run=server", "-f", "-"], &job.to_string())?;
            ensure!(said.succeeded, "{} {spec}: {}", kind.1, said.text);
            Ok(said.text)
        };
        let (job, batchjob) = (("batch/v1", "Job"), ("batchjob.dev/v1alpha1", "BatchJob"));
        story
            .until("the policy is at work", 30, async || {
                let said = warnings(batchjob, &with(&[("template/spec/terminationGracePeriodSeconds", json!(-1))]))?;
                Ok(said.contains("Warning: ").then_some(()))
            })
            .await?;
        for kind in [job, batchjob] {
            let said = warnings(kind, &with(&[("completions", json!(100_001)), ("completionMode", json!("Indexed"))]))?;
            assert!(!said.contains("Warning: "), "{said}");
        }
        for (changes, expected) in warned_of() {
            let spec = with(&changes);
            for kind in [job, batchjob] {
                let said = warnings(kind, &spec)?;
                let mut rest = said.as_str();
                for words in expected.split('…') {
                    rest = rest.split_once(words).with_context(|| format!("{expected} of {}: {said}", kind.1))?.1;
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn only_a_new_spec_is_looked_at_for_warnings() -> Result<()> {
    tell(shared().await?, "rewarned", async |story| {
        let mut spec = with(&[("template/spec/terminationGracePeriodSeconds", json!(-1))]);
        (spec["suspend"], spec["completions"], spec["parallelism"]) = (json!(true), json!(2), json!(1));
        let job = json!({"apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": "odd"}, "spec": spec});
        story
            .until("creating it warns", 30, async || {
                story.kubectl.run(&["delete", "batchjob", "odd", "--ignore-not-found"])?;
                Ok(story.kubectl.apply(&job.to_string())?.contains("negative values are invalid").then_some(()))
            })
            .await?;
        let said = story.kubectl.run(&["annotate", "batchjob", "odd", "note=this"])?;
        assert!(!said.contains("Warning: "), "{said}");
        let said = story.kubectl.run(&["patch", "batchjob", "odd", "--type=merge", "-p", r#"{"spec":{"parallelism":2}}"#])?;
        assert!(said.contains("negative values are invalid"), "{said}");
        Ok(())
    })
    .await
}

/// A spec of one container with these fields, each named by its path from `spec`.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut spec = script("Never", "true");
    for (path, value) in changes {
        let field = path.split('/').fold(&mut spec, |at, key| match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        });
        *field = value.clone();
    }
    spec
}

/// Changes of a spec, and what is then said; at `…` each kind has words of its own.
fn warned_of() -> Vec<(Vec<(&'static str, Value)>, &'static str)> {
    const AFFINITY: &str = "template/spec/affinity";
    const ANNOTATIONS: &str = "template/metadata/annotations";
    let term = json!([{"key": "beta.kubernetes.io/arch", "operator": "In", "values": ["a b"]}]);
    let configured = json!({"name": "c", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]});
    let one = |path, value, expected| (vec![(path, value)], expected);
    let volume = |volume: Value, expected| (vec![("template/spec/volumes", json!([volume]))], expected);
    vec![
        (
            vec![("completionMode", json!("Indexed")), ("completions", json!(100_001)), ("parallelism", json!(10_001))],
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
        ),
        one(
            "template/spec/nodeSelector",
            json!({"beta.kubernetes.io/os": "linux"}),
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ),
        one(
            AFFINITY,
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "beta.kubernetes.io/arch", "operator": "Exists"}]},
            ]}}}),
            "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
             .matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14",
        ),
        one(
            AFFINITY,
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": term}},
            ]}}),
            "preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: \
             beta.kubernetes.io/arch is deprecated since v1.14",
        ),
        one(
            AFFINITY,
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": term}},
            ]}}),
            "preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: a b is invalid, ",
        ),
        one(
            AFFINITY,
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}),
            "spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: \
             a null labelSelector results in matching no pod",
        ),
        one(
            AFFINITY,
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}},
            ]}}),
            "spec.template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]\
             .podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
        ),
        one(
            "template/spec/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {}}]),
            "spec.template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is \
             deprecated since v1.17",
        ),
        one(
            "template/spec/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]),
            "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ),
        one(
            ANNOTATIONS,
            json!({"scheduler.alpha.kubernetes.io/critical-pod": ""}),
            "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; \
             use the \"priorityClassName\" field instead",
        ),
        one(
            ANNOTATIONS,
            json!({"seccomp.security.alpha.kubernetes.io/pod": "runtime/default"}),
            "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+",
        ),
        one(
            ANNOTATIONS,
            json!({"container.seccomp.security.alpha.kubernetes.io/main": "runtime/default"}),
            "annotations[container.seccomp.security.alpha.kubernetes.io/main]: non-functional in v1.27+",
        ),
        one(
            ANNOTATIONS,
            json!({"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}),
            "annotations[container.apparmor.security.beta.kubernetes.io/main]: deprecated since v1.30; \
             use the \"appArmorProfile\" field instead",
        ),
        volume(
            json!({"name": "v", "gitRepo": {"repository": "x"}}),
            "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
        ),
        volume(
            json!({"name": "v", "cephfs": {"monitors": ["x"]}}),
            "spec.template.spec.volumes[0].cephfs: deprecated in v1.28, non-functional in v1.31+",
        ),
        volume(json!({"name": "v", "configMap": configured}), "volume \"v\"…: overlapping paths: \"x/y\"… with "),
        volume(
            json!({"name": "v", "projected": {"sources": [
                {"configMap": {"name": "c", "items": [{"key": "a", "path": "x"}]}},
                {"serviceAccountToken": {"path": "x/token"}},
            ]}}),
            "volume \"v\"…: overlapping paths: \"x/token\"… with ",
        ),
        volume(
            json!({"name": "v", "projected": {"sources": [{}]}}),
            "volume \"v\" (Projected) has no sources provided",
        ),
        volume(
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}},
            }}}}),
            "volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: \
             fractional byte value \"1500m\" is invalid, must be an integer",
        ),
        one(
            "template/spec/containers/0/resources",
            json!({"requests": {"memory": "100m"}, "limits": {"memory": "0.5Gi"}}),
            "spec.template.spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, \
             must be an integer",
        ),
        one(
            "template/spec/containers/0/resources",
            json!({"limits": {"ephemeral-storage": "2500m"}}),
            "spec.template.spec.containers[0].resources.limits[ephemeral-storage]: fractional byte value \"2500m\"",
        ),
        one(
            "template/spec/containers/0/ports",
            json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81, "hostIP": "127.0.0.9"}]),
            "spec.template.spec.containers[0].ports[2]: hostIP set without hostPort",
        ),
        (
            vec![
                (
                    "template/spec/initContainers",
                    json!([{"name": "first", "image": "none", "ports": [{"containerPort": 80}]}]),
                ),
                ("template/spec/containers/0/ports", json!([{"containerPort": 80}])),
            ],
            "spec.template.spec.containers[0].ports[0]: duplicate… port definition with ",
        ),
        (
            vec![
                (
                    "template/spec/initContainers",
                    json!([
                        {"name": "first", "image": "none", "ports": [{"containerPort": 81, "name": "web"}]},
                    ]),
                ),
                ("template/spec/containers/0/ports", json!([{"containerPort": 80, "name": "web"}])),
            ],
            "spec.template.spec.containers[0].ports[0]: duplicate port name \"web\"",
        ),
        one(
            "template/spec/imagePullSecrets",
            json!([{"name": ""}]),
            "imagePullSecrets[0].name: invalid empty name \"\"",
        ),
        one(
            "template/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be \
             treated as 1",
        ),
        one(
            "template/spec/dnsConfig",
            json!({"nameservers": ["0:0:0::1"]}),
            "spec.template.spec.dnsConfig.nameservers[0]: IPv6 address \"0:0:0::1\" should be in RFC 5952 canonical format \
             (\"::1\")",
        ),
        one(
            "template/spec/hostAliases",
            json!([{"ip": "0:0:0::2", "hostnames": ["a"]}]),
            "spec.template.spec.hostAliases[0].ip: IPv6 address \"0:0:0::2\" should be in RFC 5952 canonical format",
        ),
    ]
}

#[tokio::test]
async fn who_may_view_or_edit_a_namespace_may_view_or_edit_its_batchjobs() -> Result<()> {
    let installed = shared().await?;
    tell(installed, "roles", async |story| {
        let namespace = story.jobs.namespace().context("the jobs have a namespace")?;
        for role in ["view", "edit", "admin"] {
            story.kubectl.run(&[
                "create",
                "rolebinding",
                role,
                "--clusterrole",
                role,
                "--user",
                &format!("a-{role}"),
            ])?;
        }
        let client = installed.kubernetes.client().await?;
        let who = |role: &str| Rights { client: client.clone(), who: format!("a-{role}"), groups: Vec::new() };
        story
            .until("the roles are aggregated", 30, async || {
                Ok(who("admin").answer(namespace, "create", "batchjob.dev", "batchjobs").await?.then_some(()))
            })
            .await?;
        for (verb, resource, viewer, editor) in [
            ("get", "batchjobs", true, true),
            ("watch", "batchjobs", true, true),
            ("get", "batchjobs/status", true, true),
            ("create", "batchjobs", false, true),
            ("patch", "batchjobs", false, true),
            ("delete", "batchjobs", false, true),
            ("patch", "batchjobs/scale", false, true),
            // The operator's record.
            ("patch", "batchjobs/status", false, false),
        ] {
            for (role, expected) in [("view", viewer), ("edit", editor), ("admin", editor)] {
                let answer = who(role).answer(namespace, verb, "batchjob.dev", resource).await?;
                assert_eq!(answer, expected, "{role}: {verb} {resource}");
            }
        }
        assert!(!who("admin").answer("default", "get", "batchjob.dev", "batchjobs").await?, "in its namespace only");
        Ok(())
    })
    .await
}

/// `kubectl auth can-i … --as`.
struct Rights {
    client: Client,
    who: String,
    groups: Vec<String>,
}

impl Rights {
    async fn answer(&self, namespace: &str, verb: &str, group: &str, resource: &str) -> Result<bool> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(self.who.clone()),
            groups: Some(self.groups.clone()),
            resource_attributes: Some(asked),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.context("the review has an answer")?.allowed)
    }
}

/// Not what the manifest says but what the kernel says.
#[tokio::test]
async fn the_operator_runs_as_nobody_and_can_write_nothing() -> Result<()> {
    let pid = shared().await?.operator_pid().await?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let words = |name: &str| -> Result<Vec<&str>> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} {status}"))?;
        Ok(line.split_whitespace().collect())
    };
    assert_eq!(words("Uid:")?, ["65532"; 4]);
    assert_eq!(words("Gid:")?, ["65532"; 4]);
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(words(capabilities)?, ["0000000000000000"], "{capabilities}");
    }
    assert_eq!(words("NoNewPrivs:")?, ["1"]);
    assert_eq!(words("Seccomp:")?, ["2"], "a filter");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts"))?;
    let root = mounts.lines().find(|mount| mount.split(' ').nth(1) == Some("/")).context("a root")?;
    let options = root.split(' ').nth(3).unwrap_or_default();
    assert!(options.split(',').any(|option| option == "ro"), "{root}");
    Ok(())
}

#[tokio::test]
async fn an_uninstall_keeps_the_jobs_and_the_next_install_goes_on_with_them() -> Result<()> {
    let installed = alone(&[]).await?;
    tell(installed, "uninstall", async |story| {
        // Its first pod runs until it is told to go, the second does not wait.
        let wait = r#"until [ "$JOB_COMPLETION_INDEX" = 1 ] || [ -e /tmp/go ]; do sleep 1; done"#;
        let mut spec = script("Never", wait);
        spec["completions"] = json!(2);
        spec["completionMode"] = json!("Indexed");
        story.create("over", script("Never", "true")).await?;
        story.create("half", spec).await?;
        let over = story.complete("over", 30).await?;
        let first = story.running("half", 1).await?;

        installed.helm.run(&["uninstall", "batchjob", "--wait"]).await?;
        assert_eq!(story.status("over").await?, over);
        story.kubectl.run(&["exec", &first, "--", "touch", "/tmp/go"])?;
        story
            .until("its pod ends while nobody looks", 30, async || {
                Ok((phase(&story.pods.get(&first).await?) == "Succeeded").then_some(()))
            })
            .await?;

        installed.install("batchjob", &[]).await?;
        let half = story.complete("half", 30).await?;
        assert_eq!((half.succeeded, half.failed), (Some(2), Some(0)));
        assert_eq!(story.attempts("half").await?.into_keys().collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        assert_eq!(story.status("over").await?, over);

        // As the chart's README says: another release has to say that it takes over the CRD that was kept.
        installed.helm.run(&["uninstall", "batchjob", "--wait"]).await?;
        let refused = installed.helm.say(&["install", "second", &chart()?]).await?;
        assert!(!refused.succeeded && refused.text.contains("batchcronjobs.batchjob.dev"), "{}", refused.text);
        installed.install("second", &["--take-ownership"]).await?;
        assert_eq!(story.status("over").await?, over);
        story.create("next", script("Never", "true")).await?;
        story.complete("next", 30).await?;
        Ok(())
    })
    .await
}
