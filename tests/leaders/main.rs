//! `leaders`: many changes of leaders with work going on, a few namespaces at a time on one cluster.
//!
//! `make leaders` plays a hundred and writes `docs/reliability/leaders.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::faults::campaign::{conclude, kubernetes};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::leaders::change::{Times, deal};
use batchjob_tests::leaders::judge::{Judged, judge};
use batchjob_tests::leaders::lane::{Round, play};
use batchjob_tests::support::stamped;
use clap::Parser as _;

/// Changes leaders while they work, and tells which laws that breaks
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// How many changes
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// In how many namespaces at the same time
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// How many of these have the election's times that the operator has by default; the others have shorter ones
    #[arg(long, default_value_t = 2)]
    with_default_times: usize,
    /// Where to write what came of it
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let kubernetes = kubernetes().await?;
    let result = play_all(&arguments, &kubernetes).await;
    conclude(kubernetes, result).await
}

#[derive(Default)]
struct Summary {
    n_jobs: u64,
    n_writes: u64,
    n_unknowing: u64,
    n_late: (u64, u64),
    n_events: u64,
    n_other: u64,
    violations: Vec<String>,
    /// By kind: how many, and the slowest; with the times that are short and those by default.
    kinds: BTreeMap<(&'static str, bool), (u64, Duration)>,
}

/// Answers with how many laws were broken.
async fn play_all(arguments: &Arguments, kubernetes: &Kubernetes) -> Result<u64> {
    let began_at = Instant::now();
    let lanes = deal(arguments.changes, arguments.at_once);
    let played = lanes.iter().enumerate().map(|(n, changes)| async move {
        let is_default = n < arguments.with_default_times;
        let times = if is_default { Times::DEFAULT } else { Times::SHORT };
        let played = play(kubernetes, times, changes).await;
        (n, is_default, played)
    });
    let mut summary = Summary::default();
    for (n, is_default, played) in futures::future::join_all(played).await {
        let played = match played {
            Ok(played) => played,
            Err(error) => {
                println!("==== lane {n}: {error:#}");
                summary.violations.push(format!("lane {n}: {error:#}"));
                continue;
            }
        };
        for Round { change, took, is_other, .. } in &played.rounds {
            println!(
                "lane {n}: {change}: work went on after {took:.1?}{}",
                if *is_other { "" } else { ", by the same one" }
            );
            let (n_of_kind, slowest) = summary.kinds.entry((change.kind(), is_default)).or_default();
            *n_of_kind += 1;
            *slowest = (*slowest).max(*took);
            summary.n_other += u64::from(*is_other);
        }
        summary.n_jobs += played.n_jobs;
        summary.n_events += played.history.entries.len() as u64;
        let Judged { violations, explanation, n_writes, n_unknowing, n_late } = judge(played)?;
        summary.n_writes += n_writes;
        summary.n_unknowing += n_unknowing;
        summary.n_late = (summary.n_late.0 + n_late.0, summary.n_late.1 + n_late.1);
        violations.iter().for_each(|violation| println!("==== lane {n}: {violation}"));
        print!("{explanation}");
        summary.violations.extend(violations);
    }
    let report = report(&summary, arguments, began_at.elapsed())?;
    println!("{report:#?}");
    if let Some(folder) = &arguments.report {
        println!("{}", report.write(folder)?.display());
    }
    // A law of which nothing is asked is not kept.
    ensure!(summary.n_writes > 0, "no writer is known");
    Ok(report.violations)
}

fn report(summary: &Summary, arguments: &Arguments, took: Duration) -> Result<Report> {
    let of_kinds: u64 = summary.kinds.values().map(|(n, _)| n).sum();
    let mut counts = Report::count([
        ("changes", of_kinds),
        ("jobs", summary.n_jobs),
        ("writes", summary.n_writes),
        ("events", summary.n_events),
    ]);
    for ((kind, _), (n, _)) in &summary.kinds {
        *counts.entry((*kind).to_owned()).or_default() += n;
    }
    let slowest = summary.kinds.iter().map(|((kind, is_default), (n, slowest))| {
        let times = if *is_default { Times::DEFAULT } else { Times::SHORT };
        format!("{kind}, {n} times with a lease of {:?}: work went on after {slowest:.1?} at the latest", times.lease)
    });
    let mut details: Vec<String> = slowest.collect();
    details.push(format!("After {} of the changes another operator led than before.", summary.n_other));
    details.push(format!(
        "{} writes came from a leader whose Lease somebody else had deleted or overwritten, before its next renewal told it so.",
        summary.n_unknowing
    ));
    let (n_late, n_taken) = summary.n_late;
    details.push(format!(
        "{n_late} writes of a leader that was cut off came when another one led; the API server took {n_taken} of them."
    ));
    Ok(Report {
        name: "leaders".to_owned(),
        promise: "Whatever ends a leader, another one goes on within the lease duration and a few seconds, and nobody writes who \
                  does not lead."
            .to_owned(),
        how: format!(
            "Two operators in each of {} namespaces on the real API server, with jobs going on; the leader is ended by SIGTERM or \
             SIGKILL, stopped for 1 to 60 s, cut off from the API server, its late writes delivered when another one leads, or its \
             Lease is deleted or overwritten; who wrote is known from a proxy, and the whole history is held against the laws.",
            arguments.at_once
        ),
        command: format!("make leaders CHANGES={}", arguments.changes),
        counts,
        violations: summary.violations.len() as u64,
        details,
        ..stamped(took)?
    })
}
