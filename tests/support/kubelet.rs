//! What everybody who plays a kubelet has to say. Which pod is told what, and when, is the play's own.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// There is no such node: nobody asks.
pub const NODE: &str = "node-1";

/// So long ago, in whole seconds, as times in objects are.
#[expect(clippy::disallowed_methods, reason = "a kubelet has a clock")]
pub fn ago(before: Duration) -> Timestamp {
    let at = Timestamp::now() - before;
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// What the scheduler says.
pub async fn bind(pods: &Api<Pod>, name: &str) -> kube::Result<()> {
    let binding = Binding {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(NODE.to_owned()),
            ..ObjectReference::default()
        },
    };
    let _: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// The status of a container in that state; it is ready if it runs.
pub fn container(name: &str, state: &Value, restarts: u64) -> Value {
    let is_ready = state.get("running").is_some();
    json!({ "name": name, "image": "none", "imageID": "", "restartCount": restarts, "ready": is_ready, "state": state })
}

/// A condition of a pod.
pub fn condition(type_: &str, is_true: bool, since: Timestamp) -> Value {
    json!({ "type": type_, "status": if is_true { "True" } else { "False" }, "lastTransitionTime": since })
}

/// An object may have gone meanwhile, and another have its name.
pub fn gone_or(answer: kube::Result<()>) -> anyhow::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => Ok(other?),
    }
}
