//! Cases that have broken a law once, each as small as it could be made: none does again, and each is the same whenever it
//! is played.

use std::fs;
use std::path::Path;

use batchjob_sim::case::Case;
use batchjob_sim::operator_args;
use batchjob_sim::scope::scopes;
use batchjob_sim::world::play;

#[test]
fn what_broke_a_law_once_does_not_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut n_cases = 0;
    for entry in fs::read_dir(folder).expect("the folder of kept cases") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a case");
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let outcome = play(&case, &operator_args(), true);
        assert!(outcome.violations.is_empty(), "{}: {:#?}", path.display(), outcome.violations);
        assert_eq!(play(&case, &operator_args(), false).fingerprint, outcome.fingerprint, "{}", path.display());
        n_cases += 1;
    }
    assert!(n_cases > 0);
}

#[test]
fn cases_of_every_kind_end_well_and_are_the_same_again() {
    let mut n_lives = 0;
    for seed in 0..60 {
        let case = Case::of(seed);
        let outcome = play(&case, &operator_args(), false);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{case}", outcome.violations);
        assert_eq!(play(&case, &operator_args(), false).fingerprint, outcome.fingerprint, "seed {seed}");
        n_lives += outcome.n_lives;
    }
    assert!(n_lives >= 60, "{n_lives} lives");
}

#[test]
fn schedules_of_every_kind_end_well_and_are_the_same_again() {
    let mut n_slots = 0;
    for seed in 0..8 {
        let case = Case::of_schedules(seed);
        let outcome = play(&case, &operator_args(), false);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{case}", outcome.violations);
        assert_eq!(play(&case, &operator_args(), false).fingerprint, outcome.fingerprint, "seed {seed}");
        n_slots += outcome.n_slots;
    }
    assert!(n_slots >= 8, "{n_slots} slots");
}

#[test]
fn a_small_job_ends_well_without_faults() {
    for scope in scopes() {
        let outcome = play(&scope.case, &operator_args(), true);
        assert!(outcome.violations.is_empty(), "{}: {:#?}", scope.name, outcome.violations);
        assert_eq!(outcome.n_faults, 0);
        assert!(outcome.n_requests > 2 && !outcome.history.is_empty(), "{}", scope.name);
    }
}
