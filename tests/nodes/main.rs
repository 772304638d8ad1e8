//! What becomes of the work on a node that is lost, silent for a while, drained, or out of memory?
//!
//! `make nodes` plays every case at the same time on one cluster, with Kubernetes' own scheduler, node, taint and garbage
//! controllers, and nodes that kwok plays; it takes minutes because of the one that waits for the default of five. It writes
//! `docs/reliability/nodes.json`. What a real kubelet does is asked in `cluster/nodes.rs`.

mod cases;
mod world;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use batchjob_oracle::{End, Promises, Report};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::recorder::{History, Recorder};
use batchjob_tests::support::{Kwok, Nodes, Operator, serve_batch_jobs, stamped};
use clap::Parser;
use jiff::SignedDuration;

use cases::{CASES, LONG};
use world::{GRACE, World};

/// How nodes and pods live.
const STAGES: &str = include_str!("stages.yaml");
/// At the end all jobs are over: no delay is left.
const QUIET: Duration = Duration::from_secs(5);

/// Takes nodes away from jobs, and tells what becomes of them
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Those that take minutes, too
    #[arg(long)]
    long: bool,
    /// Write docs/reliability/nodes.json
    #[arg(long)]
    write: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let options = Options {
        scheduler: true,
        controller_flags: vec![
            flag("node-monitor-period", "1s"),
            flag("node-monitor-grace-period", &format!("{GRACE}s")),
            // Each case loses a node: that many at a time look like the end of a zone.
            flag("node-eviction-rate", "100"),
            flag("secondary-node-eviction-rate", "100"),
        ],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    let stages = kubernetes.folder().join("stages.yaml");
    std::fs::write(&stages, STAGES)?;
    let _steady = Kwok::start(&kubernetes, &stages, Nodes::Labelled("steady=true"))?;
    let operator = Operator::start(&kubernetes, &["--managed-jobs", "true"]).await?;
    let recorder = Recorder::start(&kubernetes.client().await?, None).await?;
    let world = World { kubernetes, stages, bounds: Mutex::default() };
    println!("the cluster is there after {:.0?}", began.elapsed());

    let long: &[_] = if arguments.long { &LONG } else { &[] };
    let chosen = |name: &&str| arguments.cases.is_empty() || arguments.cases.iter().any(|case| case == name);
    let cases: Vec<_> = CASES.iter().chain(long).filter(|(name, _)| chosen(name)).collect();
    let played = cases.iter().map(async |(name, run)| {
        let case_began = Instant::now();
        let result = run(&world).await;
        let verdict = result.as_ref().map_or_else(|error| format!("{error:#}"), |()| "as promised".to_owned());
        println!("{name}: {verdict}, {:.0?}", case_began.elapsed());
        result.err().map(|error| format!("{name}: {error:#}"))
    });
    let mut broken: Vec<String> = futures::future::join_all(played).await.into_iter().flatten().collect();

    let quiet_since = recorder.until_quiet(QUIET, Duration::from_secs(120)).await?;
    let history = recorder.finish().await?;
    let promises = Promises {
        deletions: true,
        in_flight: Some(SignedDuration::from_secs(5)),
        finalizers_go_within: Some(SignedDuration::from_secs(30)),
        ..Promises::default()
    };
    let laws =
        history.judge(promises, End::Settled { quiet_since, at: quiet_since + SignedDuration::try_from(QUIET)? });
    if !laws.is_empty() {
        println!("{}", history.explain(&laws));
    }
    broken.extend(laws.iter().map(ToString::to_string));
    for what in &broken {
        println!("BROKEN {what}");
    }
    if !broken.is_empty() {
        println!("--- the operator\n{}", operator.tail());
    }
    let report = report(&world, cases.len(), &history, &broken, began.elapsed())?;
    println!("{}", report.details.join("\n"));
    if arguments.write {
        report.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability"))?;
    }
    world.kubernetes.stop().await?;
    ensure!(broken.is_empty(), "{} promises are broken", broken.len());
    Ok(())
}

fn report(world: &World, n_cases: usize, history: &History, broken: &[String], took: Duration) -> Result<Report> {
    let jobs = history.jobs();
    let bounds = world.bounds.lock().map_err(|_| anyhow::anyhow!("a case has panicked"))?;
    let slowest = bounds.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let counts = [("cases", n_cases as u64), ("lives", jobs.len() as u64), ("events", history.entries.len() as u64)];
    Ok(Report {
        name: "nodes".to_owned(),
        promise: "The work of a node that is lost, silent, drained or out of memory is done again elsewhere within the time that \
                  the job tolerates; a pod that comes back late is not counted again, and a disruption is told apart from a \
                  failure."
            .to_owned(),
        how: "BatchJobs and managed Jobs on nodes that kwok plays, under Kubernetes' own scheduler and its node, taint and garbage \
              controllers; kubelets are killed, stopped and continued, nodes deleted, tainted and drained; the whole history is \
              judged by the oracle. On a real kubelet: make test-cluster."
            .to_owned(),
        command: "make nodes".to_owned(),
        counts: Report::count(counts),
        violations: broken.len() as u64,
        details: vec![format!(
            "{} times work was done again after its node fell silent: at most {slowest:.0} s later, of which {GRACE} s pass until \
             the cluster notices, {} s are what the jobs tolerate, and 10 s are the delay after a failure.",
            bounds.len(),
            world::TOLERATION
        )],
        ..stamped(took)?
    })
}
