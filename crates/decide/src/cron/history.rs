//! Which runs are kept no longer: `cleanupFinishedJobs` in `pkg/controller/cronjob/cronjob_controllerv2.go`, and two rules more.

use jiff::Timestamp;

use super::active;
use super::observed::{End, Run};
use super::spec::Spec;

/// The runs that are to be deleted, each once.
pub fn dropped<'a>(runs: &'a [Run], spec: &Spec) -> Vec<&'a Run> {
    let succeeded = ended(runs, true);
    let mut failed = ended(runs, false);
    let mut dropped = Vec::new();
    if spec.drops_failed_after_success
        && let Some(last) = succeeded.last().map(|run| run.created)
    {
        let forgiven: Vec<&Run> = failed.iter().copied().filter(|run| run.created < last).collect();
        failed.retain(|run| run.created >= last);
        dropped.extend(forgiven);
    }
    dropped.extend(oldest_over(&succeeded, spec.keep_succeeded));
    dropped.extend(oldest_over(&failed, spec.keep_failed));
    if let Some(limit) = spec.keep_unfinished {
        let unfinished: Vec<&Run> = active(runs).into_iter().filter(|run| !run.is_deleted).collect();
        dropped.extend(oldest_over(&unfinished, limit));
    }
    dropped.retain(|run| !run.is_deleted);
    dropped
}

/// The last run that has ended.
pub fn last_ended(runs: &[Run]) -> Option<(&Run, &End)> {
    let ended = runs.iter().filter_map(|run| Some((run, run.end.as_ref()?)));
    ended.max_by_key(|(run, end)| (end.at, run.created, run.name.clone()))
}

/// When the last of them that succeeded was complete.
pub fn last_success(runs: &[Run]) -> Option<Timestamp> {
    runs.iter().filter_map(|run| run.end.as_ref()).filter(|end| end.succeeded).map(|end| end.at).max()
}

/// The oldest first.
fn ended(runs: &[Run], succeeded: bool) -> Vec<&Run> {
    let is_meant = |run: &&Run| run.end.as_ref().is_some_and(|end| end.succeeded == succeeded);
    let mut ended: Vec<&Run> = runs.iter().filter(is_meant).collect();
    ended.sort_by_key(|run| (run.created, &run.name));
    ended
}

fn oldest_over<'a>(runs: &[&'a Run], limit: usize) -> Vec<&'a Run> {
    runs.iter().copied().take(runs.len().saturating_sub(limit)).collect()
}
