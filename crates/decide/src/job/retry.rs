//! May an index run again, and not before when?
//!
//! | failures so far | delay before the next attempt |
//! |---|---|
//! | 0 | none |
//! | n | 10 s · 2^(n−1), at most 10 min |
//!
//! These are batch/v1 Job's figures (`DefaultJobPodFailureBackOff`, `MaxJobPodFailureBackOff`), but for each index by
//! itself: one index that fails does not hold back the others. The delay counts from the end of the failed attempt, as
//! its pod reported it, not from when it was noticed; and both are in the ledger, so an operator that was down, or a
//! failed pod that somebody deletes, changes nothing. A failure that podFailurePolicy ignores makes the delay longer as
//! every other (`getIndexAbsoluteFailureCount` in `indexed_job_utils.go`).

use jiff::{SignedDuration, Timestamp};

use super::ledger::Open;

const FIRST_DELAY_SECONDS: i64 = 10;
const MAX_DELAY_SECONDS: i64 = 600;

/// The delay after the `n_failures`-th failure.
pub fn delay(n_failures: u32) -> SignedDuration {
    let seconds = match n_failures {
        0 => 0,
        // 2^6 · 10 s is past the maximum already.
        n => (FIRST_DELAY_SECONDS << (n - 1).min(6)).min(MAX_DELAY_SECONDS),
    };
    SignedDuration::from_secs(seconds)
}

/// When the next attempt may start; None if at once.
pub fn not_before(open: Option<Open>) -> Option<Timestamp> {
    let open = open?;
    // Those that podFailurePolicy ignores do not count, but their cause may well still be there.
    open.failed_at?.checked_add(delay(open.failures.saturating_add(open.ignored))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_from_ten_seconds_to_ten_minutes() {
        let seconds: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|n| delay(n).as_secs()).to_vec();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn the_delay_counts_from_the_end_of_the_failed_attempt() {
        let failed_at = Timestamp::from_second(1000).ok();
        let open = Open { next_attempt: 3, failures: 1, ignored: 1, failed_at };
        assert_eq!(not_before(Some(open)), Timestamp::from_second(1020).ok());
    }

    #[test]
    fn an_index_that_has_not_failed_may_start_at_once() {
        assert_eq!(not_before(None), None);
        assert_eq!(not_before(Some(Open { next_attempt: 2, failures: 0, ignored: 0, failed_at: None })), None);
    }
}
