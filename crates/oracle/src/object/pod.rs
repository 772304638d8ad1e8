//! A pod.

use std::sync::Arc;

use batchjob_crd::keys;
use jiff::Timestamp;
use serde_json::Value;

use super::{Meta, count, list, time};

#[derive(Clone, Debug)]
pub struct Pod {
    pub meta: Meta,
    /// The label that says whose it is.
    pub job: Option<Arc<str>>,
    /// The label, or annotation, that says which index it is of.
    pub index: Option<u32>,
    /// Whether it has the label by which our operators watch pods: without it they do not see it.
    pub is_watched: bool,
    /// Whether BatchJob's finalizer, or that of batch/v1 Job, holds it.
    pub is_held: bool,
    pub phase: Phase,
    pub has_node: bool,
    pub is_ready: bool,
    /// How often the containers that are not sidecars have failed within it.
    pub n_failures_in_place: u32,
    /// When it ended, as batch/v1 Job has it (`getFinishedTime` in `backoff_utils.go`).
    pub ended_at: Option<Timestamp>,
    /// Containers that have ended with a code other than 0: app containers first.
    pub failed_containers: Box<[FailedContainer]>,
    /// Type and status of its conditions, if it has failed or is being deleted.
    pub conditions: Box<[(Box<str>, Box<str>)]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedContainer {
    pub name: Box<str>,
    pub exit_code: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Pod {
    pub fn read(json: &Value) -> Pod {
        let meta = Meta::read(json);
        let (labels, annotations) = (&json["metadata"]["labels"], &json["metadata"]["annotations"]);
        let number = |map: &Value, key: &str| map[key].as_str().and_then(|text| text.parse().ok());
        let index = number(labels, keys::COMPLETION_INDEX)
            .or_else(|| number(labels, keys::INDEX))
            .or_else(|| number(annotations, keys::COMPLETION_INDEX));
        let holders = [keys::POD_FINALIZER, keys::JOB_POD_FINALIZER];
        let is_held = list(&json["metadata"], "finalizers").any(|name| holders.iter().any(|holder| name == holder));
        let (spec, status) = (&json["spec"], &json["status"]);
        let phase = match status["phase"].as_str() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        };
        let ready = list(status, "conditions").find(|condition| condition["type"] == "Ready");
        let is_ready = ready.is_some_and(|ready| ready["status"] == "True");
        let is_sidecar = |container: &Value| {
            let mut with_policy = list(spec, "initContainers").filter(|init| init["restartPolicy"] == "Always");
            with_policy.any(|init| init["name"] == container["name"])
        };
        let says_when_it_ends = phase == Phase::Failed || phase == Phase::Succeeded || meta.deletion.is_some();
        let ended_at = says_when_it_ends.then(|| ended_at(&meta, status, ready, is_sidecar)).flatten();
        let n_failures_in_place = match phase {
            Phase::Running | Phase::Pending => {
                containers(status).filter(|it| !is_sidecar(it)).map(n_failures).fold(0, u32::saturating_add)
            }
            Phase::Succeeded | Phase::Failed => 0,
        };
        let tells_why = phase == Phase::Failed || meta.deletion.is_some();
        let failed = tells_why.then(|| containers(status).filter_map(failed_container).collect());
        let conditions = tells_why.then(|| {
            let text = |json: &Value| json.as_str().unwrap_or_default().into();
            list(status, "conditions").map(|it| (text(&it["type"]), text(&it["status"]))).collect()
        });
        Pod {
            job: labels[keys::CONTROLLER_UID].as_str().map(Arc::from),
            index,
            is_watched: labels[keys::ATTEMPT].is_string(),
            is_held,
            phase,
            has_node: spec["nodeName"].as_str().is_some_and(|node| !node.is_empty()),
            is_ready,
            n_failures_in_place,
            ended_at,
            failed_containers: failed.unwrap_or_default(),
            conditions: conditions.unwrap_or_default(),
            meta,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Pending or running, and nobody has asked for its deletion.
    pub fn is_living(&self) -> bool {
        !self.has_ended() && self.meta.deletion.is_none()
    }

    /// Its deletion is asked for, and it has not ended yet.
    pub fn is_terminating(&self) -> bool {
        !self.has_ended() && self.meta.deletion.is_some()
    }

    /// A kubelet is still to report how it ends.
    pub fn may_still_tell(&self) -> bool {
        self.is_living() || (self.is_terminating() && self.has_node && !self.is_forced())
    }

    fn is_forced(&self) -> bool {
        self.meta.deletion.is_some_and(|deletion| deletion.grace_seconds == 0)
    }
}

/// App containers first, as podFailurePolicy looks at them.
fn containers(status: &Value) -> impl Iterator<Item = &Value> {
    list(status, "containerStatuses").chain(list(status, "initContainerStatuses"))
}

fn failed_container(container: &Value) -> Option<FailedContainer> {
    let exit_code = container["state"]["terminated"]["exitCode"].as_i64().filter(|&code| code != 0)?;
    Some(FailedContainer { name: container["name"].as_str().unwrap_or_default().into(), exit_code })
}

/// A restart follows a failure; and one that waits in its crash loop, or has just ended, has failed once more.
fn n_failures(container: &Value) -> u32 {
    let is_waiting = container["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let restarts = count(container, "restartCount").unwrap_or_default();
    restarts.saturating_add(u32::from(is_waiting || failed_container(container).is_some()))
}

fn ended_at(
    meta: &Meta,
    status: &Value,
    ready: Option<&Value>,
    is_sidecar: impl Fn(&Value) -> bool,
) -> Option<Timestamp> {
    let mut latest = None;
    let mut all_ended = true;
    let sidecars = list(status, "initContainerStatuses").filter(|container| is_sidecar(container));
    for container in list(status, "containerStatuses").chain(sidecars) {
        match time(&container["state"]["terminated"], "finishedAt") {
            Some(at) => latest = latest.max(Some(at)),
            None => all_ended = false,
        }
    }
    let unready = || ready.filter(|ready| ready["status"] != "True").and_then(|it| time(it, "lastTransitionTime"));
    let deleted = || meta.deletion.map(|deletion| deletion.asked);
    latest.filter(|_| all_ended).or_else(unready).or_else(deleted).or(meta.created)
}
