//! Any texts are a ledger; and whatever happens to it then, what is written is what is read back.
#![no_main]

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::ledger::{Ledger, MAX_OPEN, OpenIndexes};
use batchjob_decide::plan::AttemptId;
use jiff::Timestamp;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    completed: String,
    failed_indexes: String,
    open: String,
    failed: i32,
    happenings: Vec<Happening>,
}

/// What happens to one index: small, or just below the last that a name can have.
#[derive(Clone, Copy, Debug, Arbitrary)]
struct Happening {
    kind: Kind,
    index: u8,
    is_far: bool,
    attempt: u32,
    at: i64,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Kind {
    Complete,
    Fail,
    Ignore,
    GiveUp,
    Stop,
    ForgetFrom,
    PassBeyond,
}

fn read(ledger: &Ledger) -> Ledger {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ledger::read(&BatchJobStatus {
        completed_indexes: some(ledger.completed.to_string()),
        failed_indexes: some(ledger.failed_indexes.to_string()),
        open_indexes: some(ledger.open.to_string()),
        failed: Some(ledger.failed.min(i32::MAX as u32) as i32),
        ..BatchJobStatus::default()
    })
}

fuzz_target!(|input: Input| {
    let open = OpenIndexes::parse(&input.open);
    let written = open.to_string();
    assert_eq!(OpenIndexes::parse(&written), open, "what is written is read back");
    // An entry may cut one that is longer in two, once for each comma.
    assert!(written.len() <= 8 * input.open.len() + 64, "{} became {written:?}", input.open);

    let mut ledger = Ledger::read(&BatchJobStatus {
        completed_indexes: Some(input.completed),
        failed_indexes: Some(input.failed_indexes),
        open_indexes: Some(input.open),
        failed: Some(input.failed),
        ..BatchJobStatus::default()
    });
    for Happening { kind, index, is_far, attempt, at } in input.happenings.into_iter().take(64) {
        let index = if is_far { u32::MAX - 1 - u32::from(index) } else { u32::from(index) };
        // A pod of an attempt that is passed is read otherwise.
        let attempt = attempt.clamp(1, AttemptId::LAST).max(ledger.next_attempt(index).min(AttemptId::LAST));
        let at = Timestamp::from_second(at).unwrap_or(Timestamp::UNIX_EPOCH);
        let before = ledger.failed;
        match kind {
            Kind::Complete => ledger.complete(index),
            Kind::Fail | Kind::Ignore if ledger.is_closed(index) => {}
            Kind::Fail => {
                ledger.fail(index, attempt, at);
                assert!(ledger.is_passed(index, attempt));
            }
            Kind::Ignore => ledger.ignore(index, attempt, at),
            Kind::GiveUp => ledger.give_up(index),
            Kind::Stop => {
                ledger.stop(index, attempt);
                assert!(ledger.is_passed(index, attempt));
            }
            Kind::ForgetFrom => ledger.forget_from(index),
            Kind::PassBeyond => ledger.pass_beyond(index, attempt),
        }
        assert!(ledger.failed >= before);
    }
    // As many as are read.
    if ledger.failed <= i32::MAX as u32 && ledger.open.indexes().count() <= MAX_OPEN as usize {
        let back = read(&ledger);
        assert_eq!(back, ledger, "what is written is read back: {} {}", back.open, ledger.open);
    }
});
