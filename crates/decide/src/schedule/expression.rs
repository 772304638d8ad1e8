//! A cron expression: what a clock on the wall must show.
//!
//! All that a CronJob understands means here what it means there: five fields, names, steps, `@daily` and its like, and
//! `@every` (`ParseStandard` of robfig/cron v3.0.1, which `pkg/apis/batch/validation` of Kubernetes calls). And more:
//!
//! | more | means |
//! |---|---|
//! | a sixth field, before the others | seconds |
//! | `H`, `H(0-29)`, `H/15` | a number, or numbers, that the namespace and name of the object choose, always the same |
//! | `L`, `15W`, `LW` as day of month | the last day, the weekday closest to the 15th, the last weekday |
//! | `5L`, `MON#2` as day of week | the last Friday, the second Monday of the month |
//! | 7 as day of week, `FRI-SUN` | Sunday |
//!
//! If both days are restricted a day that is either of them is meant, as ever.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::field::Field;

/// What is wrong with an expression, in words for the one who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(String);

impl Wrong {
    pub(super) fn of_part(field: &str, part: &str, why: impl fmt::Display, example: &str) -> Wrong {
        Wrong(format!("{field} \"{part}\": {why}; write {example}"))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// A cron expression.
#[derive(Clone, Debug)]
pub struct Expression(pub(super) Form);

#[derive(Clone, Debug)]
pub(super) enum Form {
    /// What the clock shows.
    Shown {
        cron: Box<Cron>,
        /// It chooses hours. One that takes all of them, or every third, goes on as they come when clocks are changed.
        chooses_hours: bool,
    },
    /// However long it takes, whatever a clock shows.
    Every(SignedDuration),
}

impl Expression {
    /// `identity` is whose it is, for `H`: namespace/name.
    pub fn parse(text: &str, identity: &str) -> Result<Expression, Wrong> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err(Wrong(
                "a time zone stands in timeZone, not in the expression; write timeZone: Europe/Berlin".to_owned(),
            ));
        }
        let text = match text.strip_prefix('@') {
            Some(name) => match name.split_once(' ') {
                Some(("every", duration)) => return Expression::every(duration.trim()),
                _ => spelled_out(name)?,
            },
            None => text,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match &parts[..] {
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            rest if rest.len() == 5 => ("0", rest),
            _ => {
                return Err(Wrong(format!(
                    "{} fields, and an expression has five: minute, hour, day of month, month, day of week, or six, with \
                     seconds before them; write \"30 2 * * *\" for half past two each night",
                    parts.len()
                )));
            }
        };
        let fields = [Field::Minute, Field::Hour, Field::DayOfMonth, Field::Month, Field::DayOfWeek];
        let mut said = vec![Field::Second.read(second, identity)?];
        for (field, part) in fields.into_iter().zip(rest) {
            said.push(field.read(part, identity)?);
        }
        let chooses_hours = !said[2].is_open;
        let plain = said.into_iter().map(|said| said.text).collect::<Vec<_>>().join(" ");
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
        // All that croner could refuse was refused before.
        let cron = parser.parse(&plain).map_err(|error| Wrong(format!("{text:?} is read as {plain:?}: {error}")))?;
        Ok(Expression(Form::Shown { cron: Box::new(cron), chooses_hours }))
    }

    fn every(text: &str) -> Result<Expression, Wrong> {
        let wrong = |why: &str| Wrong::of_part("@every", text, why, "a time of a second or more, such as 90s or 1h30m");
        let duration: SignedDuration = text.parse().map_err(|_| wrong("this is no time"))?;
        if duration < SignedDuration::from_secs(1) {
            return Err(wrong("this is less than a second"));
        }
        Ok(Expression(Form::Every(SignedDuration::from_secs(duration.as_secs()))))
    }
}

impl Form {
    /// The first time from there on that it names; None: the year 5000 is not reached.
    pub(super) fn first(cron: &Cron, from: DateTime, is_inclusive: bool) -> Option<DateTime> {
        cron.find_next_occurrence(&from, is_inclusive).ok()
    }

    pub(super) fn last(cron: &Cron, until: DateTime, is_inclusive: bool) -> Option<DateTime> {
        cron.find_previous_occurrence(&until, is_inclusive).ok()
    }
}

fn spelled_out(name: &str) -> Result<&'static str, Wrong> {
    Ok(match name {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        other => {
            let why = "there is no such name";
            let names = "@yearly, @monthly, @weekly, @daily, @hourly or @every 90m";
            return Err(Wrong(format!("\"@{other}\": {why}; write {names}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Expression::parse(text, "default/etl").expect_err(text).to_string()
    }

    #[test]
    fn what_is_no_expression_is_told_with_an_example() {
        assert!(wrong("* * *").starts_with("3 fields, and an expression has five"));
        assert!(wrong("").starts_with("0 fields"));
        assert!(wrong("1 2 3 4 5 6 7").starts_with("7 fields"));
        assert_eq!(
            wrong("@reboot"),
            "\"@reboot\": there is no such name; write @yearly, @monthly, @weekly, @daily, @hourly or @every 90m"
        );
        assert_eq!(
            wrong("@every 1 week"),
            "@every \"1 week\": this is no time; write a time of a second or more, such as 90s or 1h30m"
        );
        assert!(wrong("@every 10ms").contains("less than a second"));
        assert!(wrong("@every -1h").contains("less than a second"));
        assert!(wrong("TZ=UTC 0 0 * * *").contains("timeZone"));
        assert!(wrong("0 25 * * *").starts_with("hour \"25\""));
    }

    #[test]
    fn seconds_names_and_macros_are_read() {
        for text in
            ["0 0 * * *", "*/10 * * * * *", "@hourly", "@midnight", "@every 1h30m", "0 0 l * *", "H H(0-5) * * mon#1"]
        {
            Expression::parse(text, "default/etl").expect(text);
        }
    }
}
