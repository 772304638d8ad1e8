//! Who leads: a Lease that one operator holds and renews, and the fence that stops its writes when it can no longer.
//!
//! Our own, because no kept crate stops writing when a renewal is late. The times are client-go's
//! (`k8s.io/client-go/tools/leaderelection`), and so are the rules:
//!
//! ```text
//! leader    renew ──────── renew ─────X (no answer any more)
//!                            │◄── renew deadline, 10 s ──►│ no write is sent from here on
//! standby                     saw it │◄──── lease duration, 15 s ────►│ takes it
//! ```
//!
//! - A renewal counts from when it was *sent*; a standby counts from when it *saw* the last one, which is later. Both
//!   measure on clocks of their own that nobody sets, so it does not matter what time it is anywhere.
//! - Every write of the Lease carries the resourceVersion that it was decided on: of two that take it at once, one fails.
//! - A Lease that somebody deletes is held all the same, until its time is over: whoever held it makes it anew. (client-go's
//!   standby takes it at once, and then two write.)
//! - What is lost is lost for good: who leads again later is in another [`Term`], and nothing that was decided in the
//!   old one is written in it.
//!
//! A fence cannot call back a request that is on its way. That it does no harm is for names, uids and resource versions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock::{Clock, spread};

/// How long a Lease is waited for while the operator ends. Who comes next waits for the lease duration otherwise.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A standby that has seen no renewal for so long takes the Lease.
    pub lease_duration: Duration,
    /// A leader that has not renewed for so long stops writing.
    pub renew_deadline: Duration,
    /// How often a leader renews. A standby looks twice as often: what was given up should not lie long.
    pub retry_period: Duration,
}

/// The time in which one operator leads without a break.
#[derive(Clone)]
pub struct Term {
    number: u64,
    leadership: watch::Receiver<Leadership>,
}

/// What an operator knows of its own leadership.
#[derive(Clone, Copy, Debug, Default)]
struct Leadership {
    /// Terms begun by this operator.
    number: u64,
    /// Writes may be sent until then. None: it does not lead.
    until: Option<Instant>,
}

impl Term {
    /// For an operator that is alone: it never ends.
    pub fn for_ever() -> Term {
        Term::until(Instant::now() + Duration::from_secs(100 * 365 * 86_400))
    }

    pub(crate) fn until(until: Instant) -> Term {
        let leadership = Leadership { number: 1, until: Some(until) };
        Term { number: 1, leadership: watch::channel(leadership).1 }
    }

    /// Until it is over: from then on no write may be sent.
    pub async fn ended(&self) {
        let mut leadership = self.leadership.clone();
        loop {
            let Leadership { number, until } = *leadership.borrow_and_update();
            let Some(until) = until.filter(|_| number == self.number) else { return };
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    // The elector is gone: what it said last holds until its time is over.
                    if changed.is_err() {
                        sleep_until(until).await;
                        return;
                    }
                }
                () = sleep_until(until) => {}
            }
        }
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Term({})", self.number)
    }
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    name: Arc<str>,
    identity: Arc<str>,
    timing: Timing,
    clock: Clock,
    leadership: watch::Sender<Leadership>,
    /// The Lease as it was last seen, and when it was first seen so.
    seen: Option<(Lease, Instant)>,
}

/// What an operator that takes part may wait for.
#[derive(Clone)]
pub struct Election(watch::Receiver<Leadership>);

impl Election {
    /// Until this operator leads.
    pub async fn won(&self) -> Term {
        let mut leadership = self.0.clone();
        loop {
            let Leadership { number, until } = *leadership.borrow_and_update();
            if until.is_some_and(|until| Instant::now() < until) {
                return Term { number, leadership: self.0.clone() };
            }
            if leadership.changed().await.is_err() {
                // The elector has ended, which ends the operator.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// One round came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl Failure {
    fn code(&self) -> Option<u16> {
        match self {
            Failure::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

impl Elector {
    pub fn new(leases: Api<Lease>, name: &str, identity: &str, timing: Timing, clock: Clock) -> (Elector, Election) {
        let (leadership, election) = watch::channel(Leadership::default());
        let (name, identity) = (name.into(), identity.into());
        (Elector { leases, name, identity, timing, clock, leadership, seen: None }, Election(election))
    }

    /// Takes part until `is_over`, and then gives up what it holds.
    pub async fn run(mut self, mut is_over: watch::Receiver<bool>) {
        let mut was_told = None;
        loop {
            let sent = Instant::now();
            match self.take_part().await {
                Ok(true) => self.lead_until(sent + self.timing.renew_deadline),
                Ok(false) => self.step_down("another operator has the lease"),
                // Nothing is lost yet: the deadline says when.
                Err(error) => tracing::warn!(lease = %self.name, %error, "failed to take part in the election"),
            }
            let holder = self.holder().map(str::to_owned);
            if !self.leads() && holder.is_some() && was_told != holder {
                tracing::info!(lease = %self.name, holder, "standing by");
                was_told = holder;
            }
            tokio::select! {
                biased;
                _ = is_over.wait_for(|&is_over| is_over) => break,
                () = sleep(self.pause()) => {}
            }
        }
        if self.leads() {
            self.step_down("the operator ends");
            match self.release().await {
                Ok(()) => tracing::info!(lease = %self.name, "gave up the lease"),
                Err(error) => tracing::warn!(lease = %self.name, %error, "failed to give up the lease"),
            }
        }
    }

    /// Renews it, or takes it if it is to be had. Answers with whether it is ours.
    async fn take_part(&mut self) -> Result<bool, Failure> {
        // What was seen last is most likely still so.
        if let Some((lease, _)) = self.seen.clone().filter(|(lease, _)| self.is_ours(lease)) {
            match self.put(lease).await {
                Err(failure) if matches!(failure.code(), Some(404 | 409)) => {}
                result => return result.map(|()| true),
            }
        }
        let lease = match self.answer(self.leases.get(&self.name)).await {
            Ok(lease) => lease,
            Err(failure) if failure.code() == Some(404) && self.is_held_by_another() => return Ok(false),
            Err(failure) if failure.code() == Some(404) => return self.first().await,
            Err(failure) => return Err(failure),
        };
        let is_to_be_had = self.is_to_be_had(&lease);
        self.see(lease.clone());
        if !is_to_be_had {
            return Ok(false);
        }
        match self.put(lease).await {
            Err(failure) if failure.code() == Some(409) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// There is no Lease.
    async fn first(&mut self) -> Result<bool, Failure> {
        let metadata = ObjectMeta { name: Some(self.name.to_string()), ..ObjectMeta::default() };
        let mut lease = Lease { metadata, spec: None };
        self.sign(&mut lease);
        match self.answer(self.leases.create(&PostParams::default(), &lease)).await {
            Ok(lease) => {
                self.see(lease);
                Ok(true)
            }
            Err(failure) if failure.code() == Some(409) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn put(&mut self, mut lease: Lease) -> Result<(), Failure> {
        self.sign(&mut lease);
        let written = self.answer(self.leases.replace(&self.name, &PostParams::default(), &lease)).await?;
        self.see(written);
        Ok(())
    }

    fn sign(&self, lease: &mut Lease) {
        let now = Some(MicroTime(self.now()));
        let was_ours = self.is_ours(lease);
        let spec = lease.spec.get_or_insert_default();
        if !was_ours {
            let is_first = spec.holder_identity.is_none() && spec.lease_transitions.is_none();
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(i32::from(!is_first))));
            spec.acquire_time = now.clone();
        }
        spec.holder_identity = Some(self.identity.to_string());
        spec.lease_duration_seconds = Some(self.timing.lease_duration.as_secs() as i32);
        spec.renew_time = now;
    }

    /// Says that nobody holds it, so that nobody waits.
    async fn release(&mut self) -> Result<(), Failure> {
        let Some((mut lease, _)) = self.seen.take() else { return Ok(()) };
        let now = Some(MicroTime(self.now()));
        let lease_transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions,
            ..LeaseSpec::default()
        });
        let params = PostParams::default();
        let written = timeout(LAST_WORD, self.leases.replace(&self.name, &params, &lease)).await;
        written.map_err(|_| Failure::TimedOut(LAST_WORD))??;
        Ok(())
    }

    async fn answer<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        // Two tries fit into the deadline.
        let limit = self.timing.renew_deadline / 2;
        Ok(timeout(limit, request).await.map_err(|_| Failure::TimedOut(limit))??)
    }

    fn see(&mut self, lease: Lease) {
        let is_known = self.seen.as_ref().is_some_and(|(seen, _)| {
            (&seen.metadata.uid, &seen.metadata.resource_version)
                == (&lease.metadata.uid, &lease.metadata.resource_version)
        });
        if !is_known {
            self.seen = Some((lease, Instant::now()));
        }
    }

    /// Whether nobody holds it, or whoever does has not been seen to renew it for as long as that one said.
    fn is_to_be_had(&self, lease: &Lease) -> bool {
        let Some(spec) = &lease.spec else { return true };
        let is_free = spec.holder_identity.as_deref().unwrap_or_default().is_empty();
        if is_free || self.is_ours(lease) {
            return true;
        }
        let (Some((seen, since)), Some(version)) = (&self.seen, &lease.metadata.resource_version) else { return false };
        let is_same =
            seen.metadata.resource_version.as_ref() == Some(version) && seen.metadata.uid == lease.metadata.uid;
        is_same && since.elapsed() > self.promised(lease)
    }

    /// Whether another operator may still hold the Lease that was seen last, although it is gone: somebody has deleted it, and
    /// that one may write until its deadline, or makes it anew.
    fn is_held_by_another(&self) -> bool {
        let Some((seen, since)) = &self.seen else { return false };
        self.holder().is_some() && !self.is_ours(seen) && since.elapsed() <= self.promised(seen)
    }

    /// How long whoever holds it said that it would be renewed at the latest.
    fn promised(&self, lease: &Lease) -> Duration {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        Duration::from_secs(seconds.max(0) as u64).max(self.timing.lease_duration)
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&*self.identity)
    }

    fn holder(&self) -> Option<&str> {
        let (lease, _) = self.seen.as_ref()?;
        lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    fn leads(&self) -> bool {
        self.leadership.borrow().until.is_some_and(|until| Instant::now() < until)
    }

    fn lead_until(&self, until: Instant) {
        let began = !self.leads();
        self.leadership.send_modify(|leadership| {
            if began {
                leadership.number += 1;
            }
            leadership.until = Some(until);
        });
        if began {
            tracing::info!(lease = %self.name, identity = %self.identity, "leading");
        }
    }

    fn step_down(&self, why: &str) {
        let led = self.leads();
        self.leadership.send_if_modified(|leadership| leadership.until.take().is_some());
        if led {
            tracing::warn!(lease = %self.name, "leads no more: {why}");
        }
    }

    /// Up to a fifth longer.
    fn pause(&self) -> Duration {
        let period = if self.leads() { self.timing.retry_period } else { self.timing.retry_period / 2 };
        period + spread(&self.identity, period / 5)
    }

    /// In microseconds, which is what a Lease holds.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}
