//! The ledger: the truth about the past, of which the status is a projection.
//!
//! An attempt is counted exactly when the ledger has moved past it, so counting is idempotent: there is no list of
//! uncounted pods, and no counter that two writers raise.
//!
//! | what | where in the status |
//! |---|---|
//! | the completed indexes | `completedIndexes`, "0-3,7" |
//! | the number of failed attempts | `failed` |
//! | for each index that is not done and has ended an attempt: its next attempt, its failures, when it failed last | `openIndexes`, "3:2/1@1764021302" |
//!
//! In `openIndexes` neighbours that are alike share an entry ("0-999:2/0": a thousand indexes that were stopped in
//! their first attempt), and the time, in seconds since 1970, is there only where a failure is.

use std::collections::BTreeMap;
use std::fmt;

use batchjob_crd::BatchJobStatus;
use jiff::Timestamp;

use super::indexes::{IndexSet, parse_run, write_run};

/// What has happened to a job, as far as it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub completed: IndexSet,
    pub failed: u32,
    pub open: OpenIndexes,
}

/// The indexes that have ended an attempt and are not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenIndexes(BTreeMap<u32, Open>);

/// Where an index stands that has ended an attempt and is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The number of the attempt that comes next, or is on its way. Attempts count from 1.
    pub next_attempt: u32,
    /// How many attempts have failed; stopped ones (suspend, fewer wanted) are not failures.
    pub failures: u32,
    /// When the last failed attempt ended, from which the delay before the next one counts.
    pub failed_at: Option<Timestamp>,
}

impl Ledger {
    pub fn read(status: &BatchJobStatus) -> Ledger {
        Ledger {
            completed: IndexSet::parse(status.completed_indexes.as_deref().unwrap_or_default()),
            failed: status.failed.unwrap_or_default().max(0) as u32,
            open: OpenIndexes::parse(status.open_indexes.as_deref().unwrap_or_default()),
        }
    }

    /// The attempt of `index` that comes next, or is on its way.
    pub fn next_attempt(&self, index: u32) -> u32 {
        self.open.get(index).map_or(1, |open| open.next_attempt)
    }

    /// `index` is done. Done twice is done: a success is honoured whichever attempt brings it.
    pub fn complete(&mut self, index: u32) {
        self.completed.insert(index);
        self.open.0.remove(&index);
    }

    /// Attempt `attempt` of `index` has failed, at `at`.
    pub fn fail(&mut self, index: u32, attempt: u32, at: Timestamp) {
        self.failed = self.failed.saturating_add(1);
        let failures = self.open.get(index).map_or(0, |open| open.failures);
        let open = Open { next_attempt: attempt + 1, failures: failures + 1, failed_at: Some(at) };
        self.open.0.insert(index, open);
    }

    /// Attempt `attempt` of `index` is to be stopped, which is no failure of it.
    pub fn stop(&mut self, index: u32, attempt: u32) {
        let before = self.open.get(index);
        let open = Open {
            next_attempt: attempt + 1,
            failures: before.map_or(0, |open| open.failures),
            failed_at: before.and_then(|open| open.failed_at),
        };
        self.open.0.insert(index, open);
    }
}

impl OpenIndexes {
    pub fn get(&self, index: u32) -> Option<Open> {
        self.0.get(&index).copied()
    }

    /// In rising order.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    /// The same without the times, which nobody needs any more once the job is bound to fail: what was told to end
    /// together is then one entry.
    pub fn without_times(&self) -> OpenIndexes {
        OpenIndexes(self.0.iter().map(|(&index, &open)| (index, Open { failed_at: None, ..open })).collect())
    }

    /// How many entries its text has.
    pub fn n_entries(&self) -> usize {
        let mut n_entries = 0;
        self.each_entry(|_, _, _| {
            n_entries += 1;
            Ok(())
        })
        .unwrap_or_default();
        n_entries
    }

    /// Reads "0-2:2/0,3:2/1@1764021302". What cannot be read is left out, as in [`IndexSet::parse`].
    pub fn parse(text: &str) -> OpenIndexes {
        let mut open = BTreeMap::new();
        for (run, entry) in text.split(',').filter_map(parse_entry) {
            // A status that somebody broke must not make a map of four thousand million indexes.
            for index in run.0..=run.1.min(run.0.saturating_add(1_000_000)) {
                open.insert(index, entry);
            }
        }
        OpenIndexes(open)
    }

    /// Calls `write` for each run of neighbours that are alike.
    fn each_entry(&self, mut write: impl FnMut(u32, u32, Open) -> fmt::Result) -> fmt::Result {
        let mut run: Option<(u32, u32, Open)> = None;
        for (&index, &open) in &self.0 {
            run = match run {
                Some((first, last, alike)) if last + 1 == index && alike == open => Some((first, index, open)),
                Some((first, last, other)) => {
                    write(first, last, other)?;
                    Some((index, index, open))
                }
                None => Some((index, index, open)),
            };
        }
        run.map_or(Ok(()), |(first, last, open)| write(first, last, open))
    }
}

/// Reads "3:2/1@1764021302" or "0-2:2/0".
fn parse_entry(text: &str) -> Option<((u32, u32), Open)> {
    let (run, rest) = text.split_once(':')?;
    let (rest, failed_at) = match rest.split_once('@') {
        Some((rest, seconds)) => (rest, Some(Timestamp::from_second(seconds.parse().ok()?).ok()?)),
        None => (rest, None),
    };
    let (next_attempt, failures) = rest.split_once('/')?;
    let open = Open { next_attempt: next_attempt.parse().ok()?, failures: failures.parse().ok()?, failed_at };
    (open.next_attempt >= 1).then_some((parse_run(run)?, open))
}

impl fmt::Display for OpenIndexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.each_entry(|first, last, open| {
            f.write_str(separator)?;
            separator = ",";
            write_run(f, first, last)?;
            write!(f, ":{}/{}", open.next_attempt, open.failures)?;
            open.failed_at.map_or(Ok(()), |at| write!(f, "@{}", at.as_second()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds")
    }

    #[test]
    fn a_failure_moves_the_index_to_its_next_attempt() {
        let mut ledger = Ledger::default();
        ledger.fail(3, 1, at(1_764_021_302));
        ledger.fail(3, 2, at(1_764_021_322));
        assert_eq!(ledger.open.to_string(), "3:3/2@1764021322");
        assert_eq!((ledger.failed, ledger.next_attempt(3), ledger.next_attempt(4)), (2, 3, 1));
    }

    #[test]
    fn a_stopped_attempt_is_passed_but_not_counted() {
        let mut ledger = Ledger::default();
        ledger.fail(0, 1, at(50));
        ledger.stop(0, 2);
        ledger.stop(1, 1);
        assert_eq!(ledger.open.to_string(), "0:3/1@50,1:2/0");
        assert_eq!(ledger.failed, 1);
    }

    #[test]
    fn a_completed_index_is_open_no_more() {
        let mut ledger = Ledger::default();
        ledger.fail(3, 1, at(50));
        ledger.complete(3);
        ledger.complete(3);
        assert_eq!((ledger.open.to_string(), ledger.completed.to_string()), (String::new(), "3".to_owned()));
    }

    #[test]
    fn neighbours_that_are_alike_share_an_entry() {
        let mut ledger = Ledger::default();
        for index in 0..1000 {
            ledger.stop(index, 1);
        }
        ledger.fail(500, 2, at(7));
        assert_eq!(ledger.open.to_string(), "0-499:2/0,500:3/1@7,501-999:2/0");
        assert_eq!(ledger.open.n_entries(), 3);
        assert_eq!(OpenIndexes::parse(&ledger.open.to_string()), ledger.open);
    }

    #[test]
    fn nonsense_is_left_out() {
        let open = OpenIndexes::parse("x,1:2,2:0/0,3:2/1@,4:2/0,9-8:2/0,5:2/1@12");
        assert_eq!(open.to_string(), "4:2/0,5:2/1@12");
    }
}
