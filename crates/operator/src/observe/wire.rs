//! What is read of a pod, and nothing else of it.
//!
//! A pod of 6 kB of JSON costs 39 kB of heap as `k8s_openapi`'s `Pod`; the fields below cost a few hundred bytes. Every
//! field is optional, and a time that cannot be read is no time: one pod that looks odd must not break the list of all
//! the others.

use std::sync::Arc;

use batchjob_decide::observed::{Condition, Container, ContainerState, Deletion, Pod, PodCondition, PodPhase, Role};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use batchjob_crd::keys;

use super::lenient::{metadata, time};

/// A pod as it comes over the wire.
#[derive(kube::Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
#[serde(default)]
pub struct WirePod {
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    pub spec: WireSpec,
    pub status: WireStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireSpec {
    node_name: Option<Box<str>>,
    init_containers: Vec<WireInitContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireInitContainer {
    name: Box<str>,
    restart_policy: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireStatus {
    phase: WirePhase,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    conditions: Vec<WireCondition>,
    init_container_statuses: Vec<WireContainer>,
    container_statuses: Vec<WireContainer>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum WirePhase {
    Running,
    Succeeded,
    Failed,
    /// Pending, Unknown, and whatever comes.
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireCondition {
    #[serde(rename = "type")]
    type_: Box<str>,
    status: Box<str>,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    #[serde(deserialize_with = "time")]
    last_transition_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireContainer {
    name: Box<str>,
    restart_count: i32,
    state: WireState,
    last_state: WireState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireState {
    waiting: Option<WireWaiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<WireTerminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireWaiting {
    reason: Box<str>,
    message: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireTerminated {
    exit_code: i32,
    reason: Box<str>,
    #[serde(deserialize_with = "time")]
    finished_at: Option<Timestamp>,
}

/// A pod with the keys that a cache needs.
#[derive(Clone, Debug)]
pub struct PodRecord {
    pub namespace: Box<str>,
    pub owner: Option<Owner>,
    pub version: u64,
    pub pod: Arc<Pod>,
}

impl PodRecord {
    /// The uid of its owner; empty if nobody owns it.
    pub fn owner_uid(&self) -> Box<str> {
        self.owner.as_ref().map_or_else(Box::default, |owner| owner.uid.clone())
    }
}

/// The controller that owns a pod, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: Box<str>,
    pub name: Box<str>,
}

impl WirePod {
    fn owner(&self) -> Option<Owner> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true))?;
        Some(Owner { uid: owner.uid.as_str().into(), name: owner.name.as_str().into() })
    }
}

impl From<WirePod> for PodRecord {
    fn from(wire: WirePod) -> PodRecord {
        let owner = wire.owner();
        let resource_version = wire.metadata.resource_version.clone().unwrap_or_default();
        PodRecord {
            namespace: wire.metadata.namespace.as_deref().unwrap_or_default().into(),
            owner,
            version: super::version(&resource_version),
            pod: Arc::new(pod(wire, resource_version)),
        }
    }
}

fn pod(wire: WirePod, resource_version: String) -> Pod {
    let WirePod { metadata, spec, status } = wire;
    let grace_seconds = metadata.deletion_grace_period_seconds.unwrap_or_default();
    let deletion = metadata.deletion_timestamp.map(|deadline| Deletion {
        asked: deadline.0.checked_sub(jiff::SignedDuration::from_secs(grace_seconds)).unwrap_or(deadline.0),
        grace_seconds,
    });
    let condition = |type_: &str| status.conditions.iter().find(|condition| &*condition.type_ == type_);
    let unschedulable = condition("PodScheduled")
        .filter(|scheduled| &*scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable"))
        .map(|scheduled| scheduled.message.clone().unwrap_or_default());
    let ready = condition("Ready")
        .map(|ready| Condition { is_true: &*ready.status == "True", since: ready.last_transition_time });
    let is_sidecar = |name: &str| {
        spec.init_containers.iter().any(|init| &*init.name == name && init.restart_policy.as_deref() == Some("Always"))
    };
    let init_role = |name: &str| if is_sidecar(name) { Role::Sidecar } else { Role::Init };
    let inits = status.init_container_statuses.iter().map(|status| container(status, init_role(&status.name)));
    let mains = status.container_statuses.iter().map(|status| container(status, Role::Main));
    Pod {
        name: metadata.name.unwrap_or_default().into(),
        uid: metadata.uid.unwrap_or_default().into(),
        resource_version: resource_version.into(),
        created: metadata.creation_timestamp.map(|time| time.0),
        deletion,
        is_held: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == keys::POD_FINALIZER),
        is_selected: true,
        node: spec.node_name.filter(|name| !name.is_empty()),
        phase: match status.phase {
            WirePhase::Running => PodPhase::Running,
            WirePhase::Succeeded => PodPhase::Succeeded,
            WirePhase::Failed => PodPhase::Failed,
            WirePhase::Other => PodPhase::Pending,
        },
        reason: status.reason,
        message: status.message,
        ready,
        unschedulable,
        containers: inits.chain(mains).collect(),
        conditions: conditions(status.phase, &status.conditions),
    }
}

/// podFailurePolicy asks for them, and only of a pod that has failed.
fn conditions(phase: WirePhase, conditions: &[WireCondition]) -> Box<[PodCondition]> {
    let is_asked_for = matches!(phase, WirePhase::Failed);
    let conditions = conditions.iter().filter(|_| is_asked_for);
    conditions
        .map(|condition| PodCondition { type_: condition.type_.clone(), status: condition.status.clone() })
        .collect()
}

fn container(status: &WireContainer, role: Role) -> Container {
    Container {
        name: status.name.clone(),
        role,
        restarts: status.restart_count.max(0) as u32,
        state: state(&status.state),
        last_exit_code: status.last_state.terminated.as_ref().map(|ended| ended.exit_code),
    }
}

fn state(state: &WireState) -> ContainerState {
    if let Some(terminated) = &state.terminated {
        return ContainerState::Terminated {
            exit_code: terminated.exit_code,
            reason: terminated.reason.clone(),
            finished_at: terminated.finished_at.filter(is_known),
        };
    }
    if let Some(waiting) = &state.waiting {
        return ContainerState::Waiting { reason: waiting.reason.clone(), message: waiting.message.clone() };
    }
    if state.running.is_some() { ContainerState::Running } else { ContainerState::Unknown }
}

/// A kubelet that does not know when a container ended writes Go's zero time, the year 1, or the start of 1970.
fn is_known(time: &Timestamp) -> bool {
    time.as_second() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> PodRecord {
        serde_json::from_value::<WirePod>(json).expect("a pod").into()
    }

    #[test]
    fn an_empty_pod_is_read() {
        let record = read(serde_json::json!({ "metadata": {} }));
        assert_eq!((record.owner, record.pod.phase), (None, PodPhase::Pending));
    }

    #[test]
    fn a_phase_that_nobody_knows_yet_is_no_end() {
        let record = read(serde_json::json!({ "metadata": {}, "status": { "phase": "Dreaming" } }));
        assert_eq!(record.pod.phase, PodPhase::Pending);
    }

    #[test]
    fn deletion_counts_from_when_it_was_asked_for() {
        let record = read(serde_json::json!({ "metadata": {
            "deletionTimestamp": "2026-11-24T12:00:30Z", "deletionGracePeriodSeconds": 30,
        }}));
        let asked = "2026-11-24T12:00:00Z".parse().expect("a time");
        assert_eq!(record.pod.deletion, Some(Deletion { asked, grace_seconds: 30 }));
    }

    /// Anybody who may create a pod can write such a grace period.
    #[test]
    fn a_deletion_in_ten_thousand_years_is_a_deletion() {
        let record = read(serde_json::json!({ "metadata": {
            "deletionTimestamp": "33658-11-24T12:00:30Z", "deletionGracePeriodSeconds": 1_000_000_000_000_i64,
        }}));
        assert!(record.pod.deletion.is_some());
    }

    #[test]
    fn a_time_that_cannot_be_read_is_no_time() {
        let record = read(serde_json::json!({ "metadata": {}, "status": { "conditions": [
            { "type": "Ready", "status": "False", "lastTransitionTime": "9999-12-31T23:59:59Z" },
        ]}}));
        assert_eq!(record.pod.ready.map(|ready| ready.is_true), Some(false));
    }

    #[test]
    fn containers_are_read_with_their_roles_and_without_false_times() {
        let ended = serde_json::json!({ "terminated": { "exitCode": 3, "reason": "Error", "finishedAt": "0001-01-01T00:00:00Z" } });
        let record = read(serde_json::json!({
            "metadata": {},
            "spec": { "initContainers": [{ "name": "fetch" }, { "name": "proxy", "restartPolicy": "Always" }] },
            "status": {
                "initContainerStatuses": [
                    { "name": "fetch", "state": { "terminated": { "exitCode": 0 } } },
                    { "name": "proxy", "state": { "running": { "startedAt": "2026-11-24T12:00:00Z" } }, "restartCount": 4 },
                ],
                "containerStatuses": [{ "name": "main", "state": ended, "lastState": ended }],
            },
        }));
        let read: Vec<_> = record.pod.containers.iter().map(|c| (&*c.name, c.role, c.restarts)).collect();
        assert_eq!(read, [("fetch", Role::Init, 0), ("proxy", Role::Sidecar, 4), ("main", Role::Main, 0)]);
        let main = &record.pod.containers[2];
        assert_eq!(main.last_exit_code, Some(3));
        assert_eq!(main.state, ContainerState::Terminated { exit_code: 3, reason: "Error".into(), finished_at: None });
    }

    #[test]
    fn only_the_controller_is_the_owner() {
        let owner = |uid: &str, controller: bool| serde_json::json!({ "apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": controller });
        let record =
            read(serde_json::json!({ "metadata": { "ownerReferences": [owner("a", false), owner("b", true)] } }));
        assert_eq!(record.owner, Some(Owner { uid: "b".into(), name: "x".into() }));
    }
}
