//! What is remembered of a job from pass to pass: what went wrong, and so when to try again.
//!
//! It is lost with the operator, which costs one more try. Nothing that counts is here.

use std::sync::Arc;
use std::time::Duration;

use batchjob_decide::observed::{Job, Obstacle};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::{Class, Error, Refusal};

/// What is remembered of a job.
#[derive(Clone, Debug)]
pub struct Memory {
    pub uid: Arc<str>,
    /// Passes that failed, since one did not.
    pub n_failures: u32,
    /// Creates that were refused or not answered, since one succeeded.
    n_refusals: u32,
    pub obstacle: Option<Obstacle>,
    /// How many pods are active and ready was just written; the next change of that alone may wait until then.
    pub status_rests_until: Option<Instant>,
}

/// When the job is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    AtOnce,
    /// Whatever happens, not before.
    After(Duration),
}

impl Memory {
    pub fn of(uid: Arc<str>) -> Memory {
        Memory { uid, n_failures: 0, n_refusals: 0, obstacle: None, status_rests_until: None }
    }

    /// A pod was created.
    pub fn it_goes_on(&mut self) {
        self.n_refusals = 0;
        self.obstacle = None;
    }

    /// A pass failed.
    pub fn learn(&mut self, error: &Error, job: &Job, now: Timestamp) -> NextTry {
        self.n_failures += 1;
        match error {
            Error::Write { class: Class::Stale, .. } if self.n_failures <= 3 => return NextTry::AtOnce,
            Error::Write { class, .. } => {
                return NextTry::After(after(*class, self.n_failures) + jitter(job, self.n_failures));
            }
            Error::Refused { refusal: Refusal::Rejected, message, .. } => {
                let message = message.clone();
                self.obstacle = Some(Obstacle::TemplateRejected { generation: job.generation, message });
            }
            Error::Refused { refusal: Refusal::Refused(reason), message, .. } => {
                self.n_refusals += 1;
                let delay = doubling(Duration::from_secs(1), Duration::from_secs(60), self.n_refusals);
                let (message, retry_at) = (message.clone(), later(now, delay));
                self.obstacle = Some(Obstacle::Refused { reason: *reason, message, retry_at });
            }
            Error::NameTaken { id, .. } => self.obstacle = Some(Obstacle::NameTaken(*id)),
            Error::Unanswered { class, .. } => {
                self.n_refusals += 1;
                let delay = after(*class, self.n_refusals) + jitter(job, self.n_refusals);
                self.obstacle = Some(Obstacle::Unanswered { retry_at: later(now, delay) });
            }
        }
        // The creates are held back by the obstacle; all else goes on.
        NextTry::AtOnce
    }
}

fn after(class: Class, n: u32) -> Duration {
    match class {
        Class::Busy { retry_after: Some(delay) } => delay,
        Class::Stale | Class::Soon | Class::Busy { retry_after: None } => {
            doubling(Duration::from_millis(250), Duration::from_secs(30), n)
        }
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The n-th delay of a sequence that doubles.
fn doubling(first: Duration, max: Duration, n: u32) -> Duration {
    (first * 2u32.pow(n.saturating_sub(1).min(16))).min(max)
}

/// Up to a quarter of a second, so that jobs that failed together do not come back together; from a hash, so that it
/// can be repeated.
fn jitter(job: &Job, n: u32) -> Duration {
    let hash = |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte));
    Duration::from_millis(job.uid.bytes().fold(u64::from(n), hash) % 250)
}

#[cfg(test)]
mod tests {
    use batchjob_decide::observed::RefusedReason;

    use super::*;

    fn refused() -> Error {
        let refusal = Refusal::Refused(RefusedReason::QuotaExceeded);
        Error::Refused { pod: "ns/x".into(), refusal, message: "exceeded quota".into() }
    }

    fn seconds_until_retry(memory: &Memory, now: Timestamp) -> Option<i64> {
        let retry_at = memory.obstacle.as_ref()?.retry_at()?;
        Some(retry_at.duration_since(now).as_secs())
    }

    #[test]
    fn delays_double_up_to_their_maximum() {
        let delays = [1, 2, 3, 7, 100].map(|n| doubling(Duration::from_secs(1), Duration::from_secs(60), n).as_secs());
        assert_eq!(delays, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn a_refusal_holds_back_the_creates_and_nothing_else() {
        let mut memory = Memory::of("uid".into());
        let now = Timestamp::UNIX_EPOCH;
        for expected in [1, 2, 4] {
            assert_eq!(memory.learn(&refused(), &Job::default(), now), NextTry::AtOnce);
            assert_eq!(seconds_until_retry(&memory, now), Some(expected));
        }
        memory.it_goes_on();
        memory.learn(&refused(), &Job::default(), now);
        assert_eq!(seconds_until_retry(&memory, now), Some(1), "a pod was created since");
    }

    #[test]
    fn a_template_that_makes_no_pod_is_not_tried_again() {
        let mut memory = Memory::of("uid".into());
        let error = Error::Refused { pod: "ns/x".into(), refusal: Refusal::Rejected, message: "no".into() };
        memory.learn(&error, &Job { generation: 7, ..Job::default() }, Timestamp::UNIX_EPOCH);
        assert_eq!(memory.obstacle, Some(Obstacle::TemplateRejected { generation: 7, message: "no".into() }));
    }
}
