//! The one place where time enters. Everything that decides is given a time, so a simulation can make years of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// The wall clock: what is written into objects, and compared with what others wrote there. Timers do not go by it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The clock of the machine.
    #[expect(clippy::disallowed_methods, reason = "this is where the time of the machine comes from")]
    pub fn of_the_machine() -> Clock {
        Clock(Arc::new(Timestamp::now))
    }

    /// Another clock.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// A part of that time, another one for each name: so that what begins together does not go on together. The same for the
/// same name, so that it can be repeated.
pub fn spread(name: &str, longest: Duration) -> Duration {
    let hash = name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    longest.mul_f64(f64::from(hash % 1000) / 1000.0)
}
