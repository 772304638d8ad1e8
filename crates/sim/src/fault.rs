//! What can go wrong with one request, and with what an operator is told.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RequestFault {
    /// The operator dies before it is sent.
    KillBefore,
    /// It is applied, and the operator dies before it has the answer.
    KillAfter,
    /// It is sent, the operator dies at once, and it is applied a good while later.
    KillThenApply,
    /// The connection breaks before it is applied.
    Lost,
    /// It is applied, and the connection breaks instead of the answer.
    Unanswered,
    /// It is applied long after the operator has given it up.
    AppliedLate,
    /// It is applied, and the answer is that it took too long: 504.
    Timeout,
    /// It is not applied, as if somebody had been faster: 409.
    Conflict,
    /// It is not applied: 429, come back after a second.
    Busy,
    /// It is not applied: 500.
    Error,
    /// It is applied, and the answer comes seconds after the events about it.
    AnsweredLate,
}

impl RequestFault {
    pub const ALL: [RequestFault; 11] = [
        RequestFault::KillBefore,
        RequestFault::KillAfter,
        RequestFault::KillThenApply,
        RequestFault::Lost,
        RequestFault::Unanswered,
        RequestFault::AppliedLate,
        RequestFault::Timeout,
        RequestFault::Conflict,
        RequestFault::Busy,
        RequestFault::Error,
        RequestFault::AnsweredLate,
    ];

    /// Whether a create may take effect after whoever sent it has stopped waiting for it.
    pub fn makes_late_creates(self) -> bool {
        matches!(self, RequestFault::KillThenApply | RequestFault::AppliedLate)
    }
}

/// How often something goes wrong, in so many of 1,000.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Of requests, by kind of fault.
    pub requests: Vec<(RequestFault, u64)>,
    /// Of events, told late by up to ten seconds.
    pub held: u64,
    /// Of events, after which the watch breaks off.
    pub cut: u64,
    /// Of events, after which the watch ends with 410.
    pub gone: u64,
    /// Of events that are followed by another one about the same object, never told.
    pub dropped: u64,
    /// Of events that are followed by one about another object, told in the wrong order.
    pub swapped: u64,
    /// Of lists, answered as it was some changes ago: half-stale, as the others are not.
    pub old_lists: u64,
}

impl Rates {
    /// All but those of requests.
    pub fn of_views(&mut self) -> [&mut u64; 6] {
        let Rates { requests: _, held, cut, gone, dropped, swapped, old_lists } = self;
        [held, cut, gone, dropped, swapped, old_lists]
    }

    /// Some of everything, of each kind with even odds.
    pub fn draw(random: &mut Random) -> Rates {
        let mut rates = Rates::default();
        for fault in RequestFault::ALL {
            if random.in_100(25) {
                let rate = random.one_of(&[5, 20, 60]);
                rates.requests.push((fault, rate));
            }
        }
        let mut rate = |highest: u64| if random.in_100(35) { 1 + random.below(highest) } else { 0 };
        rates.held = rate(200);
        rates.cut = rate(60);
        rates.gone = rate(40);
        rates.dropped = rate(200);
        rates.swapped = rate(200);
        rates.old_lists = if rate(100) > 60 { 300 } else { 0 };
        rates
    }

    /// What happens to a request, if anything does.
    pub fn of_request(&self, random: &mut Random) -> Option<RequestFault> {
        let mut dice = random.below(1000);
        for &(fault, rate) in &self.requests {
            match dice.checked_sub(rate) {
                None => return Some(fault),
                Some(rest) => dice = rest,
            }
        }
        None
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, rate) in &self.requests {
            write!(f, "{fault:?} {rate}, ")?;
        }
        let Rates { held, cut, gone, dropped, swapped, old_lists, .. } = self;
        write!(f, "held {held}, cut {cut}, gone {gone}, dropped {dropped}, swapped {swapped}, old lists {old_lists}")
    }
}

/// A time up to so many milliseconds.
pub(crate) fn up_to(random: &mut Random, milliseconds: u64) -> Duration {
    Duration::from_millis(random.below(milliseconds + 1))
}
