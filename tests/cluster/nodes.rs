//! A real kubelet falls silent and comes back, and runs out of memory: what becomes of the work on its node. Every other way
//! to lose a node is in `make nodes`, where kwok plays the kubelets; elsewhere is a node of kwok's here too. What a real
//! kubelet does when the API evicts a pod is asked in `policies`.
//!
//! `SILENT=240` keeps the kubelet silent for so many seconds more than it takes to be replaced.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, BatchJobStatus, keys};
use batchjob_oracle::{End, Promises};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::recorder::Recorder;
use batchjob_tests::support::{Kwok, Namespace, Nodes, Operator, serve_batch_jobs, wait_for};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::story::{find, id, phase, script};

const STAGES: &str = include_str!("../nodes/stages.yaml");
const REAL: &str = "node-1";
const LIMIT: Duration = Duration::from_secs(120);
/// At the end all jobs are over: no delay is left.
const QUIET: Duration = Duration::from_secs(5);

struct Play {
    jobs: Api<BatchJob>,
    pods: Api<Pod>,
}

#[tokio::test]
async fn a_kubelet_that_is_silent_or_out_of_memory_changes_no_result() -> Result<()> {
    let options = Options {
        controller_flags: ["node-monitor-period=1s", "node-monitor-grace-period=10s", "node-eviction-rate=100"]
            .map(|flag| format!("--{flag}"))
            .to_vec(),
        ..Options::from(Size::Node)
    };
    let mut kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    // Beside the cluster: its node is what is taken away.
    let operator = Operator::start(&kubernetes, &[]).await?;
    let _elsewhere = elsewhere(&kubernetes).await?;
    let client = kubernetes.client().await?;
    let recorder = Recorder::start(&client, None).await?;
    let namespace = Namespace::new(&kubernetes, "silent").await?;
    let play =
        Play { jobs: Api::namespaced(client.clone(), &namespace.name), pods: Api::namespaced(client, &namespace.name) };

    let played = async {
        play.silent(&kubernetes).await?;
        play.out_of_memory(&mut kubernetes).await
    };
    if let Err(error) = played.await {
        eprintln!("--- the operator\n{}", operator.tail());
        // The namespace prints what is in it when it is dropped by a panic.
        panic!("{error:?}");
    }
    let quiet_since = recorder.until_quiet(QUIET, LIMIT).await?;
    let history = recorder.finish().await?.of_namespace(&namespace.name);
    let promises = Promises { deletions: true, in_flight: Some(SignedDuration::from_secs(5)), ..Promises::default() };
    let at = quiet_since + SignedDuration::try_from(QUIET)?;
    let broken = history.judge(promises, End::Settled { quiet_since, at });
    assert!(broken.is_empty(), "{}", history.explain(&broken));
    kubernetes.stop().await
}

/// A second node, so that one that is silent is not taken for the end of all of them.
async fn elsewhere(kubernetes: &Kubernetes) -> Result<Kwok> {
    let nodes: Api<Node> = Api::all(kubernetes.client().await?);
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "elsewhere" } });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let real = json!({ "metadata": { "labels": { "first": "true" } } });
    nodes.patch(REAL, &PatchParams::default(), &Patch::Merge(real)).await?;
    let stages = kubernetes.folder().join("stages.yaml");
    std::fs::write(&stages, STAGES)?;
    let kwok = Kwok::start(kubernetes, &stages, Nodes::Named("elsewhere"))?;
    wait_for("the other node is ready", LIMIT, async || {
        let node = nodes.get("elsewhere").await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True").then_some(()))
    })
    .await?;
    Ok(kwok)
}

impl Play {
    /// It is stopped until the work was done again elsewhere, and goes on: what its containers came to meanwhile changes nothing.
    async fn silent(&self, kubernetes: &Kubernetes) -> Result<()> {
        // One ends by itself while nobody is told, one must be ended, and one waits until that is certain.
        self.create("ends", "sleep 20", json!({})).await?;
        self.create("stays", "sleep 1000", json!({})).await?;
        self.create("waits", r#"[ "$ATTEMPT" -ge 2 ] || sleep 1000"#, ignoring()).await?;
        for job in ["ends", "stays", "waits"] {
            self.until_pod(job, 1, "it runs", |pod| phase(pod) == "Running" && node_of(pod) == REAL).await?;
        }
        let kubelet = i32::try_from(kubernetes.pid("kubelet").context("the kubelet runs")?)?;
        let kubelet = Pid::from_raw(kubelet).context("a pid is not 0")?;
        kill_process(kubelet, Signal::STOP)?;
        let silent = async {
            for job in ["ends", "stays"] {
                self.until_pod(job, 2, "it is done elsewhere", |pod| phase(pod) == "Succeeded").await?;
            }
            self.until_pod("waits", 1, "it is told to go", |pod| pod.metadata.deletion_timestamp.is_some()).await?;
            ensure!(self.attempts("waits").await?.len() == 1, "it waits");
            if let Ok(seconds) = std::env::var("SILENT") {
                // The silence itself.
                tokio::time::sleep(Duration::from_secs(seconds.parse()?)).await;
            }
            anyhow::Ok(())
        };
        let silent = silent.await;
        kill_process(kubelet, Signal::CONT)?;
        silent?;
        for (job, n_failed) in [("ends", 1), ("stays", 1), ("waits", 0)] {
            let status = self.complete(job).await?;
            ensure!(status.failed == Some(n_failed), "{job}: {status:?}");
        }
        Ok(())
    }

    /// It is told that all of its memory must be free, and so evicts what runs, for as long as that lasts.
    async fn out_of_memory(&self, kubernetes: &mut Kubernetes) -> Result<()> {
        let command = r#"[ "$ATTEMPT" -ge 2 ] || sleep 1000"#;
        self.create("counted", command, json!({})).await?;
        self.create("ignored", command, ignoring()).await?;
        for job in ["counted", "ignored"] {
            self.until_pod(job, 1, "it runs", |pod| phase(pod) == "Running" && node_of(pod) == REAL).await?;
        }
        // Without the isolation kubelet does not look at its disks, and without that it evicts nothing.
        kubernetes.restart_kubelet(&json!({
            "evictionHard": { "memory.available": "99%" }, "localStorageCapacityIsolation": true,
        }))?;
        for job in ["counted", "ignored"] {
            self.until_pod(job, 1, "it is evicted", is_evicted).await?;
        }
        // Until the node has a taint another attempt may still be sent to it, and is evicted, too.
        let counted = self.complete("counted").await?;
        let n_failed = i32::try_from(self.attempts("counted").await?.len())? - 1;
        ensure!(counted.failed == Some(n_failed), "{n_failed} attempts were evicted: {counted:?}");
        let ignored = self.complete("ignored").await?;
        ensure!(ignored.failed == Some(0), "{ignored:?}");
        kubernetes.restart_kubelet(&json!({ "evictionHard": {} }))
    }

    async fn create(&self, name: &str, command: &str, more: Value) -> Result<()> {
        let mut spec = script("Never", command);
        let wait =
            |taint: &str| json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 });
        // Elsewhere it takes two seconds.
        spec["template"]["metadata"] = json!({ "annotations": { "run-for": "2s" } });
        let pod = &mut spec["template"]["spec"];
        pod["tolerations"] = json!([wait("node.kubernetes.io/not-ready"), wait("node.kubernetes.io/unreachable")]);
        // A kubelet that is short of memory takes no pod that says nothing of its own.
        pod["containers"][0]["resources"] = json!({ "requests": { "memory": "1Mi" } });
        pod["affinity"] = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "preference": { "matchExpressions": [{ "key": "first", "operator": "Exists" }] } },
        ] } });
        spec.as_object_mut().context("a spec")?.extend(more.as_object().context("an object")?.clone());
        let job = json!({ "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": name }, "spec": spec });
        self.jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
        Ok(())
    }

    async fn attempts(&self, job: &str) -> Result<Vec<Pod>> {
        Ok(self.pods.list(&ListParams::default().labels(&format!("{}={job}", keys::JOB_NAME))).await?.items)
    }

    async fn until_pod(&self, job: &str, attempt: u32, what: &str, is_so: impl Fn(&Pod) -> bool) -> Result<()> {
        wait_for(&format!("{job} attempt {attempt}: {what}"), LIMIT, async || {
            let attempts = self.attempts(job).await?;
            let is_it = |pod: &&Pod| id(pod).is_ok_and(|id| id.1 == attempt) && is_so(pod);
            Ok(attempts.iter().find(is_it).map(|_| ()))
        })
        .await
    }

    /// Once its last pod has ended.
    async fn complete(&self, job: &str) -> Result<BatchJobStatus> {
        let status = wait_for(&format!("{job} is complete"), LIMIT, async || {
            let status = self.jobs.get(job).await?.status.unwrap_or_default();
            Ok(find(&status, "Complete").is_some().then_some(status))
        })
        .await?;
        ensure!(status.succeeded == Some(1), "{job}: {status:?}");
        Ok(status)
    }
}

fn ignoring() -> Value {
    json!({ "backoffLimit": 0, "podFailurePolicy": { "rules": [
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
    ] } })
}

/// By kubelet, which says that it was no fault of the pod.
fn is_evicted(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let mut conditions = status.conditions.iter().flatten();
    let is_disrupted =
        |it: &PodCondition| (&*it.type_, it.reason.as_deref()) == ("DisruptionTarget", Some("TerminationByKubelet"));
    phase(pod) == "Failed" && status.reason.as_deref() == Some("Evicted") && conditions.any(is_disrupted)
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}
