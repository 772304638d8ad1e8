//! Any text is an expression or is refused with words; and of an expression the next slot and the last one agree.
#![no_main]

use batchjob_decide::schedule::{Calendar, Dst, Expression};
use jiff::{Timestamp, tz::TimeZone};
use libfuzzer_sys::fuzz_target;

/// Some whose clocks are changed in odd ways, and at odd times.
const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"];

fuzz_target!(|data: (&str, u32, u8)| {
    let (text, seconds, rules) = data;
    let expression = match Expression::parse(text, "default/etl") {
        Ok(expression) => expression,
        Err(wrong) => return assert!(!wrong.to_string().is_empty()),
    };
    let after = Timestamp::from_second(i64::from(seconds)).expect("a time before 2107");
    let calendar = Calendar {
        expressions: vec![expression],
        zone: TimeZone::get(ZONES[usize::from(rules / 2) % ZONES.len()]).expect("a zone"),
        dst: if rules % 2 == 0 { Dst::default() } else { Dst::CRON_JOB },
        anchor: Timestamp::UNIX_EPOCH,
    };
    let Some(first) = calendar.next(after) else { return };
    assert!(first > after);
    assert_eq!(calendar.last(after, first), Some(first), "{text:?}");
    if let Some(second) = calendar.next(first) {
        assert!(second > first);
        let before = second.checked_sub(jiff::SignedDuration::from_nanos(1)).expect("a time");
        assert_eq!(calendar.last(after, before), Some(first), "{text:?}");
    }
});
