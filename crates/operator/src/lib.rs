//! The operator: watching and writing. `operator.rs` says which part feeds which.
//!
//! A library, so that a simulation can run all of it but the process: over an API server of its own, on a clock of its
//! own.

pub mod act;
pub mod admin;
pub mod args;
pub mod clock;
pub mod controller;
pub mod cron_controller;
pub mod error;
pub mod events;
pub mod lease;
pub mod link;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod operator;
pub mod outage;
pub mod queue;
pub mod release;
pub mod selftest;
pub mod sweep;
pub mod workers;
pub mod writer;
