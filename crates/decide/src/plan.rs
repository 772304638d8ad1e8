//! What a decision says: a value that can be printed, compared and carried out.

use std::fmt;

use batchjob_crd::BatchJobStatus;
use jiff::Timestamp;

use crate::job::indexes::IndexSet;
use crate::observed::Pod;

/// Everything that should happen, and why. `act` carries it out and adds nothing.
///
/// The order of the actions is what makes a crash between any two of them harmless:
///
/// 1. creates and adoptions: they depend on nothing, and can be repeated;
/// 2. at most one status write, which is the ledger: it counts what has ended, moves past what is to be stopped, and
///    says how the job ends before anything is done about it;
/// 3. what that write makes safe: releases of the counted pods, giving up those that are no longer the job's, and
///    deletes of the stopped and the stray ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Look again then, even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Become events once the actions have succeeded.
    pub reasons: Vec<Reason>,
    /// For the metrics.
    pub counted: Counted,
    /// All that it writes is how many pods are active and ready just now. That may wait a moment for the next change of
    /// the same kind, so that a busy job does not write its status for every step of every pod.
    pub can_wait: bool,
}

impl Plan {
    /// Whether there is nothing to write. It may still be worth a look later, at [`wake_at`](Plan::wake_at).
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The status that it writes, if it writes one.
    pub fn status(&self) -> Option<&BatchJobStatus> {
        self.actions.iter().find_map(|action| match action {
            Action::WriteStatus(status) => Some(&**status),
            _ => None,
        })
    }

    pub(crate) fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this attempt's pod: [`crate::job::pod::build`] makes it from the template.
    CreatePod(Start),
    /// It is an attempt of the job that has lost its owner: become its owner again, if the job is still there.
    AdoptPod(PodRef),
    /// Delete it if it is still as it was seen: a pod that has finished since is looked at again first.
    DeletePod(PodRef),
    WriteStatus(Box<BatchJobStatus>),
    /// Take our finalizer off.
    ReleasePod(PodRef),
    /// Its labels no longer say that it is the job's: be its owner no more, and let it go.
    DisownPod(PodRef),
    /// Its time to live is over: delete the job, its pods first.
    DeleteJob,
}

impl Action {
    /// The pod that is there already, and that something is to be done to.
    pub fn pod(&self) -> Option<&PodRef> {
        match self {
            Action::AdoptPod(pod) | Action::DeletePod(pod) | Action::ReleasePod(pod) | Action::DisownPod(pod) => {
                Some(pod)
            }
            Action::CreatePod(_) | Action::WriteStatus(_) | Action::DeleteJob => None,
        }
    }
}

/// Which attempt of which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// From 0.
    pub index: u32,
    /// From 1 to [`LAST`](AttemptId::LAST).
    pub attempt: u32,
}

impl AttemptId {
    /// No index has an attempt of a higher number: a ledger can say of this one that it is passed, and has a number for it.
    /// Nobody tries four billion times, but somebody may write so into a status.
    pub const LAST: u32 = u32::MAX - 2;
}

/// An attempt that starts, and how its index has fared so far, which its pod is told if the job has
/// backoffLimitPerIndex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub id: AttemptId,
    /// Earlier attempts of the index that failed and were counted.
    pub n_failures: u32,
    /// Earlier attempts of the index that failed and, by a rule of podFailurePolicy, were not counted.
    pub n_ignored: u32,
}

/// A pod that was seen: never another one of the same name, so it carries the uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    pub name: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
}

impl From<&Pod> for PodRef {
    fn from(pod: &Pod) -> PodRef {
        PodRef { name: pod.name.clone(), uid: pod.uid.clone(), resource_version: pod.resource_version.clone() }
    }
}

/// Why: one event for the whole of what it is about, not one for each pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub severity: Severity,
    /// The event's reason, with upstream's name where the meaning is upstream's: "SuccessfulCreate".
    pub reason: String,
    pub note: Note,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Text(String),
    /// The same thing is done to one pod after the other: such notes about a job may be put together.
    Pods {
        verb: &'static str,
        attempts: Vec<AttemptId>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// What this plan's status write counts, for the metrics that upstream has for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub succeeded: u32,
    pub failed: u32,
    /// How many indexes have failed for good with them.
    pub failed_indexes: u32,
    /// What podFailurePolicy said of each failure that a rule of it matched.
    pub by_policy: Vec<PolicyAction>,
    /// The job ends with this plan, for this reason: "CompletionsReached".
    pub finished: Option<Finished>,
}

/// What a rule of podFailurePolicy says of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    FailJob,
    FailIndex,
    /// It is not counted, and the index is tried again.
    Ignore,
    /// It is counted, as without a policy.
    Count,
}

impl PolicyAction {
    /// As it is written in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyAction::FailJob => "FailJob",
            PolicyAction::FailIndex => "FailIndex",
            PolicyAction::Ignore => "Ignore",
            PolicyAction::Count => "Count",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub succeeded: bool,
    pub reason: String,
}

impl Reason {
    pub(crate) fn normal(reason: &str, message: impl Into<String>) -> Reason {
        Reason { severity: Severity::Normal, reason: reason.to_owned(), note: Note::Text(message.into()) }
    }

    pub(crate) fn pods(reason: &str, verb: &'static str, attempts: Vec<AttemptId>) -> Reason {
        Reason { note: Note::Pods { verb, attempts }, ..Reason::normal(reason, "") }
    }

    pub(crate) fn warning(reason: &str, message: impl Into<String>) -> Reason {
        Reason { severity: Severity::Warning, ..Reason::normal(reason, message) }
    }
}

impl fmt::Display for Note {
    /// "created 1 pod (index 3 attempt 2)", "created 40 pods (indexes 0-39)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Text(text) => f.write_str(text),
            Note::Pods { verb, attempts } => match attempts[..] {
                [id] => write!(f, "{verb} 1 pod ({id})"),
                _ => {
                    let indexes: IndexSet = attempts.iter().map(|id| id.index).collect();
                    write!(f, "{verb} {} pods (indexes {indexes})", attempts.len())
                }
            },
        }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} attempt {}", self.index, self.attempt)
    }
}
