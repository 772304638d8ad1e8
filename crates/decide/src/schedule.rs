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
