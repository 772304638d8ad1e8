//! What is being done, and how long did it take? Printed by `up`; tests stay quiet.

use std::cell::Cell;
use std::time::Instant;

pub(crate) struct Steps {
    print: bool,
    started: Instant,
    last: Cell<Instant>,
}

impl Steps {
    pub(crate) fn printed() -> Steps {
        Steps { print: true, started: Instant::now(), last: Cell::new(Instant::now()) }
    }

    pub(crate) fn quiet() -> Steps {
        Steps { print: false, ..Steps::printed() }
    }

    /// A step is over: it took the time since the one before.
    pub(crate) fn done(&self, what: &str) {
        let seconds = self.last.replace(Instant::now()).elapsed().as_secs_f64();
        if self.print {
            eprintln!("{seconds:5.1} s  {what}");
        }
    }

    /// Everything is over.
    pub(crate) fn finished(&self, what: &str) {
        if self.print {
            eprintln!("{:5.1} s  {what}", self.started.elapsed().as_secs_f64());
        }
    }
}
