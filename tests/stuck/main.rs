//! Jobs that cannot go on, for every reason there is, all at once: what the operator asks of the API server meanwhile, what
//! the user is told, and how soon each goes on once its cause is gone.
//!
//! `make stuck` waits two minutes, counts for ten in the API server's audit log, and writes `docs/reliability/stuck.json`;
//! then ten thousand jobs that need nothing, and what that costs, into `docs/reliability/idle.json`. `make test-api` has short
//! forms of both.

mod asked;
mod cause;
mod idle;
mod stage;
mod states;
mod webhook;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use batchjob_oracle::Report;
use clap::Parser;

/// Has jobs get stuck for every reason, and counts what the operator does about it
#[derive(Debug, Parser)]
struct Arguments {
    /// For how many seconds requests are counted, after two minutes; 0: no job gets stuck
    #[arg(long, default_value_t = 45)]
    window: u64,
    /// How many jobs need nothing; 0: none
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Only these causes, such as quota
    #[arg(long)]
    only: Vec<String>,
    /// Write docs/reliability/stuck.json and idle.json
    #[arg(long)]
    write: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut reports = Vec::new();
    if arguments.window > 0 {
        reports.push(states::measure(Duration::from_secs(arguments.window), &arguments.only).await?);
    }
    if arguments.idle > 0 {
        reports.push(idle::measure(arguments.idle).await?);
    }
    for report in &reports {
        conclude(report, arguments.write)?;
    }
    let n_broken: u64 = reports.iter().map(|report| report.violations).sum();
    ensure!(n_broken == 0, "{n_broken} promises are broken");
    Ok(())
}

fn conclude(report: &Report, write: bool) -> Result<()> {
    println!("{}: {} violations in {} s", report.name, report.violations, report.seconds);
    for detail in &report.details {
        println!("  {detail}");
    }
    if write {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability");
        println!("{}", report.write(&folder)?.display());
    }
    Ok(())
}
