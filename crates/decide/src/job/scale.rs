//! How many pods more, and for which indexes; or which ones fewer.

use jiff::Timestamp;

use super::attempt::Attempt;
use super::ledger::Ledger;
use super::retry;
use super::spec::{Completions, Spec};
use super::tally::Tally;
use crate::observed::PodPhase;
use crate::plan::AttemptId;

/// How many pods one pass creates or stops at most, so that a huge job does not hold a worker for long
/// (`MaxPodCreateDeletePerSync` in batch/v1 Job).
pub const MAX_PER_PASS: usize = 500;

/// Above so many entries of indexes with failures, only those are worked on until some are done: it bounds the ledger,
/// and a job that fails in so many places has no use for more.
const MAX_OPEN_ENTRIES: usize = 2000;

/// What is to change in the number of pods.
#[derive(Debug, Default)]
pub struct Scale<'a> {
    pub start: Vec<AttemptId>,
    pub stop: Vec<Attempt<'a>>,
    /// There is room, and this index may start then: the first that waits for its retry.
    pub next_retry: Option<(AttemptId, Timestamp)>,
    /// More is to be done than one pass does.
    pub is_cut: bool,
}

pub fn scale<'a>(spec: &Spec, tally: &Tally<'a>, now: Timestamp) -> Scale<'a> {
    let n_current = tally.current.len();
    let wanted = n_wanted(spec, tally);
    if n_current > wanted {
        return stop(tally, n_current - wanted);
    }
    // A stray lives until its delete is done, and parallelism is a promise at every moment.
    let room = wanted.saturating_sub(n_current + tally.strays.len());
    if room == 0 { Scale::default() } else { start(spec, tally, room, now) }
}

fn n_wanted(spec: &Spec, tally: &Tally<'_>) -> usize {
    let n_done = tally.ledger.completed.len();
    match spec.completions {
        _ if spec.is_suspended => 0,
        Completions::Fixed(completions) => (completions as usize).saturating_sub(n_done).min(spec.parallelism as usize),
        // Once a worker has said that the work is done no worker is started, and none is stopped before its end.
        Completions::WorkQueue if n_done > 0 => tally.current.len(),
        Completions::WorkQueue => spec.parallelism as usize,
    }
}

fn start<'a>(spec: &Spec, tally: &Tally<'a>, room: usize, now: Timestamp) -> Scale<'a> {
    let mut scale = Scale::default();
    let n_indexes = match spec.completions {
        Completions::Fixed(completions) => completions,
        Completions::WorkQueue => spec.parallelism,
    };
    for id in pending(&tally.ledger, &tally.current, n_indexes) {
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
            _ => scale.start.push(id),
        }
        if scale.start.len() == room {
            // No room is left for the one that waits, either.
            scale.next_retry = None;
            break;
        }
    }
    scale
}

/// The indexes that are neither done nor under way, lowest first.
fn pending<'b>(
    ledger: &'b Ledger,
    current: &'b [Attempt<'_>],
    n_indexes: u32,
) -> impl Iterator<Item = AttemptId> + use<'b> {
    let only_open = ledger.open.n_entries() >= MAX_OPEN_ENTRIES;
    let mut current = current.iter().map(|attempt| attempt.id.index).peekable();
    (0..n_indexes).filter_map(move |index| {
        while current.next_if(|&under_way| under_way < index).is_some() {}
        let is_pending = current.peek() != Some(&index)
            && !ledger.completed.contains(index)
            && (!only_open || ledger.open.get(index).is_some());
        is_pending.then(|| AttemptId { index, attempt: ledger.next_attempt(index) })
    })
}

/// The pods that have got least far go first, in the order of Kubernetes' `ActivePods`: those without a node, pending
/// ones, unready ones, those ready for less time, those with more restarts, the newest ones. Among equals the highest
/// index goes, so that the work stays in front.
fn stop<'a>(tally: &Tally<'a>, n: usize) -> Scale<'a> {
    let mut ranked = tally.current.clone();
    ranked.sort_by_cached_key(|attempt| {
        let pod = attempt.pod;
        let ready_since = pod.ready.filter(|ready| ready.is_true).and_then(|ready| ready.since);
        let restarts: u32 = pod.containers.iter().map(|container| container.restarts).sum();
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
