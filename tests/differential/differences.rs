//! The written list: where we differ from batch/v1 Job on purpose, as far as random jobs show it. The names are those of
//! the rows in `docs/differences.md`.

use crate::case::Case;
use crate::door::Door;
use crate::play::{Performance, Round};

/// One of them.
pub struct Difference {
    pub name: &'static str,
    pub why: &'static str,
    /// Whether it explains that the second performance is not as the first.
    pub applies: fn(&Case, &Performance, &Performance) -> bool,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "`backoffLimit` with `restartPolicy: OnFailure`",
        why: "batch/v1 Job compares restarts within pods by >=, apart from failed pods, and so gives one retry less",
        applies: restarts_decide,
    },
    Difference {
        name: "defaults",
        why: "with neither completions nor parallelism written, adding parallelism would make a work queue of a BatchJob: it \
              is refused; a Job has had completions: 1 filled in",
        applies: parallelism_is_refused,
    },
    Difference {
        name: "failures of an index whose pod was stopped (suspend, fewer wanted)",
        why: "batch/v1 Job keeps them in the pod, and the next one starts from 0 again",
        applies: failures_are_forgotten,
    },
];

/// A container was restarted in place, and the Job ended there, or would have to count it together with failed pods.
fn restarts_decide(case: &Case, reference: &Performance, ours: &Performance) -> bool {
    let is_on_failure = case.spec["template"]["spec"]["restartPolicy"] == "OnFailure";
    let has_restarted =
        |performance: &Performance| performance.rounds.iter().any(|round| round.what.contains("restarts a container"));
    let is_exceeded = |performance: &Performance| performance.verdict() == "Failed BackoffLimitExceeded";
    is_on_failure && (has_restarted(reference) || has_restarted(ours)) && (is_exceeded(reference) || is_exceeded(ours))
}

fn parallelism_is_refused(case: &Case, _: &Performance, ours: &Performance) -> bool {
    let is_bare = !case.spec.contains_key("completions") && !case.spec.contains_key("parallelism");
    let is_refused = ours.rounds.iter().any(|round| round.what.starts_with("refused: edit {\"parallelism\""));
    ours.door == Door::BatchJob && is_bare && is_refused
}

/// Something had failed when pods were stopped, and what follows is different.
fn failures_are_forgotten(case: &Case, reference: &Performance, ours: &Performance) -> bool {
    let failed = |round: &Round| round.standing.failed_indexes.clone().unwrap_or_default();
    let is_same = |(n, round): &(usize, &Round)| {
        ours.rounds.get(*n).is_some_and(|here| here.what == round.what && failed(here) == failed(round))
    };
    let equal = reference.rounds.iter().enumerate().take_while(is_same);
    let stops = |what: &str| what.contains("\"suspend\":true") || what.contains("\"parallelism\"");
    let is_stopped = equal.into_iter().any(|(_, round)| stops(&round.what) && round.standing.failed > 0);
    case.spec.contains_key("backoffLimitPerIndex") && is_stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_row_of_the_page_that_users_read() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md");
        let page = std::fs::read_to_string(page).expect("docs/differences.md is there");
        for difference in DIFFERENCES {
            assert!(page.contains(&format!("\n| {} |", difference.name)), "{}", difference.name);
        }
    }
}
