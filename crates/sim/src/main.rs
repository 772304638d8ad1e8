//! Plays cases, as many as wanted, and says which laws are broken: `make sim`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use batchjob_operator::args::OperatorArgs;
use batchjob_oracle::Report;
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
    #[arg(long, default_value_t = 0)]
    lives: u64,
    /// How many slots of schedules are to be decided
    #[arg(long, default_value_t = 0)]
    slots: u64,
    /// The first case
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The first case is one that belongs to this commit
    #[arg(long, conflicts_with = "from")]
    pick: Option<String>,
    /// Play every fault at every request of these small jobs, and every pair of faults (all: of each of them)
    #[arg(long)]
    pairs: Option<String>,
    /// With --seed: the case of schedules
    #[arg(long, requires = "seed")]
    schedules: bool,
    /// Play this case alone, and tell what happened; with RUST_LOG also what the operators say
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: make the case as small as it can be while it breaks a law, and write it into that file
    #[arg(long, requires = "seed")]
    shrink: Option<PathBuf>,
    /// Play the case of that file alone, and tell what happened
    #[arg(long)]
    case: Option<PathBuf>,
    /// Play every case twice, and compare
    #[arg(long)]
    twice: bool,
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Stop after so many cases that break a law
    #[arg(long, default_value_t = 20)]
    most_failures: u64,
    /// Where the result is written
    #[arg(long)]
    report: Option<PathBuf>,
    /// Go on after the cases of the result that is there, and add to it
    #[arg(long, requires = "report", conflicts_with_all = ["from", "pick"])]
    go_on: bool,
    /// Of the code that is played, for the result
    #[arg(long, default_value = "")]
    commit: String,
    /// The day, for the result
    #[arg(long, default_value = "")]
    date: String,
}

impl Args {
    fn first_case(&self) -> u64 {
        // Far from those of other commits.
        let picked = self.pick.as_ref().and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok());
        picked.map_or(self.from, |picked| picked << 24)
    }
}

/// Of the result.
const NAME: &str = "simulation";
const SCHEDULES: &str = "schedules";
const OF_A_CORE: &str = "of a core.";

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
        let mut case = if args.schedules { Case::of_schedules(seed) } else { Case::of(seed) };
        if let Some(path) = &args.shrink {
            case = shrink(&case, &operator);
            std::fs::write(path, serde_json::to_string_pretty(&case)? + "\n")?;
        }
        return tell(&case, &operator);
    }
    if let Some(path) = &args.case {
        return tell(&serde_json::from_slice(&std::fs::read(path)?)?, &operator);
    }
    if args.slots > 0 {
        return play_slots(args, &operator);
    }
    let began = Instant::now();
    let before = match args.report.as_ref().filter(|_| args.go_on) {
        Some(folder) => Report::read(&folder.join(format!("{NAME}.json")))?,
        None => Report::default(),
    };
    let first = before.counts.get("cases").copied().unwrap_or(args.first_case());
    let mut report = Report {
        name: NAME.to_owned(),
        promise: "A job keeps every law, and comes to rest as its spec says, whatever goes wrong and in whatever order"
            .to_owned(),
        how: "the operator, all but its process, over an API server in memory, in virtual time".to_owned(),
        command: "make sim".to_owned(),
        commit: args.commit.clone(),
        date: args.date.clone(),
        ..before
    };
    if args.lives > 0 {
        play_lives(args, first, &operator, &mut report);
    }
    if let Some(name) = &args.pairs {
        play_pairs(name, args, &operator, &mut report)?;
    }
    report.seconds += began.elapsed().as_secs();
    if let Some(folder) = &args.report {
        report.write(folder)?;
    }
    anyhow::ensure!(report.violations == 0, "{} cases break a law: sim --seed N tells how", report.violations);
    Ok(())
}

/// Random cases, until there were lives enough.
fn play_lives(args: &Args, first: u64, operator: &OperatorArgs, report: &mut Report) {
    let sums = Sums { next: AtomicU64::new(first), ..Sums::default() };
    let began = Instant::now();
    let used_before = core_seconds();
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| work(args, operator, &sums));
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let used = core_seconds() - used_before;
    let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    let lives = load(&sums.lives);
    let hours = load(&sums.virtual_seconds) / 3600;
    let speed = lives as f64 / seconds;
    println!(
        "{lives} lives in {} cases, {} requests, {} faults, {} deaths of operators, {hours} hours of their time, \
         in {seconds:.1} s: {speed:.0} lives/s",
        load(&sums.cases),
        load(&sums.requests),
        load(&sums.faults),
        load(&sums.deaths),
    );
    let mut failures = sums.failures.into_inner().unwrap_or_default();
    tell_failures(&mut failures);
    for (what, sum) in [
        ("cases", &sums.cases),
        ("requests", &sums.requests),
        ("faults", &sums.faults),
        ("deaths of operators", &sums.deaths),
        ("lives", &sums.lives),
        ("hours of the jobs' own time", &AtomicU64::new(hours)),
        ("seconds of a core", &AtomicU64::new(used as u64)),
    ] {
        *report.counts.entry(what.to_owned()).or_default() += load(sum);
    }
    report.violations += failures.len() as u64;
    let count = |what: &str| report.counts.get(what).copied().unwrap_or_default();
    let speed = count("lives") / count("seconds of a core").max(1);
    let speed = format!("{speed} lives a second {OF_A_CORE}");
    report.details.retain(|detail| !detail.ends_with(OF_A_CORE));
    report.details.push(speed);
    // A run in parts may see several commits.
    let commit = format!(" at {}.", args.commit);
    if !report.details.iter().any(|detail| detail.ends_with(&commit)) {
        report.details.push(format!("Cases from {first} on were played{commit}"));
    }
}

/// Random cases of schedules, until there were slots enough.
fn play_slots(args: &Args, operator: &OperatorArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let before = match args.report.as_ref().filter(|_| args.go_on) {
        Some(folder) => Report::read(&folder.join(format!("{SCHEDULES}.json")))?,
        None => Report::default(),
    };
    let first = before.counts.get("cases").copied().unwrap_or(args.first_case());
    let sums = Sums { next: AtomicU64::new(first), ..Sums::default() };
    let slots = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while slots.load(Ordering::Relaxed) < args.slots
                    && sums.failures.lock().is_ok_and(|failures| (failures.len() as u64) < args.most_failures)
                {
                    let seed = sums.next.fetch_add(1, Ordering::Relaxed);
                    let outcome = play(&Case::of_schedules(seed), operator, false);
                    slots.fetch_add(outcome.n_slots, Ordering::Relaxed);
                    sums.cases.fetch_add(1, Ordering::Relaxed);
                    sums.deaths.fetch_add(outcome.n_deaths, Ordering::Relaxed);
                    sums.faults.fetch_add(outcome.n_faults, Ordering::Relaxed);
                    if !outcome.violations.is_empty()
                        && let Ok(mut failures) = sums.failures.lock()
                    {
                        failures.push((seed, outcome.violations));
                    }
                }
            });
        }
    });
    let mut failures = sums.failures.into_inner().unwrap_or_default();
    tell_failures(&mut failures);
    let mut report = Report {
        name: SCHEDULES.to_owned(),
        promise: "No slot of a schedule is started twice, none is lost without a reason told, and no more runs are active than \
                  may be, whatever goes wrong"
            .to_owned(),
        how: "the operator, all but its process, over an API server in memory, in virtual time, one to three BatchCronJobs a case"
            .to_owned(),
        command: "make schedules".to_owned(),
        commit: args.commit.clone(),
        date: args.date.clone(),
        ..before
    };
    for (what, n) in [
        ("cases", sums.cases.into_inner()),
        ("slots", slots.into_inner()),
        ("faults", sums.faults.into_inner()),
        ("deaths of operators", sums.deaths.into_inner()),
    ] {
        *report.counts.entry(what.to_owned()).or_default() += n;
    }
    report.violations += failures.len() as u64;
    report.seconds += began.elapsed().as_secs();
    println!("{:?} in {} s, {} break a law", report.counts, report.seconds, failures.len());
    if let Some(folder) = &args.report {
        report.write(folder)?;
    }
    anyhow::ensure!(failures.is_empty(), "{} cases break a law: sim --schedules --seed N tells how", failures.len());
    Ok(())
}

/// The first words of each case that breaks a law, in the order of their seeds.
fn tell_failures(failures: &mut [(u64, Vec<String>)]) {
    failures.sort();
    for (seed, violations) in failures {
        println!("seed {seed}:");
        for violation in violations.iter().take(3) {
            println!("  {violation}");
        }
    }
}

/// How long this process has had a core: the machine may have other things to do.
fn core_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
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
    // RUST_LOG=debug tells what the operators say, between the lines of the history.
    let is_logged = std::env::var_os("RUST_LOG").is_some();
    if is_logged {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let outcome = play(case, operator, true);
    for line in outcome.history.iter().filter(|_| !is_logged) {
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
fn play_pairs(name: &str, args: &Args, operator: &OperatorArgs, report: &mut Report) -> anyhow::Result<()> {
    let mut n_scripts = 0;
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
        n_scripts += scripts.len() as u64;
        report.violations += failures.len() as u64;
    }
    anyhow::ensure!(n_scripts > 0, "there is no small job {name:?}");
    report.counts.insert("faults and pairs of small jobs".to_owned(), n_scripts);
    Ok(())
}
