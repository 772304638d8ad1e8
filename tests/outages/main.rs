//! `outages`: the API server is away in every way that there is, and what was due meanwhile is done when it is back.
//!
//! `make outages` plays fifty, and writes `docs/reliability/outages.json`. `--kinds token --explain` plays one, with its story.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::outages::ground::{Ground, Temper};
use batchjob_tests::outages::outage::Kind;
use batchjob_tests::outages::play::{MOST_FILES, MOST_KIB, MOST_READS, MOST_WRITES, Plan, Played, play};
use batchjob_tests::support::stamped;
use clap::{Parser, ValueEnum as _};
use futures::StreamExt as _;
use futures::stream;

/// Plays outages of the API server
#[derive(Debug, Parser)]
struct Arguments {
    /// How many, of all kinds in turn; without it one of each
    #[arg(long)]
    outages: Option<usize>,
    /// Only these kinds
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// How many seconds each lasts, in turn
    #[arg(long, value_delimiter = ',', default_values_t = [5, 60, 20])]
    seconds: Vec<u64>,
    /// How many are played at the same time, where they do not disturb each other
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Tell what the operator asked, and its log
    #[arg(long)]
    explain: bool,
    /// Write docs/reliability/outages.json
    #[arg(long)]
    write: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let began_at = Instant::now();
    let kinds = if arguments.kinds.is_empty() { Kind::value_variants() } else { &arguments.kinds };
    let plan = |number: usize| Plan {
        kind: kinds[number % kinds.len()],
        length: Duration::from_secs(arguments.seconds[number / kinds.len() % arguments.seconds.len()]),
    };
    let n = arguments.outages.unwrap_or(kinds.len());
    let plans: Vec<Plan> = (0..n).map(plan).collect();
    let (plain, harsh) = plans.into_iter().partition(|plan: &Plan| plan.kind.temper() == Temper::Plain);
    let (plain, harsh) = tokio::try_join!(
        play_all(Temper::Plain, plain, arguments.at_once, arguments.explain),
        // One etcd cannot be full for one of them alone.
        play_all(Temper::Harsh, harsh, 1, arguments.explain),
    )?;
    let all: Vec<Played> = plain.into_iter().chain(harsh).collect();
    let report = report(&all, began_at.elapsed(), n)?;
    report.details.iter().for_each(|line| println!("{line}"));
    if arguments.write {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability");
        println!("{}", report.write(&folder)?.display());
    }
    ensure!(report.violations == 0, "{} violations", report.violations);
    Ok(())
}

async fn play_all(temper: Temper, plans: Vec<Plan>, at_once: usize, explain: bool) -> Result<Vec<Played>> {
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let ground = Ground::start(temper).await?;
    let mut plays = stream::iter(plans).map(|plan| play(&ground, plan)).buffer_unordered(at_once);
    let mut all = Vec::new();
    while let Some(played) = plays.next().await {
        let played = played?;
        tell(&played, explain);
        all.push(played);
    }
    Ok(all)
}

fn tell(played: &Played, explain: bool) {
    let Played { plan, acted_after, idle, n_reads, n_writes, n_files, peak_kib, violations, .. } = played;
    println!(
        "{} of {} s: all done {acted_after:.1?} after the return, {idle:.1?} of it its own; {n_reads} reads and renewals, {n_writes} writes in ten seconds; \
         {n_files} files, {} MiB",
        plan.kind.name(),
        plan.length.as_secs(),
        peak_kib / 1024,
    );
    violations.iter().for_each(|violation| println!("  VIOLATED: {violation}"));
    if explain || !violations.is_empty() {
        played.requests.iter().for_each(|(what, n)| println!("  {n:4} {what}"));
        println!("{}\n{}", played.explained, played.log);
    }
}

fn report(all: &[Played], took: Duration, n: usize) -> Result<Report> {
    let most = |of: fn(&Played) -> u64| all.iter().map(of).max().unwrap_or_default();
    let mut of_kind: BTreeMap<Kind, Vec<&Played>> = BTreeMap::new();
    all.iter().for_each(|played| of_kind.entry(played.plan.kind).or_default().push(played));
    let mut details: Vec<String> = of_kind
        .iter()
        .map(|(kind, played)| {
            let slowest = played.iter().map(|played| played.acted_after).max().unwrap_or_default();
            let idle = played.iter().map(|played| played.idle).max().unwrap_or_default();
            let longest = played.iter().map(|played| played.plan.length).max().unwrap_or_default();
            format!(
                "{}: {} outages of up to {} s; all that was due was done at most {slowest:.1?} after the return; at most {idle:.1?} of it passed \
                 without a request that the API server had yet to answer ({} s allowed)",
                kind.name(),
                played.len(),
                longest.as_secs(),
                kind.acted_within().as_secs(),
            )
        })
        .collect();
    details.push(format!(
        "In the first ten seconds after a return at most {} reads and renewals ({MOST_READS} allowed) and {} writes \
         ({MOST_WRITES} allowed) of six jobs with fourteen pods.",
        most(|played| played.n_reads),
        most(|played| played.n_writes),
    ));
    details.push(format!(
        "The operator never ended, was healthy all the time, had at most {} files open ({MOST_FILES} allowed) and used at most {} MiB \
         of memory ({} allowed).",
        most(|played| played.n_files),
        most(|played| played.peak_kib) / 1024,
        MOST_KIB / 1024,
    ));
    let counts = [
        ("outages", all.len() as u64),
        ("kinds", of_kind.len() as u64),
        ("events", all.iter().map(|played| played.n_events).sum()),
        ("seconds-away", all.iter().map(|played| played.plan.length.as_secs()).sum()),
    ];
    Ok(Report {
        name: "outages".to_owned(),
        promise: "The API server may be away, in any way and for as long as it likes: the operator deletes nothing because it cannot \
                  see, and does what is due within seconds of the return."
            .to_owned(),
        how: "A gate between the operator and the real API server is closed, frozen, or forgets connections; tokens are revoked; an API \
              server forgets what was, takes no more writes, or has a full etcd; meanwhile pods end and users create, \
              suspend and delete jobs; the whole history is judged by the laws."
            .to_owned(),
        command: format!("make outages OUTAGES={n}"),
        counts: Report::count(counts),
        violations: all.iter().map(|played| played.violations.len() as u64).sum(),
        details,
        ..stamped(took)?
    })
}
