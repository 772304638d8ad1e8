//! One field of an expression: `*/5`, `MON-FRI`, `H(0-29)`, `L`.
//!
//! A field is read here, item by item, so that what is wrong with it can be told in its own words, and so that it means what it
//! means in a CronJob (robfig/cron `ParseStandard`). What comes out is a plain list of numbers, and of the special days that
//! croner knows: `L`, `15W`, `LW`, `5L`, `5#2`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use super::expression::Wrong;

/// Which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Second,
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// As croner reads it.
    pub text: String,
    /// It begins with a star, with or without a step: it goes by what the clock shows, whatever that is.
    pub is_open: bool,
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        match self {
            Field::Second => "second",
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day of month",
            Field::Month => "month",
            Field::DayOfWeek => "day of week",
        }
    }

    fn range(self) -> RangeInclusive<u32> {
        match self {
            Field::Second | Field::Minute => 0..=59,
            Field::Hour => 0..=23,
            Field::DayOfMonth => 1..=31,
            Field::Month => 1..=12,
            Field::DayOfWeek => 0..=6,
        }
    }

    /// What `H` is chosen from: every month has a 28th.
    fn range_of_hash(self) -> RangeInclusive<u32> {
        if self == Field::DayOfMonth { 1..=28 } else { self.range() }
    }

    fn example(self) -> &'static str {
        match self {
            Field::Second | Field::Minute => "30, */15, 0-29 or H",
            Field::Hour => "2, */6, 9-17 or H(0-5)",
            Field::DayOfMonth => "1, 1,15, L or 15W",
            Field::Month => "6, JAN-MAR or */3",
            Field::DayOfWeek => "1, MON-FRI, 5L or MON#2",
        }
    }

    /// `identity` is whose expression it is, for `H`.
    pub(super) fn read(self, text: &str, identity: &str) -> Result<Said, Wrong> {
        let mut numbers = BTreeSet::new();
        let mut special = Vec::new();
        let mut has_star = false;
        let upper = text.to_ascii_uppercase();
        for item in upper.split(',') {
            let wrong = |why: String| Wrong::of_part(self.name(), item, why, self.example());
            match self.read_special(item).map_err(&wrong)? {
                Some(day) => special.push(day),
                None => {
                    let (base, step) = match item.split_once('/') {
                        Some((base, step)) => (base, Some(read_step(step).map_err(&wrong)?)),
                        None => (item, None),
                    };
                    // As in robfig/cron: a star with a step restricts, but for a step of one.
                    has_star |= matches!(base, "*" | "?") && step.unwrap_or(1) == 1;
                    numbers.extend(self.read_item(base, step, identity).map_err(&wrong)?);
                }
            }
        }
        let is_open = upper.starts_with(['*', '?']);
        if has_star {
            return Ok(Said { text: "*".to_owned(), is_open });
        }
        let numbers = numbers.iter().map(u32::to_string);
        Ok(Said { text: numbers.chain(special).collect::<Vec<_>>().join(","), is_open })
    }

    fn read_item(self, base: &str, step: Option<u32>, identity: &str) -> Result<Vec<u32>, String> {
        let (first, last) = match base {
            "*" | "?" => self.range().into_inner(),
            _ if base.starts_with('H') => return self.read_hash(&base[1..], step, identity),
            _ => match base.split_once('-') {
                Some((first, last)) => self.read_range(first, last)?,
                None => {
                    let first = self.read_number(base)?;
                    // "5/15" is from 5 to the end.
                    (first, if step.is_some() { *self.range().end() } else { first })
                }
            },
        };
        Ok((first..=last).step_by(step.unwrap_or(1) as usize).map(|n| self.normal(n)).collect())
    }

    fn read_range(self, first: &str, last: &str) -> Result<(u32, u32), String> {
        let (from, to) = (self.read_number(first)?, self.read_number(last)?);
        // A week may end with Sunday.
        let to = if self == Field::DayOfWeek && to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return Err(format!(
                "{first} is after {last}; write both parts, such as {first}-{},{}-{last}",
                self.range().end(),
                self.range().start()
            ));
        }
        Ok((from, to))
    }

    /// `H`, `H(0-29)`, each with or without a step: always the same for the same object, and even over many of them.
    fn read_hash(self, rest: &str, step: Option<u32>, identity: &str) -> Result<Vec<u32>, String> {
        let (first, last) = match rest {
            "" => self.range_of_hash().into_inner(),
            _ => {
                let range = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                let (first, last) = range
                    .and_then(|range| range.split_once('-'))
                    .ok_or("after H comes a range in brackets, such as H(0-29), or nothing")?;
                self.read_range(first, last)?
            }
        };
        let n = last - first + 1;
        let step_or_all = step.unwrap_or(n);
        if step_or_all > n {
            return Err(format!("a step of {step_or_all} is longer than the {n} that it is taken from"));
        }
        let offset = spread(identity, self.name(), u64::from(step_or_all)) as u32;
        Ok((first + offset..=last).step_by(step_or_all as usize).map(|n| self.normal(n)).collect())
    }

    fn read_number(self, text: &str) -> Result<u32, String> {
        let names: &[&str] = match self {
            Field::Month => &MONTHS,
            Field::DayOfWeek => &WEEKDAYS,
            _ => &[],
        };
        if let Some(nth) = names.iter().position(|name| *name == text) {
            return Ok(nth as u32 + self.range().start());
        }
        let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse::<u32>().ok()).flatten();
        let number = number.ok_or_else(|| match text {
            "" => "a number is missing".to_owned(),
            _ => format!("{text} is no {}", self.name()),
        })?;
        // Sunday is 7, too.
        let is_sunday = self == Field::DayOfWeek && number == 7;
        if !self.range().contains(&number) && !is_sunday {
            let (first, last) = self.range().into_inner();
            return Err(format!("{number} is not between {first} and {last}"));
        }
        Ok(number)
    }

    fn normal(self, number: u32) -> u32 {
        if self == Field::DayOfWeek { number % 7 } else { number }
    }

    /// The days that no number names.
    fn read_special(self, item: &str) -> Result<Option<String>, String> {
        let number = |text: &str| self.read_number(text).map(|number| self.normal(number));
        Ok(match self {
            Field::DayOfMonth if matches!(item, "L" | "LW") => Some(item.to_owned()),
            Field::DayOfMonth => match item.strip_suffix('W') {
                Some(day) => Some(format!("{}W", number(day)?)),
                None => None,
            },
            Field::DayOfWeek => match (item.split_once('#'), item.strip_suffix('L')) {
                (Some((day, "L")), _) => Some(format!("{}L", number(day)?)),
                (Some((day, nth @ ("1" | "2" | "3" | "4" | "5"))), _) => Some(format!("{}#{nth}", number(day)?)),
                (Some((_, nth)), _) => {
                    return Err(format!(
                        "a month has a first to a fifth of a weekday, or the last: # and 1 to 5, or L, not {nth}"
                    ));
                }
                (None, Some("")) => {
                    return Err(
                        "L alone is for the day of the month; of the week write which day, such as 5L".to_owned()
                    );
                }
                (None, Some(day)) => Some(format!("{}L", number(day)?)),
                (None, None) => None,
            },
            _ => None,
        })
    }
}

/// A number below `n`, which is not 0: always the same for the same identity and purpose, and even over many.
pub(crate) fn spread(identity: &str, purpose: &str, n: u64) -> u64 {
    let digest = Sha256::digest(format!("{identity}\0{purpose}"));
    digest.iter().take(8).fold(0u64, |hash, byte| hash << 8 | u64::from(*byte)) % n
}

fn read_step(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(step) if step > 0 && !text.starts_with('+') => Ok(step),
        _ => Err(format!("after / comes a step of 1 or more, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(field: Field, text: &str) -> String {
        field.read(text, "default/etl").map_or_else(|wrong| wrong.to_string(), |said| said.text)
    }

    #[test]
    fn numbers_ranges_steps_and_names() {
        assert_eq!(text(Field::Minute, "*"), "*");
        assert_eq!(text(Field::Minute, "?"), "*");
        assert_eq!(text(Field::Minute, "*/1"), "*");
        assert_eq!(text(Field::Minute, "*/20"), "0,20,40");
        assert_eq!(text(Field::Minute, "5/15"), "5,20,35,50");
        assert_eq!(text(Field::Minute, "*/90"), "0");
        assert_eq!(text(Field::Hour, "9-17/4,3"), "3,9,13,17");
        assert_eq!(text(Field::DayOfMonth, "1,*"), "*");
        assert_eq!(text(Field::Month, "jan-Mar,12"), "1,2,3,12");
        assert_eq!(text(Field::DayOfWeek, "MON-FRI"), "1,2,3,4,5");
        assert_eq!(text(Field::DayOfWeek, "7"), "0");
        assert_eq!(text(Field::DayOfWeek, "FRI-SUN"), "0,5,6");
        assert_eq!(text(Field::DayOfWeek, "0-7"), "0,1,2,3,4,5,6");
    }

    #[test]
    fn special_days() {
        assert_eq!(text(Field::DayOfMonth, "L"), "L");
        assert_eq!(text(Field::DayOfMonth, "1,lw,15W"), "1,LW,15W");
        assert_eq!(text(Field::DayOfWeek, "5L"), "5L");
        assert_eq!(text(Field::DayOfWeek, "SUN#2"), "0#2");
        assert_eq!(text(Field::DayOfWeek, "FRI#L,7#1"), "5L,0#1");
    }

    #[test]
    fn a_hash_is_the_same_for_the_same_and_even_over_many() {
        assert_eq!(text(Field::Minute, "H"), text(Field::Minute, "H"));
        let of = |text: &str, i: u32| Field::Minute.read(text, &format!("default/etl-{i}")).expect("a field").text;
        let mut counts = [0; 60];
        for i in 0..6000 {
            counts[of("H", i).parse::<usize>().expect("a number")] += 1;
        }
        assert!(counts.iter().all(|n| (50..=160).contains(n)), "{counts:?}");
        for i in 0..100 {
            let within: u32 = of("H(10-19)", i).parse().expect("a number");
            assert!((10..=19).contains(&within));
            let numbers: Vec<u32> = of("H/15", i).split(',').map(|n| n.parse().expect("a number")).collect();
            assert!(numbers.len() == 4 && numbers.windows(2).all(|pair| pair[1] - pair[0] == 15), "{numbers:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_part_and_an_example() {
        let expected = [
            (Field::Minute, "61", "minute \"61\": 61 is not between 0 and 59; write 30, */15, 0-29 or H"),
            (Field::Hour, "1,24", "hour \"24\": 24 is not between 0 and 23; write 2, */6, 9-17 or H(0-5)"),
            (
                Field::Minute,
                "*/0",
                "minute \"*/0\": after / comes a step of 1 or more, not \"0\"; write 30, */15, 0-29 or H",
            ),
            (Field::Minute, "1,,2", "minute \"\": a number is missing; write 30, */15, 0-29 or H"),
            (
                Field::Hour,
                "17-9",
                "hour \"17-9\": 17 is after 9; write both parts, such as 17-23,0-9; write 2, */6, 9-17 or H(0-5)",
            ),
            (Field::Month, "MAI", "month \"MAI\": MAI is no month; write 6, JAN-MAR or */3"),
            (
                Field::Minute,
                "H(0..29)",
                "minute \"H(0..29)\": after H comes a range in brackets, such as H(0-29), or nothing; write 30, */15, 0-29 or H",
            ),
            (
                Field::Minute,
                "H(0-9)/20",
                "minute \"H(0-9)/20\": a step of 20 is longer than the 10 that it is taken from; write 30, */15, 0-29 or H",
            ),
            (Field::DayOfMonth, "L-3", "day of month \"L-3\": L is no day of month; write 1, 1,15, L or 15W"),
            (
                Field::DayOfWeek,
                "MON#6",
                "day of week \"MON#6\": a month has a first to a fifth of a weekday, or the last: # and 1 to 5, or L, not 6; write 1, MON-FRI, 5L or MON#2",
            ),
            (
                Field::Minute,
                "99999999999",
                "minute \"99999999999\": 99999999999 is no minute; write 30, */15, 0-29 or H",
            ),
        ];
        for (field, given, said) in expected {
            assert_eq!(text(field, given), said);
        }
    }
}
