//! Reads the pods into the ledger: what has ended is counted, what lives is listed, what is passed is let go.
//!
//! A pod is judged by where the ledger stands for its index:
//!
//! | the pod's attempt | lives | terminating | succeeded | failed |
//! |---|---|---|---|---|
//! | is the next one of its index | current | a failure, as Job has it | completes the index | a failure |
//! | is passed, or its index is closed | a stray: deleted, never counted | nothing | completes the index, if it was not told to go | nothing |
//! | is of an index that the job has no more (elastic) | a stray | nothing | nothing | nothing |
//!
//! A success is honoured even from an attempt that was passed: it can only have ended before our delete reached it,
//! and completing an index twice is completing it once. A pod is released when its end is in the ledger and nothing
//! more can be learnt from it.
//!
//! With podReplacementPolicy Failed a terminating pod is nothing yet: its index waits until it has ended. What a failure
//! means is for podFailurePolicy to say, until it is decided that the job fails: from then on all that ends has failed.

use jiff::Timestamp;

use super::attempt::{Attempt, Stage};
use super::failure_policy::{FailurePolicy, Match};
use super::ledger::Ledger;
use super::name::PodNames;
use super::spec::Spec;
use crate::observed::{Job, Observed};
use crate::plan::{AttemptId, PodRef, PolicyAction};

/// The ledger as it is after all that the pods tell, and the pods sorted by what is to happen to them.
#[derive(Debug, Default)]
pub struct Tally<'a> {
    pub ledger: Ledger,
    /// The attempt that each index is in, in the order of the indexes.
    pub current: Vec<Attempt<'a>>,
    /// Living pods whose attempt the ledger has passed.
    pub strays: Vec<Attempt<'a>>,
    /// All that are being deleted and have not ended, whatever their attempt.
    pub terminating: Vec<Attempt<'a>>,
    /// Those of them that are counted only when they have ended (podReplacementPolicy Failed).
    pub leaving: Vec<Attempt<'a>>,
    /// Pods that have lost their owner, and are taken back, whatever is to become of them.
    pub orphans: Vec<Attempt<'a>>,
    /// The indexes of those that are being deleted: nobody can take hold of them, and their names are taken until they are gone.
    pub dying_orphans: Vec<u32>,
    /// Pods whose labels no longer say that they are the job's.
    pub disowned: Vec<Attempt<'a>>,
    /// The attempts that this pass counts.
    pub succeeded: Vec<Attempt<'a>>,
    pub failed: Vec<Failure<'a>>,
    /// May be released as soon as this ledger is written.
    pub releasable: Vec<PodRef>,
}

/// An attempt that has failed, and the rule of podFailurePolicy that it matches.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    pub attempt: Attempt<'a>,
    pub rule: Option<Match>,
}

impl Failure<'_> {
    /// Whether it counts.
    pub fn counts(&self) -> bool {
        self.action() != Some(PolicyAction::Ignore)
    }

    pub fn action(&self) -> Option<PolicyAction> {
        self.rule.as_ref().map(|rule| rule.action)
    }
}

/// Without a spec, because it cannot be read or the job is over, no index and no failure is anything special.
pub fn tally<'a>(observed: &'a Observed, spec: Option<&Spec>, names: &PodNames) -> Tally<'a> {
    let job = &*observed.job;
    // Once it fails, its pods end because they are told to, and what that means is decided.
    let judging = spec.filter(|_| !super::is_failing(job));
    let rules = Rules {
        job,
        index_limit: spec.and_then(Spec::index_limit),
        policy: judging.and_then(|spec| spec.failure_policy.as_ref()),
        backoff_limit_per_index: judging.and_then(|spec| spec.backoff_limit_per_index),
        waits_for_ends: judging.is_some_and(|spec| spec.replaces_only_ended),
        now: observed.now,
    };
    let mut tally = Tally { ledger: Ledger::read(&job.status), ..Tally::default() };
    if let Some(end) = rules.index_limit {
        tally.ledger.forget_from(end);
    }

    let mut attempts: Vec<Attempt<'a>> = Vec::with_capacity(observed.pods.len());
    for pod in &observed.pods {
        match Attempt::read(pod, names) {
            Some(attempt) => attempts.push(attempt),
            // A pod that says it is ours but has a name that we do not give is nothing to count, and nothing to hold.
            None if pod.is_held => tally.releasable.push(PodRef::from(&**pod)),
            None => {}
        }
    }
    // By index, then by number: an index that somehow has two attempts is read in the order in which they were made.
    attempts.sort_by_key(|attempt| attempt.id);
    for attempt in attempts {
        tally.read(attempt, &rules);
    }
    for orphan in observed.orphans.iter().filter_map(|pod| Attempt::read(pod, names)) {
        match orphan.pod.deletion {
            None => tally.orphans.push(orphan),
            Some(_) => tally.dying_orphans.push(orphan.id.index),
        }
    }
    // Strays are known only now: an attempt is passed by a later one, and by a success of its index.
    let ledger = &tally.ledger;
    let is_current = |attempt: &Attempt<'_>| !ledger.is_passed(attempt.id.index, attempt.id.attempt);
    let (current, passed) = tally.current.into_iter().partition(is_current);
    tally.current = current;
    tally.strays.extend::<Vec<_>>(passed);
    tally
}

/// How pods are judged.
struct Rules<'a> {
    job: &'a Job,
    index_limit: Option<u32>,
    policy: Option<&'a FailurePolicy>,
    backoff_limit_per_index: Option<u32>,
    waits_for_ends: bool,
    now: Timestamp,
}

impl Rules<'_> {
    /// Whether its end is still to come, and to be waited for. Where no node has it, there is none.
    fn is_leaving(&self, attempt: &Attempt<'_>, stage: Stage) -> bool {
        self.waits_for_ends && stage == Stage::Terminating && attempt.pod.node.is_some()
    }
}

impl<'a> Tally<'a> {
    /// That attempt can have no pod.
    pub fn pass_missing(&mut self, id: AttemptId) {
        let is_there =
            [&self.current, &self.leaving, &self.orphans].into_iter().flatten().any(|attempt| attempt.id == id);
        if !is_there {
            self.ledger.stop(id.index, id.attempt);
        }
    }

    fn read(&mut self, attempt: Attempt<'a>, rules: &Rules<'_>) {
        let AttemptId { index, attempt: number } = attempt.id;
        if !attempt.pod.is_selected {
            self.ledger.stop(index, number);
            self.disowned.push(attempt);
            return;
        }
        let stage = attempt.stage();
        if stage == Stage::Terminating {
            self.terminating.push(attempt);
        }
        let mut may_still_tell = attempt.may_still_tell();
        if let Some(end) = rules.index_limit.filter(|&end| index >= end) {
            self.ledger.pass_beyond(end, number);
            if stage == Stage::Living {
                self.strays.push(attempt);
            }
        } else if self.ledger.is_passed(index, number) {
            self.read_passed(attempt, stage);
        } else if rules.is_leaving(&attempt, stage) {
            self.leaving.push(attempt);
            may_still_tell = true;
        } else {
            self.read_next(attempt, stage, rules);
        }
        if attempt.pod.is_held && !may_still_tell {
            self.releasable.push(attempt.pod.into());
        }
    }

    fn read_passed(&mut self, attempt: Attempt<'a>, stage: Stage) {
        // One that is not held was counted when it was let go: should its index be done anew, it is no news.
        let is_news = attempt.pod.is_held && !self.ledger.completed.contains(attempt.id.index);
        if stage == Stage::Living {
            self.strays.push(attempt);
        } else if is_news && attempt.succeeded_before_its_deletion() {
            self.ledger.complete(attempt.id.index);
            self.succeeded.push(attempt);
        }
    }

    fn read_next(&mut self, attempt: Attempt<'a>, stage: Stage, rules: &Rules<'_>) {
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
            // It was let go, so it was counted, before the ledger was lost. What its index has come to is learnt again.
            Stage::Failed if rules.job.has_lost_its_ledger && !attempt.pod.is_held => {
                let n_counted = self.ledger.failed;
                self.fail(attempt, rules);
                self.failed.pop();
                self.ledger.failed = n_counted;
            }
            Stage::Terminating | Stage::Failed => self.fail(attempt, rules),
        }
    }

    fn fail(&mut self, attempt: Attempt<'a>, rules: &Rules<'_>) {
        let AttemptId { index, attempt: number } = attempt.id;
        // A node whose clock is ahead must not make the index wait for longer than its delay.
        let ended_at = attempt.ended_at().unwrap_or(rules.now).min(rules.now);
        let rule = rules.policy.and_then(|policy| policy.judge(&rules.job.namespace, &attempt));
        let failure = Failure { attempt, rule };
        if failure.counts() {
            let n_failures = self.ledger.fail(index, number, ended_at);
            let is_last = rules.backoff_limit_per_index.is_some_and(|limit| n_failures > limit);
            if is_last || failure.action() == Some(PolicyAction::FailIndex) {
                self.ledger.give_up(index);
            }
        } else {
            self.ledger.ignore(index, number, ended_at);
        }
        self.failed.push(failure);
    }
}
