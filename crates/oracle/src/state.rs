//! What the oracle remembers of one job and its pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use batchjob_decide::job::indexes::IndexSet;
use batchjob_decide::job::ledger::{Ledger, OpenIndexes};
use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed;
use batchjob_decide::plan::AttemptId;
use jiff::{SignedDuration, Timestamp};

use crate::law::{Law, Violation};
use crate::object::{Job, Phase, Pod, Spec};
use crate::promises::{Controller, Promises};

/// One job, and all that its pods have come to.
pub(crate) struct JobState {
    pub job: Job,
    pub names: PodNames,
    /// What the job's status says is counted.
    pub ledger: Ledger,
    pub gone_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How many indexes it had then.
    pub finished_limit: Option<u32>,
    pub edited_at: Timestamp,
    pub allowed: Allowed,
    /// The most that parallelism has ever been.
    pub most_parallelism: u32,
    /// There were more pods than parallelism, and not because it was made smaller.
    pub has_surplus: bool,
    pub pods: HashMap<Arc<str>, PodState>,
    /// Every attempt that ever had a pod.
    pub attempts: HashMap<AttemptId, Arc<str>>,
    /// Those that the ledger has not passed.
    pub unpassed: BTreeMap<AttemptId, Arc<str>>,
    /// Index and uid of the pods that have not ended, of those that have an index.
    pub unended: BTreeSet<(u32, Arc<str>)>,
    pub n_living: usize,
    pub n_terminating: usize,
    /// The indexes that a pod has done which nobody had told to go.
    pub done: IndexSet,
    /// Successes that no status has counted yet.
    pub successes: BTreeMap<AttemptId, Arc<str>>,
    /// Of Kubernetes' own controller: the pods that were ever in `status.uncountedTerminatedPods`, and whether as failed.
    pub listed: HashMap<Arc<str>, bool>,
    /// Of Kubernetes' own controller: when pods ended, and whether they failed.
    pub ends: Vec<(Timestamp, bool)>,
    pub written: Written,
}

/// What was written about one job, for laws about how much that is.
#[derive(Default)]
pub(crate) struct Written {
    pub n_pods: usize,
    pub n_retries: usize,
    pub n_edits: usize,
    pub n_statuses: usize,
    /// Since a pod or the spec has changed.
    pub n_idle: usize,
    pub idle_since: Option<Timestamp>,
    pub n_told: usize,
    pub told_since: Option<Timestamp>,
    /// The last write of the job's controller, in words.
    pub last: Option<(Timestamp, u64, &'static str)>,
}

/// One pod.
pub(crate) struct PodState {
    pub pod: Pod,
    /// None: it has no name that we give.
    pub id: Option<AttemptId>,
    pub index: Option<u32>,
    /// It was told to go before it ended.
    pub is_told: bool,
    /// By the earliest that it has ever said.
    pub failed_at: Option<Timestamp>,
    /// The ledger has passed its attempt.
    pub is_passed: bool,
    /// It should not be: a create that took effect late.
    pub is_late: bool,
    pub is_gone: bool,
}

impl PodState {
    pub fn place(&self) -> String {
        format!("pod {}", self.pod.meta.place())
    }

    /// Its failure is there to be counted: it has failed, or was told to go.
    pub fn has_failed(&self) -> bool {
        self.pod.phase == Phase::Failed || self.pod.is_terminating()
    }
}

/// What of a spec allows creates, over all the specs that the operator may still have before it.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub since: Timestamp,
    pub parallelism: u32,
    /// Indexes from here on may be none any more.
    pub least_completions: Option<u32>,
    /// None of the specs is suspended.
    pub is_running: bool,
    pub is_suspended: bool,
    /// All of them wait for the end of a pod that is being deleted.
    pub replaces_only_ended: bool,
    pub is_deleted: bool,
}

impl Allowed {
    pub fn by(job: &Job, at: Timestamp) -> Allowed {
        let Spec { parallelism, is_suspended, replaces_only_ended, .. } = job.spec;
        Allowed {
            since: at,
            parallelism,
            least_completions: job.spec.index_limit(),
            is_running: !is_suspended,
            is_suspended,
            replaces_only_ended,
            is_deleted: job.meta.deletion.is_some(),
        }
    }

    /// After an edit that may not have been seen.
    pub fn or(self, other: Allowed) -> Allowed {
        Allowed {
            since: other.since,
            parallelism: self.parallelism.max(other.parallelism),
            least_completions: self.least_completions.min(other.least_completions),
            is_running: self.is_running && other.is_running,
            is_suspended: self.is_suspended && other.is_suspended,
            replaces_only_ended: self.replaces_only_ended && other.replaces_only_ended,
            is_deleted: self.is_deleted && other.is_deleted,
        }
    }
}

/// What one event is judged by, and where violations go.
pub(crate) struct Moment<'a> {
    pub promises: &'a Promises,
    pub revision: u64,
    pub at: Timestamp,
    pub writer: Option<&'a Arc<str>>,
    pub violations: &'a mut Vec<Violation>,
}

impl Moment<'_> {
    pub fn broken(&mut self, law: Law, object: String, what: impl Into<String>) {
        self.violations.push(Violation { law, object, revision: self.revision, what: what.into() });
    }

    /// Somebody else may have written this.
    pub fn may_be_tampering(&self) -> bool {
        self.promises.tampering && !self.is_ours()
    }

    /// It is known to be written by the operator.
    pub fn is_ours(&self) -> bool {
        let leadership = self.promises.leadership.as_ref();
        leadership.is_some_and(|leadership| self.writer.is_some_and(|writer| leadership.instances.contains(writer)))
    }

    pub fn is_of_kubernetes(&self) -> bool {
        self.promises.controller == Controller::Kubernetes
    }
}

impl JobState {
    pub fn new(job: Job, at: Timestamp) -> JobState {
        let names = PodNames::of(&observed::Job {
            name: job.meta.name.to_string(),
            uid: job.meta.uid.to_string(),
            ..observed::Job::default()
        });
        JobState {
            ledger: ledger(&job),
            names,
            gone_at: None,
            finished_at: job.standing.is_finished().then_some(at),
            finished_limit: if job.standing.is_finished() { job.spec.index_limit() } else { None },
            edited_at: at,
            allowed: Allowed::by(&job, at),
            most_parallelism: job.spec.parallelism,
            has_surplus: false,
            pods: HashMap::new(),
            attempts: HashMap::new(),
            unpassed: BTreeMap::new(),
            unended: BTreeSet::new(),
            n_living: 0,
            n_terminating: 0,
            done: IndexSet::default(),
            successes: BTreeMap::new(),
            listed: HashMap::new(),
            ends: Vec::new(),
            written: Written::default(),
            job,
        }
    }

    pub fn place(&self) -> String {
        let kind = match self.job.door {
            observed::Door::BatchJob => "batchjob",
            observed::Door::ManagedJob => "job",
        };
        format!("{kind} {}", self.job.meta.place())
    }

    /// Whether its controller has said, or is to know, that nothing of it goes on.
    pub fn is_let_go(&self) -> bool {
        self.gone_at.is_some() || self.job.meta.deletion.is_some()
    }

    /// Pods that the job has now: those that have gone are only remembered.
    pub fn present(&self) -> impl Iterator<Item = &PodState> {
        self.pods.values().filter(|state| !state.is_gone)
    }

    pub fn wrote(&mut self, moment: &Moment<'_>, what: &'static str) {
        self.written.last = Some((moment.at, moment.revision, what));
    }

    /// What the next attempt of its index has to wait for after so many failures.
    pub fn delay(n_failures: u32) -> SignedDuration {
        const FIRST_SECONDS: i64 = 10;
        const MAX_SECONDS: i64 = 600;
        match n_failures {
            0 => SignedDuration::ZERO,
            n => SignedDuration::from_secs((FIRST_SECONDS << (n - 1).min(6)).min(MAX_SECONDS)),
        }
    }
}

pub(crate) fn ledger(job: &Job) -> Ledger {
    Ledger {
        completed: IndexSet::parse(&job.ledger.completed),
        failed_indexes: IndexSet::parse(&job.ledger.failed),
        failed: u32::try_from(job.standing.failed).unwrap_or_default(),
        open: OpenIndexes::parse(&job.ledger.open),
    }
}
