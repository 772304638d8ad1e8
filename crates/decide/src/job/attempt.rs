//! Reads a pod as an attempt: which index, which number, how it stands.
//!
//! The name says which attempt a pod is, because the name is the one thing about a pod that nobody can change. The
//! rest is read from its status, with what kubelets really write in mind: pods evicted or rejected before any
//! container started have no container statuses, sidecars end after the main containers, and a container in its
//! crash loop has failed once more than it was restarted.

use jiff::Timestamp;

use super::name::PodNames;
use crate::observed::{Container, ContainerState, Deletion, Pod, PodCondition, PodPhase, Role};
use crate::plan::AttemptId;

/// The reason of an event has at most so many bytes.
const MAX_REASON: usize = 128;

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

    /// Whether it surely succeeded by itself, rather than by leaving in peace when it was told to go: a program that saves
    /// its state on SIGTERM and exits with 0 has not done its work. Times are whole seconds, so in doubt it has not. Nor
    /// does a grace period of 0 tell: the kubelet writes that, with a new time, when it takes its hands off the pod.
    pub fn succeeded_before_its_deletion(&self) -> bool {
        let is_in_time = |deletion: Deletion| deletion.grace_seconds > 0 && self.ended_at() < Some(deletion.asked);
        self.stage() == Stage::Succeeded && self.pod.deletion.is_none_or(is_in_time)
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
        let counted = self.pod.containers.iter().filter(|container| container.role != Role::Sidecar);
        counted.map(n_failures).fold(0, u32::saturating_add)
    }

    pub fn is_ready(&self) -> bool {
        self.pod.ready.is_some_and(|ready| ready.is_true)
    }

    /// Why it failed, in words for a person: "container main exited with code 7". What the cluster did to it, and not its
    /// program, is told: "the pod was deleted on node node-a (disrupted)".
    pub fn cause(&self) -> String {
        let is_it = |condition: &PodCondition| &*condition.type_ == "DisruptionTarget" && &*condition.status == "True";
        match self.pod.conditions.iter().any(is_it) {
            true => format!("{} (disrupted)", self.cause_of_itself()),
            false => self.cause_of_itself(),
        }
    }

    fn cause_of_itself(&self) -> String {
        let node = self.pod.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        // The kubelet's own reason comes first: that a container was killed with 137 is what an eviction looks like.
        match (&self.pod.reason, &self.pod.message) {
            (Some(reason), Some(message)) => return format!("{reason}{node}: {message}"),
            (Some(reason), None) => return format!("{reason}{node}"),
            (None, _) => {}
        }
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
        match &self.pod.message {
            Some(message) => message.to_string(),
            None if self.pod.deletion.is_some() => format!("the pod was deleted{node}"),
            None => format!("the pod failed{node}"),
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
        // Whoever may write a pod's status may write a book here, and it is written into the status of the job.
        other => &other[..other.floor_char_boundary(MAX_REASON)],
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
    container.restarts.saturating_add(u32::from(waits_after_failure || has_failed(container)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Condition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds")
    }

    fn pod(phase: PodPhase, containers: impl Into<Box<[Container]>>) -> Pod {
        Pod {
            name: "etl-0-1-x".into(),
            uid: "uid".into(),
            created: Some(at(1)),
            is_held: true,
            node: Some("node-a".into()),
            phase,
            containers: containers.into(),
            ..Pod::default()
        }
    }

    fn container(role: Role, restarts: u32, state: ContainerState) -> Container {
        Container { name: format!("{role:?}").to_lowercase().into(), role, restarts, state, last_exit_code: None }
    }

    fn ended(exit_code: i32, second: Option<i64>) -> ContainerState {
        ContainerState::Terminated { exit_code, reason: "Error".into(), finished_at: second.map(at) }
    }

    fn waiting(reason: &str, message: &str) -> ContainerState {
        ContainerState::Waiting { reason: reason.into(), message: message.into() }
    }

    fn of(pod: &Pod) -> Attempt<'_> {
        Attempt { id: AttemptId { index: 0, attempt: 1 }, pod }
    }

    /// `TestGetFinishedTime` in `pkg/controller/job/backoff_utils_test.go`, by the same four look-ups.
    #[test]
    fn the_end_is_that_of_the_last_container_sidecars_included() {
        let containers = [
            container(Role::Init, 0, ended(0, Some(90))),
            container(Role::Sidecar, 0, ended(143, Some(30))),
            container(Role::Main, 0, ended(1, Some(20))),
        ];
        assert_eq!(of(&pod(PodPhase::Failed, containers)).ended_at(), Some(at(30)));
    }

    #[test]
    fn without_the_containers_times_the_end_is_since_when_it_is_not_ready() {
        let mut pod = pod(PodPhase::Failed, [container(Role::Main, 0, ended(1, None))]);
        pod.ready = Some(Condition { is_true: false, since: Some(at(40)) });
        assert_eq!(of(&pod).ended_at(), Some(at(40)));
        pod.ready = Some(Condition { is_true: true, since: Some(at(40)) });
        pod.deletion = Some(Deletion { asked: at(50), grace_seconds: 30 });
        assert_eq!(of(&pod).ended_at(), Some(at(50)));
        pod.deletion = None;
        assert_eq!(of(&pod).ended_at(), Some(at(1)));
    }

    #[test]
    fn a_restart_is_a_failure_and_so_is_the_end_that_waits_for_the_next_one() {
        let count = |role, restarts, state| {
            of(&pod(PodPhase::Running, [container(role, restarts, state)])).n_failures_in_place()
        };
        assert_eq!(count(Role::Main, 2, ContainerState::Running), 2);
        assert_eq!(count(Role::Main, 2, waiting("CrashLoopBackOff", "")), 3);
        assert_eq!(count(Role::Main, 2, ended(1, None)), 3);
        assert_eq!(count(Role::Main, 0, ended(0, None)), 0);
        assert_eq!(count(Role::Init, 1, ContainerState::Running), 1);
        assert_eq!(count(Role::Sidecar, 9, waiting("CrashLoopBackOff", "")), 0);
    }

    #[test]
    fn the_cause_is_the_container_that_failed_or_the_pods_own_words() {
        let failed = [container(Role::Sidecar, 0, ended(143, None)), container(Role::Main, 0, ended(7, None))];
        assert_eq!(of(&pod(PodPhase::Failed, failed)).cause(), "container main exited with code 7");

        let mut evicted = pod(PodPhase::Failed, []);
        evicted.reason = Some("Evicted".into());
        evicted.message = Some("low on memory".into());
        assert_eq!(of(&evicted).cause(), "Evicted on node node-a: low on memory");
        evicted.containers = Box::new([container(Role::Main, 0, ended(137, None))]);
        assert_eq!(of(&evicted).cause(), "Evicted on node node-a: low on memory");

        let restarted = Container { last_exit_code: Some(9), ..container(Role::Main, 2, ContainerState::Running) };
        assert_eq!(
            of(&pod(PodPhase::Running, [restarted])).cause(),
            "container main exited with code 9 (restarted 2 times)"
        );
    }

    #[test]
    fn a_disruption_is_told_apart_from_a_failure() {
        let mut ended_by_signal = pod(PodPhase::Failed, [container(Role::Main, 0, ended(143, None))]);
        let target = |status: &str| [PodCondition { type_: "DisruptionTarget".into(), status: status.into() }];
        ended_by_signal.conditions = Box::new(target("True"));
        assert_eq!(of(&ended_by_signal).cause(), "container main exited with code 143 (disrupted)");
        ended_by_signal.conditions = Box::new(target("False"));
        assert_eq!(of(&ended_by_signal).cause(), "container main exited with code 143");
    }

    #[test]
    fn what_keeps_it_from_starting_is_told_without_flapping() {
        let hindrance = |state| {
            of(&pod(PodPhase::Pending, [container(Role::Main, 0, state)]))
                .hindrance()
                .map(|(reason, message)| (reason.to_owned(), message))
        };
        let told = Some(("ImagePullBackOff".to_owned(), "container main: no such image".to_owned()));
        assert_eq!(hindrance(waiting("ErrImagePull", "no such image")), told);
        assert_eq!(
            hindrance(waiting("ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: no such image")),
            told
        );
        assert_eq!(hindrance(waiting("ContainerCreating", "")), None);
        let (reason, _) = hindrance(waiting(&"é".repeat(20_000), "")).expect("it waits");
        assert_eq!(reason, "é".repeat(MAX_REASON / 2), "a word, and no book");
        assert_eq!(hindrance(ContainerState::Running), None);
    }

    #[test]
    fn a_dying_pod_is_worth_holding_while_a_kubelet_may_report_its_end() {
        let mut pod = pod(PodPhase::Running, [container(Role::Main, 0, ContainerState::Running)]);
        pod.deletion = Some(Deletion { asked: at(50), grace_seconds: 30 });
        assert!(of(&pod).may_still_tell());
        pod.deletion = Some(Deletion { asked: at(50), grace_seconds: 0 });
        assert!(!of(&pod).may_still_tell(), "its deletion is forced");
        pod.deletion = Some(Deletion { asked: at(50), grace_seconds: 30 });
        pod.node = None;
        assert!(!of(&pod).may_still_tell(), "no node has it");
    }

    #[test]
    fn a_success_is_its_own_only_before_it_was_told_to_go() {
        let mut pod = pod(PodPhase::Succeeded, [container(Role::Main, 0, ended(0, Some(49)))]);
        assert!(of(&pod).succeeded_before_its_deletion());
        pod.deletion = Some(Deletion { asked: at(50), grace_seconds: 30 });
        assert!(of(&pod).succeeded_before_its_deletion());
        pod.deletion = Some(Deletion { asked: at(49), grace_seconds: 30 });
        assert!(!of(&pod).succeeded_before_its_deletion(), "in the same second it counts as told to go");
        pod.deletion = Some(Deletion { asked: at(51), grace_seconds: 0 });
        assert!(!of(&pod).succeeded_before_its_deletion(), "the kubelet has written a time of its own");
    }
}
