//! What a decision about a BatchCronJob says.

use std::sync::Arc;

use batchjob_crd::BatchCronJobStatus;
use jiff::Timestamp;

use super::name;
use super::observed::{CronJob, Run};
use crate::conditions::whole_seconds;
use crate::plan::Reason;

/// Everything that should happen, and why.
///
/// Either runs are created, after those are deleted that they replace; or the status is written, and then what it no longer needs
/// is deleted. A crash between any two of them loses nothing: a run that was created is found by its name, and until then its
/// slot still waits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Look again then, even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Become events once the actions have succeeded.
    pub reasons: Vec<Reason>,
    /// The runs of slots that it leaves out, by their names. They are not seen, which does not say that they are not there: whoever
    /// carries it out asks for them first.
    pub left_out: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The status that it writes, if it writes one.
    pub fn status(&self) -> Option<&BatchCronJobStatus> {
        self.actions.iter().find_map(|action| match action {
            Action::WriteStatus(status) => Some(&**status),
            _ => None,
        })
    }

    /// What it starts.
    pub fn starts(&self) -> impl Iterator<Item = &Start> {
        self.actions.iter().filter_map(|action| match action {
            Action::CreateRun(start) => Some(start),
            _ => None,
        })
    }

    pub(super) fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Delete it and its pods, if it is still the one that was seen.
    DeleteRun(RunRef),
    /// Create this run: [`super::run::build`] makes it from the template.
    CreateRun(Start),
    WriteStatus(Box<BatchCronJobStatus>),
}

/// A run that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    /// Its slot; of one that was triggered by hand, when that was seen.
    pub time: Timestamp,
    pub is_manual: bool,
    /// A backfill starts it.
    pub is_backfill: bool,
}

impl Start {
    pub(super) fn of_slot(cron: &CronJob, slot: Timestamp) -> Start {
        Start { name: name::of_slot(&cron.name, slot), time: slot, is_manual: false, is_backfill: false }
    }

    pub(super) fn by_hand(cron: &CronJob, hash: &str, now: Timestamp) -> Start {
        Start {
            name: name::of_trigger(&cron.name, hash),
            time: whole_seconds(now),
            is_manual: true,
            is_backfill: false,
        }
    }

    pub(super) fn of_backfill(cron: &CronJob, slot: Timestamp) -> Start {
        Start { is_backfill: true, ..Start::of_slot(cron, slot) }
    }

    /// For the event.
    pub(super) fn told(&self) -> String {
        match (self.is_manual, self.is_backfill) {
            (true, _) => format!("Created run {}, triggered by hand", self.name),
            (_, true) => format!("Created run {} for {}, to fill it in", self.name, self.time),
            _ => format!("Created run {} for {}", self.name, self.time),
        }
    }
}

/// A run that was seen: never another one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRef {
    pub name: Arc<str>,
    pub uid: Arc<str>,
}

impl From<&Run> for RunRef {
    fn from(run: &Run) -> RunRef {
        RunRef { name: run.name.clone(), uid: run.uid.clone() }
    }
}
