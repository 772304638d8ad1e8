//! How often anything is tried while the API server does not work: one gate that all passes go through.
//!
//! Each job has a short delay after a failure, so that it goes on soon once the API server is back. Ten thousand jobs with
//! short delays would be a hammer, and one that swings the harder the less the API server can bear it (issue 87794 of
//! kubernetes/kubernetes: seven times the normal load on one that had just come back). So what all of them may do together
//! is bounded here:
//!
//! ```text
//! writes are answered       the gate is open: nobody waits
//! one is not                a pass that wants to write waits for 0.1 s, and the others behind it
//! it goes, and doubles the pause for the next: 0.2 s, 0.4 s … 2 s. So it is while nobody answers, and while nobody
//!                           says no either
//! one is answered           a quarter of the pause, and the gate is soon open
//! ```
//!
//! Only what was sent since the pause last changed makes it longer: twenty requests that break off with one connection are
//! one sign, not twenty. Only writes count, because reads are answered by an API server whose etcd is full. A pass that has
//! nothing to write does not wait. One job whose requests alone fail hardly holds up others: the next answer to any of them
//! takes back what it has brought about.
//!
//! It may touch nothing but the clock that timers go by, and has no randomness.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// With the delay of a job, which is as long, less than the 5 s within which it is to go on.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The gate.
#[derive(Debug)]
pub struct Outage {
    state: Mutex<State>,
    /// The pause has become shorter.
    changed: Notify,
    /// Whoever waits for the end of the pause; the others wait behind it, first come, first served.
    line: Semaphore,
}

#[derive(Debug)]
struct State {
    /// Before the next pass that writes; zero: the gate is open.
    pause: Duration,
    closed_at: Instant,
    /// When a request was last a sign of something.
    heard_at: Instant,
    last_turn: Instant,
    is_over: bool,
}

impl Default for Outage {
    fn default() -> Outage {
        let now = Instant::now();
        let state = State { pause: Duration::ZERO, closed_at: now, heard_at: now, last_turn: now, is_over: false };
        Outage { state: Mutex::new(state), changed: Notify::new(), line: Semaphore::new(1) }
    }
}

impl Outage {
    /// A request that was sent then was not answered, or by an API server that does not work.
    pub fn failed(&self, sent: Instant) {
        let now = Instant::now();
        let mut state = self.lock();
        if sent < state.heard_at {
            return;
        }
        if state.pause.is_zero() {
            (state.closed_at, state.last_turn) = (now, now);
        }
        state.heard_at = now;
        let pause = state.pause * 2;
        state.set_pause(pause.clamp(FIRST_PAUSE, LONGEST_PAUSE));
    }

    /// A write that was sent then was answered, whatever the answer is.
    pub fn answered(&self, sent: Instant) {
        let mut state = self.lock();
        // What was sent before may have been answered before, too.
        if state.pause.is_zero() || sent < state.closed_at {
            return;
        }
        state.heard_at = Instant::now();
        let pause = state.pause / 4;
        state.set_pause(if pause < FIRST_PAUSE { Duration::ZERO } else { pause });
        drop(state);
        self.changed.notify_one();
    }

    /// Until it is a pass's turn to write. Answers with whether it had to wait, so that what it wants may be old.
    pub async fn turn(&self) -> bool {
        if self.is_open() {
            return false;
        }
        // It is never closed.
        let _first = self.line.acquire().await;
        loop {
            let changed = self.changed.notified();
            let at = {
                let mut state = self.lock();
                if state.is_open() {
                    return true;
                }
                let at = state.last_turn + state.pause;
                if at <= Instant::now() {
                    state.last_turn = Instant::now();
                    // Until it is known what comes of it.
                    let pause = state.pause * 2;
                    state.set_pause(pause.min(LONGEST_PAUSE));
                    return true;
                }
                at
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Whether writes are answered, for all that is known.
    pub fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Nobody waits any more: the operator ends.
    pub fn give_up(&self) {
        self.lock().is_over = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_open(&self) -> bool {
        self.pause.is_zero() || self.is_over
    }

    fn set_pause(&mut self, pause: Duration) {
        if pause != self.pause {
            let (from, to) = (self.pause, pause);
            tracing::debug!(?from, ?to, "the pause before a pass that writes");
        }
        self.pause = pause;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// An API server that is away until told otherwise, and workers that each try to write, again and again.
    struct World {
        outage: Outage,
        /// How long it takes to notice that nobody answers.
        silence: Duration,
        is_away: AtomicBool,
        n_writes: AtomicU32,
    }

    impl World {
        fn new(silence: Duration) -> Arc<World> {
            let (outage, is_away, n_writes) = (Outage::default(), AtomicBool::new(true), AtomicU32::new(0));
            Arc::new(World { outage, silence, is_away, n_writes })
        }

        /// One worker with so many jobs: each is tried until it is written.
        async fn work(self: Arc<World>, n_jobs: u32) {
            for _ in 0..n_jobs {
                loop {
                    self.outage.turn().await;
                    let sent = Instant::now();
                    self.n_writes.fetch_add(1, Ordering::Relaxed);
                    if self.is_away.load(Ordering::Relaxed) {
                        sleep(self.silence).await;
                        self.outage.failed(sent);
                    } else {
                        sleep(Duration::from_millis(5)).await;
                        self.outage.answered(sent);
                        break;
                    }
                }
            }
        }

        fn n_writes(&self) -> u32 {
            self.n_writes.load(Ordering::Relaxed)
        }
    }

    /// Refused at once, and answered by nobody, which is noticed after half a minute.
    #[tokio::test(start_paused = true)]
    async fn an_outage_sees_few_requests_and_its_end_is_noticed_soon() {
        for silence in [Duration::from_millis(1), Duration::from_secs(30)] {
            let world = World::new(silence);
            let workers = join_all((0..16).map(|_| tokio::spawn(world.clone().work(625))));
            sleep(Duration::from_secs(90)).await;
            // 16 that had begun, some while the pause grows, then one every two seconds.
            assert!((40..=16 + 8 + 45).contains(&world.n_writes()), "{}", world.n_writes());
            let before = world.n_writes();
            world.is_away.store(false, Ordering::Relaxed);
            let back = Instant::now();
            timeout(Duration::from_secs(60), workers).await.expect("ten thousand jobs are done");
            assert!(world.n_writes() - before >= 9_990, "none is refused any more");
            // Those that wait for an answer in vain are done last; all others as soon as the gate is open.
            let took = back.elapsed().saturating_sub(silence);
            // At once they would take 625 times 5 ms, one after the other for each worker.
            assert!(took < Duration::from_millis(625 * 5) + Duration::from_secs(4), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_on_within_two_seconds_of_the_return() {
        let outage = Outage::default();
        for _ in 0..10 {
            outage.failed(Instant::now());
            outage.turn().await;
        }
        let back = Instant::now();
        let mut turns = Vec::new();
        while !outage.is_open() {
            outage.turn().await;
            turns.push(back.elapsed().as_millis());
            outage.answered(Instant::now());
        }
        assert_eq!(turns, [2000, 2500, 2750, 2875]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_all_is_well() {
        let outage = Outage::default();
        outage.answered(Instant::now());
        let began = Instant::now();
        assert!(!outage.turn().await && !outage.turn().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_break_off_together_are_one_sign() {
        let outage = Outage::default();
        let sent = Instant::now();
        sleep(Duration::from_millis(1)).await;
        for _ in 0..20 {
            outage.failed(sent);
        }
        let began = Instant::now();
        assert!(outage.turn().await, "it had to wait");
        assert_eq!(began.elapsed(), FIRST_PAUSE);
        outage.answered(Instant::now());
        assert!(outage.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_what_was_sent_before_says_nothing() {
        let outage = Outage::default();
        let sent = Instant::now();
        sleep(Duration::from_millis(1)).await;
        outage.failed(Instant::now());
        outage.answered(sent);
        assert!(!outage.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_requests_fail_hardly_holds_up_the_others() {
        let outage = Outage::default();
        let began = Instant::now();
        for n in 0..1000 {
            outage.turn().await;
            let sent = Instant::now();
            sleep(Duration::from_millis(5)).await;
            if n % 10 == 0 { outage.failed(sent) } else { outage.answered(sent) }
        }
        let lost = began.elapsed() - Duration::from_secs(5);
        assert!(lost <= FIRST_PAUSE * 100, "{lost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_sent_home_when_the_operator_ends() {
        let outage = Arc::new(Outage::default());
        for _ in 0..10 {
            outage.failed(Instant::now());
        }
        let waiting = join_all((0..4).map(|_| {
            let outage = outage.clone();
            tokio::spawn(async move { outage.turn().await })
        }));
        sleep(Duration::from_millis(1)).await;
        outage.give_up();
        timeout(Duration::from_millis(1), waiting).await.expect("at once");
    }
}
