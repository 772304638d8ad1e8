//! The ledger: the truth about the past, of which the status is a projection.
//!
//! An attempt is counted exactly when the ledger has moved past it, so counting is idempotent: there is no list of
//! uncounted pods, and no counter that two writers raise.
//!
//! | what | where in the status |
//! |---|---|
//! | the completed indexes | `completedIndexes`, "0-3,7" |
//! | the indexes that have failed for good (backoffLimitPerIndex) | `failedIndexes`, "4" |
//! | the number of failed attempts | `failed` |
//! | for each other index that has ended an attempt: its next attempt, its failures, when it failed last | `openIndexes`, "3:2/1@1764021302" |
//!
//! In `openIndexes` neighbours that are alike share an entry ("0-999:2/0": a thousand indexes that were stopped in
//! their first attempt), and the time, in seconds since 1970, is there only where a failure is. Failures that
//! podFailurePolicy ignores are not counted, but the delay before the next attempt grows with them too: they follow the
//! others after a plus ("3:4/1+2@1764021302"). What an elastic job has lost by being made smaller is one entry for all: "5-:3/0"
//! says that no index from 5 on is to have an attempt before the third, should there be such indexes again.

use std::collections::BTreeMap;
use std::fmt;

use batchjob_crd::BatchJobStatus;
use jiff::Timestamp;

use super::indexes::{IndexSet, parse_run, write_run};
use crate::plan::{AttemptId, Start};

/// What has happened to a job, as far as it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub completed: IndexSet,
    /// The indexes that have failed for good: never one that is completed.
    pub failed_indexes: IndexSet,
    /// How many attempts have failed and were counted.
    pub failed: u32,
    pub open: OpenIndexes,
}

/// The indexes that have ended an attempt and are not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenIndexes {
    each: BTreeMap<u32, Open>,
    beyond: Option<Beyond>,
}

/// The job once had indexes from here on, which it has no more, or has again: none of them is to have an attempt before this
/// one. A job of 100,000 indexes may be made smaller at any time, and what is left of them must be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    pub from: u32,
    pub next_attempt: u32,
}

/// More indexes are never open: so many pods no job has. A text that says otherwise must not fill the memory.
pub const MAX_OPEN: u32 = 200_000;

/// Where an index stands that has ended an attempt and is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The number of the attempt that comes next, or is on its way. Attempts count from 1.
    pub next_attempt: u32,
    /// How many attempts have failed; stopped ones (suspend, fewer wanted) are not failures.
    pub failures: u32,
    /// How many more have failed and were not counted, by a rule of podFailurePolicy.
    pub ignored: u32,
    /// When the last failed attempt ended, from which the delay before the next one counts.
    pub failed_at: Option<Timestamp>,
}

impl Ledger {
    pub fn read(status: &BatchJobStatus) -> Ledger {
        Ledger {
            completed: IndexSet::parse(status.completed_indexes.as_deref().unwrap_or_default()),
            failed_indexes: IndexSet::parse(status.failed_indexes.as_deref().unwrap_or_default()),
            failed: status.failed.unwrap_or_default().max(0) as u32,
            open: OpenIndexes::parse(status.open_indexes.as_deref().unwrap_or_default()),
        }
    }

    /// The attempt of `index` that comes next, or is on its way.
    pub fn next_attempt(&self, index: u32) -> u32 {
        self.open.get(index).map_or(1, |open| open.next_attempt)
    }

    /// An attempt that starts, with what its index has come to before.
    pub fn start(&self, id: AttemptId) -> Start {
        let open = self.open.get(id.index);
        Start { id, n_failures: open.map_or(0, |open| open.failures), n_ignored: open.map_or(0, |open| open.ignored) }
    }

    /// Whether attempt `attempt` of `index` is behind us: the index goes on without it, or does not go on.
    pub fn is_passed(&self, index: u32, attempt: u32) -> bool {
        self.is_closed(index) || attempt < self.next_attempt(index)
    }

    /// Whether `index` has no next attempt: it is done, or has failed for good.
    pub fn is_closed(&self, index: u32) -> bool {
        self.completed.contains(index) || self.failed_indexes.contains(index)
    }

    /// The indexes below `end` that are not closed, in rising order.
    pub fn missing(&self, end: u32) -> impl Iterator<Item = u32> {
        self.completed.union(&self.failed_indexes).into_missing(end)
    }

    /// The first of them that has had the last attempt that there can be.
    pub fn used_up(&self, end: u32) -> Option<u32> {
        let is_used_up = |next_attempt| next_attempt > AttemptId::LAST;
        let OpenIndexes { each, beyond } = &self.open;
        // Hardly ever, and a job may have many indexes.
        let any = each.values().any(|open| is_used_up(open.next_attempt))
            || beyond.is_some_and(|beyond| is_used_up(beyond.next_attempt));
        let mut missing = any.then(|| self.missing(end))?;
        missing.find(|&index| is_used_up(self.next_attempt(index)))
    }

    /// `index` is done. Done twice is done, and done late is done: a success is honoured whichever attempt brings it.
    pub fn complete(&mut self, index: u32) {
        self.completed.insert(index);
        self.failed_indexes.remove(index);
        self.open.each.remove(&index);
    }

    /// Attempt `attempt` of `index` has failed, at `at`. Answers with the failures of the index.
    pub fn fail(&mut self, index: u32, attempt: u32, at: Timestamp) -> u32 {
        self.failed = self.failed.saturating_add(1);
        let open = self.pass(index, attempt);
        open.failures = open.failures.saturating_add(1);
        open.failed_at = Some(at);
        open.failures
    }

    /// Attempt `attempt` of `index` has failed, at `at`, which does not count.
    pub fn ignore(&mut self, index: u32, attempt: u32, at: Timestamp) {
        let open = self.pass(index, attempt);
        open.ignored = open.ignored.saturating_add(1);
        open.failed_at = Some(at);
    }

    /// `index` has failed for good.
    pub fn give_up(&mut self, index: u32) {
        self.failed_indexes.insert(index);
        self.open.each.remove(&index);
    }

    /// Attempt `attempt` of `index` is to be stopped, which is no failure of it.
    pub fn stop(&mut self, index: u32, attempt: u32) {
        if !self.is_closed(index) {
            self.pass(index, attempt);
        }
    }

    fn pass(&mut self, index: u32, attempt: u32) -> &mut Open {
        let new = Open { next_attempt: 1, failures: 0, ignored: 0, failed_at: None };
        let before = self.open.get(index).unwrap_or(new);
        let open = self.open.each.entry(index).or_insert(before);
        open.next_attempt = open.next_attempt.max(attempt + 1);
        open
    }

    /// The job has `end` indexes now. What the others have come to is forgotten: should the job grow again, they are done
    /// again (elastic Indexed jobs). But not with the attempts that they have had.
    pub fn forget_from(&mut self, end: u32) {
        let are_closed = [self.completed.split_off(end), self.failed_indexes.split_off(end)].map(|set| !set.is_empty());
        let open = self.open.each.split_off(&end);
        let latest = open.values().map(|open| open.next_attempt).max();
        if latest.is_some() || are_closed.contains(&true) {
            self.pass_beyond(end, latest.map_or(1, |next| next - 1).max(1));
        }
    }

    /// The job has `end` indexes now, and one of the others has had attempt `attempt`.
    pub fn pass_beyond(&mut self, end: u32, attempt: u32) {
        let before = self.open.beyond.unwrap_or(Beyond { from: end, next_attempt: 1 });
        self.open.beyond =
            Some(Beyond { from: before.from.min(end), next_attempt: before.next_attempt.max(attempt + 1) });
    }
}

impl OpenIndexes {
    pub fn get(&self, index: u32) -> Option<Open> {
        let of_all =
            |beyond: Beyond| Open { next_attempt: beyond.next_attempt, failures: 0, ignored: 0, failed_at: None };
        let beyond = || self.beyond.filter(|beyond| index >= beyond.from).map(of_all);
        self.each.get(&index).copied().or_else(beyond)
    }

    pub fn beyond(&self) -> Option<Beyond> {
        self.beyond
    }

    /// Those with an entry of their own, in rising order.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.each.keys().copied()
    }

    /// Whether an attempt of one of them has failed, counted or not.
    pub fn have_failed(&self) -> bool {
        self.each.values().any(|open| open.failed_at.is_some())
    }

    /// The same without the times, which nobody needs any more once the job is bound to fail: what was told to end
    /// together is then one entry.
    pub fn without_times(&self) -> OpenIndexes {
        let each = self.each.iter().map(|(&index, &open)| (index, Open { failed_at: None, ..open }));
        OpenIndexes { each: each.collect(), beyond: self.beyond }
    }

    /// How many entries its text has for the indexes below `end`.
    pub fn n_entries(&self, end: u32) -> usize {
        let mut n_entries = 0;
        self.each_entry(|first, _, _| {
            n_entries += usize::from(first < end);
            Ok(())
        })
        .unwrap_or_default();
        n_entries
    }

    /// Reads "0-2:2/0,3:2/1@1764021302". What cannot be read is left out, as in [`IndexSet::parse`].
    pub fn parse(text: &str) -> OpenIndexes {
        let mut open = OpenIndexes::default();
        let mut n_more = MAX_OPEN;
        for part in text.split(',') {
            if let Some((first, last, entry)) = parse_entry(part) {
                let n = (last - first + 1).min(n_more);
                n_more -= n;
                open.each.extend((first..first + n).map(|index| (index, entry)));
            } else if let Some(beyond) = parse_beyond(part) {
                open.beyond = Some(beyond);
            }
        }
        open
    }

    /// Calls `write` for each run of neighbours that are alike.
    fn each_entry(&self, mut write: impl FnMut(u32, u32, Open) -> fmt::Result) -> fmt::Result {
        let mut run: Option<(u32, u32, Open)> = None;
        for (&index, &open) in &self.each {
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

/// Reads "5-:3/0".
fn parse_beyond(text: &str) -> Option<Beyond> {
    let (from, next_attempt) = text.strip_suffix("/0")?.split_once("-:")?;
    let beyond = Beyond { from: from.parse().ok()?, next_attempt: next_attempt.parse().ok()? };
    can_be_next(beyond.next_attempt).then_some(beyond)
}

/// The one after the last attempt is next where no more is possible.
fn can_be_next(attempt: u32) -> bool {
    (1..=AttemptId::LAST + 1).contains(&attempt)
}

/// Reads "3:2/1@1764021302" or "0-2:2/0".
fn parse_entry(text: &str) -> Option<(u32, u32, Open)> {
    let (run, rest) = text.split_once(':')?;
    let (rest, failed_at) = match rest.split_once('@') {
        Some((rest, seconds)) => (rest, Some(Timestamp::from_second(seconds.parse().ok()?).ok()?)),
        None => (rest, None),
    };
    let (next_attempt, failures) = rest.split_once('/')?;
    let (failures, ignored) = failures.split_once('+').unwrap_or((failures, "0"));
    let (next_attempt, failures, ignored) = (next_attempt.parse().ok()?, failures.parse().ok()?, ignored.parse().ok()?);
    let open = Open { next_attempt, failures, ignored, failed_at };
    let (first, last) = parse_run(run)?;
    can_be_next(open.next_attempt).then_some((first, last, open))
}

impl fmt::Display for OpenIndexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.each_entry(|first, last, open| {
            f.write_str(separator)?;
            separator = ",";
            write_run(f, first, last)?;
            write!(f, ":{}/{}", open.next_attempt, open.failures)?;
            if open.ignored > 0 {
                write!(f, "+{}", open.ignored)?;
            }
            open.failed_at.map_or(Ok(()), |at| write!(f, "@{}", at.as_second()))
        })?;
        let beyond = |Beyond { from, next_attempt }: Beyond| write!(f, "{separator}{from}-:{next_attempt}/0");
        self.beyond.map_or(Ok(()), beyond)
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
        assert_eq!((ledger.open.n_entries(1000), ledger.open.n_entries(500)), (3, 1));
        assert_eq!(OpenIndexes::parse(&ledger.open.to_string()), ledger.open);
    }

    #[test]
    fn an_ignored_failure_moves_the_index_on_and_is_not_counted() {
        let mut ledger = Ledger::default();
        ledger.ignore(3, 1, at(50));
        ledger.fail(3, 2, at(60));
        ledger.ignore(3, 3, at(70));
        assert_eq!((ledger.open.to_string().as_str(), ledger.failed), ("3:4/1+2@70", 1));
        assert_eq!(OpenIndexes::parse("3:4/1+2@70"), ledger.open);
    }

    #[test]
    fn an_index_that_is_given_up_has_no_next_attempt_but_a_late_success_counts() {
        let mut ledger = Ledger::default();
        ledger.fail(3, 1, at(50));
        ledger.give_up(3);
        assert_eq!((ledger.failed_indexes.to_string().as_str(), ledger.open.to_string().as_str()), ("3", ""));
        assert!(ledger.is_passed(3, 2));
        assert_eq!(ledger.missing(5).collect::<Vec<_>>(), [0, 1, 2, 4]);
        ledger.complete(3);
        assert!(ledger.failed_indexes.is_empty() && ledger.completed.contains(3));
    }

    #[test]
    fn a_job_made_smaller_forgets_what_is_beyond_but_not_its_attempts() {
        let mut ledger = Ledger { completed: IndexSet::parse("0-3"), ..Ledger::default() };
        ledger.fail(4, 1, at(50));
        ledger.fail(4, 2, at(60));
        ledger.give_up(5);
        ledger.forget_from(2);
        assert_eq!((ledger.completed.to_string().as_str(), ledger.failed), ("0,1", 2));
        assert_eq!(ledger.open.to_string(), "2-:3/0");
        assert_eq!(OpenIndexes::parse("2-:3/0"), ledger.open);
        assert_eq!((ledger.next_attempt(1), ledger.next_attempt(2), ledger.next_attempt(99)), (1, 3, 3));
        let before = ledger.clone();
        ledger.forget_from(2);
        assert_eq!(ledger, before, "forgotten is forgotten");
    }

    /// Anybody who may edit a managed Job can write its ledger.
    #[test]
    fn a_ledger_of_a_few_bytes_does_not_fill_the_memory() {
        let open = OpenIndexes::parse("0-4294967290:2/0,0-4294967290:2/0,5-4294967290:3/0");
        assert_eq!(open.each.len(), MAX_OPEN as usize);
        let mut ledger = Ledger { completed: IndexSet::parse("0-4294967290"), ..Ledger::default() };
        ledger.failed_indexes = IndexSet::parse("0-4294967290");
        ledger.forget_from(1);
        assert_eq!((ledger.open.to_string().as_str(), ledger.completed.len()), ("1-:2/0", 1));
    }

    #[test]
    fn nonsense_is_left_out() {
        let open = OpenIndexes::parse("x,1:2,2:0/0,3:2/1@,4:2/0,9-8:2/0,5:2/1@12,6:2/1+@12,7:4294967295/0");
        assert_eq!(open.to_string(), "4:2/0,5:2/1@12");
    }
}
