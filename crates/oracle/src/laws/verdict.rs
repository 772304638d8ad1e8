//! May the job end, for the reason that is written? And does it end when it must?

use batchjob_crd::reason;
use batchjob_decide::job::ledger::Ledger;

use crate::law::Law;
use crate::object::{FailureAction, Job, Spec};
use crate::state::{JobState, Moment};

pub(crate) fn judge(state: &JobState, new: &Job, ledger: &Ledger, moment: &mut Moment<'_>) {
    if moment.may_be_tampering() || state.finished_at.is_some() {
        return;
    }
    let evidence = Evidence { state, new, ledger, is_of_kubernetes: moment.is_of_kubernetes() };
    let broken = match (&state.job.verdict, &new.verdict) {
        (None, Some(verdict)) => {
            let cause = evidence.cause(&verdict.reason, moment);
            cause.map(|missing| format!("it ends for {}, and {missing}", verdict.reason))
        }
        // Nothing more is said about the end of a job that is being deleted.
        (None, None) if state.is_let_go() || &*new.reason == reason::INVALID_SPEC => None,
        (None, None) => evidence.due().map(|due| format!("it goes on, and {due}")),
        (Some(before), after) => (after.as_ref() != Some(before))
            .then(|| format!("it was to end for {}, and that has changed to {after:?}", before.reason)),
    };
    if let Some(what) = broken {
        moment.broken(Law::I7, state.place(), what);
    }
}

struct Evidence<'a> {
    state: &'a JobState,
    new: &'a Job,
    ledger: &'a Ledger,
    is_of_kubernetes: bool,
}

impl Evidence<'_> {
    /// The spec that the status was decided on.
    fn spec(&self) -> &Spec {
        &self.state.job.spec
    }

    /// What is missing for an end with that reason; None: nothing.
    fn cause(&self, why: &str, moment: &Moment<'_>) -> Option<String> {
        let (spec, ledger) = (self.spec(), self.ledger);
        let n_done = self.n_done();
        let unless = |holds: bool, missing: String| (!holds).then_some(missing);
        match why {
            reason::COMPLETIONS_REACHED => {
                let is_reached = spec.completions.map_or(n_done > 0, |completions| n_done >= completions as usize);
                unless(is_reached, format!("{n_done} of {:?} are done", spec.completions))
            }
            reason::SUCCESS_POLICY => {
                let completed = &ledger.completed;
                unless(spec.are_enough(completed), format!("no rule is met by {completed}"))
            }
            // Restarts within pods count too, and come and go with them.
            reason::BACKOFF_LIMIT_EXCEEDED if spec.restarts_in_place => None,
            reason::BACKOFF_LIMIT_EXCEEDED => {
                let n_failed = self.n_failed();
                let is_exceeded = spec.backoff_limit.is_some_and(|limit| n_failed > limit);
                unless(is_exceeded, format!("{n_failed} have failed of {:?} that may", spec.backoff_limit))
            }
            reason::MAX_FAILED_INDEXES_EXCEEDED => {
                let (failed, max) = (&ledger.failed_indexes, spec.max_failed_indexes);
                let is_exceeded = max.is_some_and(|max| failed.len() > max as usize);
                unless(is_exceeded, format!("indexes {failed} have failed, and {max:?} may"))
            }
            reason::FAILED_INDEXES => unless(
                self.has_failed_indexes(),
                format!("done are {} and failed {}", ledger.completed, ledger.failed_indexes),
            ),
            reason::DEADLINE_EXCEEDED => {
                let skew = moment.promises.clock_skew?;
                let deadline = Job { spec: spec.clone(), ..self.new.clone() }.deadline();
                let is_past = deadline.is_some_and(|deadline| deadline.duration_since(moment.at) <= skew);
                unless(is_past, format!("its deadline is {deadline:?}, and it is {}", moment.at))
            }
            reason::POD_FAILURE_POLICY => {
                let fails = |known: &crate::state::PodState| {
                    known.has_failed() && spec.judge(&known.pod) == Some(FailureAction::FailJob)
                };
                unless(self.state.pods.values().any(fails), "no pod matches a rule that fails the job".to_owned())
            }
            other => Some(format!("{other:?} is no reason to end")),
        }
    }

    /// For what it would have to end, and does not; None: nothing.
    fn due(&self) -> Option<String> {
        let (spec, ledger) = (self.spec(), self.ledger);
        let (failed, max) = (&ledger.failed_indexes, spec.max_failed_indexes);
        let n_failed = ledger.failed;
        if spec.backoff_limit.is_some_and(|limit| n_failed > limit) {
            return Some(format!("{n_failed} have failed of {:?} that may", spec.backoff_limit));
        }
        if max.is_some_and(|max| failed.len() > max as usize) {
            return Some(format!("indexes {failed} have failed, and {max:?} may"));
        }
        if self.has_failed_indexes() {
            return Some(format!("all its indexes are done or have failed: {failed}"));
        }
        spec.are_enough(&ledger.completed).then(|| format!("{} is enough", ledger.completed))
    }

    fn has_failed_indexes(&self) -> bool {
        let Ledger { completed, failed_indexes, .. } = self.ledger;
        let is_over =
            self.spec().index_limit().is_some_and(|end| completed.len() + failed_indexes.len() >= end as usize);
        is_over && !failed_indexes.is_empty()
    }

    fn n_done(&self) -> usize {
        if !self.is_of_kubernetes {
            return self.ledger.completed.len();
        }
        let n_succeeded = usize::try_from(self.new.standing.succeeded).unwrap_or_default();
        n_succeeded.max(self.ledger.completed.len()) + self.new.uncounted.succeeded.len()
    }

    /// Kubernetes' own controller says that a job fails before it has counted all that have failed.
    fn n_failed(&self) -> u32 {
        if !self.is_of_kubernetes {
            return self.ledger.failed;
        }
        let is_news = |known: &&crate::state::PodState| {
            known.has_failed() && !self.state.listed.contains_key(&known.pod.meta.uid)
        };
        let n_new = self.state.present().filter(is_news).count();
        self.ledger.failed + (self.new.uncounted.failed.len() + n_new) as u32
    }
}
