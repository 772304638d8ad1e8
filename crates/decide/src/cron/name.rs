//! The names of runs: a slot has one name, so it cannot have two runs.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::observed::CronJob;

/// As a CronJob names its Jobs: the minutes since 1970 (`getJobName` in `pkg/controller/cronjob/utils.go`). A slot between two
/// minutes has the seconds since 1970, which have two digits more.
pub fn of_slot(cron: &str, slot: Timestamp) -> String {
    let seconds = slot.as_second();
    match seconds % 60 {
        0 => format!("{cron}-{}", seconds / 60),
        _ => format!("{cron}-{seconds}"),
    }
}

/// The name of the run that a value of the annotation `batchjob.dev/trigger` starts, by its [hash](trigger_hash).
pub fn of_trigger(cron: &str, hash: &str) -> String {
    format!("{cron}-m{hash}")
}

/// What is remembered of a value of that annotation, which may be long, or hold anything: eight letters and digits.
pub fn trigger_hash(cron: &CronJob, value: &str) -> String {
    short_hash(&[&cron.uid, value])
}

/// Eight letters and digits that stand for a list of texts.
pub(super) fn short_hash(texts: &[&str]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(8).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_name_and_no_other_slot_has_it() {
        let name = |text: &str| of_slot("etl", text.parse().expect("a time"));
        assert_eq!(name("2026-12-01T02:00:00Z"), "etl-29934840");
        assert_eq!(name("2026-12-01T02:00:30Z"), "etl-1796090430");
        assert_ne!(name("1980-01-01T00:00:01Z"), name("2570-01-01T00:00:00Z"));
    }

    #[test]
    fn texts_are_told_apart_by_where_they_end() {
        assert_ne!(short_hash(&["ab", "c"]), short_hash(&["a", "bc"]));
        assert_eq!(short_hash(&["x"]).len(), 8);
    }
}
