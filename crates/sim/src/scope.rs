//! Small jobs, of which every fault at every request is played, and every pair of faults.

use std::time::Duration;

use serde_json::json;

use crate::case::{Case, Deed, Edit, JobCase, Operators, Propagation};
use crate::fault::{Rates, RequestFault};

/// A small job, and what its users do.
pub struct Scope {
    pub name: &'static str,
    pub case: Case,
}

/// All of them, the smallest first.
pub fn scopes() -> Vec<Scope> {
    let one = JobCase::new("one", false, json!({}));
    let mut retry = JobCase::new(
        "retry",
        false,
        json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 6 }),
    );
    retry.fails = 40;
    let managed = JobCase::new("managed", true, json!({ "completions": 2, "parallelism": 1 }));
    let mut long = JobCase::new("long", false, json!({ "completions": 2, "parallelism": 2 }));
    long.runs = Duration::from_secs(20);
    let edit = |seconds, what| (Duration::from_secs(seconds), Deed::Edit { job: 0, what });
    vec![
        scope("one", one, Vec::new()),
        scope("managed", managed, Vec::new()),
        scope("retry", retry, Vec::new()),
        scope("suspend", long.clone(), vec![edit(3, Edit::Suspend(true)), edit(9, Edit::Suspend(false))]),
        scope(
            "deletion",
            long.clone(),
            vec![(Duration::from_secs(3), Deed::Delete { job: 0, how: Propagation::Background })],
        ),
        scope("parallelism", long, vec![edit(3, Edit::Parallelism(1))]),
    ]
}

fn scope(name: &'static str, job: JobCase, mut deeds: Vec<(Duration, Deed)>) -> Scope {
    deeds.insert(0, (Duration::from_millis(100), Deed::Create { job: 0 }));
    let case = Case {
        seed: 7,
        jobs: vec![job],
        crons: Vec::new(),
        deeds,
        rates: Rates::default(),
        script: Vec::new(),
        operators: Operators::One,
        fair_after: Duration::from_secs(30),
    };
    Scope { name, case }
}

impl Scope {
    /// Every fault at each of the first `n` requests, and every pair of them.
    pub fn scripts(n: u64) -> impl Iterator<Item = Vec<(u64, RequestFault)>> {
        let single = move || (1..=n).flat_map(|nth| RequestFault::ALL.into_iter().map(move |fault| (nth, fault)));
        let pairs = move || {
            single().flat_map(move |first| {
                single().filter(move |second| second.0 > first.0).map(move |second| vec![first, second])
            })
        };
        single().map(|fault| vec![fault]).chain(pairs())
    }

    pub fn with(&self, script: Vec<(u64, RequestFault)>) -> Case {
        Case { script, ..self.case.clone() }
    }
}
