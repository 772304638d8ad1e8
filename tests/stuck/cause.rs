//! What a job can be stuck on: how it comes about, what the user is to be told, and how it ends.

use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::keys;
use batchjob_tests::support::kubelet::{NODE, ago, condition, container};
use batchjob_tests::support::wait_for;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stage::{KEEP_NO_MORE_OWNERS, KEEPS_FINALIZERS, Stage};
use crate::webhook::Webhook;

/// What it is stuck on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Quota,
    PodSecurity,
    WebhookDenies,
    WebhookAway,
    PolicyDenies,
    LimitRange,
    ServiceAccount,
    PriorityClass,
    RuntimeClass,
    Template,
    Image,
    Unschedulable,
    NamespaceTerminating,
    StatusReverted,
    StatusRefused,
    ReleaseRefused,
    AdoptionRefused,
    PodNeverEnds,
    ForeignFinalizer,
}

/// What goes on for as long as the cause does.
#[derive(Default)]
pub struct Going {
    webhook: Option<Webhook>,
    tasks: JoinSet<Result<()>>,
}

impl Cause {
    pub const ALL: [Cause; 19] = [
        Cause::Quota,
        Cause::PodSecurity,
        Cause::WebhookDenies,
        Cause::WebhookAway,
        Cause::PolicyDenies,
        Cause::LimitRange,
        Cause::ServiceAccount,
        Cause::PriorityClass,
        Cause::RuntimeClass,
        Cause::Template,
        Cause::Image,
        Cause::Unschedulable,
        Cause::NamespaceTerminating,
        Cause::StatusReverted,
        Cause::StatusRefused,
        Cause::ReleaseRefused,
        Cause::AdoptionRefused,
        Cause::PodNeverEnds,
        Cause::ForeignFinalizer,
    ];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Quota => "a quota is used up",
            Cause::PodSecurity => "Pod Security Admission refuses the pods",
            Cause::WebhookDenies => "a webhook denies the pods",
            Cause::WebhookAway => "a webhook cannot be called",
            Cause::PolicyDenies => "an admission policy denies the pods",
            Cause::LimitRange => "a LimitRange refuses the pods",
            Cause::ServiceAccount => "the service account is missing",
            Cause::PriorityClass => "the priority class is missing",
            Cause::RuntimeClass => "the runtime class is missing",
            Cause::Template => "the template makes no pod",
            Cause::Image => "the image cannot be pulled",
            Cause::Unschedulable => "no node has room",
            Cause::NamespaceTerminating => "the namespace is being deleted",
            Cause::StatusReverted => "somebody reverts the status each second",
            Cause::StatusRefused => "the status may not be written",
            Cause::ReleaseRefused => "the finalizer may not be taken off",
            Cause::AdoptionRefused => "an orphan may not be adopted",
            Cause::PodNeverEnds => "a pod that was told to go does not end",
            Cause::ForeignFinalizer => "somebody else's finalizer holds a pod",
        }
    }

    /// What is found in the job's status, or in an event about it.
    pub fn says(self) -> &'static str {
        match self {
            Cause::Quota => "exceeded quota",
            Cause::PodSecurity => "violates PodSecurity",
            Cause::WebhookDenies => "denied the request: not now",
            Cause::WebhookAway => "failed calling webhook",
            Cause::PolicyDenies => "denied request: not now",
            Cause::LimitRange => "maximum cpu usage per Container",
            Cause::ServiceAccount => "serviceaccount \"missing\" not found",
            Cause::PriorityClass => "no PriorityClass with name",
            Cause::RuntimeClass => "RuntimeClass",
            Cause::Template => "Not found: \"data\"",
            Cause::Image => "ImagePullBackOff",
            Cause::Unschedulable => "no nodes available",
            // Nor can an event be written there.
            Cause::NamespaceTerminating => "",
            Cause::StatusReverted => "reverter",
            Cause::StatusRefused => "cannot write the status",
            Cause::ReleaseRefused => "cannot release pod",
            Cause::AdoptionRefused => "cannot adopt pod",
            Cause::PodNeverEnds => "\"terminating\":1",
            Cause::ForeignFinalizer => "\"Complete\"",
        }
    }

    /// How long it may take, once the cause is gone, until all is well; None: it cannot go.
    pub fn clears_within(self) -> Option<Duration> {
        let seconds = match self {
            Cause::Template | Cause::NamespaceTerminating => return None,
            // Nothing has to be tried again.
            Cause::Image | Cause::Unschedulable | Cause::ForeignFinalizer => 5,
            // An attempt that failed is followed by the next after its delay.
            Cause::PodNeverEnds => 15,
            // What is not a create is tried again every 30 s.
            Cause::StatusReverted | Cause::StatusRefused | Cause::ReleaseRefused | Cause::AdoptionRefused => 35,
            _ => 20,
        };
        Some(Duration::from_secs(seconds))
    }

    /// Its part of the job's spec, and of its pods' spec.
    pub fn spec(self, stage: &Stage) -> (Value, Value) {
        let job = json!({ "completionMode": "Indexed", "completions": 5, "parallelism": 5 });
        let two = json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 });
        let container = |more: Value| {
            let mut container = json!({ "name": "main", "image": "none" });
            if let (Value::Object(container), Value::Object(more)) = (&mut container, more) {
                container.extend(more);
            }
            json!({ "nodeName": NODE, "containers": [container] })
        };
        match self {
            Cause::LimitRange => (job, container(json!({ "resources": { "limits": { "cpu": "4" } } }))),
            Cause::ServiceAccount => (job, json!({ "nodeName": NODE, "serviceAccountName": "missing" })),
            Cause::PriorityClass => (job, json!({ "nodeName": NODE, "priorityClassName": stage.namespace })),
            Cause::RuntimeClass => (job, json!({ "nodeName": NODE, "runtimeClassName": stage.namespace })),
            Cause::Template => (job, container(json!({ "volumeMounts": [{ "name": "data", "mountPath": "/d" }] }))),
            Cause::Unschedulable => (two, json!({})),
            Cause::NamespaceTerminating => {
                let mut suspended = job;
                suspended["suspend"] = true.into();
                (suspended, container(json!({})))
            }
            Cause::PodNeverEnds => {
                let mut patient = two;
                patient["podReplacementPolicy"] = "Failed".into();
                (patient, container(json!({})))
            }
            Cause::ForeignFinalizer | Cause::ReleaseRefused | Cause::AdoptionRefused => (two, container(json!({}))),
            _ => (job, container(json!({}))),
        }
    }

    /// What is so before the job is created.
    pub async fn prepare(self, stage: &Stage) -> Result<Going> {
        let mut going = Going::default();
        let namespaces: Api<Namespace> = Api::all(stage.client.clone());
        let own = &stage.namespace;
        match self {
            Cause::Quota => {
                stage
                    .apply(json!({
                        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "pods" },
                        "spec": { "hard": { "pods": "2" } },
                    }))
                    .await?;
                wait_for("the quota holds", Duration::from_secs(60), async || {
                    let quota =
                        stage.run(&["get", "resourcequota", "pods", "-o", "jsonpath={.status.hard.pods}"]).await?;
                    Ok((quota == "2").then_some(()))
                })
                .await?;
            }
            Cause::PodSecurity => {
                let labels =
                    json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
                namespaces.patch(own, &PatchParams::default(), &Patch::Merge(labels)).await?;
            }
            Cause::WebhookDenies => {
                let webhook = Webhook::start().await?;
                stage.apply(webhook_of(own, &webhook.url, Some(&webhook.ca_bundle))).await?;
                going.webhook = Some(webhook);
            }
            Cause::WebhookAway => {
                // Nobody listens there once the listener is dropped.
                let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                stage.apply(webhook_of(own, &format!("https://{nobody}/"), None)).await?;
            }
            Cause::PolicyDenies => stage.refuse("", "pods", "CREATE", "false").await?,
            Cause::LimitRange => {
                stage
                    .apply(json!({
                        "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "small" },
                        "spec": { "limits": [{ "type": "Container", "max": { "cpu": "1" } }] },
                    }))
                    .await?
            }
            _ => {}
        }
        Ok(going)
    }

    /// What happens once the job is there.
    pub async fn begin(self, stage: &Stage, going: &mut Going) -> Result<()> {
        match self {
            Cause::Image => {
                let pods = stage.until_pods(5).await?;
                let stage = stage.clone();
                going.tasks.spawn(async move {
                    // A kubelet alternates between the try and the wait.
                    let mut pace = tokio::time::interval(Duration::from_secs(20));
                    for word in ["ErrImagePull", "ImagePullBackOff"].into_iter().cycle() {
                        pace.tick().await;
                        for pod in &pods {
                            stage.waits(pod, word).await?;
                        }
                    }
                    Ok(())
                });
            }
            Cause::NamespaceTerminating => {
                let namespaces: Api<Namespace> = Api::all(stage.client.clone());
                namespaces.delete(&stage.namespace, &DeleteParams::background()).await?;
                stage.patch_job(&json!({ "spec": { "suspend": false } })).await?;
            }
            Cause::StatusReverted => {
                stage.until_pods(5).await?;
                let stage = stage.clone();
                going.tasks.spawn(async move {
                    let mut pace = tokio::time::interval(Duration::from_secs(1));
                    loop {
                        pace.tick().await;
                        stage.revert_status().await?;
                    }
                });
            }
            Cause::StatusRefused => {
                let pods = stage.until_pods(5).await?;
                stage.until_status("all are active", |status| status["active"] == 5).await?;
                let (group, resource) = stage.door.status_resource();
                stage.refuse(group, resource, "UPDATE", "false").await?;
                stage.runs(&pods[0]).await?;
            }
            Cause::ReleaseRefused => {
                let pods = stage.until_pods(2).await?;
                stage.refuse("", "pods", "UPDATE", KEEPS_FINALIZERS).await?;
                for pod in &pods {
                    stage.succeeds(pod).await?;
                }
                stage.until_status("it is over", |status| status["completionTime"].is_string()).await?;
            }
            Cause::AdoptionRefused => {
                let pods = stage.until_pods(2).await?;
                stage.refuse("", "pods", "UPDATE", KEEP_NO_MORE_OWNERS).await?;
                stage.patch_pod(&pods[0], json!({ "metadata": { "ownerReferences": null } })).await?;
                stage.until_said(self.says()).await?;
                stage.succeeds(&pods[1]).await?;
                // What has ended is counted all the same.
                stage.until_status("one has succeeded", |status| status["succeeded"] == 1).await?;
            }
            Cause::PodNeverEnds => {
                let pods = stage.until_pods(2).await?;
                stage.pods.delete(&pods[0].name_any(), &DeleteParams::default()).await?;
            }
            Cause::ForeignFinalizer => {
                let pods = stage.until_pods(2).await?;
                for pod in &pods {
                    let ours = pod.finalizers().first().context("a finalizer of ours")?;
                    let held = json!({ "metadata": { "finalizers": [ours, "example.com/hold"] } });
                    stage.patch_pod(pod, held).await?;
                    stage.succeeds(pod).await?;
                    stage.pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
                }
                let is_free = |pod: &Pod| pod.finalizers() == ["example.com/hold"];
                stage
                    .until("all are let go by us", async |stage| Ok(stage.list_pods().await?.iter().all(is_free)))
                    .await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The cause is gone.
    pub async fn clear(self, stage: &Stage, going: &mut Going) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(stage.client.clone());
        match self {
            Cause::Quota => stage.apply(json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "pods" },
                "spec": { "hard": { "pods": "20" } },
            })).await?,
            Cause::PodSecurity => {
                let labels = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": null } } });
                namespaces.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(labels)).await?;
            }
            Cause::WebhookDenies => going.webhook.as_ref().context("the webhook")?.allow(),
            Cause::WebhookAway => {
                stage.run(&["delete", "validatingwebhookconfiguration", &stage.namespace]).await?;
            }
            Cause::LimitRange => {
                stage.run(&["delete", "limitrange", "small"]).await?;
            }
            Cause::ServiceAccount => {
                stage.run(&["create", "serviceaccount", "missing"]).await?;
            }
            Cause::PriorityClass => stage.apply(json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": stage.namespace }, "value": 1,
            })).await?,
            Cause::RuntimeClass => stage.apply(json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": stage.namespace }, "handler": "x",
            })).await?,
            Cause::Image => {
                going.tasks.shutdown().await;
                for pod in stage.list_pods().await? {
                    stage.runs(&pod).await?;
                }
            }
            Cause::Unschedulable => {
                for pod in stage.list_pods().await? {
                    stage.bind(&pod).await?;
                    stage.runs(&pod).await?;
                }
            }
            Cause::StatusReverted => going.tasks.shutdown().await,
            Cause::PolicyDenies | Cause::StatusRefused | Cause::ReleaseRefused | Cause::AdoptionRefused => {
                stage.allow().await?;
            }
            Cause::PodNeverEnds => {
                for pod in stage.list_pods().await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                    stage.fails(pod).await?;
                }
            }
            Cause::ForeignFinalizer => {
                for pod in stage.list_pods().await? {
                    stage.patch_pod(&pod, json!({ "metadata": { "finalizers": null } })).await?;
                    // Whoever plays the kubelet has the last word.
                    stage.is_gone(&pod).await?;
                }
            }
            Cause::Template | Cause::NamespaceTerminating => {}
        }
        Ok(())
    }

    /// Whether the job goes on.
    pub async fn is_clear(self, stage: &Stage) -> Result<bool> {
        let pods = stage.list_pods().await?;
        let status = stage.status().await?;
        Ok(match self {
            Cause::Image | Cause::Unschedulable => {
                !stage.is_said_in_status(self.says()).await? && status["ready"] == pods.len()
            }
            Cause::StatusReverted => status["active"] == 5,
            Cause::StatusRefused => status["ready"] == 1,
            Cause::ReleaseRefused => pods.iter().all(|pod| pod.finalizers().is_empty()),
            Cause::AdoptionRefused => pods.iter().all(|pod| !pod.owner_references().is_empty()),
            Cause::PodNeverEnds => {
                pods.iter().any(|pod| pod.labels().get(keys::ATTEMPT).map(String::as_str) == Some("2"))
            }
            Cause::ForeignFinalizer => pods.is_empty(),
            _ => pods.len() == 5,
        })
    }

    /// What of the job's own must hold meanwhile, for those where it is not plain from what is waited for.
    pub fn n_pods(self) -> usize {
        match self {
            Cause::Quota => 2,
            Cause::Image | Cause::StatusReverted | Cause::StatusRefused => 5,
            Cause::Unschedulable
            | Cause::ReleaseRefused
            | Cause::AdoptionRefused
            | Cause::PodNeverEnds
            | Cause::ForeignFinalizer => 2,
            _ => 0,
        }
    }
}

fn webhook_of(namespace: &str, url: &str, ca_bundle: Option<&str>) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": namespace },
        "webhooks": [{
            "name": "pods.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
            "clientConfig": { "url": url, "caBundle": ca_bundle },
        }],
    })
}

impl Stage {
    /// The kubelet says so of the pod's one container.
    async fn waits(&self, pod: &Pod, word: &str) -> Result<()> {
        let state = json!({ "waiting": { "reason": word, "message": "no such image" } });
        self.patch_pod_status(pod, json!({ "phase": "Pending", "containerStatuses": [container("main", &state, 0)] }))
            .await
    }

    async fn runs(&self, pod: &Pod) -> Result<()> {
        let now = ago(Duration::ZERO);
        let statuses = [container("main", &json!({ "running": { "startedAt": now } }), 0)];
        let conditions = [condition("Ready", true, now)];
        let status = json!({ "phase": "Running", "containerStatuses": statuses, "conditions": conditions });
        self.patch_pod_status(pod, status).await
    }

    async fn succeeds(&self, pod: &Pod) -> Result<()> {
        self.ends(pod, "Succeeded", 0).await
    }

    async fn fails(&self, pod: &Pod) -> Result<()> {
        self.ends(pod, "Failed", 1).await
    }

    async fn ends(&self, pod: &Pod, phase: &str, exit_code: i32) -> Result<()> {
        let now = ago(Duration::ZERO);
        let state = json!({ "terminated": { "exitCode": exit_code, "startedAt": now, "finishedAt": now } });
        self.patch_pod_status(pod, json!({ "phase": phase, "containerStatuses": [container("main", &state, 0)] })).await
    }
}
