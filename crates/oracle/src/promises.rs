//! What a run allows, beside what is always allowed.

use std::sync::Arc;

use jiff::SignedDuration;

/// What a run allows. [`Promises::default`] is the strictest: one operator, whose requests all come to an answer, and users
/// who edit, suspend and delete jobs but leave pods and statuses alone.
#[derive(Clone, Debug)]
pub struct Promises {
    /// Whose jobs are judged; those of others are not looked at.
    pub controller: Controller,
    /// A create may take effect late: its answer was lost, or a leader that is one no more had sent it. Then a second pod of
    /// an attempt that is passed, or one more than parallelism allows or after the end, may appear; it is to be deleted
    /// and never counted.
    pub late_creates: bool,
    /// Two operators believe that they lead, each with a view of its own: for as long as the views differ they tell by turns
    /// how many pods are active and ready, and how much is written is not judged; and one may pass an attempt because it
    /// sees more pods than are wanted.
    pub rivals: bool,
    /// There may be pods that the operator does not see when it ends a job: a rival has made them, or a create that took effect
    /// only then, a list was older than what was written before it, or somebody has taken off the label that pods are
    /// watched by. What such a pod comes to is then not counted.
    pub unseen_pods: bool,
    /// So many statuses more may be written about a job, where it is refused, unanswered and refused again.
    pub spare_statuses: usize,
    /// Others delete pods, by force too: users, evictions, the garbage of a node that is gone.
    pub deletions: bool,
    /// Others take finalizers, labels and owners off pods, or write into statuses.
    pub tampering: bool,
    /// For how long something may be done as it was wanted before an edit that the operator has not seen yet. None: as long as
    /// the edit is not seen, which is what a run with stale views allows. It is seen with the next write of the
    /// status.
    pub in_flight: Option<SignedDuration>,
    /// When the last finalizer is to be off the pods of a job that is over or gone (I10). None: at the end of the run.
    pub finalizers_go_within: Option<SignedDuration>,
    /// How far clocks may be apart, for what is said about times. None: times are not judged.
    pub clock_skew: Option<SignedDuration>,
    /// When an attempt is to start at the latest after its delay, where nothing else holds it back. None: that is not judged.
    pub retries_start_within: Option<SignedDuration>,
    /// Who may write, where the writers are known (I13).
    pub leadership: Option<Leadership>,
}

impl Default for Promises {
    fn default() -> Promises {
        Promises {
            controller: Controller::Ours,
            late_creates: false,
            rivals: false,
            unseen_pods: false,
            spare_statuses: 0,
            deletions: false,
            tampering: false,
            in_flight: None,
            finalizers_go_within: None,
            clock_skew: Some(SignedDuration::from_secs(1)),
            retries_start_within: None,
            leadership: None,
        }
    }
}

/// Who runs the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// BatchJobs, and Jobs whose `spec.managedBy` is ours.
    Ours,
    /// Jobs that kube-controller-manager runs.
    Kubernetes,
}

/// Who may write, and how it is known who does.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// The Lease, as "namespace/name"; its holder is one of `instances`.
    pub lease: Arc<str>,
    /// Every [`Event::writer`](crate::Event) that is an operator.
    pub instances: Vec<Arc<str>>,
}
