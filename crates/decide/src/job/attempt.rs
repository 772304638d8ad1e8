//! Reads a pod as an attempt: which index, which number, how it stands.
//!
//! The name says which attempt a pod is, because the name is the one thing about a pod that nobody can change. The
//! rest is read from its status, with what kubelets really write in mind: pods evicted or rejected before any
//! container started have no container statuses, sidecars end after the main containers, and a container in its
//! crash loop has failed once more than it was restarted.

use jiff::Timestamp;

use super::name::PodNames;
use crate::observed::{Container, ContainerState, Pod, PodPhase, Role};
use crate::plan::AttemptId;

/// A pod, read as an attempt of an index.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub id: AttemptId,
    pub pod: &'a Pod,
}

/// How an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pending or running, and nobody has asked for its deletion.
    Living,
    /// Its deletion is asked for, and it has not ended yet.
    Terminating,
    Succeeded,
    Failed,
}

impl<'a> Attempt<'a> {
    /// None for a pod whose name is not one that we give: not ours to judge.
    pub fn read(pod: &'a Pod, names: &PodNames) -> Option<Attempt<'a>> {
        names.read(&pod.name).map(|id| Attempt { id, pod })
    }

    pub fn stage(&self) -> Stage {
        match (self.pod.phase, self.pod.deletion) {
            (PodPhase::Succeeded, _) => Stage::Succeeded,
            (PodPhase::Failed, _) => Stage::Failed,
            (_, Some(_)) => Stage::Terminating,
            (_, None) => Stage::Living,
        }
    }

    /// Whether its end can still tell us anything: whether it is worth holding.
    pub fn may_still_tell(&self) -> bool {
        match self.stage() {
            Stage::Living => true,
            // No node has it, or its deletion is forced: no kubelet will report an end.
            Stage::Terminating => {
                self.pod.node.is_some() && self.pod.deletion.is_some_and(|deletion| deletion.grace_seconds > 0)
            }
            Stage::Succeeded | Stage::Failed => false,
        }
    }

    /// Whether it succeeded by itself, rather than by leaving in peace when it was told to go: a program that saves
    /// its state on SIGTERM and exits with 0 has not done its work. Times are whole seconds, so in doubt it has not.
    pub fn succeeded_before_its_deletion(&self) -> bool {
        self.stage() == Stage::Succeeded
            && self.pod.deletion.is_none_or(|deletion| self.ended_at() < Some(deletion.asked))
    }

    /// When it ended, by batch/v1 Job's four look-ups (`getFinishedTime` in `backoff_utils.go`): the end of its last
    /// container, sidecars included; since when it is not ready; when its deletion was asked for; its creation.
    pub fn ended_at(&self) -> Option<Timestamp> {
        let unready = || self.pod.ready.filter(|ready| !ready.is_true).and_then(|ready| ready.since);
        let deleted = || self.pod.deletion.map(|deletion| deletion.asked);
        self.containers_ended_at().or_else(unready).or_else(deleted).or(self.pod.created)
    }

    /// The end of its last container; None while one of them has not ended, or not said when.
    fn containers_ended_at(&self) -> Option<Timestamp> {
        let mut last = None;
        for container in self.pod.containers.iter().filter(|container| container.role != Role::Init) {
            match container.state {
                ContainerState::Terminated { finished_at: Some(at), .. } => last = last.max(Some(at)),
                _ => return None,
            }
        }
        last
    }

    /// How often its containers have failed within a pod that lives on (`restartPolicy: OnFailure`).
    pub fn n_failures_in_place(&self) -> u32 {
        self.pod.containers.iter().filter(|container| container.role != Role::Sidecar).map(n_failures).sum()
    }

    pub fn is_ready(&self) -> bool {
        self.pod.ready.is_some_and(|ready| ready.is_true)
    }

    /// Why it failed, in words for a person: "container main exited with code 7".
    pub fn cause(&self) -> String {
        if let Some(container) = self.pod.containers.iter().find(|container| has_failed(container))
            && let ContainerState::Terminated { exit_code, reason, .. } = &container.state
        {
            let name = &container.name;
            return match &**reason {
                "" | "Error" => format!("container {name} exited with code {exit_code}"),
                _ => format!("container {name} exited with code {exit_code} ({reason})"),
            };
        }
        if let Some((container, exit_code)) = self.pod.containers.iter().find_map(failed_before) {
            let Container { name, restarts, .. } = container;
            return format!("container {name} exited with code {exit_code} (restarted {restarts} times)");
        }
        let node = self.pod.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        match (&self.pod.reason, &self.pod.message) {
            (Some(reason), Some(message)) => format!("{reason}{node}: {message}"),
            (Some(reason), None) => format!("{reason}{node}"),
            (None, Some(message)) => message.to_string(),
            (None, None) if self.pod.deletion.is_some() => format!("the pod was deleted{node}"),
            (None, None) => format!("the pod failed{node}"),
        }
    }

    /// What keeps it from starting: reason and message. None once it runs.
    pub fn hindrance(&self) -> Option<(&'a str, String)> {
        if self.stage() != Stage::Living {
            return None;
        }
        if let Some(message) = &self.pod.unschedulable {
            return Some(("Unschedulable", message.to_string()));
        }
        self.pod.containers.iter().find_map(|container| match &container.state {
            ContainerState::Waiting { reason, message } => hindrance(container, reason, message),
            _ => None,
        })
    }
}

/// The reasons that are no more than the way to a start, and those that the kubelet alternates between.
fn hindrance<'a>(container: &Container, reason: &'a str, message: &str) -> Option<(&'a str, String)> {
    let reason = match reason {
        "" | "ContainerCreating" | "PodInitializing" => return None,
        // The kubelet alternates between the try and the wait: one word for both keeps the status still.
        "ErrImagePull" | "ImagePullBackOff" => "ImagePullBackOff",
        other => other,
    };
    // "Back-off pulling image "x": ErrImagePull: failed to pull …": the cause is at the end, and it is the same text
    // that the try itself gives.
    let message = message.split_once("ErrImagePull: ").map_or(message, |(_, cause)| cause);
    let name = &container.name;
    Some((
        reason,
        if message.is_empty() { format!("container {name}") } else { format!("container {name}: {message}") },
    ))
}

fn has_failed(container: &Container) -> bool {
    matches!(container.state, ContainerState::Terminated { exit_code, .. } if exit_code != 0)
        && container.role != Role::Sidecar
}

/// The container, if it has failed within the pod, and its last exit code.
fn failed_before(container: &Container) -> Option<(&Container, i32)> {
    let exit_code = container.last_exit_code.filter(|&code| code != 0 && container.role != Role::Sidecar)?;
    Some((container, exit_code))
}

/// A restart follows a failure; and one that waits in its crash loop, or has just ended, has failed once more than it
/// was restarted.
fn n_failures(container: &Container) -> u32 {
    let waits_after_failure =
        matches!(&container.state, ContainerState::Waiting { reason, .. } if &**reason == "CrashLoopBackOff");
    container.restarts + u32::from(waits_after_failure || has_failed(container))
}
