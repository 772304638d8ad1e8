//! When clocks show what expressions name.
//!
//! Most of the time that is plain. Twice a year, in most zones, clocks are changed:
//!
//! | | of the hours that are chosen (`30 2 * * *`) | of all hours (`30 * * * *`, `0 */2 * * *`) |
//! |---|---|---|
//! | clocks go forward, a time is skipped | [`Skipped::RunAfter`]: it runs when they have gone forward, once; [`Skipped::Skip`]: not that day | what is not shown does not run |
//! | clocks go back, a time is repeated | [`Repeated::Once`]: the first time; [`Repeated::Twice`] | both times, for both hours pass |
//!
//! By default a nightly job so runs exactly once on both days. CronJob is `Skip` and `Twice` (`spec_test.go` of robfig/cron).
//!
//! How: a zone's time is cut into pieces of one offset each (where clocks are changed), and in each piece what a clock shows and
//! what time it is go together.

use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};

use super::expression::{Expression, Form};

/// How far is looked for the next slot, as in a CronJob.
const YEARS: i64 = 5;

/// What becomes of times that are skipped when clocks go forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skipped {
    #[default]
    RunAfter,
    Skip,
}

/// What becomes of times that are repeated when clocks go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeated {
    #[default]
    Once,
    Twice,
}

/// What becomes of hours that are chosen when clocks are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dst {
    pub skipped: Skipped,
    pub repeated: Repeated,
}

impl Dst {
    /// As CronJob has it.
    pub const CRON_JOB: Dst = Dst { skipped: Skipped::Skip, repeated: Repeated::Twice };
}

/// The slots of one or more expressions.
#[derive(Clone, Debug)]
pub struct Calendar {
    pub expressions: Vec<Expression>,
    pub zone: TimeZone,
    pub dst: Dst,
    /// From when `@every` is counted: when the object was created.
    pub anchor: Timestamp,
}

impl Calendar {
    /// The first slot after that time; None: there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let limit = years_from(after, YEARS);
        let all = self.expressions.iter().filter_map(|expression| self.next_of(expression, after, limit));
        all.min().filter(|slot| *slot <= limit)
    }

    /// The last slot until that time, and after `after`.
    pub fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let all = self.expressions.iter().filter_map(|expression| self.last_of(expression, after, until));
        all.max().filter(|slot| *slot > after)
    }

    /// The slots after that time, in their order.
    pub fn slots(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |&slot| self.next(slot))
    }

    fn next_of(&self, expression: &Expression, after: Timestamp, limit: Timestamp) -> Option<Timestamp> {
        let (cron, rules) = match &expression.0 {
            // The object is there, and the first period has to pass.
            Form::Every(period) => return self.every(*period, (self.n_periods(*period, after)? + 1).max(1)),
            Form::Shown { cron, chooses_hours } => (cron, self.rules(*chooses_hours)),
        };
        let mut piece = Piece::at(&self.zone, after);
        // Within the first piece the time itself is over; in the others nothing is.
        let mut from = Some(after);
        while piece.start.is_none_or(|start| start <= limit) {
            if from.is_none()
                && let Some(start) = piece.runs_at_start(cron, rules)
            {
                return Some(start);
            }
            let (mut shown, mut is_inclusive) = match from {
                Some(after) => (piece.offset.to_datetime(after), false),
                None => (piece.offset.to_datetime(piece.start?), true),
            };
            if let Some(end) = piece.repeats_until(rules).filter(|&end| end > shown) {
                (shown, is_inclusive) = (end, true);
            }
            let found = Form::first(cron, shown, is_inclusive)?;
            let at = piece.offset.to_timestamp(found).ok()?;
            if piece.end.is_none_or(|end| at < end) {
                return Some(at);
            }
            piece = Piece::at(&self.zone, piece.end?);
            from = None;
        }
        None
    }

    fn last_of(&self, expression: &Expression, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let (cron, rules) = match &expression.0 {
            Form::Every(period) => {
                let n = self.n_periods(*period, until).filter(|&n| n >= 1)?;
                return self.every(*period, n);
            }
            Form::Shown { cron, chooses_hours } => (cron, self.rules(*chooses_hours)),
        };
        let mut piece = Piece::at(&self.zone, until);
        let mut until = until;
        while until > after {
            let found = Form::last(cron, piece.offset.to_datetime(until), true);
            let repeated = piece.repeats_until(rules);
            let shown = found.filter(|&shown| repeated.is_none_or(|end| shown >= end));
            let at = shown.and_then(|shown| piece.offset.to_timestamp(shown).ok());
            if let Some(at) = at.filter(|&at| piece.start.is_none_or(|start| at >= start)) {
                return Some(at);
            }
            if let Some(start) = piece.runs_at_start(cron, rules) {
                return Some(start);
            }
            until = piece.start?.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            piece = Piece::at(&self.zone, until);
        }
        None
    }

    /// How many periods of `@every` have passed at that time.
    fn n_periods(&self, period: SignedDuration, at: Timestamp) -> Option<i64> {
        i64::try_from(at.duration_since(self.anchor).as_nanos().div_euclid(period.as_nanos())).ok()
    }

    /// When the n-th has passed.
    fn every(&self, period: SignedDuration, n: i64) -> Option<Timestamp> {
        self.anchor.checked_add(SignedDuration::from_secs(period.as_secs().checked_mul(n)?)).ok()
    }

    /// Of all hours it is as CronJob has it.
    fn rules(&self, chooses_hours: bool) -> Dst {
        if chooses_hours { self.dst } else { Dst::CRON_JOB }
    }
}

/// A time in which clocks are not changed.
struct Piece {
    start: Option<Timestamp>,
    /// The first moment that is not in it.
    end: Option<Timestamp>,
    offset: Offset,
    /// The one before it.
    before: Offset,
}

impl Piece {
    fn at(zone: &TimeZone, at: Timestamp) -> Piece {
        let offset = zone.to_offset(at);
        // A zone may change its name or its rules, and its offset not.
        let start = transitions_until(zone, at).find_map(|start| {
            let before = zone.to_offset(start.checked_sub(SignedDuration::from_nanos(1)).ok()?);
            (before != offset).then_some((start, before))
        });
        let end =
            zone.following(at).map(|transition| transition.timestamp()).find(|&end| zone.to_offset(end) != offset);
        let before = start.map_or(offset, |(_, before)| before);
        Piece { start: start.map(|(start, _)| start), end, offset, before }
    }

    /// Its start, if something that no clock has shown because it was skipped runs then.
    fn runs_at_start(&self, cron: &Cron, rules: Dst) -> Option<Timestamp> {
        let start = self.start.filter(|_| rules.skipped == Skipped::RunAfter && self.offset > self.before)?;
        let first = Form::first(cron, self.before.to_datetime(start), true)?;
        (first < self.offset.to_datetime(start)).then_some(start)
    }

    /// Until when it shows what was shown before, if that runs no second time.
    fn repeats_until(&self, rules: Dst) -> Option<DateTime> {
        let start = self.start.filter(|_| rules.repeated == Repeated::Once && self.offset < self.before)?;
        Some(self.before.to_datetime(start))
    }
}

/// The transitions until that time, the last first.
///
/// jiff (0.2.46) takes it that a zone's rule for the future names no transition before the last one that is written down, and then
/// passes that one over: in Ciudad Juárez clocks were changed on 30 November 2022, and the rule names the 6th. What it passes over
/// is found going forward.
fn transitions_until(zone: &TimeZone, at: Timestamp) -> impl Iterator<Item = Timestamp> {
    let mut preceding = zone.preceding(next_nanosecond(at)).map(|transition| transition.timestamp());
    let last = preceding.next();
    let following = last.into_iter().flat_map(|last| zone.following(last)).map(|transition| transition.timestamp());
    let mut passed_over: Vec<Timestamp> = following.take_while(|transition| *transition <= at).collect();
    passed_over.reverse();
    passed_over.into_iter().chain(last).chain(preceding)
}

fn next_nanosecond(at: Timestamp) -> Timestamp {
    at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at)
}

fn years_from(at: Timestamp, years: i64) -> Timestamp {
    let later = at.to_zoned(TimeZone::UTC).checked_add(Span::new().years(years));
    later.map_or(Timestamp::MAX, |later| later.timestamp())
}
