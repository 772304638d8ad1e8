//! What is different between two performances of one case, and whether it is meant to be.

use batchjob_oracle::standing::{Condition, Standing};

use crate::case::Case;
use crate::differences::{DIFFERENCES, Difference};
use crate::play::{Performance, Round};

/// What came of one case at one door.
pub enum Verdict {
    Equal,
    /// On the written list.
    Intended(&'static Difference),
    /// Neither.
    Different(Vec<String>),
}

pub fn compare(case: &Case, reference: &Performance, ours: &Performance) -> Verdict {
    let mut found: Vec<String> =
        ours.violations.iter().map(|broken| format!("{} breaks a rule: {broken}", ours.door)).collect();
    for performance in [reference, ours] {
        found.extend(performance.stuck.iter().map(|stuck| format!("{} is stuck: {stuck}", performance.door)));
    }
    let is_broken = !found.is_empty();
    found.extend(first_difference(reference, ours));
    if found.is_empty() {
        return Verdict::Equal;
    }
    // Nothing is meant to be stuck, or to break a rule.
    let intended = DIFFERENCES.iter().find(|difference| !is_broken && (difference.applies)(case, reference, ours));
    match intended {
        Some(difference) => Verdict::Intended(difference),
        None => Verdict::Different(found),
    }
}

fn first_difference(reference: &Performance, ours: &Performance) -> Option<String> {
    let pairs = reference.rounds.iter().zip(&ours.rounds).enumerate();
    for (n, (theirs, ours)) in pairs {
        if theirs.what != ours.what {
            return Some(format!("round {n} is {:?} there and {:?} here", theirs.what, ours.what));
        }
        let is_waiting = theirs.is_waiting || ours.is_waiting;
        let (there, here) = (facts(theirs, is_waiting), facts(ours, is_waiting));
        if let Some((there, here)) = there.iter().zip(&here).find(|(there, here)| there != here) {
            return Some(format!("after round {n} ({}) it is {there} there and {here} here", theirs.what));
        }
    }
    let (there, here) = (reference.rounds.len(), ours.rounds.len());
    (there != here).then(|| format!("it takes {there} rounds there and {here} here"))
}

/// What has to be equal when all is quiet, each as text.
fn facts(round: &Round, is_waiting: bool) -> Vec<String> {
    let Standing { active, terminating, succeeded, failed, .. } = round.standing;
    // Before the end batch/v1 Job counts ready pods a moment later than we look.
    let standing = &round.standing;
    let ready = if standing.is_finished() { standing.ready } else { 0 };
    let condition = |Condition { type_, is_true, reason }: &Condition| format!("{type_}={is_true}({reason})");
    let conditions: Vec<String> = standing.conditions.iter().map(condition).collect();
    vec![
        format!("conditions {}", conditions.join(" ")),
        format!("active {active}"),
        format!("ready {ready}"),
        format!("terminating {terminating}"),
        format!("succeeded {succeeded}"),
        format!("failed {}", if is_waiting { 0 } else { failed }),
        format!("completedIndexes {:?}", standing.completed_indexes),
        format!("failedIndexes {:?}", standing.failed_indexes.as_deref().unwrap_or_default()),
        format!("a startTime {}", standing.start_time.is_some()),
        format!("a completionTime {}", standing.completion_time.is_some()),
    ]
}

/// Both histories, beside each other, round by round.
pub fn side_by_side(reference: &Performance, ours: &Performance) -> String {
    const WIDTH: usize = 100;
    let mut text = format!("{:WIDTH$} | {}\n", reference.door.to_string(), ours.door);
    let (there, here) = (rounds(&reference.history), rounds(&ours.history));
    for n in 0..there.len().max(here.len()) {
        let of = |rounds: &[Vec<String>]| rounds.get(n).cloned().unwrap_or_default();
        let (there, here) = (of(&there), of(&here));
        for line in 0..there.len().max(here.len()) {
            let of = |lines: &[String]| lines.get(line).cloned().unwrap_or_default();
            let (there, here) = (of(&there), of(&here));
            let there = if there.chars().count() > WIDTH { format!("{there}\n{:WIDTH$}", "") } else { there };
            text += &format!("{there:WIDTH$} | {here}\n");
        }
    }
    text
}

/// A history, cut before each round.
fn rounds(history: &[String]) -> Vec<Vec<String>> {
    let mut rounds = vec![Vec::new()];
    for line in history {
        if line.contains("--- ") {
            rounds.push(Vec::new());
        }
        rounds.last_mut().into_iter().for_each(|round| round.push(line.clone()));
    }
    rounds
}
