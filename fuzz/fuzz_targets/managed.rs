//! Any status and any annotation of a batch/v1 Job are read; and what we make of them is read back as ours.
#![no_main]

use batchjob_crd::BatchJobSpec;
use batchjob_decide::job::managed;
use batchjob_decide::observed::{Door, Job};
use batchjob_fuzz::change;
use k8s_openapi::api::batch::v1::JobStatus;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Input {
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
    /// As text, or as what the text says.
    #[serde(default)]
    ledger: Value,
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change::in_place(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(Input { spec, status, ledger }) = serde_json::from_slice(data) else { return Corpus::Reject };
    let Ok(status) = JobStatus::deserialize(&status) else { return Corpus::Reject };
    // A year before 0 can be read in a form in which the API server writes none, and is written in one that cannot be read.
    let is_of_the_api_server =
        serde_json::to_value(&status).is_ok_and(|status| JobStatus::deserialize(&status).is_ok());
    if !is_of_the_api_server {
        return Corpus::Reject;
    }
    let spec = BatchJobSpec::deserialize(&spec).unwrap_or_default();
    let ledger = ledger.as_str().map_or_else(|| ledger.to_string(), str::to_owned);
    let found = managed::read("uid", &status, Some(&ledger));
    let job = Job {
        door: Door::ManagedJob,
        uid: "uid".to_owned(),
        spec,
        status: found.status.clone(),
        has_lost_its_ledger: found.is_lost,
        ..Job::default()
    };
    let mut status = found.status;
    // A decision says all of them.
    for count in
        [&mut status.active, &mut status.ready, &mut status.terminating, &mut status.succeeded, &mut status.failed]
    {
        count.get_or_insert_default();
    }
    let kept = managed::keep(&job, status);
    assert_eq!(managed::keep(&job, kept.clone()), kept, "kept once is kept");
    let (written, ledger) = managed::write(&job, &kept);
    // As the API server gives it back.
    let text = serde_json::to_string(&written).expect("JSON");
    let written: JobStatus = serde_json::from_str(&text).expect("what is written can be read");
    let read = managed::read("uid", &written, Some(&ledger));
    assert!(!read.is_lost, "our own ledger is not known again: {ledger} beside {text}");
    let (again, ledger_again) = managed::write(&job, &read.status);
    assert_eq!((again, ledger_again), (written.clone(), ledger.clone()), "what is read is written the same");
    if written != JobStatus::default() {
        assert!(managed::read("another", &written, Some(&ledger)).is_lost, "the ledger of another job is none");
    }
    Corpus::Keep
});
