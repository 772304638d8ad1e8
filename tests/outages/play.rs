//! One outage from the first job to the last law.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use batchjob_oracle::{End, Promises};
use jiff::{SignedDuration, Timestamp};

use super::gate::Gate;
use super::ground::Ground;
use super::identity::Identity;
use super::idle::idle;
use super::outage::{Kind, Scene, came_about};
use super::stage::Stage;
use crate::recorder::{Recorder, now};
use crate::support::audit::Request;
use crate::support::{Audit, Namespace, Operator, wait_for};

/// Nothing may be written for so long after the end.
const QUIET: Duration = Duration::from_secs(2);
/// On a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// How often is it asked how the operator is.
const LOOK: Duration = Duration::from_millis(250);
/// For so long after the return the operator's requests are counted.
const AFTER: Duration = Duration::from_secs(10);
/// The most that it may ask in that time beside what it writes: the lists and watches of three kinds, twice, and the Lease
/// and whether the API server is there, for ten seconds.
pub const MOST_READS: u64 = 60;
/// The most that it may write: six ended pods to let go and six to create, four to stop or let go, two to create, statuses and
/// events of six jobs.
pub const MOST_WRITES: u64 = 90;
/// The most files and sockets that it may have open.
pub const MOST_FILES: u64 = 120;
/// The most memory it may ever have in use.
pub const MOST_KIB: u64 = 64 * 1024;

/// An outage, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub length: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Played {
    pub plan: Plan,
    /// From the return of the API server until everything was done that was due.
    pub acted_after: Duration,
    /// How much of that the operator let pass, without a question that was not answered yet.
    pub idle: Duration,
    /// What was asked within ten seconds of the return, how often.
    pub requests: BTreeMap<String, u64>,
    pub n_reads: u64,
    pub n_writes: u64,
    pub n_files: u64,
    pub peak_kib: u64,
    /// Changes of objects that were judged.
    pub n_events: u64,
    /// What is wrong.
    pub violations: Vec<String>,
    /// The histories of the jobs that break a law, and what was asked after the return.
    pub explained: String,
    pub log: String,
}

/// Plays it in a namespace of its own.
pub async fn play(ground: &Ground, plan: Plan) -> Result<Played> {
    let kubernetes = &ground.kubernetes;
    let namespace = Namespace::new(kubernetes, &plan.kind.name()).await?;
    let gate = Gate::start(ground.server()?).await?;
    let mut identity = Identity::new(kubernetes, &namespace, gate.address).await?;
    let recorder = Recorder::start(&namespace.client, Some(&namespace.name)).await?;
    let mut stage = Stage::new(namespace.client.clone(), &namespace.name);
    let kubelet = stage.kubelet();
    let flags = ["--watch-namespace", &namespace.name, "--managed-jobs", "true", "--leader-elect", "true"];
    let mut operator = Operator::spawn(kubernetes, &identity.kubeconfig, &flags)?;
    let mut vitals = Vitals::default();

    let scene = Scene { ground, namespace: &namespace, gate: &gate, identity: &mut identity };
    let told = tokio::select! {
        told = tell(plan, scene, &mut stage, &recorder) => told,
        () = kubelet => unreachable!("it plays until it is dropped"),
        unknown = vitals.follow(&operator) => unknown.and_then(|()| bail!("nobody asks any more")),
    };
    let log = fs::read_to_string(&operator.log)?;
    let Told { acted_after, returned_at, quiet_since, lost } = match told {
        Ok(told) => told,
        Err(error) => bail!("{}: {error:#}\n{log}", plan.kind.name()),
    };
    let mut violations = lost;
    // In the order in which it was asked.
    let user = format!("\"username\":\"system:serviceaccount:{}:{}\"", namespace.name, super::identity::NAME);
    let mut all = Audit::of(&ground.kubernetes, user).requests()?.to_vec();
    all.sort_by_key(|asked| asked.at);
    if let Err(why) = came_about(plan.kind, &operator, &all) {
        violations.push(format!("it has not come about: {why}"));
    }
    if !operator.is_running()? {
        violations.push("the operator has ended".to_owned());
    }
    let acted_at = returned_at + SignedDuration::try_from(acted_after)?;
    let idle = Duration::try_from(idle(&all, returned_at, acted_at))?;
    if idle > plan.kind.acted_within() {
        violations.push(format!(
            "all was done only {acted_after:.1?} after the return, and {idle:.1?} of that were let pass"
        ));
    }
    let history = recorder.finish().await?;
    let promises = Promises {
        // An answer may be lost.
        late_creates: true,
        finalizers_go_within: Some(SignedDuration::try_from(plan.length + Duration::from_secs(60))?),
        ..Promises::default()
    };
    let at = quiet_since + SignedDuration::try_from(QUIET)?;
    let broken = history.judge(promises, End::Settled { quiet_since, at });
    violations.extend(broken.iter().map(ToString::to_string));
    let mut explained = if broken.is_empty() { String::new() } else { history.explain(&broken) };

    let is_after = |asked: &&Request| asked.at >= returned_at && asked.at < returned_at + AFTER;
    let asked: Vec<&Request> = all.iter().filter(is_after).collect();
    let n_writes = asked.iter().filter(|asked| is_work(asked)).count() as u64;
    let n_reads = asked.len() as u64 - n_writes;
    let mut requests = BTreeMap::new();
    for request @ Request { at, took, code, .. } in asked.iter().copied() {
        let what = request.what();
        *requests.entry(what.clone()).or_default() += 1;
        let (after, took) = (at.duration_since(returned_at).as_secs_f64(), took.as_secs_f64());
        explained += &format!("{after:8.3} {what}: {code}, after {took:.3} s\n");
    }
    for (is, most, what) in [
        (n_reads, MOST_READS, "reads and renewals in the first ten seconds"),
        (n_writes, MOST_WRITES, "writes in the first ten seconds"),
        (vitals.n_files, MOST_FILES, "open files"),
        (vitals.peak_kib, MOST_KIB, "KiB of memory"),
    ] {
        if is > most {
            violations.push(format!("{is} {what}, and {most} are the most"));
        }
    }
    violations.extend(vitals.complaints);
    let Vitals { n_files, peak_kib, .. } = vitals;
    let n_events = history.entries.len() as u64;
    namespace.delete().await?;
    Ok(Played {
        plan,
        acted_after,
        idle,
        requests,
        n_reads,
        n_writes,
        n_files,
        peak_kib,
        n_events,
        violations,
        explained,
        log,
    })
}

/// What was seen of the story.
struct Told {
    acted_after: Duration,
    returned_at: Timestamp,
    quiet_since: Timestamp,
    lost: Vec<String>,
}

async fn tell(plan: Plan, mut scene: Scene<'_>, stage: &mut Stage, recorder: &Recorder) -> Result<Told> {
    stage.begin().await.context("before it")?;
    recorder.note("it begins");
    scene.play(plan.kind, plan.length, stage.meanwhile()).await.context("meanwhile")?;
    let (returned, returned_at) = (Instant::now(), now());
    recorder.note("it is over");
    wait_for("all is done that is due", plan.kind.acted_within() + LIMIT, async || {
        let due = stage.due().await?;
        ensure!(due.is_empty(), "{due:#?}");
        Ok(Some(()))
    })
    .await?;
    let acted_after = returned.elapsed();
    recorder.note("all is done that was due");
    let lost = stage.lost().await?;
    // What is asked in the first seconds is not mixed with what comes of the end.
    tokio::time::sleep(AFTER.saturating_sub(returned.elapsed())).await;
    stage.end().await.context("after it")?;
    let quiet_since = recorder.until_quiet(QUIET, LIMIT).await?;
    Ok(Told { acted_after, returned_at, quiet_since, lost })
}

/// How the operator's process is.
#[derive(Default)]
struct Vitals {
    n_files: u64,
    peak_kib: u64,
    complaints: Vec<String>,
}

impl Vitals {
    /// Until it is dropped.
    async fn follow(&mut self, operator: &Operator) -> Result<()> {
        let process = format!("/proc/{}", operator.pid());
        wait_for("it serves", LIMIT, async || Ok(Some(operator.get("/healthz").await?))).await?;
        loop {
            let health = operator.get("/healthz").await?;
            if !health.starts_with("HTTP/1.1 200") && self.complaints.is_empty() {
                self.complaints.push(format!("its health: {health}"));
            }
            self.n_files = self.n_files.max(fs::read_dir(format!("{process}/fd"))?.count() as u64);
            let status = fs::read_to_string(format!("{process}/status"))?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            self.peak_kib = peak.context("VmHWM")?.parse()?;
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The Lease is renewed whether or not there is work.
fn is_work(request: &Request) -> bool {
    request.is_write() && request.resource != "leases"
}
