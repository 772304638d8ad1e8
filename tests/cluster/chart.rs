//! The chart: what it installs, what it allows, what it refuses, and what it leaves.
//!
//! That it installs with no value set, in a namespace that enforces Pod Security `restricted`, is what every test of
//! this ring stands on (see `installed.rs`).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::json;

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
        ("get list watch delete", "batchjob.dev", "batchjobs", true),
        ("create update patch deletecollection", "batchjob.dev", "batchjobs", false),
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
        ("create", "batch", "jobs", false),
        ("create patch", "apps", "deployments", false),
        ("bind escalate create", "rbac.authorization.k8s.io", "clusterroles", false),
        ("impersonate", "", "users", false),
        ("get patch", "apiextensions.k8s.io", "customresourcedefinitions", false),
    ] {
        for verb in verbs.split(' ') {
            assert_eq!(may.answer("default", verb, group, resource).await?, expected, "{verb} {resource}");
        }
    }
    Ok(())
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
    let installed = alone().await?;
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
        assert!(!refused.succeeded && refused.text.contains("batchjobs.batchjob.dev"), "{}", refused.text);
        installed.install("second", &["--take-ownership"]).await?;
        assert_eq!(story.status("over").await?, over);
        story.create("next", script("Never", "true")).await?;
        story.complete("next", 30).await?;
        Ok(())
    })
    .await
}
