//! One job that gets stuck, in a namespace of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, keys};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Kubectl, Namespace, kubelet, wait_for};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// Of an update: no finalizer goes.
pub const KEEPS_FINALIZERS: &str =
    "object.metadata.?finalizers.orValue([]).size() >= oldObject.metadata.?finalizers.orValue([]).size()";

/// Of an update: nobody becomes an owner.
pub const KEEP_NO_MORE_OWNERS: &str =
    "object.metadata.?ownerReferences.orValue([]).size() <= oldObject.metadata.?ownerReferences.orValue([]).size()";

/// For what comes soon, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(90);

const JOB: &str = "etl";

/// The kind of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    BatchJob,
    ManagedJob,
}

impl Door {
    pub const ALL: [Door; 2] = [Door::BatchJob, Door::ManagedJob];

    pub fn resource(self) -> ApiResource {
        match self {
            Door::BatchJob => ApiResource::erase::<BatchJob>(&()),
            Door::ManagedJob => ApiResource::erase::<Job>(&()),
        }
    }

    pub fn status_resource(self) -> (&'static str, &'static str) {
        match self {
            Door::BatchJob => ("batchjob.dev", "batchjobs/status"),
            Door::ManagedJob => ("batch", "jobs/status"),
        }
    }
}

/// One job and its namespace.
#[derive(Clone)]
pub struct Stage {
    pub door: Door,
    pub namespace: String,
    pub client: Client,
    pub jobs: Api<DynamicObject>,
    pub pods: Api<Pod>,
    kubectl: Kubectl,
    /// As another writer of statuses: its name is in `managedFields`.
    reverter: Api<DynamicObject>,
}

impl Stage {
    pub async fn new(kubernetes: &Kubernetes, reverter: &Client, name: &str, door: Door) -> Result<Stage> {
        let namespace = Namespace::new(kubernetes, name).await?;
        let (name, client, kubectl) = (namespace.name.clone(), namespace.client.clone(), namespace.kubectl.clone());
        let resource = door.resource();
        Ok(Stage {
            door,
            jobs: Api::namespaced_with(client.clone(), &name, &resource),
            reverter: Api::namespaced_with(reverter.clone(), &name, &resource),
            pods: Api::namespaced(client.clone(), &name),
            namespace: name,
            client,
            kubectl,
        })
    }

    /// Creates the job: its part of the spec, and of its pods' spec.
    pub async fn create(&self, (job, pod): (Value, Value)) -> Result<()> {
        let resource = self.door.resource();
        let mut spec = json!({ "template": { "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": "none" }],
        }}});
        extend(&mut spec, job)?;
        extend(&mut spec["template"]["spec"], pod)?;
        if self.door == Door::ManagedJob {
            spec["managedBy"] = keys::MANAGED_BY.into();
        }
        let job = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": { "name": JOB }, "spec": spec,
        });
        self.jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
        Ok(())
    }

    pub async fn patch_job(&self, patch: &Value) -> Result<()> {
        self.jobs.patch(JOB, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Somebody writes what is not so.
    pub async fn revert_status(&self) -> Result<()> {
        let wrong = json!({ "status": { "active": 3, "ready": 0 } });
        self.reverter.patch_status(JOB, &PatchParams::default(), &Patch::Merge(wrong)).await?;
        Ok(())
    }

    pub async fn status(&self) -> Result<Value> {
        Ok(self.jobs.get(JOB).await?.data["status"].clone())
    }

    pub async fn until_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        self.until(what, async |stage| Ok(is_so(&stage.status().await?))).await
    }

    pub async fn list_pods(&self) -> Result<Vec<Pod>> {
        Ok(self.pods.list(&ListParams::default()).await?.items)
    }

    pub async fn until_pods(&self, n: usize) -> Result<Vec<Pod>> {
        self.until(&format!("{n} pods"), async |stage| Ok(stage.list_pods().await?.len() == n)).await?;
        self.list_pods().await
    }

    /// Until that is found in the status, or in an event.
    pub async fn until_said(&self, words: &str) -> Result<()> {
        self.until(&format!("{words:?} is said"), async |stage| {
            Ok(stage.is_said_in_status(words).await? || stage.notes().await?.iter().any(|note| note.contains(words)))
        })
        .await
    }

    pub async fn is_said_in_status(&self, words: &str) -> Result<bool> {
        Ok(self.status().await?.to_string().replace("\\\"", "\"").contains(words))
    }

    /// What the operator's events say.
    pub async fn notes(&self) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&ListParams::default()).await?.items;
        let ours = events.into_iter().filter(|event| event.reporting_controller.as_deref() == Some(keys::MANAGED_BY));
        let text = |event: Event| format!("{}: {}", event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        Ok(ours.map(text).collect())
    }

    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Stage) -> Result<bool>) -> Result<()> {
        let what = format!("{}: {what}", self.namespace);
        let found = wait_for(&what, SOON, async || Ok(is_so(self).await?.then_some(()))).await;
        if found.is_err() {
            let said = self.run(&["get", "batchjobs,jobs,pods,events", "-o", "wide"]).await.unwrap_or_default();
            eprintln!("--- {}\n{said}\n{:#}", self.namespace, self.status().await.unwrap_or_default());
        }
        found
    }

    pub async fn patch_pod(&self, pod: &Pod, patch: Value) -> Result<()> {
        self.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub async fn patch_pod_status(&self, pod: &Pod, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": status }));
        self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub async fn bind(&self, pod: &Pod) -> Result<()> {
        Ok(kubelet::bind(&self.pods, &pod.name_any()).await?)
    }

    /// The kubelet has nothing left of the pod.
    pub async fn is_gone(&self, pod: &Pod) -> Result<()> {
        let now = DeleteParams::default().grace_period(0);
        kubelet::gone_or(self.pods.delete(&pod.name_any(), &now).await.map(drop))
    }

    /// From now on the API server refuses what does not fulfil `expression`, until it is allowed again.
    pub async fn refuse(&self, group: &str, resource: &str, operation: &str, expression: &str) -> Result<()> {
        let name = &self.namespace;
        self.apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
                    "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": [resource],
                    }],
                },
                "validations": [{ "expression": expression, "message": "not now" }],
            },
        }))
        .await?;
        self.apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        }))
        .await?;
        self.until("the policy holds", async |stage| stage.is_refused(resource, operation).await).await
    }

    pub async fn allow(&self) -> Result<()> {
        self.run(&["delete", "validatingadmissionpolicybinding", &self.namespace]).await.map(drop)
    }

    /// Asks the API server as if it were so: a policy takes a moment to hold.
    async fn is_refused(&self, resource: &str, operation: &str) -> Result<bool> {
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let answer = match (resource, operation) {
            ("pods", "CREATE") => {
                let pod = json!({
                    "metadata": { "name": "probe" }, "spec": { "containers": [{ "name": "main", "image": "none" }] },
                });
                let dry_run = PostParams { dry_run: true, ..PostParams::default() };
                self.pods.create(&dry_run, &serde_json::from_value(pod)?).await.map(drop)
            }
            ("pods", _) => {
                let pods = self.list_pods().await?;
                let pod = pods.first().context("a pod to ask about")?;
                let owner = |uid: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "probe", "uid": uid });
                let probe = json!({ "metadata": { "finalizers": null, "ownerReferences": [owner("a"), owner("b")] } });
                let name = pod.name_any();
                self.pods.patch(&name, &dry_run, &Patch::Merge(probe)).await.map(drop)
            }
            _ => {
                let job = json!({ "metadata": { "annotations": { "probe": "" } } });
                self.jobs.patch_status(JOB, &dry_run, &Patch::Merge(job)).await.map(drop)
            }
        };
        Ok(matches!(answer, Err(kube::Error::Api(status)) if status.message.contains("not now")))
    }

    pub async fn apply(&self, manifest: Value) -> Result<()> {
        let kubectl = self.kubectl.clone();
        tokio::task::spawn_blocking(move || kubectl.apply(&manifest.to_string())).await??;
        Ok(())
    }

    /// kubectl, which blocks, on a thread of its own.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let kubectl = self.kubectl.clone();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        tokio::task::spawn_blocking(move || kubectl.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
            .await?
    }
}

fn extend(whole: &mut Value, part: Value) -> Result<()> {
    let (Some(whole), Value::Object(part)) = (whole.as_object_mut(), part) else {
        ensure!(false, "both are objects");
        return Ok(());
    };
    whole.extend(part);
    Ok(())
}
