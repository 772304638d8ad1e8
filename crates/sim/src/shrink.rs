//! Makes a case that breaks a law as small as it can be while it still does.

use batchjob_operator::args::OperatorArgs;

use crate::case::{Case, Deed, Operators};
use crate::world::play;

/// The smallest case that is found, which breaks some law as the given one does.
pub fn shrink(case: &Case, args: &OperatorArgs) -> Case {
    let mut best = case.clone();
    loop {
        let smaller =
            candidates(&best).into_iter().find(|candidate| !play(candidate, args, false).violations.is_empty());
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// The case with one thing less.
fn candidates(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Case)| {
        let mut candidate = case.clone();
        change(&mut candidate);
        all.push(candidate);
    };
    for job in 0..case.jobs.len() {
        if case.deeds.iter().any(|(_, deed)| job_of(deed) == Some(job)) && case.jobs.len() > 1 {
            add(&|it| it.deeds.retain(|(_, deed)| job_of(deed) != Some(job)));
        }
    }
    for cron in 0..case.crons.len() {
        let is_of = |deed: &Deed| matches!(deed, Deed::CreateCron { cron: it } | Deed::SuspendCron { cron: it, .. } | Deed::Trigger { cron: it, .. } if *it == cron);
        if case.crons.len() > 1 && case.has(is_of) {
            add(&|it| it.deeds.retain(|(_, deed)| !is_of(deed)));
        }
    }
    for nth in 0..case.deeds.len() {
        add(&|it| _ = it.deeds.remove(nth));
    }
    for nth in 0..case.rates.requests.len() {
        add(&|it| _ = it.rates.requests.remove(nth));
    }
    for nth in 0..case.script.len() {
        add(&|it| _ = it.script.remove(nth));
    }
    let is_there = case.rates.clone().of_views().map(|rate| *rate > 0);
    for (nth, _) in is_there.into_iter().enumerate().filter(|(_, is_there)| *is_there) {
        add(&|it| *it.rates.of_views()[nth] = 0);
    }
    if case.operators != Operators::One {
        add(&|it| {
            it.operators = Operators::One;
            it.deeds.retain(|(_, deed)| {
                !matches!(
                    deed,
                    Deed::Kill { seat: 1 }
                        | Deed::Terminate { seat: 1 }
                        | Deed::Skew { seat: 1, .. }
                        | Deed::LoseLease { seat: 1, .. }
                )
            });
        });
    }
    all
}

fn job_of(deed: &Deed) -> Option<usize> {
    match deed {
        Deed::Create { job } | Deed::Edit { job, .. } | Deed::Delete { job, .. } => Some(*job),
        _ => None,
    }
}
