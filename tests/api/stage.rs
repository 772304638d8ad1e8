//! What the tests of this ring stand on: the cluster that they share, and a namespace with jobs, pods and a kubelet.
//!
//! What is waited for and does not come is a panic, not an error: only then do the namespace and the operator print all
//! that they know when they are dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, BatchJobStatus, keys};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Namespace, Operator, Said, serve_batch_jobs, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::kubelet::{Kubelet, phase};

/// For what happens at once. The garbage collector takes up to 30 s until it knows a new kind.
pub const SOON: Duration = Duration::from_secs(60);

/// Long enough ago that no retry delay is left.
pub const LONG_AGO: Duration = Duration::from_secs(20 * 60);

/// The cluster of all tests, with the CRD.
pub async fn kubernetes() -> Result<&'static Kubernetes> {
    static SHARED: OnceCell<Kubernetes> = OnceCell::const_new();
    SHARED.get_or_try_init(start).await
}

async fn start() -> Result<Kubernetes> {
    let options = Options {
        controllers: true,
        scheduler: false,
        // Pods of nodes that do not exist are garbage to it.
        controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    Ok(kubernetes)
}

/// What comes soon; if it does not, that is a panic.
pub async fn expect<T>(what: &str, ask: impl AsyncFnMut() -> Result<Option<T>>) -> T {
    wait_for(what, SOON, ask).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// One test's namespace, and who plays in it.
pub struct Stage {
    pub namespace: Namespace,
    pub jobs: Api<BatchJob>,
    pub pods: Api<Pod>,
    pub kubelet: Kubelet,
}

impl Stage {
    pub async fn new(test: &str) -> Result<Stage> {
        let namespace = Namespace::new(kubernetes().await?, test).await?;
        let jobs = Api::namespaced(namespace.client.clone(), &namespace.name);
        let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
        Ok(Stage { jobs, kubelet: Kubelet { pods: pods.clone() }, pods, namespace })
    }

    /// An operator for this namespace alone.
    pub async fn operator(&self) -> Result<Operator> {
        Operator::start(kubernetes().await?, &["--watch-namespace", &self.namespace.name]).await
    }

    /// A job of that spec; without a template it has one container.
    pub async fn create(&self, name: &str, spec: Value) -> Result<BatchJob> {
        let mut whole = json!({ "template": template(json!({})) });
        whole.as_object_mut().context("an object")?.extend(spec.as_object().context("an object")?.clone());
        let job = serde_json::from_value(json!({
            "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": name }, "spec": whole,
        }))?;
        Ok(self.jobs.create(&PostParams::default(), &job).await?)
    }

    pub async fn change(&self, name: &str, patch: Value) -> Result<BatchJob> {
        Ok(self.jobs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// The job, as soon as it is so.
    pub async fn until(&self, name: &str, what: &str, is_so: impl Fn(&BatchJob) -> bool) -> BatchJob {
        expect(&format!("job {name}: {what}"), async || Ok(Some(self.jobs.get(name).await?).filter(|job| is_so(job))))
            .await
    }

    pub async fn until_gone(&self, name: &str) {
        expect(&format!("job {name} is gone"), async || Ok(self.jobs.get_opt(name).await?.is_none().then_some(())))
            .await;
    }

    /// The pod of that attempt, as soon as there is one.
    pub async fn pod(&self, job: &str, index: u32, attempt: u32) -> Pod {
        expect(&format!("a pod of index {index} attempt {attempt} of job {job}"), async || {
            let pods = self.pods_of(job).await?;
            Ok(pods.into_iter().find(|pod| index_of(pod) == Some(index) && attempt_of(pod) == Some(attempt)))
        })
        .await
    }

    /// The pod of that attempt, bound to a node and running.
    pub async fn running_pod(&self, job: &str, index: u32, attempt: u32) -> Result<Pod> {
        let pod = self.pod(job, index, attempt).await;
        self.kubelet.bind(&pod).await?;
        self.kubelet.runs(&pod).await?;
        Ok(pod)
    }

    /// Every pod of a job.
    pub async fn pods_of(&self, job: &str) -> Result<Vec<Pod>> {
        let of_job = ListParams::default().labels(&format!("{}={job}", keys::JOB_NAME));
        Ok(self.pods.list(&of_job).await?.items)
    }

    pub async fn until_pods(&self, job: &str, what: &str, are_so: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        expect(&format!("pods of job {job}: {what}"), async || {
            Ok(Some(self.pods_of(job).await?).filter(|pods| are_so(pods)))
        })
        .await
    }

    /// The pods that live, in the order of their indexes, as soon as they are so many.
    pub async fn until_living(&self, job: &str, n: usize) -> Vec<Pod> {
        expect(&format!("{n} pods of job {job} live"), async || {
            let mut living: Vec<Pod> = self.pods_of(job).await?.into_iter().filter(is_living).collect();
            living.sort_by_key(index_of);
            Ok((living.len() == n).then_some(living))
        })
        .await
    }

    /// Every finished job is to come to this: each of its pods is counted and let go.
    pub async fn until_no_pod_is_held(&self, job: &str) -> Vec<Pod> {
        self.until_pods(job, "none is held", |pods| pods.iter().all(|pod| !is_held(pod))).await
    }

    /// kubectl, which blocks, on a thread of its own: the kubelet goes on meanwhile.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let said = self.kubectl_says(arguments, "").await?;
        ensure!(said.succeeded, "kubectl {}: {}", arguments.join(" "), said.text);
        Ok(said.text)
    }

    pub async fn kubectl_says(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let kubectl = self.namespace.kubectl.clone();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let input = input.to_owned();
        let said = tokio::task::spawn_blocking(move || {
            kubectl.say(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &input)
        });
        said.await?
    }
}

/// A pod template with one container and the pod spec's fields that are given.
pub fn template(spec: Value) -> Value {
    let mut whole = json!({
        "restartPolicy": "Never",
        // The namespace controller waits in proportion to it.
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": "none" }],
    });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    json!({ "spec": whole })
}

pub fn status(job: &BatchJob) -> BatchJobStatus {
    job.status.clone().unwrap_or_default()
}

pub fn reason(job: &BatchJob) -> &str {
    job.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default()
}

pub fn is_finished(job: &BatchJob) -> bool {
    conditions(job).iter().any(|condition| condition.starts_with("Finished=True"))
}

/// Each as "Ready=True(Succeeded)", in alphabetical order.
pub fn conditions(job: &BatchJob) -> Vec<String> {
    let conditions = status(job).conditions;
    let mut texts: Vec<String> = conditions.iter().map(|c| format!("{}={}({})", c.type_, c.status, c.reason)).collect();
    texts.sort();
    texts
}

/// The message of a condition; empty if there is none of that type.
pub fn message(job: &BatchJob, type_: &str) -> String {
    let found = status(job).conditions.into_iter().find(|condition| condition.type_ == type_);
    found.map(|condition| condition.message).unwrap_or_default()
}

pub fn is_held(pod: &Pod) -> bool {
    let ours = [keys::POD_FINALIZER, keys::JOB_POD_FINALIZER];
    pod.metadata.finalizers.iter().flatten().any(|finalizer| ours.contains(&&**finalizer))
}

pub fn index_of(pod: &Pod) -> Option<u32> {
    number(pod, keys::COMPLETION_INDEX).or_else(|| number(pod, keys::INDEX))
}

pub fn attempt_of(pod: &Pod) -> Option<u32> {
    number(pod, keys::ATTEMPT)
}

/// "0-1" for attempt 1 of index 0; sorted.
pub fn attempts(pods: &[Pod]) -> Vec<String> {
    let number = |number: Option<u32>| number.map_or("?".to_owned(), |number| number.to_string());
    let mut ids: Vec<String> =
        pods.iter().map(|pod| format!("{}-{}", number(index_of(pod)), number(attempt_of(pod)))).collect();
    ids.sort();
    ids
}

/// It has not ended, and nobody has told it to.
pub fn is_living(pod: &Pod) -> bool {
    let has_ended = matches!(phase(pod), "Succeeded" | "Failed");
    !has_ended && pod.metadata.deletion_timestamp.is_none()
}

/// It was told to go.
pub fn is_told(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn number(pod: &Pod, label: &str) -> Option<u32> {
    pod.metadata.labels.as_ref()?.get(label)?.parse().ok()
}

/// The sum of a metric over all lines that have `label` in them.
pub async fn metric(operator: &Operator, name: &str, label: &str) -> Result<f64> {
    let text = operator.get("/metrics").await?;
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// Makes the operator look at the job again, though nothing of it has changed, and waits until it has.
pub async fn look_again(stage: &Stage, operator: &Operator, job: &str) -> Result<BatchJob> {
    const PASSES: &str = "job_controller_job_syncs_total";
    let before = metric(operator, PASSES, "").await?;
    let touched = json!({ "metadata": { "annotations": { "touched": before.to_string() } } });
    let touched = stage.change(job, touched).await?;
    expect("the operator looks again", async || Ok((metric(operator, PASSES, "").await? > before).then_some(()))).await;
    Ok(touched)
}

/// With that merge patch; null in place of one changes nothing.
pub fn merged(mut target: Value, patch: &Value) -> Value {
    if !patch.is_null() {
        json_patch::merge(&mut target, patch);
    }
    target
}
