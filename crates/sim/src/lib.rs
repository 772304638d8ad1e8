//! The operator under every fault, in virtual time: an API server in memory, and worlds that are played on it.
//!
//! ```text
//! seed ──► Case: jobs, deeds, faults ──► World ──► history ──► oracle ──► violations
//!                                          │
//!             operator ◄── Wire: late, lost, refused ──► ApiServer ◄── users, kubelet, garbage collector
//! ```
//!
//! The operator is the real one, all of it but its process; the laws are those that the tests on a real API server ask.

pub mod apiserver;
pub mod case;
pub mod fault;
mod judge;
mod others;
pub mod random;
pub mod schedules;
pub mod scope;
pub mod shrink;
pub mod wire;
pub mod world;

use batchjob_operator::args::{Command, OperatorArgs};
use clap::Parser as _;

/// The operator's flags, as far as all cases have the same.
pub fn operator_args() -> OperatorArgs {
    Command::parse_from(["batchjob-operator", "--managed-jobs=true", "--cron-jobs=false", "--leader-elect=false"])
        .operator
}
