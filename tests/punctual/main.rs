//! How punctual schedules are, and what they cost while nothing is due: `make punctual`.
//!
//! A thousand BatchCronJobs have one slot each, once all in the same second, once spread over a minute by `H`; the delay is from
//! the slot to the moment in which a watch tells of the run. Then five thousand whose next slot is years away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchCronJob, BatchJob, keys};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Audit, Namespace, Operator, process, serve_batch_jobs, wait_for};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

/// Has many schedules fire, and measures the delay; and counts what many cost that do not
#[derive(Debug, Parser)]
struct Arguments {
    /// How many fire
    #[arg(long, default_value_t = 1000)]
    firing: usize,
    /// How many do not
    #[arg(long, default_value_t = 5000)]
    idle: usize,
}

/// How many requests of the test are under way at once.
const AT_ONCE: usize = 32;
/// Nothing was written for so long: it has settled.
const QUIET: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(60);
/// Of those that are spread over a minute.
const P99: SignedDuration = SignedDuration::from_secs(1);
const WORST: SignedDuration = SignedDuration::from_secs(5);
/// Of a core.
const MAX_CPU_PERCENT: f64 = 1.0;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options { audit: true, ..Options::from(Size::Api) };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    let operator = Operator::start(&kubernetes, &[]).await?;
    let mut audit = Audit::of(&kubernetes, r#""userAgent":"batchjob-operator/"#);
    let spread = fire(&kubernetes, &mut audit, arguments.firing, "spread", "H * * * * *").await?;
    let together = fire(&kubernetes, &mut audit, arguments.firing, "together", "0 * * * * *").await?;
    let idle = idle(&kubernetes, &operator, &mut audit, arguments.idle).await?;
    kubernetes.stop().await?;
    println!("{spread}\n{together}\n{idle}");
    ensure!(spread.p99 < P99 && spread.worst < WORST, "those that are spread over a minute are late");
    ensure!(idle.n_writes == 0 && idle.cpu_percent < MAX_CPU_PERCENT, "what is idle costs too much");
    Ok(())
}

struct Punctuality {
    name: &'static str,
    n: usize,
    p50: SignedDuration,
    p99: SignedDuration,
    worst: SignedDuration,
}

impl std::fmt::Display for Punctuality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Punctuality { name, n, p50, p99, worst } = self;
        let [p50, p99, worst] = [p50, p99, worst].map(|delay| format!("{:.0} ms", delay.as_secs_f64() * 1000.0));
        write!(
            f,
            "{name}: {n} runs, from the slot to the run: half within {p50}, 99 of 100 within {p99}, all within {worst}"
        )
    }
}

#[expect(clippy::disallowed_methods, reason = "a schedule goes by the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// So many BatchCronJobs, each of which has one slot in the same minute.
async fn fire(
    kubernetes: &Kubernetes,
    audit: &mut Audit,
    n: usize,
    name: &'static str,
    schedule: &str,
) -> Result<Punctuality> {
    let namespace = Namespace::new(kubernetes, name).await?;
    // Time enough to create them all.
    let seconds = now().as_second() + 60 + n as i64 / 20;
    let minute = Timestamp::from_second(seconds / 60 * 60 + 60)?;
    let last = minute + SignedDuration::from_secs(59);
    let spec = json!({ "schedule": schedule, "notBefore": minute, "notAfter": last });
    create(&namespace, n, &spec).await?;
    settle(audit).await?;
    ensure!(now() < minute, "it took too long to create them");

    let jobs: Api<BatchJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let version = jobs.list(&ListParams::default().limit(1)).await?.metadata.resource_version.context("a version")?;
    let mut seen = Box::pin(jobs.watch(&WatchParams::default().timeout(290), &version).await?);
    let mut delays: HashMap<String, SignedDuration> = HashMap::new();
    while delays.len() < n {
        let event = tokio::time::timeout(Duration::from_secs(200), seen.next()).await;
        let event = event.with_context(|| format!("{} of {n} runs came", delays.len()))?;
        if let WatchEvent::Added(run) = event.context("the watch goes on")?? {
            let slot: Timestamp = run.annotations().get(keys::SCHEDULED_TIMESTAMP).context("a slot")?.parse()?;
            delays.insert(run.name_any(), now().duration_since(slot));
        }
    }
    settle(audit).await?;
    namespace.delete().await?;
    let mut delays: Vec<SignedDuration> = delays.into_values().collect();
    delays.sort();
    let at = |percent: usize| delays[(n - 1) * percent / 100];
    Ok(Punctuality { name, n, p50: at(50), p99: at(99), worst: at(100) })
}

struct Idle {
    n: usize,
    n_writes: usize,
    n_requests: usize,
    cpu_percent: f64,
    resident: u64,
}

impl std::fmt::Display for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Idle { n, n_writes, n_requests, cpu_percent, resident } = self;
        let (seconds, mebibytes) = (WINDOW.as_secs(), resident >> 20);
        write!(
            f,
            "idle: {n} schedules, in {seconds} s {n_writes} writes, {n_requests} other requests, {cpu_percent:.2} % of a \
             core; {mebibytes} MiB resident"
        )
    }
}

async fn idle(kubernetes: &Kubernetes, operator: &Operator, audit: &mut Audit, n: usize) -> Result<Idle> {
    let namespace = Namespace::new(kubernetes, "idle").await?;
    create(&namespace, n, &json!({ "schedule": "0 0 29 2 *" })).await?;
    settle(audit).await?;
    let before = audit.requests()?.len();
    let (used, began) = (process::cpu(operator.pid())?, Instant::now());
    // What is measured is what happens in this time.
    tokio::time::sleep(WINDOW).await;
    let used = process::cpu(operator.pid())?.saturating_sub(used);
    let requests = &audit.requests()?[before..];
    let n_writes = requests.iter().filter(|request| request.is_write()).count();
    Ok(Idle {
        n,
        n_writes,
        n_requests: requests.len() - n_writes,
        cpu_percent: 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64(),
        resident: process::resident(operator.pid())?,
    })
}

async fn create(namespace: &Namespace, n: usize, spec: &Value) -> Result<()> {
    let crons: Api<BatchCronJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let template = json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] } });
    let mut spec = spec.clone();
    spec["jobTemplate"] = json!({ "spec": { "template": template } });
    let created = stream::iter(0..n).map(async |n| {
        let cron = serde_json::from_value(json!({
            "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchCronJob",
            "metadata": { "name": format!("cron-{n}") }, "spec": spec,
        }))?;
        crons.create(&PostParams::default(), &cron).await?;
        anyhow::Ok(())
    });
    created.buffer_unordered(AT_ONCE).try_collect().await
}

/// Until the operator has nothing left to write.
async fn settle(audit: &mut Audit) -> Result<()> {
    let (mut n_writes, mut since) = (0, Instant::now());
    wait_for("the operator has nothing left to write", Duration::from_secs(900), async || {
        let n = audit
            .requests()?
            .iter()
            .filter(|request| request.is_write() && !request.resource.contains("leases"))
            .count();
        if n != n_writes {
            (n_writes, since) = (n, Instant::now());
        }
        Ok((since.elapsed() >= QUIET).then_some(()))
    })
    .await
}
