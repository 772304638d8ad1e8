//! Reads the pods into the ledger: what has ended is counted, what lives is listed, what is passed is let go.
//!
//! A pod is judged by where the ledger stands for its index:
//!
//! | the pod's attempt | lives | terminating | succeeded | failed |
//! |---|---|---|---|---|
//! | is the next one of its index | current | a failure, as Job has it | completes the index | a failure |
//! | is passed, or its index is done | a stray: deleted, never counted | nothing | completes the index, if it was not told to go | nothing |
//!
//! A success is honoured even from an attempt that was passed: it can only have ended before our delete reached it,
//! and completing an index twice is completing it once. A pod is released when its end is in the ledger and nothing
//! more can be learnt from it.

use std::sync::Arc;

use jiff::Timestamp;

use super::attempt::{Attempt, Stage};
use super::ledger::Ledger;
use super::name::PodNames;
use crate::observed::{Job, Pod};
use crate::plan::PodRef;

/// The ledger as it is after all that the pods tell, and the pods sorted by what is to happen to them.
#[derive(Debug, Default)]
pub struct Tally<'a> {
    pub ledger: Ledger,
    /// The attempt that each index is in, in the order of the indexes.
    pub current: Vec<Attempt<'a>>,
    /// Living pods whose attempt the ledger has passed.
    pub strays: Vec<Attempt<'a>>,
    pub n_terminating: usize,
    /// The attempts that this pass counts.
    pub succeeded: Vec<Attempt<'a>>,
    pub failed: Vec<Attempt<'a>>,
    /// May be released as soon as this ledger is written.
    pub releasable: Vec<PodRef>,
}

pub fn tally<'a>(job: &Job, pods: &'a [Arc<Pod>], names: &PodNames, now: Timestamp) -> Tally<'a> {
    let mut attempts: Vec<Attempt<'a>> = Vec::with_capacity(pods.len());
    let mut strangers: Vec<&Pod> = Vec::new();
    for pod in pods {
        match Attempt::read(pod, names) {
            Some(attempt) => attempts.push(attempt),
            None => strangers.push(pod),
        }
    }
    // By index, then by number: an index that somehow has two attempts is read in the order in which they were made.
    attempts.sort_by_key(|attempt| attempt.id);

    let mut tally = Tally { ledger: Ledger::read(&job.status), ..Tally::default() };
    for attempt in attempts {
        tally.read(attempt, now);
    }
    // Strays are known only now: an attempt is passed by a later one, and by a success of its index.
    let ledger = &tally.ledger;
    let (current, passed) = tally.current.into_iter().partition(|attempt| !is_passed(ledger, attempt));
    tally.current = current;
    tally.strays.extend::<Vec<_>>(passed);
    // A pod that says it is ours but has a name that we do not give is nothing to count, and nothing to hold.
    tally.releasable.extend(strangers.into_iter().filter(|pod| pod.is_held).map(PodRef::from));
    tally
}

fn is_passed(ledger: &Ledger, attempt: &Attempt<'_>) -> bool {
    ledger.completed.contains(attempt.id.index) || attempt.id.attempt < ledger.next_attempt(attempt.id.index)
}

impl<'a> Tally<'a> {
    fn read(&mut self, attempt: Attempt<'a>, now: Timestamp) {
        let stage = attempt.stage();
        if stage == Stage::Terminating {
            self.n_terminating += 1;
        }
        if is_passed(&self.ledger, &attempt) {
            self.read_passed(attempt, stage);
        } else {
            self.read_next(attempt, stage, now);
        }
        if attempt.pod.is_held && !attempt.may_still_tell() {
            self.releasable.push(attempt.pod.into());
        }
    }

    fn read_passed(&mut self, attempt: Attempt<'a>, stage: Stage) {
        if stage == Stage::Living {
            self.strays.push(attempt);
        } else if attempt.succeeded_before_its_deletion() && !self.ledger.completed.contains(attempt.id.index) {
            self.ledger.complete(attempt.id.index);
            self.succeeded.push(attempt);
        }
    }

    fn read_next(&mut self, attempt: Attempt<'a>, stage: Stage, now: Timestamp) {
        let id = attempt.id;
        match stage {
            Stage::Living => {
                // An earlier one of the same index lives too: the ledger was lost. The later one goes on.
                if let Some(earlier) = self.current.pop_if(|earlier| earlier.id.index == id.index) {
                    self.strays.push(earlier);
                }
                self.current.push(attempt);
            }
            Stage::Succeeded => {
                self.ledger.complete(id.index);
                self.succeeded.push(attempt);
            }
            Stage::Terminating | Stage::Failed => {
                // A node whose clock is ahead must not make the index wait for longer than its delay.
                let ended_at = attempt.ended_at().unwrap_or(now).min(now);
                self.ledger.fail(id.index, id.attempt, ended_at);
                self.failed.push(attempt);
            }
        }
    }
}
