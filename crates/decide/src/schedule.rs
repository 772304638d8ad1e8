//! The calendar: at which times something is to run.
//!
//! A [`Calendar`] is made of [`Expression`]s, which speak of what a clock on the wall shows, and of a time zone, which says when
//! a clock shows it. A *slot* is one of the moments that come out; each is there once, however many expressions name it.
//!
//! What an expression means is in [`expression`], what becomes of it when clocks are changed is in [`calendar`].

pub mod calendar;
pub mod expression;
mod field;

pub use calendar::{Calendar, Dst, Repeated, Skipped};
pub use expression::{Expression, Wrong};
pub(crate) use field::spread;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time as clocks of a zone show it, and how far they are from UTC: RFC 3339, as `time.RFC3339` of Go.
pub fn shown(at: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let offset = zone.to_offset(at);
    if offset.is_zero() { at.to_string() } else { at.display_with_offset(offset).to_string() }
}
