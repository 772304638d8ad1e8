//! What everybody but the operator says to the API server: users, the scheduler, the kubelet, the garbage collector.

use bytes::Bytes;
use http::{Method, Request, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::apiserver::{Answer, ApiServer, CALLER, Kind};
use crate::case::NAMESPACE;

/// Sends a request, at once; the code of the answer.
pub fn send(server: &ApiServer, who: &str, method: Method, path: &str, form: &str, body: &Value) -> u16 {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, form).header(CALLER, who);
    let Ok(request) = request.body(body) else { return 400 };
    match server.serve(&request) {
        Answer::Done { code, .. } => code,
        Answer::Watch(_) => 200,
    }
}

/// The path of an object; without a name, of all of that kind in the namespace.
pub fn path(kind: Kind, name: &str) -> String {
    let version = kind.api_version();
    let root = if version.contains('/') { "apis" } else { "api" };
    let path = format!("/{root}/{version}/namespaces/{NAMESPACE}/{}", kind.plural());
    if name.is_empty() { path } else { format!("{path}/{name}") }
}

pub fn create(server: &ApiServer, who: &str, kind: Kind, object: &Value) -> u16 {
    send(server, who, Method::POST, &path(kind, ""), "application/json", object)
}

pub fn merge(server: &ApiServer, who: &str, kind: Kind, name: &str, part: &str, patch: &Value) -> u16 {
    let path = format!("{}{part}", path(kind, name));
    send(server, who, Method::PATCH, &path, "application/merge-patch+json", patch)
}

pub fn strategic(server: &ApiServer, who: &str, kind: Kind, name: &str, patch: &Value) -> u16 {
    send(server, who, Method::PATCH, &path(kind, name), "application/strategic-merge-patch+json", patch)
}

pub fn delete(server: &ApiServer, who: &str, kind: Kind, name: &str, options: &Value) -> u16 {
    send(server, who, Method::DELETE, &path(kind, name), "application/json", options)
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Succeeds,
    Fails(i32),
    /// Its node is drained.
    Evicted,
}

pub fn bind(server: &ApiServer, name: &str) {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": "node-1" },
    });
    send(
        server,
        "scheduler",
        Method::POST,
        &format!("{}/binding", path(Kind::Pod, name)),
        "application/json",
        &binding,
    );
}

fn says(server: &ApiServer, name: &str, uid: &str, status: &Value) {
    // Strategic, so that conditions which others have put there stay.
    let patch = json!({ "metadata": { "uid": uid }, "status": status });
    let path = format!("{}/status", path(Kind::Pod, name));
    send(server, "kubelet", Method::PATCH, &path, "application/strategic-merge-patch+json", &patch);
}

fn container(state: &Value, restarts: u64, is_ready: bool) -> Value {
    json!([{ "name": "main", "image": "none", "imageID": "", "restartCount": restarts, "ready": is_ready, "state": state }])
}

fn ready(is_true: bool, now: Timestamp) -> Value {
    json!({ "type": "Ready", "status": if is_true { "True" } else { "False" }, "lastTransitionTime": now })
}

pub fn runs(server: &ApiServer, name: &str, uid: &str, restarts: u64, now: Timestamp) {
    let state = json!({ "running": { "startedAt": now } });
    let status = json!({
        "phase": "Running", "startTime": now, "conditions": [ready(true, now)],
        "containerStatuses": container(&state, restarts, true),
    });
    says(server, name, uid, &status);
}

/// The container has failed and is to be started again.
pub fn crashes(server: &ApiServer, name: &str, uid: &str, restarts: u64, now: Timestamp) {
    let mut container = container(&json!({ "waiting": { "reason": "CrashLoopBackOff" } }), restarts, false);
    container[0]["lastState"] = json!({ "terminated": { "exitCode": 1, "reason": "Error", "finishedAt": now } });
    let status = json!({ "phase": "Running", "conditions": [ready(false, now)], "containerStatuses": container });
    says(server, name, uid, &status);
}

pub fn ends(server: &ApiServer, name: &str, uid: &str, end: End, restarts: u64, now: Timestamp) {
    let exit_code = match end {
        End::Succeeds => 0,
        End::Fails(code) => code,
        End::Evicted => 143,
    };
    let mut conditions = vec![ready(false, now)];
    if end == End::Evicted {
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": now,
        }));
    }
    let state = json!({ "terminated": { "exitCode": exit_code, "reason": "Ended", "finishedAt": now } });
    let status = json!({
        "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
        "conditions": conditions,
        "containerStatuses": container(&state, restarts, false),
    });
    says(server, name, uid, &status);
}
