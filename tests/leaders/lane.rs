//! Two operators in a namespace of their own, with work going on, and one change of leaders after the other.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use batchjob_crd::BatchJob;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::change::{Change, Times};
use super::work::{ROWS, Runs, row};
use crate::faults::campaign::sends_once;
use crate::faults::kubelet::Kubelet;
use crate::faults::proxy::{Gate, Proxy, Written};
use crate::faults::run::kubeconfig;
use crate::faults::world::History;
use crate::kubernetes::Kubernetes;
use crate::recorder::{self, Recorder, now};
use crate::support::{Namespace, Operator, wait_for};

/// What the Lease is called.
pub const LEASE: &str = "operator";
/// How long an operator may take to start, or to end; on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// So many writes of a leader say that it is in mid-work.
const MID_WORK: usize = 3;
/// How long nothing may be written when all is over.
const QUIET: Duration = Duration::from_secs(3);
/// A pod may have run for long enough without anything having happened.
const LOOK: Duration = Duration::from_millis(100);

/// What came of a change.
#[derive(Clone, Debug)]
pub struct Round {
    pub change: Change,
    pub at: Timestamp,
    /// Until somebody worked who had not lost the Lease.
    pub took: Duration,
    /// Somebody else leads than before.
    pub is_other: bool,
}

/// All that came of a lane.
pub struct Played {
    pub namespace: String,
    pub times: Times,
    pub rounds: Vec<Round>,
    pub n_jobs: u64,
    pub history: recorder::History,
    pub writes: Vec<Written>,
    pub quiet_since: Timestamp,
    pub ended_at: Timestamp,
    /// Of the operators that are there at the end.
    pub logs: Vec<String>,
}

/// Plays these changes, each when the leader is in mid-work.
pub async fn play(kubernetes: &Kubernetes, times: Times, changes: &[Change]) -> Result<Played> {
    let namespace = Namespace::new(kubernetes, "leaders").await?;
    let recorder = Recorder::start(&namespace.client, Some(&namespace.name)).await?;
    let mut history = History::follow(&namespace.client, &namespace.name).await?;
    let mut lane = Lane::start(kubernetes, &namespace, times).await?;
    let jobs: Api<BatchJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let mut kubelet = Kubelet::new(Api::namespaced(namespace.client.clone(), &namespace.name));
    let (end, is_over) = watch::channel(false);
    let runs = Runs::default();
    let (rounds, n_jobs) = {
        let rows = (0..ROWS).map(|n| row(&jobs, &history, n, is_over.clone()));
        let work = futures::future::try_join_all(rows);
        let all_changes = async {
            let mut rounds = Vec::new();
            for &change in changes {
                let round = lane.change(change).await;
                rounds.push(round.with_context(|| format!("{change}, after {} others", rounds.len()))?);
            }
            end.send_replace(true);
            anyhow::Ok(rounds)
        };
        let look = async {
            let mut news = history.changes.clone();
            loop {
                kubelet.look(&history.world(), |world, pod| runs.end(world, pod)).await?;
                tokio::select! {
                    changed = news.changed() => changed.context("the history ends")?,
                    () = sleep(LOOK) => {}
                }
            }
        };
        tokio::select! {
            played = futures::future::try_join(all_changes, work) => played?,
            ended = look => return ended,
        }
    };
    history.is_whole()?;
    let quiet_since = recorder.until_quiet(QUIET, LIMIT).await?;
    let ended_at = now();
    let (writes, logs) = lane.end()?;
    let history = recorder.finish().await?;
    let n_jobs = n_jobs.into_iter().sum();
    let name = namespace.name.clone();
    namespace.delete().await?;
    Ok(Played { namespace: name, times, rounds, n_jobs, history, writes, quiet_since, ended_at, logs })
}

struct Lane<'a> {
    kubernetes: &'a Kubernetes,
    namespace: &'a Namespace,
    times: Times,
    proxy: Proxy,
    kubeconfigs: Vec<PathBuf>,
    operators: Vec<Operator>,
}

impl<'a> Lane<'a> {
    async fn start(kubernetes: &'a Kubernetes, namespace: &'a Namespace, times: Times) -> Result<Lane<'a>> {
        let proxy = Proxy::start(sends_once(kubernetes).await?, &[], 2).await?;
        let kubeconfigs = proxy.addresses.iter().map(|&address| kubeconfig(kubernetes, address));
        let kubeconfigs = kubeconfigs.collect::<Result<Vec<_>>>()?;
        let mut lane = Lane { kubernetes, namespace, times, proxy, kubeconfigs, operators: Vec::new() };
        for seat in 0..lane.kubeconfigs.len() {
            let operator = lane.operator(seat).await?;
            lane.operators.push(operator);
        }
        Ok(lane)
    }

    /// A life of the operator in that seat, from when it stands by.
    async fn operator(&self, seat: usize) -> Result<Operator> {
        let namespace = &self.namespace.name;
        let mut flags = self.times.flags();
        flags.push(format!("--watch-namespace={namespace}"));
        flags.push("--leader-elect=true".to_owned());
        flags.push(format!("--leader-elect-resource-name={LEASE}"));
        flags.push(format!("--leader-elect-resource-namespace={namespace}"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut operator = Operator::spawn(self.kubernetes, &self.kubeconfigs[seat], &flags)?;
        self.proxy.seat(seat, operator.pid());
        wait_for("the operator is ready", LIMIT, async || {
            ensure!(operator.is_running()?, "it has ended: {}", operator.tail());
            Ok(operator.get("/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
        })
        .await?;
        Ok(operator)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    /// The seat of the one that holds the Lease.
    async fn holder(&self) -> Result<Option<usize>> {
        let holder = self.leases().get_opt(LEASE).await?.and_then(|lease| lease.spec?.holder_identity);
        let Some(holder) = holder else { return Ok(None) };
        Ok(self.operators.iter().position(|operator| is_of(&holder, operator.pid())))
    }

    /// Writes that the API server has taken.
    fn n_writes(&self, is_meant: impl Fn(&Written) -> bool) -> usize {
        let is_done = |write: &&Written| write.code.is_some_and(|code| code < 300) && is_meant(write);
        self.proxy.writes().iter().filter(is_done).count()
    }

    /// Waits until so much was written.
    async fn until_written(&self, n: usize, limit: Duration, is_meant: impl Fn(&Written) -> bool) -> Result<()> {
        let mut changes = self.proxy.changes();
        let come = async {
            while self.n_writes(&is_meant) < n {
                changes.changed().await?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(limit, come).await {
            Ok(come) => come,
            Err(_) => {
                let lease = self.leases().get_opt(LEASE).await?.and_then(|lease| lease.spec);
                let tails: Vec<String> = self.operators.iter().map(Operator::tail).collect();
                bail!("{n} writes are not there after {limit:?}; the lease: {lease:?}\n{}", tails.join("\n----\n"))
            }
        }
    }

    /// Waits until one leads and is in mid-work, and does that to it; and then waits until somebody works, and both operators
    /// are there again.
    async fn change(&mut self, change: Change) -> Result<Round> {
        let began_at = Instant::now();
        let seat = wait_for("one leads", LIMIT, async || self.holder().await).await?;
        let pid = self.operators[seat].pid();
        let by_leader = move |write: &Written| write.pid == Some(pid) && write.at > began_at;
        self.until_written(MID_WORK, LIMIT, by_leader).await?;

        let (at, since) = (now(), Instant::now());
        let by_other = move |write: &Written| write.pid != Some(pid) && write.at > since;
        let limit = self.times.until_work(change);
        // Whose write says that work goes on: that of another one, or of anybody from some moment on.
        let mut by_whom: (bool, Instant) = (true, since);
        match change {
            Change::Term => {
                let next = self.operators.remove(seat);
                let ended = next.terminate(LIMIT);
                let (ended, came) = tokio::join!(ended, self.until_written(1, limit, by_other));
                // It is put back before anything may fail, so that seats stay what they are.
                let again = self.operator(seat).await?;
                self.operators.insert(seat, again);
                let ended = ended?;
                ensure!(ended.success(), "SIGTERM ended it with {ended}");
                came?;
            }
            Change::Kill => {
                kill_process(raw(pid)?, Signal::KILL)?;
                self.until_written(1, limit, by_other).await?;
                let again = self.operator(seat).await?;
                std::mem::replace(&mut self.operators[seat], again).kill()?;
            }
            Change::Stop(seconds) => {
                kill_process(raw(pid)?, Signal::STOP)?;
                let stopped = Duration::from_secs(seconds);
                let is_replaced = stopped > self.times.lease + self.times.retry * 2;
                // As long as that it is stopped, whatever the other one does.
                let both = tokio::join!(sleep(stopped), async {
                    if is_replaced { self.until_written(1, limit, by_other).await } else { Ok(()) }
                });
                kill_process(raw(pid)?, Signal::CONT)?;
                both.1?;
                if !is_replaced {
                    by_whom = (false, Instant::now());
                    self.until_written(1, limit, move |write| write.at > by_whom.1).await?;
                }
            }
            Change::Deleted => {
                self.leases().delete(LEASE, &DeleteParams::default()).await?;
                self.until_held(limit).await?;
                by_whom = (false, Instant::now());
                self.until_written(1, limit, move |write| write.at > by_whom.1).await?;
            }
            Change::Stolen => {
                self.steal().await?;
                self.until_held(limit).await?;
                by_whom = (false, Instant::now());
                self.until_written(1, limit, move |write| write.at > by_whom.1).await?;
            }
            Change::Hole | Change::Slow => {
                let gate = if change == Change::Hole { Gate::Hole } else { Gate::Slow };
                self.proxy.set_gate(seat, gate);
                let came = self.until_written(MID_WORK, limit, by_other).await;
                self.proxy.set_gate(seat, Gate::Open);
                came?;
            }
        }
        let (is_by_other, from) = by_whom;
        let is_first = |write: &Written| write.at > from && (!is_by_other || write.pid != Some(pid));
        let first = self.proxy.writes().into_iter().find(is_first);
        let took = first.map_or_else(|| since.elapsed(), |write| write.at - since);
        let next = wait_for("one leads again", LIMIT, async || self.holder().await).await?;
        Ok(Round { change, at, took, is_other: self.operators[next].pid() != pid })
    }

    /// Until one of the operators holds the Lease.
    async fn until_held(&self, limit: Duration) -> Result<()> {
        wait_for("an operator holds the lease", limit, async || Ok(self.holder().await?.map(drop))).await
    }

    /// Whoever holds it now has never heard of us, and says nothing more.
    async fn steal(&self) -> Result<()> {
        // A Lease holds microseconds, and takes nothing finer.
        let now = now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let stolen = Patch::Merge(json!({ "spec": {
            "holderIdentity": "a thief", "leaseDurationSeconds": self.times.lease.as_secs(),
            "acquireTime": now, "renewTime": now,
        }}));
        self.leases().patch(LEASE, &PatchParams::default(), &stolen).await?;
        Ok(())
    }

    fn end(self) -> Result<(Vec<Written>, Vec<String>)> {
        let logs = self.operators.iter().map(|operator| Ok(std::fs::read_to_string(&operator.log)?));
        let logs = logs.collect::<Result<Vec<_>>>()?;
        for operator in self.operators {
            operator.kill()?;
        }
        for path in &self.kubeconfigs {
            std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok((self.proxy.writes(), logs))
    }
}

/// Whether that process calls itself so in the Lease.
pub fn is_of(identity: &str, pid: u32) -> bool {
    identity.contains(&format!("_{pid}-"))
}

fn raw(pid: u32) -> Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid")
}
