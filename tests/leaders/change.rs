//! What ends a leadership, and which changes a run is made of.

use std::fmt;
use std::time::Duration;

/// What is done to a leader in mid-work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// SIGTERM: it finishes what it has begun and gives up the Lease.
    Term,
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after so many seconds.
    Stop(u64),
    /// Somebody deletes the Lease.
    Deleted,
    /// Somebody writes another holder into the Lease, who never renews it.
    Stolen,
    /// Nothing comes through to the API server and back, until another one leads.
    Hole,
    /// The same, and what it had written comes through when another one leads.
    Slow,
}

impl Change {
    /// Without numbers: for reports.
    pub fn kind(self) -> &'static str {
        match self {
            Change::Term => "sigterm",
            Change::Kill => "sigkill",
            Change::Stop(_) => "sigstop",
            Change::Deleted => "lease-deleted",
            Change::Stolen => "lease-stolen",
            Change::Hole => "black-hole",
            Change::Slow => "late-writes",
        }
    }

    /// One of each.
    pub const KINDS: [Change; 7] =
        [Change::Term, Change::Kill, Change::Stop(7), Change::Deleted, Change::Stolen, Change::Hole, Change::Slow];
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Stop(seconds) => write!(f, "{} of {seconds} s", self.kind()),
            other => f.write_str(other.kind()),
        }
    }
}

/// How long a leader is stopped, one after the other.
const STOPS: [u64; 10] = [1, 7, 2, 12, 3, 20, 5, 30, 9, 60];

/// `n` changes, of all kinds, dealt out to `n_lanes`; each lane has them in another order.
pub fn deal(n: usize, n_lanes: usize) -> Vec<Vec<Change>> {
    let mut lanes = vec![Vec::new(); n_lanes.max(1)];
    let mut stops = STOPS.into_iter().cycle();
    for i in 0..n {
        // One in three is a stop, of which there are many lengths.
        let change = match (i % 3, i / 3) {
            (2, _) => Change::Stop(stops.next().unwrap_or(1)),
            (rest, third) => {
                let others = [Change::Term, Change::Kill, Change::Hole, Change::Deleted, Change::Slow, Change::Stolen];
                others[(2 * third + rest) % others.len()]
            }
        };
        let n_lanes = lanes.len();
        lanes[i % n_lanes].push(change);
    }
    lanes
}

/// The times of an election, as flags have them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub lease: Duration,
    pub renew: Duration,
    pub retry: Duration,
}

impl Times {
    /// Short ones, so that many changes fit into a minute.
    pub const SHORT: Times =
        Times { lease: Duration::from_secs(4), renew: Duration::from_secs(3), retry: Duration::from_secs(1) };
    /// What the operator has if nothing is said.
    pub const DEFAULT: Times =
        Times { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };

    /// How long it may take until somebody works again: the Lease, a look at it, and what comes then.
    pub fn until_work(self, change: Change) -> Duration {
        // Caches are read anew, and jobs looked at: a second or two, on a machine on which nobody else works. Reports tell the
        // slowest.
        const TO_BEGIN: Duration = Duration::from_secs(15);
        match change {
            Change::Term => self.retry + TO_BEGIN,
            // Whoever leads notices, or somebody takes it.
            Change::Deleted => self.retry * 2 + TO_BEGIN,
            _ => self.lease + self.retry * 2 + TO_BEGIN,
        }
    }

    pub fn flags(self) -> Vec<String> {
        let flag = |name: &str, value: Duration| format!("--leader-elect-{name}={}ms", value.as_millis());
        vec![flag("lease-duration", self.lease), flag("renew-deadline", self.renew), flag("retry-period", self.retry)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_kinds_and_all_lengths_are_dealt() {
        let all: Vec<Change> = deal(100, 8).into_iter().flatten().collect();
        assert_eq!(all.len(), 100);
        let kinds: BTreeSet<&str> = all.iter().map(|change| change.kind()).collect();
        assert_eq!(kinds, Change::KINDS.iter().map(|change| change.kind()).collect());
        for seconds in STOPS {
            assert!(all.contains(&Change::Stop(seconds)), "{seconds}");
        }
    }
}
