//! The laws, each in one sentence.

use std::fmt;

/// A law that every history keeps.
///
/// The numbers are those of one catalogue. Some of it is no matter of a history, and asked elsewhere: I11 is for schedules;
/// I17 (no secret in a status, event, log or metric), I18 (no right that is missing or unused), I19 (no panic, no
/// unplanned exit) and I20 (no metric that grows with the jobs) are asked of the operator's process and of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// At most one pod object ever for each attempt of an index, and at most one of them alive for each index. With
    /// podReplacementPolicy Failed also one that is being deleted is alive.
    ///
    /// The pods of Kubernetes' own controller have no attempt, and none but those of Indexed jobs have an index: only the
    /// second half is asked of them.
    I1,
    /// An index that has succeeded never gets another pod, unless the job was made smaller and larger again.
    ///
    /// A pod that is deleted by others after its attempt was stopped (suspend, fewer wanted), and had just succeeded, is in doubt:
    /// the API server gives a pod that has ended no grace period, so the times no longer tell what came first. Its index
    /// may be done again.
    I2,
    /// Each attempt is counted once, as what it came to: what has failed or succeeded is not lost, nothing is counted that did
    /// not happen, and a pod is let go only when it is counted. An attempt is passed without being counted only if
    /// somebody wanted fewer pods.
    I3,
    /// Every status keeps the rules that the API server has for the status of a Job, and what is over stays as it is.
    I4,
    /// No pod is created while there are as many as parallelism allows.
    I5,
    /// No pod is created for a job that is over, suspended, being deleted or gone.
    I6,
    /// A job ends exactly when a limit is exceeded or enough is done, and no attempt starts before its delay is over.
    ///
    /// Kubernetes' own controller keeps the delay, where it is for the whole job, in its memory: after a restart pods start at
    /// once, which breaks this.
    I7,
    /// Every pod has exactly one controller, and it is the job whose name and label the pod has.
    I8,
    /// No pod is deleted that should live: its attempt is passed, or its job is over, being deleted or gone. Asked where nobody
    /// else deletes pods, or where the writers are known. (That a delete names the uid of what it deletes is asked of
    /// the request, not of the history.)
    ///
    /// Not asked of Kubernetes' own controller, which deletes the pods of a job that fails before it says that it fails.
    I9,
    /// No finalizer stays on a pod whose job is over or gone.
    I10,
    /// When nothing happens any more, all is as the specs say, the statuses say how it is, and nothing is written.
    I12,
    /// Everything that we write is written by the one who holds the Lease.
    I13,
    /// A job's status is written a few times for each of its pods, and not at all while nothing happens.
    I14,
    /// What a status holds has a bound.
    I15,
    /// About a job few events are told, and short ones.
    I16,
}

impl Law {
    pub const ALL: [Law; 15] = [
        Law::I1,
        Law::I2,
        Law::I3,
        Law::I4,
        Law::I5,
        Law::I6,
        Law::I7,
        Law::I8,
        Law::I9,
        Law::I10,
        Law::I12,
        Law::I13,
        Law::I14,
        Law::I15,
        Law::I16,
    ];

    /// In a few words.
    pub fn text(self) -> &'static str {
        match self {
            Law::I1 => "one pod for each attempt, one alive for each index",
            Law::I2 => "no pod for what is done",
            Law::I3 => "each attempt counted once, as what it came to",
            Law::I4 => "the rules for a status",
            Law::I5 => "no more pods than parallelism",
            Law::I6 => "no pod after the end, nor while suspended",
            Law::I7 => "limits, verdicts and delays as they are written",
            Law::I8 => "one owner, the right one",
            Law::I9 => "no pod deleted that should live",
            Law::I10 => "no finalizer left behind",
            Law::I12 => "at rest all is as the spec says",
            Law::I13 => "only the leader writes",
            Law::I14 => "few writes",
            Law::I15 => "no status that grows without bound",
            Law::I16 => "few events, short ones",
        }
    }
}

/// A law that was broken: by what, when and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub law: Law,
    /// "pod default/etl-0-1-x".
    pub object: String,
    pub revision: u64,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { law, object, revision, what } = self;
        write!(f, "{law:?} ({}): {object} at revision {revision}: {what}", law.text())
    }
}
