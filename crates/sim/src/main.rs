//! Plays cases, as many as wanted, and says which laws are broken: `make sim`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use batchjob_operator::args::OperatorArgs;
use batchjob_sim::case::Case;
use batchjob_sim::scope::{Scope, scopes};
use batchjob_sim::shrink::shrink;
use batchjob_sim::world::{Outcome, play};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays jobs in virtual time, with everything going wrong that can.
#[derive(Debug, Parser)]
struct Args {
    /// How many lives of jobs are to be played
    #[arg(long, default_value_t = 10_000)]
    lives: u64,
    /// The first case
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this case alone, and tell what happened
    #[arg(long)]
    seed: Option<u64>,
    /// Play every case twice, and compare
    #[arg(long)]
    twice: bool,
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Stop after so many cases that break a law
    #[arg(long, default_value_t = 20)]
    most_failures: u64,
    /// With --seed: make the case as small as it can be, and write it into that file
    #[arg(long)]
    shrink: Option<PathBuf>,
    /// Play the case of that file alone, and tell what happened
    #[arg(long)]
    case: Option<PathBuf>,
    /// Play every pair of faults of these small jobs (all: every one)
    #[arg(long)]
    pairs: Option<String>,
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Default)]
struct Sums {
    next: AtomicU64,
    cases: AtomicU64,
    lives: AtomicU64,
    requests: AtomicU64,
    faults: AtomicU64,
    deaths: AtomicU64,
    virtual_seconds: AtomicU64,
    failures: Mutex<Vec<(u64, Vec<String>)>>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let operator = batchjob_sim::operator_args();
    if let Some(seed) = args.seed {
        let mut case = Case::of(seed);
        if let Some(path) = &args.shrink {
            case = shrink(&case, &operator);
            std::fs::write(path, serde_json::to_string_pretty(&case)? + "\n")?;
        }
        return tell(&case, &operator);
    }
    if let Some(path) = &args.case {
        return tell(&serde_json::from_slice(&std::fs::read(path)?)?, &operator);
    }
    if let Some(name) = &args.pairs {
        return pairs(name, args, &operator);
    }
    let sums = Sums::default();
    sums.next.store(args.from, Ordering::Relaxed);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| work(args, &operator, &sums));
        }
    });
    let took = began.elapsed();
    let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    let lives = load(&sums.lives);
    println!(
        "{lives} lives in {} cases, {} requests, {} faults, {} deaths of operators, {} hours of their time, in {:.1} s: {:.0} lives/s",
        load(&sums.cases),
        load(&sums.requests),
        load(&sums.faults),
        load(&sums.deaths),
        load(&sums.virtual_seconds) / 3600,
        took.as_secs_f64(),
        lives as f64 / took.as_secs_f64(),
    );
    let mut failures = sums.failures.into_inner().unwrap_or_default();
    failures.sort();
    for (seed, violations) in &failures {
        println!("seed {seed}:");
        for violation in violations.iter().take(3) {
            println!("  {violation}");
        }
    }
    anyhow::ensure!(failures.is_empty(), "{} cases break a law: sim --seed N tells how", failures.len());
    Ok(())
}

fn work(args: &Args, operator: &OperatorArgs, sums: &Sums) {
    loop {
        let is_enough = sums.lives.load(Ordering::Relaxed) >= args.lives;
        let n_failures = sums.failures.lock().map_or(0, |failures| failures.len() as u64);
        if is_enough || n_failures >= args.most_failures {
            return;
        }
        let seed = sums.next.fetch_add(1, Ordering::Relaxed);
        let case = Case::of(seed);
        let outcome = play(&case, operator, false);
        let mut violations = outcome.violations.clone();
        if args.twice && play(&case, operator, false).fingerprint != outcome.fingerprint {
            violations.push("played twice, it is not the same".to_owned());
        }
        sums.cases.fetch_add(1, Ordering::Relaxed);
        let Outcome { n_lives, n_requests, n_faults, n_deaths, took, .. } = outcome;
        sums.lives.fetch_add(n_lives, Ordering::Relaxed);
        sums.requests.fetch_add(n_requests, Ordering::Relaxed);
        sums.faults.fetch_add(n_faults, Ordering::Relaxed);
        sums.deaths.fetch_add(n_deaths, Ordering::Relaxed);
        sums.virtual_seconds.fetch_add(took.as_secs(), Ordering::Relaxed);
        if !violations.is_empty()
            && let Ok(mut failures) = sums.failures.lock()
        {
            failures.push((seed, violations));
        }
    }
}

fn tell(case: &Case, operator: &OperatorArgs) -> anyhow::Result<()> {
    println!("{case}");
    let outcome = play(case, operator, true);
    for line in &outcome.history {
        println!("{line}");
    }
    for violation in &outcome.violations {
        println!("{violation}");
    }
    let again = play(case, operator, true);
    let differs = outcome.history.iter().zip(&again.history).position(|(one, other)| one != other);
    if let Some(at) = differs {
        anyhow::bail!("played again it differs: {}", again.history[at]);
    }
    anyhow::ensure!(outcome.violations.is_empty(), "laws are broken");
    Ok(())
}

/// Every fault at every request, and every pair, of small jobs.
fn pairs(name: &str, args: &Args, operator: &OperatorArgs) -> anyhow::Result<()> {
    let mut n_bad = 0;
    for scope in scopes().iter().filter(|scope| name == "all" || scope.name == name) {
        let began = Instant::now();
        let reference = play(&scope.case, operator, false);
        anyhow::ensure!(reference.violations.is_empty(), "{}: {:?}", scope.name, reference.violations);
        let scripts: Vec<_> = Scope::scripts(reference.n_requests + 3).collect();
        let next = AtomicU64::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            for _ in 0..args.threads {
                threads.spawn(|| {
                    while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let outcome = play(&scope.with(script.clone()), operator, false);
                        if !outcome.violations.is_empty()
                            && let Ok(mut failures) = failures.lock()
                        {
                            failures.push((script.clone(), outcome.violations));
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap_or_default();
        println!(
            "{}: {} faults and pairs at {} requests in {:.1} s, {} break a law",
            scope.name,
            scripts.len(),
            reference.n_requests,
            began.elapsed().as_secs_f64(),
            failures.len()
        );
        for (script, violations) in failures.iter().take(args.most_failures as usize) {
            println!("  {script:?}: {}", violations.join("; "));
        }
        n_bad += failures.len();
    }
    anyhow::ensure!(n_bad == 0, "{n_bad} break a law");
    Ok(())
}
