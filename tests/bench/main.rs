//! The operator beside kube-controller-manager and beside the least that any controller has to do: `make bench`.
//!
//! Each run has a cluster of its own, with pods that kwok plays, and the contenders take turns, so that a machine that becomes
//! slower does so for all of them. What counts are the ratios; the figures are those of the machine.

mod contender;
mod figures;
mod floor;
mod page;
mod run;
mod workload;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use contender::Contender;
use figures::{Figures, percentile};
use floor::Floor;
use page::Results;
use workload::Workload;

/// Measures the operator beside kube-controller-manager
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// The floor itself, which the bench starts
    #[command(hide = true)]
    Floor(Floor),
}

#[derive(Debug, Args)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these: large, many, single, failing, suspended, deleted
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Only these: defaults, lifted, operator, managed, floor
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Smaller ones: a so-manieth of each
    #[arg(long, default_value_t = 1)]
    part: usize,
    /// Write the figures into docs/performance.md
    #[arg(long)]
    page: bool,
}

/// At 10 pods a second it is measured with as many times fewer.
const DEFAULTS_PART: usize = 12;

#[tokio::main]
async fn main() -> Result<()> {
    let Command { other, arguments } = Command::parse();
    if let Some(Other::Floor(floor)) = other {
        return floor::run(&floor).await;
    }
    let stages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/stages.yaml");
    let workloads = chosen(&workload::ALL, &arguments.workloads, |workload| workload.name)?;
    let contenders = chosen(&Contender::ALL, &arguments.contenders, |contender| contender.short())?;
    let mut results = Results::default();
    for workload in &workloads {
        let workload = workload.divided_by(arguments.part);
        println!("{}: {}", workload.name, workload.what);
        for round in 0..arguments.rounds {
            let mut turns: Vec<Contender> = contenders.iter().copied().filter(|it| it.takes_part(&workload)).collect();
            // Nobody is always the first.
            let n_turns = turns.len().max(1);
            turns.rotate_left(round % n_turns);
            for contender in turns {
                let figures = once(contender, workload, &stages).await;
                let figures = figures.with_context(|| format!("{}: {}", workload.name, contender.name()))?;
                println!("  {:<40} {}", contender.name(), line(&figures));
                results.add(workload, contender, figures);
            }
        }
    }
    let page = results.page();
    println!("{page}");
    if arguments.page {
        page::write(&page)?;
    }
    Ok(())
}

async fn once(contender: Contender, workload: Workload, stages: &Path) -> Result<Figures> {
    let workload = if contender == Contender::Defaults { workload.divided_by(DEFAULTS_PART) } else { workload };
    run::measure(contender, &workload, stages).await
}

fn chosen<T: Copy>(all: &[T], names: &[String], name: impl Fn(&T) -> &'static str) -> Result<Vec<T>> {
    let chosen: Vec<T> =
        all.iter().copied().filter(|it| names.is_empty() || names.iter().any(|wanted| wanted == name(it))).collect();
    ensure!(names.is_empty() || chosen.len() == names.len(), "of {names:?} not all are there");
    Ok(chosen)
}

fn line(figures: &Figures) -> String {
    let delay = |delays, percent| percentile(delays, percent).map_or("-".to_owned(), |it| format!("{it:.0?}"));
    format!(
        "{:7.1} pods/s, {:5.2} CPU-s per 1,000, {:4.0} MiB, {:5.2} writes a pod, successor {} / {}, first pod {} / {}",
        figures.pods_per_second(),
        figures.cpu_per_thousand(),
        figures.mebibytes(),
        figures.writes_per_pod(),
        delay(&figures.successor, 50),
        delay(&figures.successor, 99),
        delay(&figures.first_pod, 50),
        delay(&figures.first_pod, 99),
    ) + &format!("; {}", figures.written())
}
