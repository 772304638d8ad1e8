//! All the causes at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Operator, serve_batch_jobs, stamped, wait_for};
use futures::future::{join_all, try_join_all};
use http::HeaderValue;
use http::header::USER_AGENT;
use jiff::{SignedDuration, Timestamp};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::asked::{Asked, summary};
use crate::cause::{Cause, Going};
use crate::stage::{Door, Stage};

/// After so long nobody asks often any more.
const SETTLED: Duration = Duration::from_secs(120);
/// And not more often than once in this time.
const PERIOD: Duration = Duration::from_secs(10);
/// Events about one job in the whole of it: 20 an hour is what etcd is to bear.
const MAX_EVENTS: usize = 20;

/// One stuck job.
struct Stuck {
    cause: Cause,
    stage: Stage,
    going: Going,
    created: Timestamp,
}

pub async fn measure(window: Duration, only: &[String]) -> Result<Report> {
    let began = Instant::now();
    let kubernetes = start().await?;
    let mut asked = Asked::of(&kubernetes);
    let mut operator = Operator::start(&kubernetes, &["--managed-jobs", "true"]).await?;
    let reverter = reverter(&kubernetes).await?;

    let is_meant = |cause: &&Cause| only.is_empty() || only.contains(&format!("{cause:?}").to_lowercase());
    let kinds = Cause::ALL.iter().filter(is_meant).flat_map(|&cause| Door::ALL.map(|door| (cause, door)));
    // A Job with such a template is refused itself.
    let kinds = kinds.filter(|kind| *kind != (Cause::Template, Door::ManagedJob));
    let all = try_join_all(kinds.map(|(cause, door)| begin(&kubernetes, &reverter, cause, door))).await;
    let mut all = all.with_context(|| operator.tail())?;
    println!("{} jobs are stuck after {:.0?}", all.len(), began.elapsed());

    let mut broken = Vec::new();
    for (n, stuck) in join_all(all.iter().map(is_told)).await.into_iter().enumerate() {
        broken.extend(stuck.err().map(|error| format!("{}: {error:#}", label(&all[n]))));
    }

    // Two minutes, and then the window, are what is measured.
    let from = all.iter().map(|stuck| stuck.created).max().context("a stuck job")? + SignedDuration::try_from(SETTLED)?;
    let to = from + SignedDuration::try_from(window)?;
    tokio::time::sleep(Duration::try_from(to.duration_since(now())).unwrap_or_default()).await;

    let allowed = window.as_secs().div_ceil(PERIOD.as_secs()) as usize;
    let mut lines = Vec::new();
    let mut most = 0;
    for stuck in &all {
        let requests = asked.within(&stuck.stage.namespace, from, to)?;
        let n_before = asked.within(&stuck.stage.namespace, stuck.created, from)?.len();
        most = most.max(requests.len());
        let line = format!(
            "{}: {n_before} requests in the first {} s, then {} in {} s ({})",
            label(stuck),
            SETTLED.as_secs(),
            requests.len(),
            window.as_secs(),
            summary(&requests)
        );
        if requests.len() > allowed {
            broken.push(format!("more than {allowed} requests: {line}"));
        }
        let n_events = stuck.stage.notes().await?.len();
        if n_events > MAX_EVENTS {
            broken.push(format!("{}: {n_events} events", label(stuck)));
        }
        let n_pods = stuck.stage.list_pods().await?.len();
        if n_pods != stuck.cause.n_pods() {
            broken.push(format!("{}: {n_pods} pods, not {}", label(stuck), stuck.cause.n_pods()));
        }
        lines.push(line);
    }

    let cleared = join_all(all.iter_mut().map(clear)).await;
    let mut longest = Duration::ZERO;
    for ((stuck, cleared), line) in all.iter().zip(cleared).zip(&mut lines) {
        match cleared {
            Ok(Some(took)) => {
                longest = longest.max(took);
                *line += &format!("; went on {:.1} s after the cause was gone", took.as_secs_f64());
            }
            Ok(None) => {}
            Err(error) => broken.push(format!("{}: {error:#}", label(stuck))),
        }
    }
    ensure!(operator.is_running()?, "the operator has ended: {}", operator.tail());
    kubernetes.stop().await?;

    let counts = [
        ("states", all.len() as u64),
        ("windowSeconds", window.as_secs()),
        ("mostRequestsInWindow", most as u64),
        ("longestUntilItGoesOnMillis", longest.as_millis() as u64),
    ];
    Ok(Report {
        name: "stuck".to_owned(),
        promise:
            "A job that cannot go on says why, costs the API server at most one request in ten seconds, and goes on by \
                  itself once it can"
                .to_owned(),
        how: format!(
            "{} causes, each for a BatchJob and a managed Job, all at once on a real API server; the operator's requests are \
             counted in the API server's audit log, from two minutes after the start",
            all.len().div_ceil(Door::ALL.len())
        ),
        command: "make stuck".to_owned(),
        counts: Report::count(counts),
        violations: broken.len() as u64,
        details: broken.into_iter().map(|line| format!("BROKEN: {line}")).chain(lines).collect(),
        ..stamped(began.elapsed())?
    })
}

/// The namespace controller is away, so that a namespace that is being deleted stays; and pods of nodes that do not exist are
/// garbage to another one.
async fn start() -> Result<Kubernetes> {
    let options = Options {
        scheduler: true,
        audit: true,
        controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller,-namespace-controller".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    Ok(kubernetes)
}

/// A client under another name.
async fn reverter(kubernetes: &Kubernetes) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubernetes.kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.headers.push((USER_AGENT, HeaderValue::from_static("reverter/1")));
    Ok(kube::Client::try_from(config)?)
}

async fn begin(kubernetes: &Kubernetes, reverter: &kube::Client, cause: Cause, door: Door) -> Result<Stuck> {
    let name = format!("{cause:?}-{door:?}").to_lowercase();
    let begin = async {
        let stage = Stage::new(kubernetes, reverter, &name, door).await?;
        let mut going = cause.prepare(&stage).await?;
        stage.create(cause.spec(&stage)).await?;
        let created = now();
        cause.begin(&stage, &mut going).await?;
        anyhow::Ok(Stuck { cause, stage, going, created })
    };
    begin.await.with_context(|| name.clone())
}

async fn is_told(stuck: &Stuck) -> Result<()> {
    if stuck.cause.says().is_empty() { Ok(()) } else { stuck.stage.until_said(stuck.cause.says()).await }
}

/// How long it takes from the end of the cause until the job goes on.
async fn clear(stuck: &mut Stuck) -> Result<Option<Duration>> {
    let Some(limit) = stuck.cause.clears_within() else { return Ok(None) };
    let Stuck { cause, stage, going, .. } = stuck;
    cause.clear(stage, going).await?;
    let gone = Instant::now();
    // Longer than the limit: how long it took in the end is worth knowing.
    wait_for("it goes on", limit * 4, async || Ok(cause.is_clear(stage).await?.then_some(()))).await?;
    ensure!(gone.elapsed() <= limit, "it went on after {:.1?}, not within {limit:?}", gone.elapsed());
    Ok(Some(gone.elapsed()))
}

fn label(stuck: &Stuck) -> String {
    format!("{} ({:?})", stuck.cause.name(), stuck.stage.door)
}

#[expect(clippy::disallowed_methods, reason = "the audit log has the time of the machine")]
fn now() -> Timestamp {
    Timestamp::now()
}
