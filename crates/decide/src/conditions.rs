//! The conditions of a status: one of each type, each with the time since when it is so.

use batchjob_crd::condition;
use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition of that type, if it is true.
pub(crate) fn find_true<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Times in objects are whole seconds: with anything finer, what is read back would differ from what was written.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    at.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor)).unwrap_or(at)
}

/// The list of conditions, one of each type, with the time of each change of a status.
pub(crate) struct Conditions {
    pub list: Vec<Condition>,
    pub generation: i64,
    pub now: Timestamp,
}

impl Conditions {
    pub(crate) fn set(&mut self, type_: &str, is_true: bool, reason: &str, message: String) {
        let status = if is_true { "True" } else { "False" };
        let at = self.list.iter().position(|condition| condition.type_ == type_);
        let unchanged_since = at.map(|at| &self.list[at]).filter(|before| before.status == status);
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message),
            observed_generation: Some(self.generation),
            last_transition_time: unchanged_since.map_or(Time(self.now), |before| before.last_transition_time.clone()),
        };
        match at {
            Some(at) => self.list[at] = condition,
            None => self.list.push(condition),
        }
    }

    pub(crate) fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_ != type_);
    }

    // The three that kstatus reads: never two of them at once.

    pub(crate) fn reconcile(&mut self, reason: &str, message: String) {
        self.remove(condition::STALLED);
        self.set(condition::RECONCILING, true, reason, message.clone());
        self.set(condition::READY, false, reason, message);
    }

    pub(crate) fn stall(&mut self, reason: &str, message: String) {
        self.remove(condition::RECONCILING);
        self.set(condition::STALLED, true, reason, message.clone());
        self.set(condition::READY, false, reason, message);
    }

    pub(crate) fn be_ready(&mut self, reason: &str, message: String) {
        // What is Ready has been so for as long as it was.
        if find_true(&self.list, condition::READY).is_none() {
            self.remove(condition::READY);
        }
        self.remove(condition::RECONCILING);
        self.remove(condition::STALLED);
        self.set(condition::READY, true, reason, message);
    }

    pub(crate) fn clear_progress(&mut self) {
        for type_ in [condition::RECONCILING, condition::STALLED, condition::READY] {
            self.remove(type_);
        }
    }
}

/// A condition's message has at most 32,768 characters; a person reads the first thousand.
fn shortened(mut message: String) -> String {
    const MAX: usize = 1024;
    if message.len() > MAX {
        message.truncate(message.floor_char_boundary(MAX));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = shortened("é".repeat(1000));
        assert!(cut.len() <= 1024 + '…'.len_utf8() && cut.ends_with("é…"), "{cut}");
    }
}
