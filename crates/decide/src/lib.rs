//! What happens next: a pure function from what is seen to a plan.
//!
//! [`decide`] looks at everything about one job ([`Observed`]) and answers with everything that should be written
//! ([`Plan`]). It has no client, no clock, no log and no randomness, and it cannot fail: an invalid job is a verdict
//! with a condition, not an error. Same input, same plan; and once a plan is carried out and nothing else has happened,
//! deciding again wants nothing more. [`cron::decide`] is the same for one BatchCronJob.
//!
//! One pass over a job, in order:
//!
//! 1. [`job::tally`] reads every pod as an attempt of an index and moves the ledger past the attempts that have ended.
//! 2. [`job::finish`] asks whether the job is over: the verdicts, in their order.
//! 3. [`job::scale`] says how many pods more, and for which indexes, or which ones fewer.
//! 4. [`job::status`] projects the ledger and the pods into what users see.
//! 5. The plan puts the writes in the order in which a crash between any two of them loses nothing: see [`Plan`].

mod conditions;
pub mod cron;
pub mod job;
pub mod observed;
pub mod plan;
pub mod schedule;

pub use job::decide;
pub use observed::Observed;
pub use plan::{Action, Plan};
