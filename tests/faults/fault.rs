//! Which faults there are, and how one is written: the same text in names of plans, in files and in reports.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// What is watched; or all that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Pods,
    BatchJobs,
    Jobs,
    All,
}

impl Kind {
    pub const WATCHED: [Kind; 3] = [Kind::Pods, Kind::BatchJobs, Kind::Jobs];

    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pods => "pods",
            Kind::BatchJobs => "batchjobs",
            Kind::Jobs => "jobs",
            Kind::All => "all",
        }
    }

    pub fn of_plural(plural: &str) -> Option<Kind> {
        [Kind::Pods, Kind::BatchJobs, Kind::Jobs, Kind::All].into_iter().find(|kind| kind.plural() == plural)
    }

    /// Whether what is said of this kind is said of that one too.
    pub fn covers(self, kind: Kind) -> bool {
        self == Kind::All || self == kind
    }
}

/// Something that goes wrong once. Writes are numbered from 1 in the order in which they reach the proxy, over all lives of
/// the operator; events from 1 in the order in which they come from the API server, those of each kind for themselves, and
/// all together for `all`. Events that the operator writes for users are no writes here, nor is its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// At the n-th write.
    Write(WriteFault, usize),
    /// In what the operator is told.
    View(Kind, ViewFault),
}

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteFault {
    /// The operator dies before it is sent.
    KillBefore,
    /// It is applied, and the operator dies before it has the answer.
    KillAfter,
    /// It is applied, and the connection breaks instead of the answer.
    Swallow,
    /// It is applied, and the answer is that it took too long.
    Timeout,
    /// It is not applied, as if somebody had been faster: 409.
    Conflict,
    /// It is not applied: 429, come back after a second.
    Busy,
    /// It is not applied: 500.
    Error,
    /// It is applied, and the answer comes a second after the events about it.
    Late,
}

/// What happens to what the operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ViewFault {
    /// An event is never told. If the same object has no other one soon, the watch breaks off and a list tells of it.
    Drop(usize),
    /// After an event: 410, so that everything is listed anew.
    Gone(usize),
    /// After an event all connections break.
    Cut(usize),
    /// The events from one on are told only when another one comes, or after a while.
    Hold(usize, usize),
    /// After the second event all connections break, and the lists are those after the first one for a while: the same
    /// operator sees what was.
    Stale(usize, usize),
    /// The same, and the operator is killed too: it begins with what was.
    Restart(usize, usize),
}

impl WriteFault {
    pub const ALL: [WriteFault; 8] = [
        WriteFault::KillBefore,
        WriteFault::KillAfter,
        WriteFault::Swallow,
        WriteFault::Timeout,
        WriteFault::Conflict,
        WriteFault::Busy,
        WriteFault::Error,
        WriteFault::Late,
    ];

    pub fn name(self) -> &'static str {
        match self {
            WriteFault::KillBefore => "kill-before",
            WriteFault::KillAfter => "kill-after",
            WriteFault::Swallow => "swallow",
            WriteFault::Timeout => "timeout-504",
            WriteFault::Conflict => "conflict-409",
            WriteFault::Busy => "busy-429",
            WriteFault::Error => "error-500",
            WriteFault::Late => "late",
        }
    }
}

impl Fault {
    /// Its kind, without numbers: "kill-after", "stale".
    pub fn class(self) -> &'static str {
        match self {
            Fault::Write(what, _) => what.name(),
            Fault::View(_, ViewFault::Drop(_)) => "drop",
            Fault::View(_, ViewFault::Gone(_)) => "gone-410",
            Fault::View(_, ViewFault::Cut(_)) => "cut",
            Fault::View(_, ViewFault::Hold(..)) => "hold",
            Fault::View(_, ViewFault::Stale(..)) => "stale",
            Fault::View(_, ViewFault::Restart(..)) => "restart-stale",
        }
    }

    pub fn is_kill(self) -> bool {
        matches!(
            self,
            Fault::Write(WriteFault::KillBefore | WriteFault::KillAfter, _) | Fault::View(_, ViewFault::Restart(..))
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = self.class();
        match *self {
            Fault::Write(_, n) => write!(f, "{class}.{n}"),
            Fault::View(kind, what) => {
                let kind = kind.plural();
                match what {
                    ViewFault::Drop(n) | ViewFault::Gone(n) | ViewFault::Cut(n) => write!(f, "{class}.{kind}.{n}"),
                    ViewFault::Hold(a, b) | ViewFault::Stale(a, b) | ViewFault::Restart(a, b) => {
                        write!(f, "{class}.{kind}.{a}-{b}")
                    }
                }
            }
        }
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Fault> {
        read(text).with_context(|| format!("read the fault {text:?}"))
    }
}

fn read(text: &str) -> Result<Fault> {
    let (class, rest) = text.split_once('.').context("no number")?;
    if let Some(what) = WriteFault::ALL.into_iter().find(|what| what.name() == class) {
        return Ok(Fault::Write(what, number(rest)?));
    }
    let (kind, numbers) = rest.split_once('.').context("no number")?;
    let kind = Kind::of_plural(kind).with_context(|| format!("{kind:?} is not watched"))?;
    let two = || -> Result<(usize, usize)> {
        let (from, until) = numbers.split_once('-').context("two numbers are needed")?;
        let (from, until) = (number(from)?, number(until)?);
        ensure!(from < until, "the second event comes after the first one");
        Ok((from, until))
    };
    let what = match class {
        "drop" => ViewFault::Drop(number(numbers)?),
        "gone-410" => ViewFault::Gone(number(numbers)?),
        "cut" => ViewFault::Cut(number(numbers)?),
        "hold" => two().map(|(from, until)| ViewFault::Hold(from, until))?,
        "stale" => two().map(|(as_of, after)| ViewFault::Stale(as_of, after))?,
        "restart-stale" => two().map(|(as_of, after)| ViewFault::Restart(as_of, after))?,
        _ => bail!("there is no fault {class:?}"),
    };
    Ok(Fault::View(kind, what))
}

fn number(text: &str) -> Result<usize> {
    let number = text.parse().with_context(|| format!("{text:?} is no number"))?;
    ensure!(number > 0, "the first one is 1");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "kill-before.1",
            "kill-after.12",
            "swallow.3",
            "timeout-504.3",
            "conflict-409.3",
            "busy-429.3",
            "error-500.3",
            "late.2",
            "drop.pods.4",
            "gone-410.batchjobs.2",
            "cut.jobs.1",
            "hold.all.2-9",
            "stale.pods.1-4",
            "restart-stale.all.3-7",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["kill", "kill-after.0", "kill-after.x", "drop.nodes.1", "hold.pods.4", "stale.pods.4-4", "burn.1"]
        {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
