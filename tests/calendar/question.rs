//! What the witnesses are asked: a random expression, and a time in which it does not have too many slots.

use std::collections::BTreeSet;

use batchjob_sim::random::Random;
use jiff::{SignedDuration, Timestamp};

/// From 2010 on: since then there were changes of clocks of all kinds.
pub const FIRST: i64 = 1_262_304_000;
/// Clocks are changed within it, whenever it begins, where they are changed twice a year.
const HALF_A_YEAR: i64 = 200;
/// What is asked of a shorter time is asked of the days around a change of clocks.
const LEAST_DAYS: i64 = 4;

#[derive(Clone, Debug)]
pub struct Question {
    /// As users write it.
    pub expression: String,
    /// Each field a star or a list of numbers; a star before a list says that the field was written with one.
    pub plain: String,
    pub after: Timestamp,
    pub until: Timestamp,
}

/// A field of an expression.
struct Field {
    text: String,
    /// None: all.
    numbers: Option<BTreeSet<u32>>,
}

impl Question {
    /// The n-th of a seed, for a zone in which clocks are changed then.
    pub fn of(seed: u64, n: u64, years: i64, most_slots: i64, changes: &[Timestamp]) -> Question {
        let mut random = Random::of(&[seed, n]);
        let random = &mut random;
        let is_often = n % 4 == 3;
        let minute = match n % 4 {
            0 | 1 => Field::number(random, 0, 59),
            2 => Field::step(random, 0, 59),
            _ => Field::any(random, 0, 59, &[]),
        };
        let hour = match n % 4 {
            0 | 1 => Field::list(random, 0, 23),
            2 => Field::step(random, 0, 23),
            _ => Field::any(random, 0, 23, &[]),
        };
        let has_days = n % 4 == 1 || is_often && random.in_100(30);
        let mut rest = [Field::star(), Field::star(), Field::star()];
        if has_days {
            const MONTHS: [&str; 12] =
                ["JAN", "feb", "mar", "APR", "may", "jun", "jul", "aug", "sep", "oct", "NOV", "dec"];
            const WEEKDAYS: [&str; 7] = ["SUN", "mon", "TUE", "wed", "thu", "fri", "sat"];
            let drawn = [
                Field::any(random, 1, 31, &[]),
                Field::any(random, 1, 12, &MONTHS),
                Field::any(random, 0, 6, &WEEKDAYS),
            ];
            for (field, drawn) in rest.iter_mut().zip(drawn) {
                if random.in_100(50) {
                    *field = drawn;
                }
            }
        }
        let of_a_day = minute.count(60) * hour.count(24);
        let all_days = years * 365;
        let days = (most_slots / of_a_day).clamp(LEAST_DAYS.min(all_days), all_days);
        let last_first = all_days - days;
        let first_day = match changes.is_empty() || days >= HALF_A_YEAR {
            true => random.below((last_first + 1).unsigned_abs()) as i64,
            false => {
                let change = changes[random.below(changes.len() as u64) as usize];
                ((change.as_second() - FIRST) / 86_400 - days / 2).clamp(0, last_first)
            }
        };
        let [day, month, weekday] = rest;
        let fields = [minute, hour, day, month, weekday];
        let day_of = |day: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(FIRST + day * 86_400);
        Question {
            expression: fields.each_ref().map(|field| &*field.text).join(" "),
            plain: fields.each_ref().map(Field::plain).join(" "),
            after: day_of(first_day),
            until: day_of(first_day + days),
        }
    }

    pub fn to(&self, zone: &str, expression: &str) -> String {
        format!("{zone}\t{expression}\t{}\t{}", self.after.as_second(), self.until.as_second())
    }
}

impl Field {
    fn star() -> Field {
        Field { text: "*".to_owned(), numbers: None }
    }

    fn number(random: &mut Random, first: i32, last: i32) -> Field {
        let number = random.between(first, last);
        Field::of(number.to_string(), [number])
    }

    fn list(random: &mut Random, first: i32, last: i32) -> Field {
        let numbers: Vec<i32> = (0..1 + random.below(3)).map(|_| random.between(first, last)).collect();
        Field::of(numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(","), numbers)
    }

    fn range(random: &mut Random, first: i32, last: i32, names: &[&str]) -> Field {
        let (one, other) = (random.between(first, last), random.between(first, last));
        let (from, to) = (one.min(other), one.max(other));
        let name = |n: i32| match names.get((n - first).unsigned_abs() as usize) {
            Some(name) => (*name).to_owned(),
            None => n.to_string(),
        };
        match random.below(3) {
            0 => {
                let step = random.between(1, 5);
                Field::of(format!("{from}-{to}/{step}"), (from..=to).step_by(step.unsigned_abs() as usize))
            }
            _ => Field::of(format!("{}-{}", name(from), name(to)), from..=to),
        }
    }

    fn step(random: &mut Random, first: i32, last: i32) -> Field {
        let step = random.between(2, (last - first) / 2);
        let every = |from: i32| (from..=last).step_by(step.unsigned_abs() as usize);
        match random.below(3) {
            0 => {
                let from = random.between(first, last);
                Field::of(format!("{from}/{step}"), every(from))
            }
            1 => Field::star(),
            _ => Field::of(format!("*/{step}"), every(first)),
        }
    }

    fn any(random: &mut Random, first: i32, last: i32, names: &[&str]) -> Field {
        match random.below(5) {
            0 => Field::star(),
            1 => Field::list(random, first, last),
            2 => Field::range(random, first, last, names),
            3 => Field::step(random, first, last),
            _ => Field::number(random, first, last),
        }
    }

    fn of(text: String, numbers: impl IntoIterator<Item = i32>) -> Field {
        Field { text, numbers: Some(numbers.into_iter().map(i32::unsigned_abs).collect()) }
    }

    fn count(&self, of_all: i64) -> i64 {
        self.numbers.as_ref().map_or(of_all, |numbers| numbers.len() as i64)
    }

    fn plain(&self) -> String {
        let Some(numbers) = &self.numbers else { return "*".to_owned() };
        let star = if self.text.starts_with('*') { "*" } else { "" };
        format!("{star}{}", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }
}
