//! The calendar against a clock that is watched minute by minute, in zones that change it in every odd way; and, by name, the
//! days that people ask about.

use std::collections::BTreeSet;

use batchjob_decide::schedule::{Calendar, Dst, Expression, Repeated, Skipped};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn calendar(expressions: &[&str], zone: &str, dst: Dst) -> Calendar {
    let parse = |text: &&str| Expression::parse(text, "default/etl").unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
    Calendar {
        expressions: expressions.iter().map(parse).collect(),
        zone: TimeZone::get(zone).expect("a zone"),
        dst,
        anchor: at("2026-01-01T00:00:00Z"),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The slots after that time and until the other, as the zone's clock shows them, with the offset.
fn shown(calendar: &Calendar, after: &str, until: &str) -> Vec<String> {
    let slots = calendar.slots(at(after)).take_while(|slot| *slot <= at(until));
    slots.map(|slot| slot.to_zoned(calendar.zone.clone()).strftime("%d %H:%M %:z").to_string()).collect()
}

/// In Berlin clocks go from 2:00 to 3:00 on 2026-03-29, and from 3:00 back to 2:00 on 2026-10-25.
fn in_berlin(expression: &str, dst: Dst) -> [Vec<String>; 2] {
    let calendar = calendar(&[expression], "Europe/Berlin", dst);
    [("2026-03-28T12:00:00Z", "2026-03-29T10:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-25T10:00:00Z")]
        .map(|(after, until)| shown(&calendar, after, until))
}

#[test]
fn a_nightly_job_runs_once_on_the_days_on_which_clocks_are_changed() {
    assert_eq!(in_berlin("30 2 * * *", Dst::default()), [["29 03:00 +02:00"], ["25 02:30 +02:00"]]);
}

#[test]
fn a_nightly_job_runs_not_at_all_and_twice_as_a_cron_job() {
    let [spring, autumn] = in_berlin("30 2 * * *", Dst::CRON_JOB);
    assert_eq!(spring, Vec::<String>::new());
    assert_eq!(autumn, ["25 02:30 +02:00", "25 02:30 +01:00"]);
}

#[test]
fn what_runs_each_hour_runs_in_the_hours_that_there_are() {
    for dst in [Dst::default(), Dst::CRON_JOB] {
        let [spring, autumn] = in_berlin("30 */1 * * *", dst);
        assert_eq!(spring.iter().filter(|slot| slot.starts_with("29")).count(), 11, "{spring:?}");
        let of_the_night = autumn.iter().filter(|slot| slot.contains(" 02:") || slot.contains(" 03:"));
        let of_the_night: Vec<&str> = of_the_night.map(String::as_str).collect();
        assert_eq!(of_the_night, ["25 02:30 +02:00", "25 02:30 +01:00", "25 03:30 +01:00"]);
    }
}

#[test]
fn slots_that_are_skipped_together_are_one() {
    let [spring, _] = in_berlin("*/10 2,3 * * *", Dst::default());
    assert_eq!(spring[..2], ["29 03:00 +02:00", "29 03:10 +02:00"]);
}

#[test]
fn several_expressions_have_each_slot_once() {
    let calendar = calendar(&["0 6 * * *", "0 */6 * * *", "30 7 1 1 *"], "UTC", Dst::default());
    assert_eq!(
        shown(&calendar, "2026-12-31T00:00:00Z", "2027-01-01T08:00:00Z"),
        [
            "31 06:00 +00:00",
            "31 12:00 +00:00",
            "31 18:00 +00:00",
            "01 00:00 +00:00",
            "01 06:00 +00:00",
            "01 07:30 +00:00"
        ]
    );
}

#[test]
fn every_is_counted_from_the_anchor() {
    let calendar = calendar(&["@every 90m"], "Europe/Berlin", Dst::default());
    assert_eq!(calendar.next(at("2025-12-31T00:00:00Z")), Some(at("2026-01-01T01:30:00Z")), "the object must be there");
    assert_eq!(calendar.next(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T01:30:00Z")));
    assert_eq!(calendar.next(at("2026-01-01T01:30:00Z")), Some(at("2026-01-01T03:00:00Z")));
    assert_eq!(calendar.last(at("2026-01-01T00:00:00Z"), at("2026-01-01T01:29:59Z")), None);
    assert_eq!(calendar.last(at("2026-01-01T00:00:00Z"), at("2026-01-01T04:00:00Z")), Some(at("2026-01-01T03:00:00Z")));
}

#[test]
fn a_day_that_never_comes_has_no_slot_within_five_years() {
    let never = calendar(&["0 0 30 2 *"], "Europe/Berlin", Dst::default());
    assert_eq!(never.next(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(never.last(at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")), None);
    let leap = calendar(&["0 0 29 2 *"], "UTC", Dst::default());
    assert_eq!(leap.next(at("2026-01-01T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
}

/// Whatever a zone has done to its clocks since 2010.
#[test]
fn in_every_zone_time_goes_forward() {
    let (first, last) = (at("2010-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"));
    for name in jiff::tz::db().available() {
        let zone = TimeZone::get(name.as_str()).expect("a zone");
        let changes = zone.following(first).map(|transition| transition.timestamp());
        for change in changes.take_while(|change| *change < last) {
            for (expression, dst) in [
                ("0,30 */2 * * *", Dst::default()),
                ("30 0,2,23 * * *", Dst::default()),
                ("30 0,2,23 * * *", Dst::CRON_JOB),
            ] {
                let calendar = calendar(&[expression], name.as_str(), dst);
                let from = change - SignedDuration::from_hours(36);
                let mut slot = from;
                while slot < change + SignedDuration::from_hours(36) {
                    let next = calendar.next(slot).expect("another slot");
                    assert!(next > slot, "{name}: {expression} at {slot} goes to {next}, clocks change at {change}");
                    assert_eq!(calendar.last(from, next), Some(next), "{name}: {expression} at {next}");
                    slot = next;
                }
            }
        }
    }
}

#[test]
fn special_days_of_a_month() {
    let days = |expression: &str| {
        shown(&calendar(&[expression], "UTC", Dst::default()), "2026-01-31T12:00:00Z", "2026-03-01T00:00:00Z")
    };
    // February 2026 begins and ends with a weekend.
    assert_eq!(days("0 9 L 2 *"), ["28 09:00 +00:00"]);
    assert_eq!(days("0 9 LW * *"), ["27 09:00 +00:00"]);
    assert_eq!(days("0 9 1W 2 *"), ["02 09:00 +00:00"]);
    assert_eq!(days("0 9 * * MON#2"), ["09 09:00 +00:00"]);
    assert_eq!(days("0 9 * * FRI#L"), ["27 09:00 +00:00"]);
    assert_eq!(days("0 9 15 * SUN"), ["01", "08", "15", "22"].map(|day| format!("{day} 09:00 +00:00")));
}

/// What must be shown, as sets of numbers.
#[derive(Clone, Debug)]
struct Fields {
    minutes: Vec<u32>,
    /// None: all.
    hours: Option<Vec<u32>>,
    days: Option<Vec<u32>>,
    weekdays: Option<Vec<u32>>,
}

impl Fields {
    fn text(&self) -> String {
        let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let or_star = |numbers: &Option<Vec<u32>>| numbers.as_deref().map_or("*".to_owned(), list);
        format!(
            "{} {} {} * {}",
            list(&self.minutes),
            or_star(&self.hours),
            or_star(&self.days),
            or_star(&self.weekdays)
        )
    }

    fn matches(&self, shown: DateTime) -> bool {
        let day = self.days.as_ref().map(|days| days.contains(&(shown.day() as u32)));
        let weekday = shown.weekday().to_sunday_zero_offset() as u32;
        let weekday = self.weekdays.as_ref().map(|weekdays| weekdays.contains(&weekday));
        let is_day = match (day, weekday) {
            (Some(day), Some(weekday)) => day || weekday,
            (day, weekday) => day.or(weekday).unwrap_or(true),
        };
        is_day
            && shown.second() == 0
            && self.minutes.contains(&(shown.minute() as u32))
            && self.hours.as_ref().is_none_or(|hours| hours.contains(&(shown.hour() as u32)))
    }

    /// Watches the clock, minute by minute.
    fn slots(&self, zone: &TimeZone, dst: Dst, from: Timestamp, minutes: i64) -> BTreeSet<Timestamp> {
        let minute = SignedDuration::from_mins(1);
        let mut slots = BTreeSet::new();
        // The latest that it has shown.
        let mut latest = zone.to_datetime(from - SignedDuration::from_mins(3000));
        for i in -2999..minutes {
            let now = from + minute * i32::try_from(i).expect("a few days");
            let shown = zone.to_datetime(now);
            let is_chosen = self.hours.is_some();
            let is_repeated = shown <= latest;
            let mut is_slot = self.matches(shown) && !(is_chosen && is_repeated && dst.repeated == Repeated::Once);
            let mut skipped = latest + 1.minute();
            while skipped < shown {
                is_slot |= is_chosen && dst.skipped == Skipped::RunAfter && self.matches(skipped);
                skipped += 1.minute();
            }
            if is_slot && i >= 0 {
                slots.insert(now);
            }
            latest = latest.max(shown);
        }
        slots
    }
}

fn some_of(all: std::ops::Range<u32>, most: usize) -> impl Strategy<Value = Vec<u32>> {
    subsequence(all.collect::<Vec<_>>(), 1..=most)
}

fn fields() -> impl Strategy<Value = Fields> {
    let hours = prop::option::of(some_of(0..24, 8));
    let days = prop::option::weighted(0.3, some_of(1..32, 10));
    let weekdays = prop::option::weighted(0.3, some_of(0..7, 4));
    (some_of(0..60, 6), hours, days, weekdays).prop_map(|(minutes, hours, days, weekdays)| Fields {
        minutes,
        hours,
        days,
        weekdays,
    })
}

fn zones() -> impl Strategy<Value = &'static str> {
    // Half an hour at Lord Howe, two hours at Troll, midnight in Havana, a whole day in Apia at the end of 2011, Ramadan in
    // Casablanca, quarters in Kathmandu and Chatham.
    select(vec![
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "America/Havana",
        "Pacific/Apia",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Chatham",
        "Asia/Gaza",
        "America/Sao_Paulo",
        "UTC",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slots_are_those_of_a_clock_that_is_watched(
        fields in fields(),
        zone in zones(),
        // Clocks are changed at the ends of these months, most of the time; days from 2010 to 2030.
        month in 0i64..240,
        shift in -4i64..12,
        skipped in select(vec![Skipped::RunAfter, Skipped::Skip]),
        repeated in select(vec![Repeated::Once, Repeated::Twice]),
    ) {
        let dst = Dst { skipped, repeated };
        let mut calendar = calendar(&[&fields.text()], zone, dst);
        calendar.anchor = Timestamp::UNIX_EPOCH;
        let start = at("2010-01-25T00:00:00Z").to_zoned(TimeZone::UTC) + month.months() + shift.days();
        let (from, minutes) = (start.timestamp(), 14 * 24 * 60);
        let until = from + SignedDuration::from_mins(minutes - 1);
        let expected = fields.slots(&calendar.zone, dst, from, minutes);
        let before = from - SignedDuration::from_nanos(1);
        let found: BTreeSet<Timestamp> = calendar.slots(before).take_while(|slot| *slot <= until).collect();
        prop_assert_eq!(&found, &expected, "{} in {}", fields.text(), zone);
        let mut backwards = BTreeSet::new();
        let mut end = until;
        while let Some(slot) = calendar.last(before, end) {
            backwards.insert(slot);
            end = slot - SignedDuration::from_nanos(1);
        }
        prop_assert_eq!(&backwards, &expected, "backwards: {} in {}", fields.text(), zone);
    }
}
