//! Is every write by the one who held the Lease, and does every law hold?
//!
//! Who wrote is known from the proxy: the answer to a write has the version that it made, and the history has what changed at
//! that version. A write that came late on purpose has no writer here: it was sent by one that led.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use batchjob_oracle::{End, Law, Leadership, Object, Promises, Violation};
use jiff::{SignedDuration, Timestamp};

use super::change::Change;
use super::lane::{LEASE, Played, is_of};

/// What is wrong with a lane, a sentence each; and how many writes are known by their writer.
pub struct Judged {
    pub violations: Vec<String>,
    /// The histories of the jobs that they are about.
    pub explanation: String,
    pub n_writes: u64,
    /// How many of these came while the Lease had been taken away by force, and the leader could not know of it yet.
    pub n_unknowing: u64,
    /// How many were sent by one that led and came when another one did; and how many of these the API server took.
    pub n_late: (u64, u64),
}

pub fn judge(mut played: Played) -> Result<Judged> {
    let holders = holders(&played);
    let mut writers: BTreeMap<u64, Arc<str>> = BTreeMap::new();
    for write in &played.writes {
        let (Some(version), Some(pid)) = (write.made, write.pid) else { continue };
        let name = holders.iter().find(|holder| is_of(holder, pid)).cloned();
        writers.insert(version, name.unwrap_or_else(|| format!("process {pid}, which never led").into()));
    }
    let late = || played.writes.iter().filter(|write| write.is_late);
    let n_taken = late().filter(|write| write.code.is_some_and(|code| code < 300)).count();
    let n_late = (late().count() as u64, n_taken as u64);
    let mut n_writes = 0;
    for entry in &mut played.history.entries {
        if let Some(writer) = writers.get(&entry.event.revision) {
            entry.event.writer = Some(writer.clone());
            n_writes += 1;
        }
    }
    let mut instances: Vec<Arc<str>> = writers.into_values().chain(holders).collect();
    instances.sort();
    instances.dedup();
    let is_late = |round: &super::lane::Round| round.change == Change::Slow;
    let promises = Promises {
        late_creates: played.rounds.iter().any(is_late),
        leadership: Some(Leadership { lease: format!("{}/{LEASE}", played.namespace).into(), instances }),
        ..Promises::default()
    };
    let end = End::Settled { quiet_since: played.quiet_since, at: played.ended_at };
    let mut broken = played.history.judge(promises, end);
    let n_broken = broken.len();
    let unknowing = unknowing(&played)?;
    let at: BTreeMap<u64, Timestamp> = played.history.events().map(|event| (event.revision, event.at)).collect();
    broken.retain(|violation: &Violation| {
        let is_unknowing = |at: &Timestamp| unknowing.iter().any(|(from, until)| from <= at && at <= until);
        violation.law != Law::I13 || !at.get(&violation.revision).is_some_and(is_unknowing)
    });
    let n_unknowing = (n_broken - broken.len()) as u64;
    let mut violations: Vec<String> =
        broken.iter().map(|violation| format!("{}: {violation}", played.namespace)).collect();
    if played.logs.iter().any(|log| log.contains("panicked")) {
        violations.push(format!("{}: an operator has panicked", played.namespace));
    }
    let explanation = if broken.is_empty() { String::new() } else { played.history.explain(&broken) };
    Ok(Judged { violations, explanation, n_writes, n_unknowing, n_late })
}

/// All who have ever held the Lease.
fn holders(played: &Played) -> Vec<Arc<str>> {
    let holders = played.history.events().filter_map(|event| match &event.object {
        Object::Lease(lease) => lease.holder.clone(),
        _ => None,
    });
    holders.collect()
}

/// When somebody who takes no part in the election had taken the Lease away: the leader hears of it with its next renewal,
/// and no other one leads before.
fn unknowing(played: &Played) -> Result<Vec<(Timestamp, Timestamp)>> {
    let renew = SignedDuration::try_from(played.times.renew)?;
    let by_force = played.rounds.iter().filter(|round| matches!(round.change, Change::Deleted | Change::Stolen));
    by_force.map(|round| Ok((round.at, round.at.checked_add(renew)?))).collect()
}
