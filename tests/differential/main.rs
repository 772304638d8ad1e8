//! The same random job, given to Kubernetes' own Job controller and to ours on one API server: what comes of it has to be
//! equal, round by round, or the difference is on the written list.
//!
//! `make differential N=2000` plays the seeds 1 to 2000, `make differential SEED=7` one of them, with both histories.
//!
//! ```text
//! case (seed) ──► play, once for each door ──► compare ──► equal, intended, or an error with both histories
//!                  │  kubelet ──► API server
//!                  └◄ world ◄──── three watches; every status goes through batchjob_oracle::standing
//! ```

mod case;
mod compare;
mod differences;
mod door;
mod kubelet;
mod play;

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Namespace, Operator, serve_batch_jobs};
use clap::Parser;
use futures::StreamExt as _;

use case::{Case, Field};
use compare::{Verdict, compare, side_by_side};
use door::{Door, Jobs};
use play::{Performance, play};
use world::World;

/// Plays random jobs against Kubernetes' own controller and against ours
#[derive(Debug, Parser)]
struct Arguments {
    /// How many jobs
    #[arg(long, default_value_t = 100)]
    jobs: u64,
    /// The seed of the first; the next ones follow
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this seed, with both histories, whatever comes of it
    #[arg(long)]
    seed: Option<u64>,
    /// How many are played at the same time
    #[arg(long, default_value_t = 40)]
    at_once: usize,
    /// Which doors are compared with the batch/v1 Job
    #[arg(long, value_delimiter = ',', default_value = "batch-job,managed-job")]
    doors: Vec<Door>,
    /// Fields that are left out of every job
    #[arg(long, value_delimiter = ',')]
    without: Vec<Field>,
}

/// What all cases share.
struct Theatre {
    world: World,
    reference: Jobs,
    ours: Vec<Jobs>,
    without: Vec<Field>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let options = Options {
        // Pods of nodes that do not exist are garbage to one of them. Each job is waited for by somebody: the more are
        // looked at, the sooner all are done.
        controller_flags: ["--controllers=*,-pod-garbage-collector-controller", "--concurrent-job-syncs=50"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    let manages = arguments.doors.contains(&Door::ManagedJob);
    let flags: &[&str] = if manages { &["--managed-jobs", "true"] } else { &[] };
    let operator = Operator::start(&kubernetes, flags).await?;

    let theatre = Theatre::open(&kubernetes, &arguments).await?;
    let client = kubernetes.client().await?;
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.first..arguments.first + arguments.jobs,
    };
    println!("seeds {} to {}; ready after {:.0?}", seeds.start, seeds.end - 1, began.elapsed());
    let report = tokio::select! {
        report = play_all(&theatre, seeds, &arguments) => report?,
        broken = theatre.world.watch(&client) => return broken.context("the watches ended"),
    };
    println!("{report}in {:.0?}", began.elapsed());
    for &seed in report.different.iter().chain(&arguments.seed) {
        println!("---- seed {seed}, the operator");
        let name = format!("/{} ", Case::of(seed, &theatre.without).name());
        std::fs::read_to_string(&operator.log)?
            .lines()
            .filter(|line| line.contains(&name))
            .for_each(|line| println!("{line}"));
    }
    let is_clean = report.different.is_empty();
    drop(operator);
    kubernetes.stop().await?;
    ensure!(is_clean, "seeds that differ: {:?}", report.different);
    Ok(())
}

impl Theatre {
    async fn open(kubernetes: &Kubernetes, arguments: &Arguments) -> Result<Theatre> {
        let mut ours = Vec::new();
        for &door in &arguments.doors {
            ours.push(jobs(kubernetes, door).await?);
        }
        let reference = jobs(kubernetes, Door::Reference).await?;
        Ok(Theatre { world: World::new(), reference, ours, without: arguments.without.clone() })
    }
}

async fn jobs(kubernetes: &Kubernetes, door: Door) -> Result<Jobs> {
    let namespace = Namespace::new(kubernetes, &door.to_string().to_lowercase().replace(' ', "-")).await?;
    Ok(Jobs::new(door, namespace.name.clone(), namespace.client.clone()))
}

async fn play_all(theatre: &Theatre, seeds: std::ops::Range<u64>, arguments: &Arguments) -> Result<Report> {
    let played = futures::stream::iter(seeds).map(|seed| async move { (seed, play_one(theatre, seed).await) });
    let mut played = std::pin::pin!(played.buffer_unordered(arguments.at_once));
    let mut report = Report::default();
    while let Some((seed, performances)) = played.next().await {
        let (case, reference, ours) = performances.with_context(|| format!("play seed {seed}"))?;
        report.of_case(&case, &reference, &ours, arguments.seed.is_some());
        if report.n_cases.is_multiple_of(100) {
            println!("{} played, {} differ", report.n_cases, report.different.len());
        }
    }
    Ok(report)
}

async fn play_one(theatre: &Theatre, seed: u64) -> Result<(Arc<Case>, Performance, Vec<Performance>)> {
    let case = Arc::new(Case::of(seed, &theatre.without));
    let reference = play(&case, &theatre.world, &theatre.reference);
    let ours = theatre.ours.iter().map(|jobs| play(&case, &theatre.world, jobs));
    let (reference, ours) = futures::future::try_join(reference, futures::future::try_join_all(ours)).await?;
    Ok((case, reference, ours))
}

#[derive(Default)]
struct Report {
    n_cases: u64,
    n_rounds: usize,
    /// How the Jobs ended, by reason: that the cases are of all kinds.
    ends: BTreeMap<String, u64>,
    /// Of each door.
    equal: BTreeMap<String, u64>,
    intended: BTreeMap<&'static str, Vec<u64>>,
    different: BTreeSet<u64>,
}

impl Report {
    fn of_case(&mut self, case: &Case, reference: &Performance, ours: &[Performance], is_alone: bool) {
        self.n_cases += 1;
        self.n_rounds += reference.rounds.len();
        *self.ends.entry(reference.verdict()).or_default() += 1;
        for broken in &reference.violations {
            println!("seed {}: batch/v1 Job itself breaks a rule: {broken}", case.seed);
        }
        if reference.verdict() == "refused" {
            println!("seed {}: refused: {}", case.seed, reference.history.join("; "));
        }
        for performance in ours {
            let verdict = compare(case, reference, performance);
            let words = match &verdict {
                Verdict::Equal => "equal".to_owned(),
                Verdict::Intended(difference) => format!("intended: {}", difference.name),
                Verdict::Different(found) => format!("DIFFERENT:\n  {}", found.join("\n  ")),
            };
            if is_alone || matches!(verdict, Verdict::Different(_)) {
                let events: Vec<String> = case.events.iter().map(|(at, event)| format!("{at}: {event:?}")).collect();
                println!("==== seed {}, {}: {words}", case.seed, performance.door);
                println!("spec {}\nevents {}", serde_json::json!(case.spec), events.join("; "));
                println!("{}", side_by_side(reference, performance));
            }
            match verdict {
                Verdict::Equal => *self.equal.entry(performance.door.to_string()).or_default() += 1,
                Verdict::Intended(difference) => self.intended.entry(difference.name).or_default().push(case.seed),
                Verdict::Different(_) => drop(self.different.insert(case.seed)),
            }
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} random jobs, {} rounds; the Jobs ended", self.n_cases, self.n_rounds)?;
        for (end, n) in &self.ends {
            writeln!(f, "{n:7} {end}")?;
        }
        for (door, n) in &self.equal {
            writeln!(f, "{n:7} equal: {door}")?;
        }
        for difference in differences::DIFFERENCES {
            if let Some(seeds) = self.intended.get(difference.name) {
                let (n, name, why) = (seeds.len(), difference.name, difference.why);
                writeln!(f, "{n:7} intended: {name}: {why}; seeds {seeds:?}")?;
            }
        }
        writeln!(f, "{:7} different: {:?}", self.different.len(), self.different)
    }
}
