//! `corruption`: objects of the operator, broken in etcd, and what becomes of them and of those beside them.
//!
//! `make corruption` breaks a thousand and writes docs/reliability/odd.json. `--seed 7 --rounds 1 --only 3` breaks one.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_oracle::{Controller, End, Promises, Report};
use batchjob_tests::corruption::blind::{self, Cut};
use batchjob_tests::corruption::kubelet::Kubelet;
use batchjob_tests::corruption::round::{self, Place, Played};
use batchjob_tests::corruption::stored::Kind;
use batchjob_tests::faults::campaign::{conclude, kubernetes, sends_once};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::recorder::Recorder;
use batchjob_tests::support::{Etcd, Namespace, Operator, stamped};
use clap::Parser;
use jiff::SignedDuration;

/// Breaks objects in etcd, and looks at what the operator makes of it
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed of the first round; the next ones have the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many rounds
    #[arg(long, default_value_t = 21)]
    rounds: u64,
    /// How many objects are broken in each
    #[arg(long, default_value_t = 48)]
    victims: u64,
    /// Of each round only this one
    #[arg(long)]
    only: Option<u64>,
    /// How many objects that the API server itself cannot read, at most 9
    #[arg(long, default_value_t = 9)]
    cuts: usize,
    /// Choose the seed by these words, such as a commit
    #[arg(long, value_name = "WORDS")]
    pick: Option<String>,
    /// Where to write what came of it
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
}

const OPERATOR: [&str; 2] = ["--managed-jobs", "true"];

/// Longer than any delay that is left in the namespace of the healthy.
const QUIET: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::parse();
    if let Some(words) = &arguments.pick {
        arguments.seed = words.bytes().fold(0, |seed: u64, byte| (seed * 31 + u64::from(byte)) % 1_000_000);
    }
    let kubernetes = kubernetes().await?;
    let result = play(&arguments, &kubernetes).await;
    conclude(kubernetes, result).await
}

/// Answers with how many laws were broken.
async fn play(arguments: &Arguments, kubernetes: &Kubernetes) -> Result<u64> {
    let client = sends_once(kubernetes).await?;
    let etcd = Etcd::of(kubernetes)?;
    let place = Place { kubernetes, client: client.clone(), etcd, kubelet: Kubelet::new(&client) };
    let began = Instant::now();
    let mut all = Played::default();
    let playing = place.kubelet.play();
    tokio::select! {
        played = play_all(arguments, &place, &mut all) => played?,
        () = playing => {}
    }
    let took = began.elapsed();
    let n_broken: u64 = all.broken.values().sum();
    println!("{n_broken} objects broken in {took:.0?}, {} violations", all.violations.len());
    println!("  no neighbour took longer than {:.1?}", all.slowest);
    for (end, n) in &all.ends {
        println!("{n:7} {end}");
    }
    if let Some(folder) = &arguments.report {
        println!("{}", report(arguments, &all, took)?.write(folder)?.display());
    }
    Ok(all.violations.len() as u64)
}

async fn play_all(arguments: &Arguments, place: &Place<'_>, all: &mut Played) -> Result<()> {
    let mut operator = Operator::start(place.kubernetes, &OPERATOR).await?;
    for seed in arguments.seed..arguments.seed + arguments.rounds {
        let healthy = Namespace::new(place.kubernetes, &format!("healthy-{seed}")).await?.name.clone();
        place.kubelet.finish(&healthy);
        let recorder = Recorder::start(&place.client, Some(&healthy)).await?;
        let began = Instant::now();
        let played = round::play(place, seed, &healthy, arguments.victims, arguments.only).await?;
        println!("round {seed}: {:.0?}, neighbours {:.1?}, {:?}", began.elapsed(), played.slowest, played.ends);
        let has_gap = played.n_with_gap > 0;
        add(all, played);
        match has_gap {
            true => println!("  its history is not judged: for a while nobody could read all of it"),
            false => judge_the_healthy(recorder, all).await?,
        }
        look_at(place, &mut operator, all).await?;
    }
    // The last ones of the list are as good as the first.
    let cuts = Kind::ALL.iter().flat_map(|kind| Cut::ALL.map(|cut| (*kind, cut))).collect::<Vec<_>>();
    let first = (arguments.seed % 9) as usize;
    for (kind, cut) in cuts.iter().cycle().skip(first).take(arguments.cuts) {
        let (blind, violations) = blind::play(place, &mut operator, &OPERATOR, *kind, *cut).await?;
        println!("{kind:?} {cut:?}: everybody was blind for {blind:.1?}");
        *all.broken.entry(format!("{kind:?}-unreadable").to_lowercase()).or_default() += 1;
        tell(all, violations);
        look_at(place, &mut operator, all).await?;
    }
    let violations = blind::until_nothing_is_held(place, &all.left).await?;
    tell(all, violations);
    look_at(place, &mut operator, all).await
}

async fn judge_the_healthy(recorder: Recorder, all: &mut Played) -> Result<()> {
    let quiet_since = recorder.until_quiet(QUIET, 12 * QUIET).await?;
    let promises = Promises {
        controller: Controller::Ours,
        deletions: true,
        in_flight: Some(SignedDuration::from_secs(5)),
        finalizers_go_within: Some(SignedDuration::from_secs(30)),
        ..Promises::default()
    };
    let at = quiet_since + SignedDuration::try_from(QUIET)?;
    let history = recorder.finish().await?;
    let broken = history.judge(promises, End::Settled { quiet_since, at });
    if !broken.is_empty() {
        tell(all, vec![format!("the healthy: {}", history.explain(&broken))]);
    }
    Ok(())
}

/// The operator runs, and no pass has panicked.
async fn look_at(place: &Place<'_>, operator: &mut Operator, all: &mut Played) -> Result<()> {
    ensure!(operator.is_running()?, "the operator has ended: {}", operator.tail());
    // Those that were killed have logs, too.
    for file in fs::read_dir(place.kubernetes.folder())? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(&path).context("read the log of an operator")?;
            let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
            ensure!(panics.is_empty(), "{}", panics.join("\n"));
        }
    }
    let metrics = operator.get("/metrics").await?;
    if metrics.contains(r#"batchjob_errors_total{class="panic"}"#) {
        tell(all, vec!["a pass has panicked".to_owned()]);
    }
    Ok(())
}

fn tell(all: &mut Played, violations: Vec<String>) {
    for violation in violations {
        println!("  VIOLATED: {violation}");
        all.violations.push(violation);
    }
}

fn add(all: &mut Played, played: Played) {
    let Played { broken, ends, slowest, n_with_gap, left, violations } = played;
    broken.into_iter().for_each(|(what, n)| *all.broken.entry(what).or_default() += n);
    ends.into_iter().for_each(|(end, n)| *all.ends.entry(end).or_default() += n);
    all.slowest = all.slowest.max(slowest);
    all.n_with_gap += n_with_gap;
    all.left.extend(left);
    tell(all, violations);
}

fn report(arguments: &Arguments, all: &Played, took: Duration) -> Result<Report> {
    let mut counts = Report::count([("corruptions", all.broken.values().sum())]);
    counts.extend(all.broken.clone());
    let ends = all.ends.iter().map(|(end, n)| format!("{n} times {end}.")).collect::<Vec<_>>();
    let judged = "The history of what stood beside them is judged by the laws";
    let judged = match (all.n_with_gap, arguments.rounds) {
        (0, _) => format!("{judged} in every round."),
        (n, of) => format!("{judged} in {} of {of} rounds: in {n} nobody could read all of it.", of - n),
    };
    let details =
        [vec![format!("No neighbour of a broken object took longer than {:.1?}.", all.slowest), judged], ends];
    Ok(Report {
        name: "odd".to_owned(),
        promise: "Objects that are broken, straight in etcd, hurt nobody but themselves, and it is told what became of them."
            .to_owned(),
        how: "One bit, number, text, label, owner or finalizer of a BatchJob, a managed Job or one of their pods is broken in \
              etcd, before, between and after its attempts, and objects are cut so that the API server itself cannot read them; \
              the operator must not panic nor end, healthy jobs beside them end as ever by every law, pods of others stay \
              as they are, and each broken job comes to its end or an event or its status tells why not."
            .to_owned(),
        command: format!("make corruption ROUNDS={}", arguments.rounds),
        counts,
        violations: all.violations.len() as u64,
        details: details.concat(),
        ..stamped(took)?
    })
}
