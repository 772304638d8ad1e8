//! What is remembered of a job from pass to pass: what went wrong, and so when to try again.
//!
//! It is lost with the operator, which costs one more try. Nothing that counts is here.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use batchjob_crd::BatchCronJobStatus;
use batchjob_decide::cron::observed as cron;
use batchjob_decide::observed::{Job, Observed, Obstacle};
use batchjob_decide::plan::AttemptId;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::spread;
use crate::error::{Class, Error, Refusal};
use crate::outage::LONGEST_PAUSE;

/// What is remembered of a job.
#[derive(Clone, Debug)]
pub struct Memory {
    pub uid: Arc<str>,
    /// Passes that failed, since one did not.
    pub n_failures: u32,
    /// Creates that were refused or not answered, since one succeeded.
    n_refusals: u32,
    /// The same of creates whose template was rejected.
    n_rejections: u32,
    obstacle: Option<Obstacle>,
    met: Option<Met>,
    /// When the message in the obstacle was new.
    told_at: Option<Instant>,
    /// How many pods are active and ready was just written; the next change of that alone may wait until then.
    pub status_rests_until: Option<Instant>,
    pub repairs: Repairs,
    /// Attempts whose creates were not answered: there may be pods of them of which no event has told yet.
    pub unanswered: BTreeSet<AttemptId>,
}

/// When something was met: by the clock that its times are written in, which somebody may set, and by one that nobody does.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    at: Timestamp,
    since: Instant,
}

/// When the job is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    AtOnce,
    /// Whatever happens, not before.
    After(Duration),
}

/// How long creates that are refused wait, the first time and at most.
pub(crate) const REFUSED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];
/// The same where the template makes no pod: somebody may change what it is checked by, or against.
pub(crate) const REJECTED: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(15 * 60)];
/// All jobs of a namespace that are refused together ask at most once in this time.
const REFUSED_TOGETHER: Duration = Duration::from_millis(100);
/// What the API server says of a refusal is told anew at most so often if only numbers in it change.
const TOLD_FOR: Duration = Duration::from_secs(60);

impl Memory {
    pub fn of(uid: Arc<str>) -> Memory {
        Memory {
            uid,
            n_failures: 0,
            n_refusals: 0,
            n_rejections: 0,
            obstacle: None,
            met: None,
            told_at: None,
            status_rests_until: None,
            repairs: Repairs::default(),
            unanswered: BTreeSet::new(),
        }
    }

    /// A pod was created.
    pub fn it_goes_on(&mut self) {
        (self.n_refusals, self.n_rejections) = (0, 0);
        self.obstacle = None;
    }

    /// What stands in the way of creates, with its time on the clock as it goes now: somebody may have set it since.
    pub fn obstacle(&self, now: Timestamp) -> Option<Obstacle> {
        let mut obstacle = self.obstacle.clone()?;
        if let (Some(retry_at), Some(met)) = (obstacle.retry_at_mut(), self.met) {
            *retry_at = met.on_the_clock(*retry_at, now);
        }
        Some(obstacle)
    }

    /// What the API server has said of it.
    pub fn message(&self) -> Option<&str> {
        self.obstacle.as_ref()?.message()
    }

    /// When creates are tried again, by the clock as it was then: which of two jobs comes first.
    pub fn retries_at(&self) -> Option<Timestamp> {
        self.obstacle.as_ref()?.retry_at()
    }

    /// Whether it waits because its pods are refused.
    pub fn is_refused(&self) -> bool {
        matches!(self.obstacle, Some(Obstacle::Refused { .. }))
    }

    /// Others of its kind can create pods again: it tries now.
    pub fn hears_of_better_times(&mut self) {
        if let (Some(Obstacle::Refused { retry_at, .. }), Some(met)) = (&mut self.obstacle, self.met) {
            *retry_at = met.at;
        }
    }

    /// A pass failed. If it was refused its pods: so many jobs of the namespace are, this one among them.
    pub fn learn(&mut self, error: &Error, job: &Job, n_refused: usize, now: Timestamp) -> NextTry {
        self.n_failures += 1;
        match error {
            Error::Write { class: Class::Stale, .. } if self.n_failures <= 3 => return NextTry::AtOnce,
            Error::Write { class, .. } => {
                return NextTry::After(after(*class, self.n_failures) + jitter(job, self.n_failures));
            }
            Error::Refused { refusal: Refusal::Rejected, message, .. } => {
                let is_new = !matches!(&self.obstacle,
                    Some(Obstacle::TemplateRejected { generation, .. }) if *generation == job.generation);
                self.n_rejections = if is_new { 1 } else { self.n_rejections + 1 };
                let retry_at = later(now, doubling(REJECTED, self.n_rejections));
                let message = self.told(message);
                self.obstacle = Some(Obstacle::TemplateRejected { generation: job.generation, message, retry_at });
            }
            Error::Refused { refusal: Refusal::Refused(reason), message, .. } => {
                self.n_refusals += 1;
                let together = REFUSED_TOGETHER * n_refused.try_into().unwrap_or(u32::MAX);
                let delay = doubling(REFUSED, self.n_refusals).max(together);
                let (message, retry_at) = (self.told(message), later(now, delay + jitter(job, self.n_refusals)));
                self.obstacle = Some(Obstacle::Refused { reason: *reason, message, retry_at });
            }
            Error::NameTaken { id, .. } => self.obstacle = Some(Obstacle::NameTaken(*id)),
            Error::Unanswered { class, .. } => {
                self.n_refusals += 1;
                let delay = after(*class, self.n_refusals) + jitter(job, self.n_refusals);
                self.obstacle = Some(Obstacle::Unanswered { retry_at: later(now, delay) });
            }
        }
        self.met = Some(Met::now(now));
        // The creates are held back by the obstacle; all else goes on.
        NextTry::AtOnce
    }

    /// The words in which a refusal is told. A quota says how much of it is used, and an error of the network which port it
    /// came from: if each were news, each refused create would cost the write of a status and of an event.
    fn told(&mut self, message: &str) -> String {
        let (Some(before), Some(at)) = (self.obstacle.as_ref().and_then(Obstacle::message), self.told_at) else {
            self.told_at = Some(Instant::now());
            return message.to_owned();
        };
        let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        if before != message && (at.elapsed() >= TOLD_FOR || words(before) != words(message)) {
            self.told_at = Some(Instant::now());
            return message.to_owned();
        }
        before.to_owned()
    }
}

impl Met {
    pub fn now(now: Timestamp) -> Met {
        Met { at: now, since: Instant::now() }
    }

    /// A time that was set then, on the clock as it goes now.
    pub fn on_the_clock(self, time: Timestamp, now: Timestamp) -> Timestamp {
        let delay = Duration::try_from(time.duration_since(self.at)).unwrap_or_default();
        later(now, delay.saturating_sub(self.since.elapsed()))
    }
}

/// What was written of a status, and how often somebody has undone it.
///
/// Whoever reverts our status as often as we write it would have us write for ever: kubernetes/kubernetes issue 24433, where
/// two controllers that fought over one object took the API server down. A status that is to be written although nothing
/// has changed but the status itself is a *repair*: the first ones are made at once, then ever more slowly. What happens to
/// its pods or runs and its spec is written at once all the same, which repairs the rest.
#[derive(Clone, Debug, Default)]
pub struct Repairs {
    /// All that a status is made of but the status itself, when it was written last.
    written_for: Option<Causes>,
    n: u32,
    last: Option<Instant>,
}

/// What may change a status: the spec, each pod or run, and what stands in the way of creates; and of a BatchCronJob the time,
/// which is in its ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Causes {
    generation: i64,
    is_deleted: bool,
    /// Of all the others.
    hash: u64,
}

/// How many repairs are made at once.
const AT_ONCE: u32 = 2;
const REPAIR: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// Whose status stood for so long fights with nobody.
const PEACE: Duration = Duration::from_secs(120);

impl Causes {
    pub fn of(observed: &Observed) -> Causes {
        let mut hash = DefaultHasher::new();
        for pod in observed.pods.iter().chain(&observed.orphans) {
            (&pod.uid, &pod.resource_version).hash(&mut hash);
        }
        let obstacle = observed.obstacle.as_ref();
        (obstacle.is_some(), obstacle.and_then(Obstacle::message)).hash(&mut hash);
        Causes { generation: observed.job.generation, is_deleted: observed.job.is_deleted, hash: hash.finish() }
    }

    /// Of the status of a BatchCronJob that is to be written.
    pub fn of_cron(observed: &cron::Observed, status: &BatchCronJobStatus) -> Causes {
        let cron::Observed { cron, runs, group, obstacle, .. } = observed;
        let mut hash = DefaultHasher::new();
        for run in runs {
            (&run.uid, run.end.is_some(), run.is_deleted).hash(&mut hash);
        }
        let waiting: Vec<Timestamp> = status.waiting.iter().map(|time| time.0).collect();
        (status.decided_until.as_ref().map(|time| time.0), waiting, &cron.trigger, group.n_active).hash(&mut hash);
        (obstacle.is_some(), obstacle.as_ref().and_then(cron::Obstacle::message)).hash(&mut hash);
        Causes { generation: cron.generation, is_deleted: cron.is_deleted, hash: hash.finish() }
    }
}

impl Repairs {
    /// When a status that is to be written for these causes may be; None: now.
    pub fn rest_until(&self, causes: &Causes) -> Option<Instant> {
        if self.n < AT_ONCE || self.written_for.as_ref() != Some(causes) {
            return None;
        }
        Some(self.last? + doubling(REPAIR, self.n - AT_ONCE + 1))
    }

    /// Whether a status that is written for these causes is the first repair that is no accident any more: somebody undoes
    /// what we write, and the user is to know.
    pub fn is_news(&self, causes: &Causes) -> bool {
        self.n == AT_ONCE && self.written_for.as_ref() == Some(causes) && !self.is_at_peace()
    }

    /// The status was written for these causes.
    pub fn wrote(&mut self, causes: Causes) {
        if self.written_for.as_ref() == Some(&causes) {
            self.n = if self.is_at_peace() { 1 } else { self.n + 1 };
            self.last = Some(Instant::now());
        }
        self.written_for = Some(causes);
    }

    fn is_at_peace(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() > PEACE)
    }
}

pub(crate) fn after(class: Class, n: u32) -> Duration {
    let quarter = Duration::from_millis(250);
    match class {
        Class::Busy { retry_after: Some(delay) } => delay.min(Duration::from_secs(30)),
        Class::Unavailable | Class::Busy { retry_after: None } => doubling([quarter, LONGEST_PAUSE], n),
        Class::Stale | Class::Failing => doubling([quarter, Duration::from_secs(30)], n),
    }
}

pub(crate) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The n-th delay of a sequence that doubles.
pub(crate) fn doubling([first, max]: [Duration; 2], n: u32) -> Duration {
    (first * 2u32.pow(n.saturating_sub(1).min(16))).min(max)
}

/// Jobs that failed together do not come back together.
fn jitter(job: &Job, n: u32) -> Duration {
    spread(&format!("{n} {}", job.uid), Duration::from_millis(250))
}

#[cfg(test)]
mod tests {
    use batchjob_decide::observed::RefusedReason;

    use super::*;

    fn causes(generation: i64) -> Causes {
        Causes { generation, is_deleted: false, hash: 0 }
    }

    /// A writer that reverts every status a second after it was written.
    #[tokio::test(start_paused = true)]
    async fn a_status_that_is_undone_again_and_again_is_repaired_ever_more_slowly() {
        let mut repairs = Repairs::default();
        repairs.wrote(causes(1));
        let (began, mut at, mut news) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < Duration::from_secs(180) {
            tokio::time::advance(Duration::from_secs(1)).await;
            if let Some(until) = repairs.rest_until(&causes(1)) {
                tokio::time::sleep_until(until).await;
            }
            news += u32::from(repairs.is_news(&causes(1)));
            repairs.wrote(causes(1));
            at.push(began.elapsed().as_secs());
        }
        assert_eq!((at, news), (vec![1, 2, 4, 8, 16, 32, 62, 92, 122, 152, 182], 1));
        assert_eq!(repairs.rest_until(&causes(2)), None, "what has happened to the job is written at once");
        tokio::time::advance(Duration::from_secs(200)).await;
        repairs.wrote(causes(1));
        assert_eq!(repairs.rest_until(&causes(1)), None, "once there was peace an accident is an accident");
    }

    #[test]
    fn numbers_in_a_refusal_are_no_news_for_a_while() {
        let mut memory = Memory::of("uid".into());
        let mut tell = |message: &str| {
            let refusal = Refusal::Refused(RefusedReason::QuotaExceeded);
            let error = Error::Refused { pod: "ns/x".into(), refusal, message: message.into() };
            memory.learn(&error, &Job::default(), 1, Timestamp::UNIX_EPOCH);
            match &memory.obstacle {
                Some(Obstacle::Refused { message, .. }) => message.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(tell("used: 4, limited: 5"), "used: 4, limited: 5");
        assert_eq!(tell("used: 15, limited: 5"), "used: 4, limited: 5");
        assert_eq!(tell("no service account"), "no service account");
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_are_refused_together_ask_no_more_often_than_some() {
        let mut memory = Memory::of("uid".into());
        memory.learn(&refused(), &Job::default(), 10_000, Timestamp::UNIX_EPOCH);
        assert_eq!(seconds_until_retry(&memory, Timestamp::UNIX_EPOCH), Some(1000));
        memory.hears_of_better_times();
        assert_eq!(seconds_until_retry(&memory, Timestamp::UNIX_EPOCH), Some(0));
    }

    fn refused() -> Error {
        let refusal = Refusal::Refused(RefusedReason::QuotaExceeded);
        Error::Refused { pod: "ns/x".into(), refusal, message: "exceeded quota".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_meanwhile_changes_nothing() {
        let mut memory = Memory::of("uid".into());
        let a_day_ahead = Timestamp::UNIX_EPOCH + Duration::from_secs(86_400);
        memory.learn(&refused(), &Job::default(), 1, a_day_ahead);
        assert_eq!(seconds_until_retry(&memory, Timestamp::UNIX_EPOCH), Some(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seconds_until_retry(&memory, Timestamp::UNIX_EPOCH), Some(0));
    }

    fn seconds_until_retry(memory: &Memory, now: Timestamp) -> Option<i64> {
        let retry_at = memory.obstacle(now)?.retry_at()?;
        Some(retry_at.duration_since(now).as_secs())
    }

    #[test]
    fn delays_double_up_to_their_maximum() {
        let delays = [1, 2, 3, 5, 100].map(|n| doubling(REFUSED, n).as_secs());
        assert_eq!(delays, [1, 2, 4, 15, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_back_the_creates_and_nothing_else() {
        let mut memory = Memory::of("uid".into());
        let now = Timestamp::UNIX_EPOCH;
        for expected in [1, 2, 4] {
            assert_eq!(memory.learn(&refused(), &Job::default(), 1, now), NextTry::AtOnce);
            assert_eq!(seconds_until_retry(&memory, now), Some(expected));
        }
        memory.it_goes_on();
        memory.learn(&refused(), &Job::default(), 1, now);
        assert_eq!(seconds_until_retry(&memory, now), Some(1), "a pod was created since");
    }

    #[tokio::test(start_paused = true)]
    async fn a_template_that_makes_no_pod_is_tried_again_after_a_minute() {
        let mut memory = Memory::of("uid".into());
        let error = Error::Refused { pod: "ns/x".into(), refusal: Refusal::Rejected, message: "no".into() };
        let mut delay = |generation| {
            memory.learn(&error, &Job { generation, ..Job::default() }, 0, Timestamp::UNIX_EPOCH);
            seconds_until_retry(&memory, Timestamp::UNIX_EPOCH)
        };
        let delays = [7, 7, 7, 7, 7, 7, 8].map(&mut delay);
        assert_eq!(delays.map(Option::unwrap_or_default), [60, 120, 240, 480, 900, 900, 60]);
    }

    #[test]
    fn what_failed_in_an_outage_is_tried_again_soon_after_it() {
        let longest = |class| after(class, 100).as_secs();
        assert_eq!(longest(Class::Unavailable), 2);
        assert_eq!(longest(Class::Busy { retry_after: None }), 2);
        assert_eq!(longest(Class::Failing), 30);
    }
}
