//! Which plans there are: a workload with its faults. All of them are enumerated from a run without faults, each has a name
//! by which it can be run again, and those that have found something are kept as files.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::fault::{Fault, Kind, ViewFault, WriteFault};
use super::proxy::Told;

/// A workload, who runs it, and what goes wrong in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    pub workload: String,
    pub operators: Operators,
    pub faults: Vec<Fault>,
}

/// Who runs the jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operators {
    /// One, which is started anew when it is killed.
    #[default]
    One,
    /// One that leads and one that stands by and takes over. Who is killed stays dead while the other one lives.
    Standby,
    /// Two, both of which believe that they lead. Who is killed is started anew.
    Two,
}

impl Operators {
    pub fn count(self) -> usize {
        match self {
            Operators::One => 1,
            Operators::Standby | Operators::Two => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operators::One => "one",
            Operators::Standby => "standby",
            Operators::Two => "two",
        }
    }
}

/// `suspend.kill-after.7`, `suspend@standby.kill-after.7`, `one.kill-before.2+kill-after.4`; without faults `one` or
/// `one@two` alone.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.workload)?;
        if self.operators != Operators::One {
            write!(f, "@{}", self.operators.name())?;
        }
        for (i, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "." } else { "+" })?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Plan> {
        let (workload, faults) = text.split_once('.').unwrap_or((text, ""));
        let (workload, operators) = workload.split_once('@').unwrap_or((workload, Operators::One.name()));
        let known = [Operators::One, Operators::Standby, Operators::Two].into_iter();
        let operators = known.into_iter().find(|known| known.name() == operators);
        let operators = operators.with_context(|| format!("read {text:?}: it is one, standby or two"))?;
        let faults = faults.split('+').filter(|fault| !fault.is_empty()).map(str::parse).collect::<Result<_>>()?;
        Ok(Plan { workload: workload.to_owned(), operators, faults })
    }
}

/// A plan as a file: see `tests/faults/plans`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    workload: String,
    #[serde(default)]
    operators: Operators,
    faults: Vec<String>,
}

impl Plan {
    pub fn without_faults(workload: &str) -> Plan {
        Plan::new(workload, &[])
    }

    pub fn read(path: &Path) -> Result<Plan> {
        let read = || -> Result<Plan> {
            let file: File = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
            let faults = file.faults.iter().map(|fault| fault.parse()).collect::<Result<_>>()?;
            Ok(Plan { workload: file.workload, operators: file.operators, faults })
        };
        read().with_context(|| format!("read {}", path.display()))
    }

    /// What [`Plan::read`] reads.
    pub fn to_file(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        let (workload, operators) = (&self.workload, self.operators.name());
        format!("workload: {workload}\noperators: {operators}\nfaults: [{}]\n", faults.join(", "))
    }

    /// The plans that are kept, in the order of their files' names.
    pub fn kept() -> Result<Vec<Plan>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/plans");
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        paths.iter().map(|path| Plan::read(path)).collect()
    }

    fn new(workload: &str, faults: &[Fault]) -> Plan {
        Plan { workload: workload.to_owned(), operators: Operators::One, faults: faults.to_vec() }
    }

    /// Its kind, without numbers: "kill-after", "two kills", "standby, kill-before".
    pub fn class(&self) -> String {
        let of_faults = match &self.faults[..] {
            [] => "no fault",
            [fault] => fault.class(),
            _ => "two kills",
        };
        match self.operators {
            Operators::One => of_faults.to_owned(),
            Operators::Standby | Operators::Two => format!("{}, {of_faults}", self.operators.name()),
        }
    }

    fn run_by(self, operators: Operators) -> Plan {
        Plan { operators, ..self }
    }
}

/// Every plan in which one write of `n_writes` goes wrong.
pub fn of_writes(workload: &str, n_writes: usize) -> Vec<Plan> {
    let faults = (1..=n_writes).flat_map(|n| WriteFault::ALL.map(|what| Fault::Write(what, n)));
    faults.map(|fault| Plan::new(workload, &[fault])).collect()
}

/// Every plan in which the operator is killed twice: after one write and, in its second life, at another one. There may be
/// a few more writes than without faults.
pub fn of_two_kills(workload: &str, n_writes: usize) -> Vec<Plan> {
    let kills = [WriteFault::KillBefore, WriteFault::KillAfter];
    let mut plans = Vec::new();
    for first in 1..=n_writes {
        for second in first + 1..=n_writes + 2 {
            for (one, other) in kills.iter().flat_map(|&one| kills.map(|other| (one, other))) {
                plans.push(Plan::new(workload, &[Fault::Write(one, first), Fault::Write(other, second)]));
            }
        }
    }
    plans
}

/// Every plan in which the leader is killed at a write and the one that stands by takes over.
pub fn of_standbys(workload: &str, n_writes: usize) -> Vec<Plan> {
    let kills =
        of_writes(workload, n_writes).into_iter().filter(|plan| plan.faults.iter().all(|fault| fault.is_kill()));
    kills.map(|plan| plan.run_by(Operators::Standby)).collect()
}

/// Plans in which two lead at the same time: which of them is faster differs from run to run, so it is played several
/// times; and what goes wrong with a write of one of them, which the other may have made meanwhile.
pub fn of_two_leaders(workload: &str, n_writes: usize) -> Vec<Plan> {
    const TIMES: usize = 10;
    let faults = [WriteFault::KillAfter, WriteFault::Swallow, WriteFault::Late];
    let calm = (0..TIMES).map(|_| Plan::without_faults(workload));
    let wrong = (1..=n_writes).flat_map(|n| faults.map(|what| Plan::new(workload, &[Fault::Write(what, n)])));
    calm.chain(wrong).map(|plan| plan.run_by(Operators::Two)).collect()
}

/// Every plan in which the operator is told something wrongly, from what it is told without faults.
pub fn of_views(workload: &str, told: &[Told]) -> Vec<Plan> {
    let mut faults = Vec::new();
    for kind in Kind::WATCHED {
        let of_kind: Vec<&Told> = told.iter().filter(|told| told.kind == kind).collect();
        for event in &of_kind {
            faults.extend(
                [ViewFault::Drop(event.n), ViewFault::Gone(event.n), ViewFault::Cut(event.n)]
                    .map(|what| Fault::View(kind, what)),
            );
        }
        let n_writes: Vec<usize> = of_kind.iter().map(|told| told.n_writes).collect();
        faults.extend(pairs(&n_writes).into_iter().flat_map(|(n, later)| of_pair(kind, n, later)));
    }
    let kinds: BTreeSet<Kind> = told.iter().map(|told| told.kind).collect();
    if kinds.len() > 1 {
        let n_writes: Vec<usize> = told.iter().map(|told| told.n_writes).collect();
        faults.extend(pairs(&n_writes).into_iter().flat_map(|(n, later)| of_pair(Kind::All, n, later)));
    }
    faults.into_iter().map(|fault| Plan::new(workload, &[fault])).collect()
}

fn of_pair(kind: Kind, n: usize, later: usize) -> Vec<Fault> {
    let all = [ViewFault::Hold(n, later), ViewFault::Stale(n, later), ViewFault::Restart(n, later)];
    // An operator that starts with old pods has none of the promises that it needs: its lists are consistent reads, so it sees
    // every pod that was made before it. By name such a plan can be played all the same; some are kept. Old jobs are what it
    // must bear, as one does that takes over from another.
    let can_be = |what: &ViewFault| !kind.covers(Kind::Pods) || !matches!(what, ViewFault::Restart(..));
    all.into_iter().filter(can_be).map(|what| Fault::View(kind, what)).collect()
}

/// The pairs of events between which the operator has written, one for each two writes: the last event before the one
/// write, and the first event after the other. Other events than these would show it nothing else.
///
/// `n_writes` has for each event how many writes had come before it.
fn pairs(n_writes: &[usize]) -> Vec<(usize, usize)> {
    let lasts = (1..n_writes.len()).filter(|&n| n_writes[n] > n_writes[n - 1]);
    let mut pairs = BTreeSet::new();
    for n in lasts.clone() {
        for later in lasts.clone().filter(|&later| later >= n) {
            // `n` is the number of the event before a write, and the next event is the first after it.
            pairs.insert((n, later + 1));
        }
    }
    pairs.into_iter().collect()
}

/// `n` of the plans, evenly apart, those that the commit chooses: over many commits all of them come about.
pub fn pick<T: Clone>(plans: &[T], n: usize, commit: &str) -> Vec<T> {
    let (n, n_all) = (n.min(plans.len()), plans.len().max(1));
    let hash = Sha256::digest(commit.as_bytes());
    let first = hash.iter().take(6).fold(0usize, |sum, &byte| sum << 8 | usize::from(byte)) % n_all;
    (0..n).map(|nth| plans[(nth * n_all + first) / n].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plan() {
        for name in [
            "one",
            "one@two",
            "one.kill-before.2+kill-after.4",
            "suspend.stale.pods.1-4",
            "suspend@standby.kill-after.7",
        ] {
            assert_eq!(name.parse::<Plan>().unwrap().to_string(), name);
        }
        "one@three".parse::<Plan>().unwrap_err();
    }

    #[test]
    fn a_plan_that_is_kept_can_be_read() {
        let path = std::env::temp_dir().join(format!("plan-{}.yaml", std::process::id()));
        for name in ["one@two", "suspend@standby.kill-after.7", "one.kill-before.2+stale.pods.1-4"] {
            let plan: Plan = name.parse().unwrap();
            std::fs::write(&path, plan.to_file()).unwrap();
            assert_eq!(Plan::read(&path).unwrap(), plan);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn kept_plans_can_be_read() {
        Plan::kept().unwrap();
    }

    #[test]
    fn pairs_have_a_write_between_them() {
        // Events 1 and 2, a write, event 3, two writes, event 4.
        assert_eq!(pairs(&[0, 0, 1, 3]), [(2, 3), (2, 4), (3, 4)]);
        assert_eq!(pairs(&[2, 2]), []);
    }

    #[test]
    fn over_all_commits_all_plans_are_picked() {
        let plans: Vec<usize> = (0..1000).collect();
        let picked = pick(&plans, 200, "8d9d830");
        assert_eq!(picked.len(), 200);
        assert_eq!(picked, pick(&plans, 200, "8d9d830"));
        let all: BTreeSet<usize> = (0..100).flat_map(|commit| pick(&plans, 200, &commit.to_string())).collect();
        assert_eq!(all.len(), 1000);
        assert_eq!(pick(&plans, 2000, "x").len(), 1000);
    }

    #[test]
    fn numbers_that_do_not_divide_each_other_leave_no_plan_out() {
        let plans: Vec<usize> = (0..17).collect();
        let picked: Vec<Vec<usize>> = (0..400).map(|commit| pick(&plans, 5, &format!("{commit:x}"))).collect();
        assert!(picked.iter().all(|some| some.len() == 5 && some.is_sorted()));
        assert!(plans.iter().all(|plan| picked.iter().any(|some| some.contains(plan))));
        assert_eq!(pick(&plans, 100, "abc"), plans);
        assert!(pick(&plans, 0, "abc").is_empty() && pick(&plans[..0], 5, "abc").is_empty());
    }
}
