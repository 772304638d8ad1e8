//! `faults`: the operator under every fault that can come between it and the API server, one plan after the other.
//!
//! `make faults` plays all plans about writes, with two kills and with two operators, and a thousand about views. `--plan
//! NAME` plays one, with its history. A plan that finds something is kept in `target/faults`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::faults::campaign::{Campaign, Summary, Verdict, conclude, kubernetes};
use batchjob_tests::faults::plan::{Plan, pick};
use batchjob_tests::faults::run::Played;
use batchjob_tests::faults::workload::WORKLOADS;
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::stamped;
use clap::Parser as _;

/// Plays plans: a workload, and what goes wrong between the operator and the API server
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Only this plan, by its name or file, with its history; may be given several times
    #[arg(long = "plan", value_name = "NAME|FILE")]
    only: Vec<String>,
    /// Only plans of these workloads
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Only plans with faults of these classes, such as kill-after or stale
    #[arg(long, value_delimiter = ',')]
    classes: Vec<String>,
    /// How many plans in which writes go wrong; without it all of them
    #[arg(long)]
    plans: Option<usize>,
    /// How many plans in which the operator is told something wrongly; without it all of them
    #[arg(long)]
    views: Option<usize>,
    /// How many plans in which the operator is killed twice; without it all of them
    #[arg(long)]
    doubles: Option<usize>,
    /// How many plans with two operators; without it all of them
    #[arg(long)]
    operators: Option<usize>,
    /// Which of them: a part that this commit chooses
    #[arg(long, default_value = "")]
    pick: String,
    /// Only print their names
    #[arg(long)]
    list: bool,
    /// How many are played at the same time
    #[arg(long, default_value_t = 24)]
    at_once: usize,
    /// For how many seconds nothing may be written after the end
    #[arg(long, default_value_t = 3)]
    quiet: u64,
    /// Where to write what came of it
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let kubernetes = kubernetes().await?;
    let result = play(&arguments, &kubernetes).await;
    conclude(kubernetes, result).await
}

/// Answers with how many plans were violated.
async fn play(arguments: &Arguments, kubernetes: &Kubernetes) -> Result<u64> {
    let mut campaign = Campaign::new(kubernetes, arguments.at_once, Duration::from_secs(arguments.quiet)).await?;
    let only = arguments.only.iter().map(|plan| read(plan)).collect::<Result<Vec<_>>>()?;
    let workloads: BTreeSet<&str> = if only.is_empty() {
        let is_wanted =
            |name: &str| arguments.workloads.is_empty() || arguments.workloads.iter().any(|one| one == name);
        WORKLOADS.iter().map(|workload| workload.name).filter(|name| is_wanted(name)).collect()
    } else {
        only.iter().map(|plan| plan.workload.as_str()).collect()
    };
    let began_at = Instant::now();
    campaign.refer(&workloads).await?;
    let mut n_violated = 0;
    for (workload, reference) in campaign.references() {
        println!("{workload}: {} writes, {} events", reference.n_writes, reference.told.len());
        for place in reference.unsteady() {
            println!("  differs from run to run: {place}");
        }
        for complaint in &reference.complaints {
            println!("  VIOLATED without faults: {complaint}");
            n_violated += 1;
        }
    }
    println!("what comes without faults is known after {:.0?}", began_at.elapsed());
    if !only.is_empty() {
        let told = campaign.judge(only, |verdict| {
            println!("{}", text(&verdict, true));
            n_violated += u64::from(!verdict.violations.is_empty());
        });
        told.await?;
        return Ok(n_violated);
    }
    let of_class = |plan: &Plan| {
        arguments.classes.is_empty()
            || plan.faults.iter().all(|fault| arguments.classes.iter().any(|class| class == fault.class()))
    };
    let about = [
        (&WRITES, campaign.all_of_writes(), arguments.plans),
        (&DOUBLES, campaign.all_of_two_kills(), arguments.doubles),
        (&OPERATORS, campaign.all_of_operators(), arguments.operators),
        (&VIEWS, campaign.all_of_views(), arguments.views),
    ];
    for (about, mut plans, n) in about {
        plans.retain(of_class);
        let n_all = plans.len();
        let plans = match n {
            Some(n) => pick(&plans, n, &arguments.pick),
            None => plans,
        };
        if plans.is_empty() || n == Some(0) {
            continue;
        }
        println!("{}: {} of {n_all} plans", about.name, plans.len());
        if arguments.list || n.is_some() {
            plans.iter().for_each(|plan| println!("  {plan}"));
        }
        if arguments.list {
            continue;
        }
        let summary = play_all(&campaign, plans, about, arguments, n_all).await?;
        n_violated += summary.n_violated;
    }
    Ok(n_violated)
}

/// One of the reports.
struct About {
    name: &'static str,
    promise: &'static str,
    how: &'static str,
}

const WRITES: About = About {
    name: "writes",
    promise: "The operator may die, and any answer may be lost, at every one of its writes: no result is lost, nothing runs twice.",
    how: "A proxy before the real API server kills the operator before and after each write, swallows its answer, or answers \
          504 although it was applied, 409, 429 and 500 although it was not; the end is compared with the run without faults, \
          pod by pod, and the whole history with the laws.",
};

const DOUBLES: About = About {
    name: "doubles",
    promise: "The operator may die again while it makes up for its death: no result is lost, nothing runs twice.",
    how: "Every pair of kills, before or after two of its writes, in the smallest workloads on the real API server; judged as \
          one kill is.",
};

const OPERATORS: About = About {
    name: "operators",
    promise: "Another operator may take over at every write, and two may even believe that they lead: no result is lost, nothing \
              runs twice.",
    how: "The leader is killed before and after each write and the one that stands by goes on; two operators without an election \
          work on the same jobs, and one of them is killed, gets no answer or a late one; the end is compared with the run of \
          one without faults, and the whole history with the laws.",
};

const VIEWS: About = About {
    name: "views",
    promise: "The operator may see what was, for a while, and may never hear of something: it does nothing on it that is wrong.",
    how: "A proxy before the real API server drops each event, holds events back, ends watches with 410, breaks connections and \
          answers with old lists, to the same operator or to one that starts; the end is compared with the run without faults, \
          pod by pod, and the whole history with the laws.",
};

/// A report is written after so many plans: what is known then is not lost when the run is cut off.
const WRITE_EVERY: u64 = 100;

async fn play_all(
    campaign: &Campaign<'_>,
    plans: Vec<Plan>,
    about: &About,
    arguments: &Arguments,
    n_all: usize,
) -> Result<Summary> {
    let began_at = Instant::now();
    let n_plans = plans.len() as u64;
    let mut summary = Summary::default();
    let mut kept = Ok(());
    let told = campaign.judge(plans, |verdict| {
        summary.add(&verdict);
        let is_well = verdict.violations.is_empty();
        if !is_well {
            println!("{}", text(&verdict, false));
        }
        let written = || -> Result<()> {
            if !is_well {
                keep(&verdict)?;
            }
            if summary.n_plans.is_multiple_of(WRITE_EVERY) {
                let per_minute = summary.n_plans as f64 / began_at.elapsed().as_secs_f64() * 60.0;
                println!("{} played, {} violated, {per_minute:.0} a minute", summary.n_plans, summary.n_violated);
                write(about, &summary, began_at.elapsed(), n_all, arguments)?;
            }
            Ok(())
        };
        if let Err(error) = written() {
            kept = Err(error);
        }
    });
    told.await?;
    kept?;
    let took = began_at.elapsed();
    let Summary { n_not_begun, n_violated, slowest, .. } = &summary;
    println!(
        "{}: {} plans in {took:.0?}, {n_violated} violated, {n_not_begun} that never came about, slowest to come to \
         its end {slowest:.1?}",
        about.name, summary.n_plans
    );
    for (class, n) in &summary.classes {
        println!("{n:7} {class}");
    }
    write(about, &summary, took, n_all, arguments)?;
    ensure!(summary.n_plans == n_plans, "{} of {n_plans} plans were played", summary.n_plans);
    Ok(summary)
}

fn write(about: &About, summary: &Summary, took: Duration, n_all: usize, arguments: &Arguments) -> Result<()> {
    if let Some(folder) = &arguments.report {
        println!("{}", report(about, summary, took, n_all)?.write(folder)?.display());
    }
    Ok(())
}

/// A plan that has found something, to be played again with `--plan FILE`, and all that happened in it.
fn keep(verdict: &Verdict) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faults");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(format!("{}.yaml", verdict.plan));
    fs::write(&path, verdict.plan.to_file()).with_context(|| format!("write {}", path.display()))?;
    let log = path.with_extension("txt");
    fs::write(&log, text(verdict, true)).with_context(|| format!("write {}", log.display()))?;
    println!("  it is kept: {}", path.display());
    Ok(())
}

fn report(about: &About, summary: &Summary, took: Duration, n_all: usize) -> Result<Report> {
    let mut counts = Report::count([("plans", summary.n_plans - summary.n_not_begun)]);
    counts.extend(summary.classes.iter().map(|(class, n)| (class.replace(", ", "-").replace(' ', "-"), *n)));
    Ok(Report {
        name: about.name.to_owned(),
        promise: about.promise.to_owned(),
        how: about.how.to_owned(),
        command: "make faults".to_owned(),
        counts,
        violations: summary.n_violated,
        details: vec![
            format!("{n_all} plans are enumerated from {} workloads.", WORKLOADS.len()),
            format!("{} more were begun whose fault never came about.", summary.n_not_begun),
            format!("The longest time from a fault to the end of everything was {:.1?}.", summary.slowest),
        ],
        ..stamped(took)?
    })
}

fn read(plan: &str) -> Result<Plan> {
    if plan.ends_with(".yaml") { Plan::read(plan.as_ref()) } else { plan.parse() }
}

/// What is wrong, or all that happened.
fn text(verdict: &Verdict, everything: bool) -> String {
    let Verdict { plan, played, violations } = verdict;
    let mut lines = Vec::new();
    let word = if violations.is_empty() { "well" } else { "VIOLATED" };
    let took = played.as_ref().map(|Played { converged_after, took, .. }| {
        format!("; its end was {converged_after:.1?} after the fault, {took:.1?} in all")
    });
    lines.push(format!("==== {plan}: {word}{}", took.unwrap_or_default()));
    lines.extend(violations.iter().take(if everything { usize::MAX } else { 15 }).map(|line| format!("  {line}")));
    if let Some(played) = played {
        lines.extend(played.not_begun.iter().map(|fault| format!("  {fault} never came about")));
        lines.extend(played.writes.iter().enumerate().map(|(i, write)| format!("  w{} {write}", i + 1)));
        if everything {
            lines.extend(played.told.iter().enumerate().map(|(i, told)| {
                let name = told.object["metadata"]["name"].as_str().unwrap_or_default();
                let (kind, n, change) = (told.kind.plural(), told.n, &told.change);
                format!("  event {} ({kind} {n}), after w{}: {change} {name}", i + 1, told.n_writes)
            }));
        }
        for (life, log) in played.logs.iter().enumerate() {
            lines.push(format!("  ---- life {} of the operators", life + 1));
            lines.extend(log.lines().map(|line| format!("  {line}")));
        }
    }
    lines.join("\n")
}
