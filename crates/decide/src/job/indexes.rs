//! Sets of indexes, written as "0-3,7".
//!
//! Kept as sorted intervals: 100,000 completed indexes are one interval, and the text in the status is as short. As in
//! batch/v1 Job, two neighbours are written "1,2" and three "1-3" (`orderedIntervals` in
//! `pkg/controller/job/indexed_job_utils.go`); "1-2" is read too.

use std::fmt;

/// A set of indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexSet {
    /// First and last index of each run; sorted, disjoint and never adjacent.
    runs: Vec<(u32, u32)>,
}

impl IndexSet {
    /// The first `n` indexes.
    pub fn first(n: u32) -> IndexSet {
        IndexSet { runs: n.checked_sub(1).map(|last| (0, last)).into_iter().collect() }
    }

    /// How many indexes are in the set.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|&(first, last)| (last - first) as usize + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn contains(&self, index: u32) -> bool {
        let after = self.runs.partition_point(|&(first, _)| first <= index);
        after > 0 && self.runs[after - 1].1 >= index
    }

    /// Adds `index`; false if it was in the set already.
    pub fn insert(&mut self, index: u32) -> bool {
        let at = self.runs.partition_point(|&(first, _)| first <= index);
        if at > 0 && self.runs[at - 1].1 >= index {
            return false;
        }
        let extends_previous = at > 0 && self.runs[at - 1].1 + 1 == index;
        let extends_next = at < self.runs.len() && self.runs[at].0 == index + 1;
        match (extends_previous, extends_next) {
            (true, true) => {
                self.runs[at - 1].1 = self.runs[at].1;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].1 = index,
            (false, true) => self.runs[at].0 = index,
            (false, false) => self.runs.insert(at, (index, index)),
        }
        true
    }

    /// Takes `index` out, if it is in the set.
    pub fn remove(&mut self, index: u32) {
        let at = self.runs.partition_point(|&(first, _)| first <= index);
        let Some(run) = at.checked_sub(1).filter(|&run| self.runs[run].1 >= index) else { return };
        let (first, last) = self.runs[run];
        let before = (first < index).then(|| (first, index - 1));
        let after = (index < last).then(|| (index + 1, last));
        self.runs.splice(run..=run, before.into_iter().chain(after));
    }

    /// The indexes below `end`.
    pub fn below(&self, end: u32) -> IndexSet {
        let inside = self.runs.iter().take_while(|&&(first, _)| first < end);
        IndexSet { runs: inside.map(|&(first, last)| (first, last.min(end - 1))).collect() }
    }

    /// Takes out the indexes from `end` on, and answers with them.
    pub fn split_off(&mut self, end: u32) -> IndexSet {
        let below = self.below(end);
        let rest = self.runs.iter().filter(|&&(_, last)| last >= end).map(|&(first, last)| (first.max(end), last));
        let rest = IndexSet { runs: rest.collect() };
        *self = below;
        rest
    }

    /// The indexes that are in either.
    pub fn union(&self, other: &IndexSet) -> IndexSet {
        let mut all: Vec<(u32, u32)> = self.runs.iter().chain(&other.runs).copied().collect();
        all.sort_unstable();
        let mut union = IndexSet::default();
        for (first, last) in all {
            match union.runs.last_mut() {
                Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
                _ => union.runs.push((first, last)),
            }
        }
        union
    }

    /// How many indexes are in both.
    pub fn n_common(&self, other: &IndexSet) -> usize {
        let (mut n_common, mut others) = (0, other.runs.iter().peekable());
        for &(first, last) in &self.runs {
            while let Some(&&(other_first, other_last)) = others.peek() {
                let (start, end) = (first.max(other_first), last.min(other_last));
                n_common += (u64::from(end) + 1).saturating_sub(u64::from(start)) as usize;
                // The one that ends first has nothing in common with what follows.
                if other_last > last {
                    break;
                }
                others.next();
            }
        }
        n_common
    }

    /// The indexes, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().flat_map(|&(first, last)| first..=last)
    }

    /// The indexes below `end` that are not in the set, in rising order.
    pub fn into_missing(self, end: u32) -> impl Iterator<Item = u32> {
        let mut next = 0;
        self.runs.into_iter().chain(std::iter::once((end, end))).flat_map(move |(first, last)| {
            let gap = next..first.min(end);
            next = last.saturating_add(1);
            gap
        })
    }

    /// Reads "0-3,7". What cannot be read, such as a part out of order, is left out: a status that somebody broke must
    /// not stop the job, and an index that is not known as done is done again rather than lost.
    pub fn parse(text: &str) -> IndexSet {
        let mut set = IndexSet::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let Some((first, last)) = parse_run(part) else { continue };
            match set.runs.last_mut() {
                Some(previous) if first <= previous.1 => {}
                Some(previous) if first == previous.1 + 1 => previous.1 = last,
                _ => set.runs.push((first, last)),
            }
        }
        set
    }
}

/// Reads "3" or "3-7".
pub(super) fn parse_run(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    // The last index must leave room for the one after it.
    (first <= last && last < u32::MAX).then_some((first, last))
}

/// Writes "3" or "3-7".
pub(super) fn write_run(f: &mut fmt::Formatter<'_>, first: u32, last: u32) -> fmt::Result {
    if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, &(first, last)) in self.runs.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            match last - first {
                1 => write!(f, "{first},{last}")?,
                _ => write_run(f, first, last)?,
            }
        }
        Ok(())
    }
}

impl FromIterator<u32> for IndexSet {
    fn from_iter<I: IntoIterator<Item = u32>>(indexes: I) -> IndexSet {
        let mut set = IndexSet::default();
        for index in indexes {
            set.insert(index);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_whatever_the_order() {
        for order in [[0, 1, 2, 4], [4, 2, 1, 0], [2, 0, 4, 1], [1, 0, 2, 4]] {
            let set: IndexSet = order.into_iter().collect();
            assert_eq!(set.to_string(), "0-2,4", "inserted in the order {order:?}");
            assert_eq!(set.len(), 4);
        }
    }

    #[test]
    fn inserting_twice_changes_nothing() {
        let mut set = IndexSet::parse("3-5");
        assert!(!set.insert(4));
        assert!(set.insert(6));
        assert_eq!(set.to_string(), "3-6");
    }

    #[test]
    fn what_it_writes_it_reads_back() {
        for text in ["", "0", "0-3,7", "1,2", "5,9,10,4000000000"] {
            assert_eq!(IndexSet::parse(text).to_string(), text);
        }
    }

    #[test]
    fn jobs_own_form_is_read_and_nonsense_is_left_out() {
        assert_eq!(IndexSet::parse("1,2,3-5").to_string(), "1-5");
        assert_eq!(IndexSet::parse("7-3,x,-1,2,1,4294967295").to_string(), "2");
    }

    #[test]
    fn what_is_missing_is_what_is_not_contained() {
        for text in ["", "0", "0-3,7", "2-4,9", "0-9", "5-30"] {
            let set = IndexSet::parse(text);
            let expected: Vec<u32> = (0..10).filter(|&index| !set.contains(index)).collect();
            assert_eq!(set.into_missing(10).collect::<Vec<_>>(), expected, "{text:?}");
        }
        assert_eq!(IndexSet::parse("0-3").into_missing(0).count(), 0);
    }

    #[test]
    fn what_is_removed_leaves_the_rest() {
        for (index, rest) in [(0, "1-3,7"), (2, "0,1,3,7"), (3, "0-2,7"), (7, "0-3"), (5, "0-3,7"), (9, "0-3,7")] {
            let mut set = IndexSet::parse("0-3,7");
            set.remove(index);
            assert_eq!(set.to_string(), rest, "without {index}");
        }
    }

    #[test]
    fn a_set_is_split_at_an_index() {
        for (end, below, rest) in
            [(0, "", "0-3,7"), (2, "0,1", "2,3,7"), (4, "0-3", "7"), (7, "0-3", "7"), (8, "0-3,7", "")]
        {
            let mut set = IndexSet::parse("0-3,7");
            let split = set.split_off(end);
            assert_eq!((set.to_string().as_str(), split.to_string().as_str()), (below, rest), "at {end}");
        }
    }

    #[test]
    fn what_is_common_is_counted() {
        let texts = ["", "0", "0-3,7", "2-4,9", "1,3,5,7,9", "0-9", "5-30", "4,6,8,20-22"];
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (one, other))) {
            let sets = (IndexSet::parse(one), IndexSet::parse(other));
            let expected = sets.0.iter().filter(|&index| sets.1.contains(index)).count();
            assert_eq!(sets.0.n_common(&sets.1), expected, "{one:?} and {other:?}");
        }
    }

    #[test]
    fn contains_only_what_is_in_a_run() {
        let set = IndexSet::parse("0-3,7");
        let members: Vec<u32> = (0..10).filter(|&index| set.contains(index)).collect();
        assert_eq!(members, [0, 1, 2, 3, 7]);
        assert_eq!(set.iter().collect::<Vec<_>>(), members);
    }
}
