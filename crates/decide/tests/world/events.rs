//! What can happen in a story.

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::managed;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed::{
    Condition, Container, ContainerState, Deletion, Obstacle, Pod, PodCondition, PodPhase, RefusedReason, Role,
};
use batchjob_decide::plan::{AttemptId, PodRef};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::{World, new_pod};

impl World {
    pub(super) fn apply(&mut self, event: &str) -> Result<(), String> {
        // A create that the API server carries out long after it was asked for.
        if let Some(short) = event.strip_suffix(" appears late") {
            let suffix = PodNames::of(&self.job).write(AttemptId { index: 0, attempt: 1 });
            let hash = suffix.rsplit_once('-').map_or("", |(_, hash)| hash);
            self.pods.push(new_pod(&format!("{short}-{hash}"), self.now));
            return Ok(());
        }
        let (subject, rest) = event.split_once(' ').unwrap_or((event, ""));
        match (subject, rest) {
            ("spec", edits) => {
                self.job.generation += 1;
                self.edit(edits.split_whitespace())
            }
            // Somebody restores the job from a backup that has no status.
            ("status", "lost") => {
                self.job.status = BatchJobStatus::default();
                Ok(())
            }
            // Somebody writes a condition: "status FailureTarget=False".
            ("status", condition) => {
                let (type_, status) = condition.split_once('=').ok_or("no condition=status")?;
                self.job.status.conditions.push(by_hand(type_, status));
                Ok(())
            }
            // The API server has said, of the last create, that there is a pod of that name.
            ("taken", words) => {
                let id = words
                    .split_once('-')
                    .and_then(|(index, attempt)| Some((index.parse().ok()?, attempt.parse().ok()?)));
                let (index, attempt) = id.ok_or("no attempt")?;
                self.obstacle = Some(Obstacle::NameTaken(AttemptId { index, attempt }));
                Ok(())
            }
            // Somebody takes the annotation off a managed Job while the operator is away.
            ("ledger", "lost") => {
                let (written, _) = managed::write(&self.job, &self.job.status);
                let read = managed::read(&self.job.uid, &written, None);
                (self.job.status, self.job.has_lost_its_ledger) = (read.status, read.is_lost);
                Ok(())
            }
            ("deletion", "") => {
                self.job.is_deleted = true;
                Ok(())
            }
            ("unanswered", words) => {
                let retry_at = time(words.strip_prefix("until ").ok_or("no time")?.trim_end_matches('s'))?;
                self.obstacle = Some(Obstacle::Unanswered { retry_at });
                Ok(())
            }
            // The API server refuses every delete while this happens.
            ("undeletable", event) => {
                self.is_undeletable = true;
                self.apply(event)
            }
            ("template", words) => {
                let (seconds, message) =
                    words.strip_prefix("rejected until ").and_then(|rest| rest.split_once("s: ")).ok_or("no time")?;
                let (message, retry_at) = (message.to_owned(), time(seconds)?);
                let generation = self.job.generation;
                self.obstacle = Some(Obstacle::TemplateRejected { generation, message, retry_at });
                Ok(())
            }
            ("quota", words) => {
                let (seconds, message) =
                    words.strip_prefix("until ").and_then(|rest| rest.split_once("s: ")).ok_or("no time")?;
                let retry_at = time(seconds)?;
                let message = message.to_owned();
                self.obstacle = Some(Obstacle::Refused { reason: RefusedReason::QuotaExceeded, message, retry_at });
                Ok(())
            }
            (pod, event) => self.apply_to_pod(pod, event),
        }
    }

    fn apply_to_pod(&mut self, short: &str, event: &str) -> Result<(), String> {
        let now = self.now;
        let names = PodNames::of(&self.job);
        let is_meant = |pod: &&mut Pod| names.read(&pod.name).is_some() && pod.name.starts_with(&format!("{short}-"));
        let pod = self.pods.iter_mut().find(is_meant).ok_or_else(|| format!("there is no pod {short}"))?;
        let words: Vec<&str> = event.split_whitespace().collect();
        match words[..] {
            ["runs"] => {
                pod.node = Some("node-1".into());
                pod.phase = PodPhase::Running;
                pod.ready = Some(Condition { is_true: true, since: Some(now) });
                pod.containers = Box::new([main(0, ContainerState::Running)]);
            }
            ["succeeds"] => end(pod, now, 0, "Completed"),
            ["fails", exit] => end(pod, now, exit_code(exit)?, "Error"),
            ["fails", exit, clock] if clock.starts_with("clock=") => {
                let ahead = clock.trim_start_matches("clock=+").parse().map_err(|_| "no number")?;
                end(pod, now + SignedDuration::from_secs(ahead), exit_code(exit)?, "Error");
            }
            ["fails", exit, reason] => end(pod, now, exit_code(exit)?, reason),
            ["crashes", restarts] => {
                let restarts = restarts.trim_start_matches("restarts=").parse().map_err(|_| "no number")?;
                let waiting = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "".into() };
                pod.containers = Box::new([Container { last_exit_code: Some(1), ..main(restarts, waiting) }]);
            }
            ["condition", type_, status] => {
                pod.conditions = Box::new([PodCondition { type_: type_.into(), status: status.into() }]);
            }
            // Somebody takes its owner off it, or its labels.
            ["orphaned"] => {
                let uid = pod.uid.clone();
                self.is_orphan.push(uid);
            }
            ["relabelled"] => pod.is_selected = false,
            ["evicted"] => {
                pod.node = Some("node-1".into());
                pod.phase = PodPhase::Failed;
                pod.reason = Some("Evicted".into());
                pod.message = Some("The node was low on resource: memory.".into());
                pod.ready = Some(Condition { is_true: false, since: Some(now) });
                pod.containers = Box::default();
            }
            // The kubelet takes its hands off a pod that has ended: it writes a new time, and no grace.
            ["abandoned"] => pod.deletion = Some(Deletion { asked: now, grace_seconds: 0 }),
            ["scheduled"] => pod.node = Some("node-1".into()),
            ["unschedulable", ..] => pod.unschedulable = Some(words[1..].join(" ").into()),
            ["waits", reason, ..] => {
                pod.node = Some("node-1".into());
                let state = ContainerState::Waiting { reason: reason.into(), message: words[2..].join(" ").into() };
                pod.containers = Box::new([main(0, state)]);
            }
            ["deleted"] => {
                let pod = PodRef::from(&*pod);
                self.delete(&pod)?;
            }
            ["vanishes"] => {
                let uid = pod.uid.clone();
                self.pods.retain(|pod| pod.uid != uid);
            }
            _ => return Err(format!("nothing is known of {event:?}")),
        }
        self.remove_ended();
        Ok(())
    }
}

fn by_hand(type_: &str, status: &str) -> meta::Condition {
    meta::Condition {
        type_: type_.into(),
        status: status.into(),
        reason: "ByHand".into(),
        message: "written by hand".into(),
        observed_generation: None,
        last_transition_time: meta::Time(Timestamp::default()),
    }
}

fn time(seconds: &str) -> Result<Timestamp, String> {
    let seconds = seconds.parse().map_err(|_| format!("{seconds} is no number"))?;
    Ok(Timestamp::default() + SignedDuration::from_secs(seconds))
}

fn exit_code(word: &str) -> Result<i32, String> {
    word.trim_start_matches("exit=").parse().map_err(|_| format!("{word} is no exit=code"))
}

fn end(pod: &mut Pod, now: Timestamp, exit_code: i32, reason: &str) {
    let finished_at = Some(now);
    pod.node = Some("node-1".into());
    pod.phase = if exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
    pod.ready = Some(Condition { is_true: false, since: Some(now) });
    pod.containers = Box::new([main(0, ContainerState::Terminated { exit_code, reason: reason.into(), finished_at })]);
}

fn main(restarts: u32, state: ContainerState) -> Container {
    Container { name: "main".into(), role: Role::Main, restarts, state, last_exit_code: None }
}
