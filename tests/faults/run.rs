//! One plan: the operator is started, the users create their jobs, the kubelet says what becomes of the pods, the faults
//! happen, and when all has come to its end nothing more may be written.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::BatchJob;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::fault::{Fault, WriteFault};
use super::kubelet::Kubelet;
use super::plan::{Operators, Plan};
use super::proxy::{Proxy, Told, Written};
use super::workload::{Does, Step, Workload, of_name};
use super::world::{Happened, History, World};
use crate::kubernetes::Kubernetes;
use crate::recorder::now;
use crate::support::kubelet::gone_or;
use crate::support::{Namespace, Operator, wait_for};

/// How long a plan may take in all, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(120);
/// The lease of operators that stand by for each other: a leader that is killed is soon replaced, and one that is only slow is
/// not.
const LEASE: [&str; 8] = [
    "--leader-elect=true",
    "--leader-elect-resource-name=operator",
    "--leader-elect-lease-duration",
    "6s",
    "--leader-elect-renew-deadline",
    "4s",
    "--leader-elect-retry-period",
    "1s",
];
/// A change may have been missed between two looks, such as that of a process.
const LOOK: Duration = Duration::from_millis(50);

/// Where plans are played, one after the other.
pub struct Place<'a> {
    pub kubernetes: &'a Kubernetes,
    pub namespace: Namespace,
    /// For the proxies: requests are sent once.
    pub api_server: Client,
}

/// What came of a plan.
pub struct Played {
    pub plan: Plan,
    pub happened: Vec<Happened>,
    pub writes: Vec<Written>,
    pub told: Vec<Told>,
    /// The faults that never came about: there was no such write, or no such event.
    pub not_begun: Vec<Fault>,
    /// What was wrong with the process or with how it came to its end.
    pub complaints: Vec<String>,
    /// From the last fault to the end of everything.
    pub converged_after: Duration,
    /// How long all was quiet, and since when: as much as the oracle is told.
    pub quiet_since: jiff::Timestamp,
    pub ended_at: jiff::Timestamp,
    pub took: Duration,
    /// The log of each life of the operators.
    pub logs: Vec<String>,
}

impl Place<'_> {
    /// Plays a plan; afterwards nothing must be written for `quiet`.
    pub async fn play(&self, plan: &Plan, quiet: Duration) -> Result<Played> {
        let workload = of_name(&plan.workload).with_context(|| format!("there is no workload {:?}", plan.workload))?;
        let mut run = Run::start(self, workload, plan).await?;
        let stuck = match timeout(LIMIT, run.until_quiet(quiet)).await {
            Ok(ended) => ended.map(|()| None)?,
            Err(_) => Some(format!("it has not come to its end after {LIMIT:?}: {}", describe(&run.history.world()))),
        };
        run.end(plan.clone(), stuck)
    }

    /// Leaves nothing of what was played.
    pub async fn clear(&self) -> Result<()> {
        let (client, namespace) = (&self.namespace.client, &self.namespace.name);
        let background = DeleteParams::background();
        for resource in [ApiResource::erase::<BatchJob>(&()), ApiResource::erase::<Job>(&())] {
            let jobs: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            jobs.delete_collection(&background, &ListParams::default()).await?;
            wait_for("the jobs are gone", LIMIT, async || {
                let left = jobs.list(&ListParams::default()).await?.items;
                for job in left.iter().filter(|job| !job.finalizers().is_empty()) {
                    free(&jobs, &job.name_any()).await?;
                }
                Ok(left.is_empty().then_some(()))
            })
            .await?;
        }
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        leases.delete_collection(&background, &ListParams::default()).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        wait_for("the pods are gone", LIMIT, async || {
            let left = pods.list(&ListParams::default()).await?.items;
            for pod in &left {
                let at_once = DeleteParams::default().grace_period(0);
                gone_or(pods.delete(&pod.name_any(), &at_once).await.map(drop))?;
                free(&pods, &pod.name_any()).await?;
            }
            Ok(left.is_empty().then_some(()))
        })
        .await
    }
}

struct Run<'a> {
    place: &'a Place<'a>,
    workload: &'static Workload,
    led_by: Operators,
    history: History,
    kubelet: Kubelet,
    proxy: Proxy,
    operators: Vec<Operator>,
    logs: Vec<String>,
    kubeconfigs: Vec<PathBuf>,
    complaints: Vec<String>,
    /// Something is told to the operator, or answered, after it has happened; or one of two is behind the other.
    hears_late: bool,
    began_at: Instant,
    over_at: Option<Instant>,
    quiet_since: Option<(Instant, jiff::Timestamp, usize)>,
}

impl<'a> Run<'a> {
    async fn start(place: &'a Place<'a>, workload: &'static Workload, plan: &Plan) -> Result<Run<'a>> {
        let (client, namespace) = (&place.namespace.client, &place.namespace.name);
        let history = History::follow(client, namespace).await?;
        let proxy = Proxy::start(place.api_server.clone(), &plan.faults, plan.operators.count()).await?;
        let mut run = Run {
            place,
            workload,
            led_by: plan.operators,
            history,
            kubelet: Kubelet::new(Api::namespaced(client.clone(), namespace)),
            operators: Vec::new(),
            logs: Vec::new(),
            kubeconfigs: proxy
                .addresses
                .iter()
                .map(|&address| kubeconfig(place.kubernetes, address))
                .collect::<Result<_>>()?,
            proxy,
            complaints: Vec::new(),
            hears_late: plan.operators == Operators::Two
                || plan.faults.iter().any(|fault| matches!(fault, Fault::View(..) | Fault::Write(WriteFault::Late, _))),
            began_at: Instant::now(),
            over_at: None,
            quiet_since: None,
        };
        for seat in 0..run.proxy.addresses.len() {
            let operator = run.operator(seat)?;
            wait_for("the operator is ready", LIMIT, async || {
                Ok(operator.get("/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
            })
            .await
            .with_context(|| operator.tail())?;
            run.operators.push(operator);
        }
        for job in (workload.jobs)() {
            run.create(job).await?;
        }
        Ok(run)
    }

    /// A life of the operator in that seat.
    fn operator(&mut self, seat: usize) -> Result<Operator> {
        let namespace = &self.place.namespace.name;
        let mut arguments = vec!["--watch-namespace", namespace, "--managed-jobs", "true"];
        if self.led_by == Operators::Standby {
            arguments.extend(LEASE);
            arguments.extend(["--leader-elect-resource-namespace", namespace]);
        }
        let operator = Operator::spawn(self.place.kubernetes, &self.kubeconfigs[seat], &arguments)?;
        self.proxy.seat(seat, operator.pid());
        Ok(operator)
    }

    /// Keeps the log of a life that is over.
    fn bury(&mut self, operator: Operator) -> Result<()> {
        let path = operator.log.clone();
        operator.kill()?;
        self.logs.push(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// The next life of an operator that has ended.
    fn start_anew(&mut self, seat: usize) -> Result<()> {
        let next = self.operator(seat)?;
        let last = std::mem::replace(&mut self.operators[seat], next);
        self.bury(last)
    }

    async fn until_quiet(&mut self, quiet: Duration) -> Result<()> {
        let mut proxy_changes = self.proxy.changes();
        loop {
            self.history.is_whole()?;
            self.look_after_operators()?;
            let world = self.history.world();
            let has_spoken = self.kubelet.look(&world, self.workload.end).await?;
            let step = self.workload.steps.get(world.n_steps);
            if let Some(step) = step.filter(|step| (step.when)(&world)) {
                self.act(step).await?;
                self.history.step_done();
                continue;
            }
            let is_over = step.is_none() && !has_spoken && (self.workload.is_over)(&world);
            if !is_over {
                (self.over_at, self.quiet_since) = (None, None);
            } else {
                self.over_at.get_or_insert_with(Instant::now);
                if self.proxy.is_going() {
                    self.quiet_since = None;
                }
                let since = || (Instant::now(), now(), self.proxy.n_writes());
                let (since, _, n_writes) = *self.quiet_since.get_or_insert_with(since);
                if self.hears_late && self.proxy.n_writes() > n_writes {
                    // What was seen late may be answered late; all must have been within the time for coming to the end.
                    (self.over_at, self.quiet_since) = (None, None);
                    continue;
                }
                if since.elapsed() >= quiet {
                    let mut late: Vec<Written> = self.proxy.writes().split_off(n_writes);
                    // It was under way as the job went.
                    late.retain(|write| !(write.code == Some(404) && write.verb.ends_with("jobs/status")));
                    if !late.is_empty() {
                        let late: Vec<String> = late.iter().map(Written::to_string).collect();
                        self.complaints.push(format!("it still writes after the end: {}", late.join(", ")));
                    }
                    return Ok(());
                }
            }
            tokio::select! {
                _ = self.history.changes.changed() => {}
                _ = proxy_changes.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Starts those anew that the proxy has killed, unless another one stands by. No other may end.
    fn look_after_operators(&mut self) -> Result<()> {
        for seat in self.proxy.take_killed() {
            self.quiet_since = None;
            let is_replaced = self.led_by == Operators::Standby
                && (0..self.operators.len()).any(|other| other != seat && self.proxy.spares(other));
            if !is_replaced {
                self.start_anew(seat)?;
            }
        }
        for seat in 0..self.operators.len() {
            if !self.operators[seat].is_running()? && self.proxy.spares(seat) {
                self.complaints.push("the operator has ended by itself".to_owned());
                self.start_anew(seat)?;
            }
        }
        Ok(())
    }

    async fn create(&self, job: Value) -> Result<()> {
        let kind = job["kind"].as_str().unwrap_or_default().to_owned();
        let object: DynamicObject = serde_json::from_value(job).context("read the job of the workload")?;
        self.jobs(&kind).create(&PostParams::default(), &object).await.context("create the job of the workload")?;
        Ok(())
    }

    fn jobs(&self, kind: &str) -> Api<DynamicObject> {
        let resource = match kind {
            "Job" => ApiResource::erase::<Job>(&()),
            _ => ApiResource::erase::<BatchJob>(&()),
        };
        Api::namespaced_with(self.place.namespace.client.clone(), &self.place.namespace.name, &resource)
    }

    async fn act(&self, step: &Step) -> Result<()> {
        let acted = async {
            let world = self.history.world();
            let pods: Api<Pod> = Api::namespaced(self.place.namespace.client.clone(), &self.place.namespace.name);
            let name = |job: &str, index, attempt| {
                let pod = world.attempt(job, index, attempt).map(|pod| pod.name.clone());
                pod.with_context(|| format!("find attempt {attempt} of index {index} of {job}"))
            };
            let api =
                |job: &str| self.jobs(world.jobs.get(job).and_then(|job| job["kind"].as_str()).unwrap_or_default());
            match &step.does {
                Does::Change { job, patch } => {
                    api(job).patch(job, &PatchParams::default(), &Patch::Merge(patch())).await?;
                }
                Does::Delete { job, how } => {
                    let parameters = DeleteParams { propagation_policy: Some(policy(how)), ..DeleteParams::default() };
                    api(job).delete(job, &parameters).await?;
                }
                Does::DeletePod { job, index, attempt } => {
                    pods.delete(&name(job, *index, *attempt)?, &DeleteParams::default()).await?;
                }
                Does::ChangePod { job, index, attempt, patch } => {
                    let name = name(job, *index, *attempt)?;
                    pods.patch(&name, &PatchParams::default(), &Patch::Merge(patch())).await?;
                }
            }
            anyhow::Ok(())
        };
        acted.await.with_context(|| format!("the user's step: {}", step.what))
    }

    fn end(mut self, plan: Plan, stuck: Option<String>) -> Result<Played> {
        let happened = self.history.happened();
        self.complaints.extend(stuck);
        if self.proxy.is_going() {
            self.complaints.push("a fault has begun and is not over".to_owned());
        }
        // No write may be under way while others clear up.
        for operator in std::mem::take(&mut self.operators) {
            self.bury(operator)?;
        }
        if self.logs.iter().any(|log| log.contains("panicked")) {
            self.complaints.push("the operator has panicked".to_owned());
        }
        for path in &self.kubeconfigs {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        let over_at = self.over_at.unwrap_or_else(Instant::now);
        let since = self.proxy.faults_ended_at().unwrap_or(self.began_at);
        let ended_at = now();
        Ok(Played {
            plan,
            happened,
            writes: self.proxy.writes(),
            told: self.proxy.told(),
            not_begun: self.proxy.not_begun(),
            complaints: self.complaints,
            converged_after: over_at.saturating_duration_since(since),
            quiet_since: self.quiet_since.map_or(ended_at, |(_, at, _)| at),
            ended_at,
            took: self.began_at.elapsed(),
            logs: self.logs,
        })
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or("none".to_owned(), |code| code.to_string());
        let other = if self.seat == 0 { "" } else { ", by the other one" };
        write!(f, "{} {}: {code}{other}", self.verb, self.name)
    }
}

fn describe(world: &World) -> String {
    let pods = world.pods.values().map(|pod| {
        let words = [(pod.is_deleted, "deleted"), (pod.is_held, "held"), (!pod.has_owner, "alone")];
        let words: Vec<&str> = words.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect();
        format!("{} {} {}", pod.name, pod.phase, words.join(" "))
    });
    let jobs = world.jobs.iter().map(|(name, job)| format!("{name} {}", job["status"]));
    format!(
        "{} steps done; {}; {}",
        world.n_steps,
        jobs.collect::<Vec<_>>().join("; "),
        pods.collect::<Vec<_>>().join("; ")
    )
}

/// For an operator that finds the API server there.
pub(crate) fn kubeconfig(kubernetes: &Kubernetes, address: SocketAddr) -> Result<PathBuf> {
    let path = kubernetes.folder().join(format!("proxy-{}.kubeconfig", address.port()));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "proxy", "user": {} }],
        "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "proxy" } }],
    });
    // JSON is YAML.
    fs::write(&path, config.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Takes all finalizers off.
async fn free<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + k8s_openapi::serde::de::DeserializeOwned + std::fmt::Debug,
{
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    gone_or(api.patch(name, &PatchParams::default(), &free).await.map(drop))
}

/// It cannot be copied.
fn policy(policy: &PropagationPolicy) -> PropagationPolicy {
    match policy {
        PropagationPolicy::Orphan => PropagationPolicy::Orphan,
        PropagationPolicy::Background => PropagationPolicy::Background,
        PropagationPolicy::Foreground => PropagationPolicy::Foreground,
    }
}
