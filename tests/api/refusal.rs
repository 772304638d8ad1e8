//! Updates that the API server refuses for a while, by an admission policy of the test's own.

use anyhow::Result;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Error};
use serde_json::json;

use crate::both::Both;
use crate::kubelet::name;
use crate::stage::expect;

/// Of an update: no finalizer goes.
pub const KEEPS_FINALIZERS: &str =
    "object.metadata.?finalizers.orValue([]).size() >= oldObject.metadata.?finalizers.orValue([]).size()";

/// The API server refuses some updates in the test's namespace, until this is lifted.
pub struct Refusal {
    name: String,
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
}

impl Refusal {
    /// Of what does not fulfil `expression`.
    pub async fn of(stage: &Both, group: &str, resource: &str, expression: &str) -> Result<Refusal> {
        let namespace = &stage.stage.namespace;
        let policy = json!({
            "metadata": { "name": namespace.name },
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace.name } },
                    "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [resource],
                    }],
                },
                "validations": [{ "expression": expression, "message": "not now" }],
            },
        });
        let binding = json!({
            "metadata": { "name": namespace.name },
            "spec": { "policyName": namespace.name, "validationActions": ["Deny"] },
        });
        let refusal = Refusal {
            name: namespace.name.clone(),
            policies: Api::all(namespace.client.clone()),
            bindings: Api::all(namespace.client.clone()),
        };
        refusal.policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        refusal.bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        Ok(refusal)
    }

    pub async fn lift(self) -> Result<()> {
        self.bindings.delete(&self.name, &DeleteParams::default()).await?;
        self.policies.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Whether it is this refusal; that it is answered at all is what the caller waits for.
pub fn is_refused<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Api(status)) if status.message.contains("not now"))
}

pub fn dry_run() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

/// Updates of pods that do not fulfil `expression` are refused, such as taking the finalizers off `pod`.
pub async fn refuse_releases(stage: &Both, pod: &Pod, expression: &str) -> Result<Refusal> {
    let refusal = Refusal::of(stage, "", "pods", expression).await?;
    let probe = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    expect("releases are refused", async || {
        Ok(is_refused(stage.stage.pods.patch(name(pod), &dry_run(), &probe).await).then_some(()))
    })
    .await;
    Ok(refusal)
}
