//! Is each attempt counted once, as what it came to?
//!
//! A status is judged by the attempts that it passes: those that the ledger before it had not passed, and this one has. Each
//! has a pod whose history is known, so what it adds to `failed` is known too:
//!
//! | the pod, when the status is written | adds |
//! |---|---|
//! | has failed | 1, or 0 where a rule of podFailurePolicy ignores it |
//! | is being deleted and has not ended | 1; with podReplacementPolicy Failed it is not to be passed before it ends |
//! | has succeeded | 0, and its index is completed |
//! | lives | 0, and it is passed only if fewer pods are wanted, or its index is closed |
//!
//! A status is decided on pods as they were a moment before, and a pod only ever goes on: so what is known when the status is
//! written is what it was decided on, or came later. That matters where attempts are passed although they live (the job
//! is suspended, or parallelism was made smaller, or enough has succeeded): such a one may have ended meanwhile, and
//! may be counted or not. In every other case the number is exact.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use batchjob_crd::condition;
use batchjob_decide::job::ledger::Ledger;
use batchjob_decide::plan::AttemptId;

use crate::law::Law;
use crate::object::{FailureAction, Job, Phase};
use crate::state::{JobState, Moment, PodState};

pub(crate) fn count(state: &mut JobState, new: &Job, ledger: &Ledger, moment: &mut Moment<'_>) {
    let is_over = new.standing.is_finished();
    let passed: Vec<AttemptId> = match state.finished_at {
        Some(_) => Vec::new(),
        None => state.unpassed.keys().filter(|id| is_over || ledger.is_passed(id.index, id.attempt)).copied().collect(),
    };
    if !moment.promises.tampering {
        let mut judge = Judge::new(state, new, ledger, &passed);
        let is_decided = is_over || new.verdict.is_some();
        judge.may_stop |= moment.promises.rivals || (moment.promises.unseen_pods && is_decided);
        let broken = judge.all();
        for (law, what) in broken {
            moment.broken(law, state.place(), what);
        }
    }
    for id in passed {
        let Some(uid) = state.unpassed.remove(&id) else { continue };
        let Some(known) = state.pods.get_mut(&uid) else { continue };
        known.is_passed = true;
        if known.pod.phase == Phase::Succeeded && known.pod.meta.deletion.is_some() {
            // Stopped, and deleted by somebody: nobody can tell any more what came first. See Law::I2.
            state.done.remove(id.index);
        }
        if known.is_gone {
            state.pods.remove(&uid);
        }
    }
    state.successes.retain(|id, _| !ledger.completed.contains(id.index));
}

struct Judge<'a> {
    state: &'a JobState,
    new: &'a Job,
    ledger: &'a Ledger,
    passed: &'a [AttemptId],
    /// Attempts may be passed although they live.
    may_stop: bool,
    /// An earlier status has said that the job fails: from then on all that ends has failed.
    was_failing: bool,
    broken: Vec<(Law, String)>,
}

impl<'a> Judge<'a> {
    fn new(state: &'a JobState, new: &'a Job, ledger: &'a Ledger, passed: &'a [AttemptId]) -> Judge<'a> {
        let spec = &state.job.spec;
        let is_failing = |job: &Job| job.standing.is(condition::FAILURE_TARGET);
        let was_failing = is_failing(&state.job);
        let has_ignores = spec.failure_rules.iter().any(|rule| rule.action == FailureAction::Ignore);
        // The pods that are ignored are spared as soon as it is decided that the job fails.
        let spares_ignored = has_ignores && is_failing(new) && !was_failing;
        let may_stop = spec.is_suspended
            || spec.parallelism < state.most_parallelism
            || state.has_surplus
            || new.standing.is(condition::SUCCESS_CRITERIA_MET)
            || spares_ignored;
        Judge { state, new, ledger, passed, may_stop, was_failing, broken: Vec::new() }
    }

    fn all(mut self) -> Vec<(Law, String)> {
        self.of_successes();
        self.of_failures();
        self.of_indexes();
        self.broken
    }

    fn break_(&mut self, what: String) {
        self.broken.push((Law::I3, what));
    }

    fn end(&self) -> Option<u32> {
        self.state.job.spec.index_limit()
    }

    fn pod(&self, id: AttemptId) -> Option<&'a PodState> {
        self.state.pods.get(self.state.unpassed.get(&id)?)
    }

    fn of_successes(&mut self) {
        let (before, after) = (&self.state.ledger.completed, &self.ledger.completed);
        let kept = self.end().map_or_else(|| before.clone(), |end| before.below(end));
        if after.n_common(&kept) != kept.len() {
            self.break_(format!("completedIndexes go from {before} to {after}: successes are lost"));
        }
        let n_new = after.len() - after.n_common(before);
        let done: BTreeSet<u32> = self.state.successes.keys().map(|id| id.index).collect();
        let n_done = done.iter().filter(|&&index| after.contains(index) && !before.contains(index)).count();
        if n_new > n_done {
            self.break_(format!("completedIndexes go from {before} to {after}, and pods have succeeded of {done:?}"));
        }
        let (succeeded, n) = (self.new.standing.succeeded, after.len());
        let is_equal = usize::try_from(succeeded).is_ok_and(|succeeded| succeeded == n);
        // The API server lets the count of a Job fall only in some cases: see `managed::keep`.
        let is_kept = self.new.door == batchjob_decide::observed::Door::ManagedJob
            && self.new.spec.is_indexed
            && usize::try_from(succeeded).is_ok_and(|succeeded| succeeded >= n);
        if !is_equal && !is_kept {
            self.break_(format!("succeeded is {succeeded}, and {n} indexes are completed: {after}"));
        }
    }

    fn of_failures(&mut self) {
        let (mut least, mut most, mut words) = (0_u32, 0_u32, Vec::new());
        for &id in self.passed {
            let Some(adds) = self.adds(id) else { continue };
            words.push(format!("{id} {}", self.pod(id).map_or("has no pod", describe)));
            least += adds.start();
            most += adds.end();
        }
        let (before, after) = (self.state.ledger.failed, self.ledger.failed);
        let rise = i64::from(after) - i64::from(before);
        if rise < i64::from(least) || rise > i64::from(most) {
            let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
            let words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
            self.break_(format!(
                "failed goes from {before} to {after}, by {rise} instead of {expected}; passed: {words}"
            ));
        }
    }

    /// How many failures the attempt may add. None: nothing is to be said about it.
    fn adds(&mut self, id: AttemptId) -> Option<RangeInclusive<u32>> {
        if self.end().is_some_and(|end| id.index >= end) {
            return None;
        }
        let known = self.pod(id)?;
        let is_completed = self.ledger.completed.contains(id.index);
        let first_of_index = AttemptId { attempt: 0, ..id };
        // By an attempt before it: it was passed without being asked.
        let is_closed_before = (is_completed && self.state.successes.range(first_of_index..id).next().is_some())
            || (self.ledger.failed_indexes.contains(id.index)
                && self.passed.iter().any(|it| *it >= first_of_index && *it < id));
        // Its end is waited for before anything is said about it.
        let is_waited_for = self.state.job.spec.replaces_only_ended && known.pod.has_node && !self.was_failing;
        let (adds, is_to_be_passed) = match known.pod.phase {
            Phase::Succeeded => {
                let may_have_failed = known.is_told && !is_waited_for;
                if !is_completed && !may_have_failed && !self.may_stop {
                    self.break_(format!("{id} has succeeded, and is passed without that being counted"));
                }
                (if may_have_failed { u32::from(!is_completed)..=1 } else { 0..=0 }, true)
            }
            Phase::Failed => (self.failure(known), true),
            _ if known.pod.meta.deletion.is_none() => (0..=0, false),
            _ if is_waited_for => (0..=0, false),
            _ => (self.failure(known), true),
        };
        if !is_to_be_passed && !is_closed_before && !self.may_stop && !known.is_late {
            self.break_(format!("{id} {}, and is passed", describe(known)));
        }
        let is_free = self.may_stop || is_closed_before;
        Some(if is_free { 0..=*adds.end() } else { adds })
    }

    fn failure(&self, known: &PodState) -> RangeInclusive<u32> {
        let spec = &self.state.job.spec;
        if self.was_failing || spec.failure_rules.is_empty() {
            return 1..=1;
        }
        // What it says of its end, and which conditions it has, may have come after it was judged.
        if known.pod.phase != Phase::Failed || (known.is_told && !known.pod.has_node) {
            return 0..=1;
        }
        let n = u32::from(spec.judge(&known.pod) != Some(FailureAction::Ignore));
        n..=n
    }

    /// What is said of single indexes.
    fn of_indexes(&mut self) {
        let spec = self.state.job.spec.clone();
        let before = &self.state.ledger;
        let mut gave_up = BTreeSet::new();
        for &id in self.passed {
            let Some(known) = self.pod(id) else { continue };
            let was = before.open.get(id.index);
            let n_before = was.map_or(0, |open| open.failures);
            let n_passed = self.passed.iter().filter(|other| other.index == id.index).count();
            if self.ledger.failed_indexes.contains(id.index) && !before.failed_indexes.contains(id.index) {
                gave_up.insert(id.index);
                let rule = spec.judge(&known.pod) == Some(FailureAction::FailIndex);
                let is_last = spec.backoff_limit_per_index.is_some_and(|limit| n_before + n_passed as u32 > limit);
                if !rule && !is_last {
                    self.break_(format!("index {} is given up after {} failures", id.index, n_before + 1));
                }
            }
            let Some(open) = self.ledger.open.get(id.index) else { continue };
            if self.ledger.is_closed(id.index) {
                continue;
            }
            if let Some(limit) = spec.backoff_limit_per_index
                && open.failures > limit
                && !self.was_failing
            {
                self.break_(format!("index {} goes on after {} failures", id.index, open.failures));
            }
            let is_exact =
                !self.may_stop && !self.was_failing && n_passed == 1 && self.end().is_none_or(|end| id.index < end);
            if is_exact && known.pod.phase == Phase::Failed && !known.is_told {
                let n = *self.failure(known).end();
                let ignored = was.map_or(0, |open| open.ignored) + (1 - n);
                if (open.failures, open.ignored) != (n_before + n, ignored) {
                    let words =
                        format!("{}+{} failures instead of {}+{ignored}", open.failures, open.ignored, n_before + n);
                    self.break_(format!("after {id} its index has {words}"));
                }
            }
        }
        let (before, after) = (&before.failed_indexes, &self.ledger.failed_indexes);
        let n_new = after.len() - after.n_common(before);
        if n_new > gave_up.len() {
            self.break_(format!("failedIndexes go from {before} to {after}, and attempts have failed of {gave_up:?}"));
        }
    }
}

fn describe(known: &PodState) -> &'static str {
    match known.pod.phase {
        Phase::Succeeded if known.is_told => "has succeeded after it was told to go",
        Phase::Succeeded => "has succeeded",
        Phase::Failed => "has failed",
        _ if known.pod.meta.deletion.is_some() => "is being deleted",
        _ => "lives",
    }
}
