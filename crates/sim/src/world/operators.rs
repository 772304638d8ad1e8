//! The operators of a world: each seat has one life after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use batchjob_operator::clock::Clock;
use batchjob_operator::operator::{Clients, Operator};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{QUIET, Task, World, later};
use crate::case::{NAMESPACE, Operators};
use crate::fault::{Rates, up_to};
use crate::judge::lock;
use crate::wire::{Life, Weather, Wire};

/// The place of an operator.
pub(super) struct Seat {
    pub life: Arc<Life>,
    handle: Option<JoinHandle<anyhow::Result<()>>>,
    /// Told to end. None: it was told already.
    pub stop: Option<oneshot::Sender<()>>,
    /// How many seconds its clock is wrong.
    pub skew: Arc<AtomicI64>,
    n_lives: u32,
}

impl Seat {
    pub fn new(identity: String, news: Arc<Notify>) -> Seat {
        let life = Life::new(identity, news);
        Seat { life, handle: None, stop: None, skew: Arc::default(), n_lives: 0 }
    }
}

impl World<'_> {
    pub(super) fn begin(&mut self, number: usize, weather: Arc<Weather>) {
        let seat = &mut self.seats[number];
        let identity = identity(number, seat.n_lives);
        seat.n_lives += 1;
        let life = Life::new(identity.clone(), self.news.clone());
        let wire = Wire { server: self.server.clone(), life: life.clone(), weather };
        let (base, start, skew) = (self.base, self.start, seat.skew.clone());
        let clock = Clock::new(move || {
            let skew = SignedDuration::from_secs(skew.load(Ordering::Relaxed));
            later(base, start.elapsed()).checked_add(skew).unwrap_or(base)
        });
        let clients = Clients {
            watching: wire.client(NAMESPACE),
            writing: wire.client(NAMESPACE),
            leasing: wire.client(NAMESPACE),
            lease_namespace: NAMESPACE.to_owned(),
        };
        let mut args = self.args.clone();
        args.cron_jobs = !self.case.crons.is_empty();
        args.leader_elect = self.case.operators == Operators::Elected;
        let (stop, stopped) = oneshot::channel();
        let news = self.news.clone();
        seat.handle = Some(tokio::spawn(async move {
            let operator = Operator::new(args, clients, clock, identity)?;
            let ended = operator
                .run(async {
                    if stopped.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
                .await;
            news.notify_one();
            ended
        }));
        seat.stop = Some(stop);
        seat.life = life;
    }

    /// Ends a life at once: nothing that has begun is finished.
    pub(super) fn bury(&mut self, number: usize) {
        let seat = &mut self.seats[number];
        seat.life.end();
        if let Some(handle) = seat.handle.take() {
            handle.abort();
        }
        seat.stop = None;
    }

    pub(super) fn look_after_operators(&mut self) {
        for number in 0..self.seats.len() {
            let seat = &mut self.seats[number];
            let Some(handle) = &seat.handle else { continue };
            let has_died = seat.life.is_dead();
            if !has_died && !handle.is_finished() {
                continue;
            }
            let was_told = seat.stop.is_none();
            if !has_died && !was_told {
                self.complaints.push("the operator has ended by itself".to_owned());
            }
            self.bury(number);
            self.n_deaths += 1;
            let delay = up_to(&mut self.random, 3000);
            self.after(delay, Task::Begin { seat: number });
        }
    }

    /// An operator that comes anew has nothing to say.
    pub(super) async fn ask_a_new_one(&mut self, quiet_since: Timestamp) {
        let fair = Weather::new(self.case.seed ^ 1, Rates::default(), Vec::new(), Instant::now());
        // What the old one had sent has come.
        sleep(Duration::from_secs(1)).await;
        self.seats[0].skew.store(0, Ordering::Relaxed);
        let n_before = lock(&self.judge).last_change;
        self.begin(0, Arc::new(fair));
        sleep(QUIET).await;
        let n_writes = self.seats[0].life.n_writes.load(Ordering::Relaxed);
        if n_writes > 0 || lock(&self.judge).last_change != n_before {
            self.complaints
                .push(format!("all was at rest since {quiet_since}, and a new operator made {n_writes} writes"));
        }
        if self.seats[0].handle.as_ref().is_some_and(JoinHandle::is_finished) {
            self.complaints.push("the new operator has ended by itself".to_owned());
        }
        self.bury(0);
    }
}

pub(super) fn identity(seat: usize, life: u32) -> String {
    format!("operator-{seat}-{life}")
}
