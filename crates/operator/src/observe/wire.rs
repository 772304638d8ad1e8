//! What is read of a pod, and nothing else of it.
//!
//! A pod of 6 kB of JSON costs 39 kB of heap as `k8s_openapi`'s `Pod`; the fields below cost a few hundred bytes. Every
//! field is optional, and a time that cannot be read is no time: one pod that looks odd must not break the list of all
//! the others.

use std::sync::Arc;

use batchjob_decide::job::pod::finalizer;
use batchjob_decide::observed::{
    Condition, Container, ContainerState, Deletion, Door, Pod, PodCondition, PodPhase, Role,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;

use batchjob_crd::{GROUP, keys};

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
    /// The uid of the job in the label of a pod that nobody owns.
    orphan_of: Option<Box<str>>,
    /// Whose finalizer holds it.
    pub holder: Option<Door>,
    pub version: u64,
    pub pod: Arc<Pod>,
}

impl PodRecord {
    pub fn place(&self) -> Place {
        match &self.owner {
            Some(owner) => Place::Owned(owner.uid.clone()),
            None => Place::Orphan(self.orphan_of.clone().unwrap_or_default()),
        }
    }
}

/// Where a pod belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// To the owner with this uid.
    Owned(Box<str>),
    /// To nobody; its label has this uid of a job, or it has no such label.
    Orphan(Box<str>),
}

impl Place {
    /// The job that it concerns; empty if there is none.
    pub fn uid(&self) -> &str {
        match self {
            Place::Owned(uid) | Place::Orphan(uid) => uid,
        }
    }
}

/// The controller that owns a pod, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: Box<str>,
    pub name: Box<str>,
    /// None: it is no kind that a job comes as.
    pub door: Option<Door>,
}

impl Owner {
    fn read(owner: &OwnerReference) -> Owner {
        // Of whatever version: it is the same object.
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let door = match (group, &*owner.kind) {
            (GROUP, "BatchJob") => Some(Door::BatchJob),
            ("batch", "Job") => Some(Door::ManagedJob),
            _ => None,
        };
        Owner { uid: owner.uid.as_str().into(), name: owner.name.as_str().into(), door }
    }
}

impl WirePod {
    fn owner(&self) -> Option<Owner> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).map(Owner::read)
    }

    fn label(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(keys::CONTROLLER_UID).map(String::as_str)
    }

    /// Whose finalizer holds it: of a pod that has an owner, only that of the owner's kind is ours.
    fn holder(&self, owner: Option<&Owner>) -> Option<Door> {
        let has = |door: &Door| self.metadata.finalizers.iter().flatten().any(|found| found == finalizer(*door));
        match owner {
            Some(owner) => owner.door.filter(has),
            None => [Door::BatchJob, Door::ManagedJob].into_iter().find(has),
        }
    }
}

impl From<WirePod> for PodRecord {
    fn from(wire: WirePod) -> PodRecord {
        let owner = wire.owner();
        let holder = wire.holder(owner.as_ref());
        let orphan_of = wire.label().filter(|_| owner.is_none()).map(Box::from);
        let is_selected = owner.as_ref().is_none_or(|owner| wire.label() == Some(&*owner.uid));
        let resource_version = wire.metadata.resource_version.clone().unwrap_or_default();
        PodRecord {
            namespace: wire.metadata.namespace.as_deref().unwrap_or_default().into(),
            owner,
            orphan_of,
            holder,
            version: super::version(&resource_version),
            pod: Arc::new(Pod { is_held: holder.is_some(), is_selected, ..pod(wire, resource_version) }),
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
    // Only of such a pod does podFailurePolicy ask for them.
    let is_ending = deletion.is_some() || matches!(status.phase, WirePhase::Failed);
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
        conditions: if is_ending { conditions(&status.conditions) } else { Box::default() },
        ..Pod::default()
    }
}

fn conditions(conditions: &[WireCondition]) -> Box<[PodCondition]> {
    let condition =
        |condition: &WireCondition| PodCondition { type_: condition.type_.clone(), status: condition.status.clone() };
    conditions.iter().map(condition).collect()
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
        assert_eq!(record.owner, Some(Owner { uid: "b".into(), name: "x".into(), door: None }));
    }

    /// A pod of that owner, of nobody if it is empty, with one of the two finalizers and the label of a job.
    fn owned(api_version: &str, kind: &str, finalizer: &str, label: &str) -> PodRecord {
        let owner =
            serde_json::json!({ "apiVersion": api_version, "kind": kind, "name": "x", "uid": "u", "controller": true });
        let owners = if kind.is_empty() { vec![] } else { vec![owner] };
        read(serde_json::json!({ "metadata": {
            "ownerReferences": owners, "finalizers": [finalizer], "labels": { keys::CONTROLLER_UID: label },
        }}))
    }

    #[test]
    fn what_holds_a_pod_is_the_finalizer_of_its_owners_kind() {
        let (ours, of_job) = (keys::POD_FINALIZER, keys::JOB_POD_FINALIZER);
        let cases = [
            (("batchjob.dev/v1alpha1", "BatchJob"), [Some(Door::BatchJob), None]),
            (("batchjob.dev/v2", "BatchJob"), [Some(Door::BatchJob), None]),
            (("batch/v1", "Job"), [None, Some(Door::ManagedJob)]),
            (("apps/v1", "ReplicaSet"), [None, None]),
            (("example.com/v1", "Job"), [None, None]),
            (("", ""), [Some(Door::BatchJob), Some(Door::ManagedJob)]),
        ];
        for ((api_version, kind), holders) in cases {
            let found = [ours, of_job].map(|finalizer| owned(api_version, kind, finalizer, "u").holder);
            assert_eq!(found, holders, "{api_version} {kind}");
        }
    }

    #[test]
    fn a_pod_is_selected_while_its_label_is_that_of_its_owner() {
        let is_selected = |kind, label| owned("batch/v1", kind, "x", label).pod.is_selected;
        assert!(is_selected("Job", "u") && !is_selected("Job", "other"));
        assert!(is_selected("", "other"), "it has no owner");
        let orphan = owned("", "", "x", "u");
        assert_eq!(orphan.place(), Place::Orphan("u".into()));
        assert_eq!(owned("batch/v1", "Job", "x", "other").place(), Place::Owned("u".into()));
    }
}
