//! How many pods more, and for which indexes; or which ones fewer.

use jiff::Timestamp;

use super::attempt::Attempt;
use super::retry;
use super::spec::{Completions, Spec};
use super::tally::Tally;
use crate::observed::PodPhase;
use crate::plan::{AttemptId, Start};

/// How many pods one pass creates or stops at most, so that a huge job does not hold a worker for long
/// (`MaxPodCreateDeletePerSync` in batch/v1 Job).
pub const MAX_PER_PASS: usize = 500;

/// Above so many entries of indexes with failures, only those are worked on until some are done: it bounds the ledger,
/// and a job that fails in so many places has no use for more.
const MAX_OPEN_ENTRIES: usize = 2000;

/// What is to change in the number of pods.
#[derive(Debug, Default)]
pub struct Scale<'a> {
    pub start: Vec<Start>,
    pub stop: Vec<Attempt<'a>>,
    /// There is room, and this index may start then: the first that waits for its retry.
    pub next_retry: Option<(AttemptId, Timestamp)>,
    /// More is to be done than one pass does.
    pub is_cut: bool,
    /// So many indexes are open that no further one starts until some close.
    pub is_ledger_full: bool,
}

pub fn scale<'a>(spec: &Spec, tally: &Tally<'a>, now: Timestamp) -> Scale<'a> {
    let n_current = tally.current.len() + n_orphans_that_go_on(spec, tally);
    let wanted = n_wanted(spec, tally, n_current);
    if n_current > wanted {
        // An orphan is stopped once it is ours again.
        return stop(tally, (n_current - wanted).min(tally.current.len()));
    }
    // A stray lives until its delete is done, and parallelism is a promise at every moment.
    let n_terminating = if spec.replaces_only_ended { tally.terminating.len() } else { 0 };
    let n_there = tally.current.len() + tally.orphans.len() + tally.strays.len() + n_terminating;
    let room = wanted.saturating_sub(n_there);
    if room == 0 { Scale::default() } else { start(spec, tally, room, now) }
}

/// Of those that have lost their owner, the ones that are in the attempt that their index is in.
fn n_orphans_that_go_on(spec: &Spec, tally: &Tally<'_>) -> usize {
    let has_index = |index| spec.index_limit().is_none_or(|end| index < end);
    let goes_on = |id: AttemptId| has_index(id.index) && !tally.ledger.is_passed(id.index, id.attempt);
    tally.orphans.iter().filter(|orphan| goes_on(orphan.id)).count()
}

fn n_wanted(spec: &Spec, tally: &Tally<'_>, n_current: usize) -> usize {
    let n_done = tally.ledger.completed.len();
    match spec.completions {
        _ if spec.is_suspended => 0,
        Completions::Fixed(completions) => (completions as usize).saturating_sub(n_done).min(spec.parallelism as usize),
        // Once a worker has said that the work is done no worker is started, and none is stopped before its end.
        Completions::WorkQueue if n_done > 0 => n_current,
        Completions::WorkQueue => spec.parallelism as usize,
    }
}

fn start<'a>(spec: &Spec, tally: &Tally<'a>, room: usize, now: Timestamp) -> Scale<'a> {
    let n_indexes = spec.n_indexes();
    let is_ledger_full = tally.ledger.open.n_entries(n_indexes) >= MAX_OPEN_ENTRIES;
    let mut scale = Scale { is_ledger_full, ..Scale::default() };
    let candidates: &mut dyn Iterator<Item = u32> = match is_ledger_full {
        true => &mut tally.ledger.open.indexes().filter(|&index| index < n_indexes),
        false => &mut tally.ledger.missing(n_indexes),
    };
    for id in pending(spec, tally, candidates) {
        match retry::not_before(tally.ledger.open.get(id.index)) {
            Some(at) if at > now => {
                if scale.next_retry.is_none_or(|(_, soonest)| at < soonest) {
                    scale.next_retry = Some((id, at));
                }
            }
            _ if scale.start.len() == MAX_PER_PASS => {
                scale.is_cut = true;
                break;
            }
            _ => scale.start.push(tally.ledger.start(id)),
        }
        if scale.start.len() == room {
            // No room is left for the one that waits, either.
            scale.next_retry = None;
            break;
        }
    }
    scale
}

/// Those of `candidates` that are not under way, with the attempt that comes next. An index whose stray still lives is
/// under way: two pods of one index at once might both succeed.
fn pending<'b>(
    spec: &Spec,
    tally: &'b Tally<'_>,
    candidates: impl Iterator<Item = u32> + 'b,
) -> impl Iterator<Item = AttemptId> + 'b {
    let ending: &[Attempt<'_>] = if spec.replaces_only_ended { &tally.terminating } else { &[] };
    let attempts = tally.current.iter().chain(&tally.strays).chain(&tally.orphans).chain(ending);
    let mut under_way: Vec<u32> = attempts.map(|attempt| attempt.id.index).collect();
    under_way.extend(&tally.dying_orphans);
    under_way.sort_unstable();
    candidates
        .filter(move |index| under_way.binary_search(index).is_err())
        .map(|index| AttemptId { index, attempt: tally.ledger.next_attempt(index) })
}

/// The pods that have got least far go first, in the order of Kubernetes' `ActivePods`: those without a node, pending
/// ones, unready ones, those ready for less time, those with more restarts, the newest ones. Among equals the highest
/// index goes, so that the work stays in front.
fn stop<'a>(tally: &Tally<'a>, n: usize) -> Scale<'a> {
    let mut ranked = tally.current.clone();
    ranked.sort_by_cached_key(|attempt| {
        let pod = attempt.pod;
        let ready_since = pod.ready.filter(|ready| ready.is_true).and_then(|ready| ready.since);
        let restarts = pod.containers.iter().map(|container| container.restarts).fold(0, u32::saturating_add);
        (
            pod.node.is_some(),
            pod.phase == PodPhase::Running,
            attempt.is_ready(),
            std::cmp::Reverse(ready_since),
            std::cmp::Reverse(restarts),
            std::cmp::Reverse(pod.created),
            std::cmp::Reverse(attempt.id.index),
        )
    });
    let is_cut = n > MAX_PER_PASS;
    ranked.truncate(n.min(MAX_PER_PASS));
    // Back in the order of the indexes, in which people read and the status looks them up.
    ranked.sort_by_key(|attempt| attempt.id);
    Scale { stop: ranked, is_cut, ..Scale::default() }
}

#[cfg(test)]
mod tests {
    use batchjob_crd::CompletionMode;

    use super::*;

    fn spec(completions: u32, parallelism: u32) -> Spec {
        Spec {
            parallelism,
            completions: Completions::Fixed(completions),
            mode: CompletionMode::Indexed,
            backoff_limit: u32::MAX,
            backoff_limit_per_index: None,
            max_failed_indexes: None,
            failure_policy: None,
            success_policy: None,
            replaces_only_ended: false,
            active_deadline: None,
            ttl: None,
            is_suspended: false,
            restarts_in_place: false,
        }
    }

    #[test]
    fn a_pass_starts_so_many_and_says_that_there_are_more() {
        let scale = scale(&spec(MAX_PER_PASS as u32 + 1, 1_000_000), &Tally::default(), Timestamp::UNIX_EPOCH);
        assert_eq!((scale.start.len(), scale.is_cut), (500, true));
    }

    /// As many scattered failures as the ledger holds, all waiting: no index is started that has not been.
    #[test]
    fn a_full_ledger_starts_only_what_is_open() {
        let mut tally = Tally::default();
        let failed_at = Timestamp::UNIX_EPOCH;
        for n in 0..MAX_OPEN_ENTRIES as u32 {
            tally.ledger.fail(2 * n, 1, failed_at);
        }
        let spec = spec(2_000_000_000, 1_000_000);
        let waiting = scale(&spec, &tally, failed_at);
        assert_eq!((waiting.start.len(), waiting.is_ledger_full), (0, true));
        let due = scale(&spec, &tally, failed_at + retry::delay(1));
        assert!(due.start.iter().all(|start| start.id.attempt == 2) && due.start.len() == MAX_PER_PASS, "{due:?}");

        tally.ledger.complete(0);
        let one = scale(&spec, &tally, failed_at).start.first().map(|start| start.id);
        assert_eq!(one, Some(AttemptId { index: 1, attempt: 1 }), "one has closed");
    }
}
