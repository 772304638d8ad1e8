//! The same jobs, run by Kubernetes' own Job controller and by ours, which both are killed on the way: which laws of
//! `batchjob-oracle` does each break, and how often?
//!
//! `make laws` plays some rounds, prints what it found, and writes `docs/reliability/laws.json`. The pods take a second; the
//! first round is a calm one, in each other round both controllers are killed by SIGKILL, three times.

mod controller;
mod kubelet;
mod workload;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, keys};
use batchjob_oracle::{Controller, End, Law, Promises, Report, Violation};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::recorder::{History, Recorder};
use batchjob_tests::support::{Namespace, Operator, serve_batch_jobs, stamped, wait_for};
use clap::Parser;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};
use serde_json::{Value, json};

use controller::Manager;
use kubelet::Kubelet;
use workload::{Step, Workload, workloads};

/// Plays jobs of many kinds to Kubernetes' own controller and to ours, and tells which laws they break
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each job is played
    #[arg(long, default_value_t = 4)]
    rounds: u64,
    /// Write docs/reliability/laws.json
    #[arg(long)]
    write: bool,
    /// Tell the histories of the jobs that break a law
    #[arg(long)]
    explain: bool,
}

/// Long enough for the longest delay of these jobs.
const ROUND: Duration = Duration::from_secs(120);
/// In a round without delays nothing takes as long.
const QUIET: Duration = Duration::from_secs(25);
const KILLS: u64 = 3;

/// Whose jobs, and as which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Kubernetes,
    BatchJob,
    ManagedJob,
}

impl Door {
    const ALL: [Door; 3] = [Door::Kubernetes, Door::BatchJob, Door::ManagedJob];

    fn name(self) -> &'static str {
        match self {
            Door::Kubernetes => "kube-controller-manager, Jobs",
            Door::BatchJob => "batchjob, BatchJobs",
            Door::ManagedJob => "batchjob, managed Jobs",
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Door::BatchJob => ApiResource::erase::<BatchJob>(&()),
            Door::Kubernetes | Door::ManagedJob => ApiResource::erase::<Job>(&()),
        }
    }

    fn promises(self) -> Promises {
        let controller = if self == Door::Kubernetes { Controller::Kubernetes } else { Controller::Ours };
        Promises {
            controller,
            deletions: true,
            in_flight: Some(SignedDuration::from_secs(5)),
            finalizers_go_within: Some(SignedDuration::from_secs(30)),
            ..Promises::default()
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let options = Options {
        // Pods of nodes that do not exist are garbage to one of them.
        controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    let client = kubernetes.client().await?;

    let mut found = Findings::default();
    let kubelet = Kubelet::new(client.clone(), script);
    tokio::select! {
        played = play_all(&kubernetes, &client, &arguments, &mut found) => played?,
        broken = kubelet.play() => return broken.context("the kubelet ended"),
    }
    print!("{}", found.text());
    let report = found.report(&arguments, began.elapsed())?;
    if arguments.write {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability");
        println!("{}", report.write(&folder)?.display());
    }
    kubernetes.stop().await?;
    ensure!(report.violations == 0, "our own jobs break laws");
    Ok(())
}

fn script(job: &str, index: u32, nth: u32) -> workload::End {
    let found = workloads().into_iter().find(|workload| workload.name == job);
    found.map_or(workload::End::Never, |workload| (workload.end)(index, nth))
}

async fn play_all(kubernetes: &Kubernetes, client: &Client, arguments: &Arguments, found: &mut Findings) -> Result<()> {
    let mut manager = Manager::of(kubernetes)?;
    let mut operator = controller::operator(kubernetes).await?;
    for round in 0..arguments.rounds {
        let began = Instant::now();
        let recorder = Recorder::start(client, None).await?;
        let mut namespaces = Vec::new();
        for door in Door::ALL {
            let name = format!("{door:?}-{round}").to_lowercase();
            namespaces.push((door, Namespace::new(kubernetes, &name).await?.name.clone()));
        }
        let all: Vec<Workload> = workloads();
        let played = namespaces
            .iter()
            .flat_map(|(door, namespace)| all.iter().map(move |workload| play(client, *door, namespace, workload)));
        let kills = async {
            let n_kills = if round == 0 { 0 } else { KILLS };
            for kill in 0..n_kills {
                tokio::time::sleep(moment(round, kill)).await;
                recorder.note("both controllers are killed");
                operator = replace(kubernetes, &mut manager, operator).await?;
            }
            anyhow::Ok(operator)
        };
        let (_, operator_again) = futures::future::try_join(futures::future::try_join_all(played), kills).await?;
        operator = operator_again;
        let quiet_since = recorder.until_quiet(QUIET, ROUND).await?;
        manager.check()?;
        let history = recorder.finish().await?;
        let at = quiet_since + SignedDuration::try_from(QUIET)?;
        for (door, namespace) in &namespaces {
            let of_door = history.of_namespace(namespace);
            let broken = of_door.judge(door.promises(), End::Settled { quiet_since, at });
            println!("round {round}, {}: {} laws broken", door.name(), broken.len());
            if arguments.explain || (*door != Door::Kubernetes && !broken.is_empty()) {
                println!("{}", of_door.explain(&broken));
            }
            found.add(*door, round, &of_door, broken);
        }
        println!("round {round} took {:.0?}", began.elapsed());
        for (_, namespace) in &namespaces {
            clear_up(client, namespace).await?;
        }
    }
    Ok(())
}

async fn replace(kubernetes: &Kubernetes, manager: &mut Manager, operator: Operator) -> Result<Operator> {
    operator.kill()?;
    manager.restart(kubernetes).await?;
    controller::operator(kubernetes).await
}

/// How long after the kill before, in the first half minute: another for each (xorshift64).
fn moment(round: u64, kill: u64) -> Duration {
    let mut state = (round * KILLS + kill + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    Duration::from_millis(300 + state % 9000)
}

/// Creates the job, and does what its user does.
async fn play(client: &Client, door: Door, namespace: &str, workload: &Workload) -> Result<()> {
    let resource = door.resource();
    let jobs: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut job = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": { "name": workload.name }, "spec": workload.spec,
    });
    job["spec"]["template"] = json!({ "spec": {
        // There is no such node and nobody asks; that the pods are born with it saves the scheduler.
        "nodeName": "node-1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
        "containers": [{ "name": "main", "image": "none" }],
    } });
    if door == Door::ManagedJob {
        job["spec"]["managedBy"] = keys::MANAGED_BY.into();
    }
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
    let began = tokio::time::Instant::now();
    for (millis, step) in workload.steps {
        tokio::time::sleep_until(began + Duration::from_millis(*millis)).await;
        let spec = match step {
            Step::Suspend(suspend) => json!({ "suspend": suspend }),
            Step::Parallelism(parallelism) => json!({ "parallelism": parallelism }),
            Step::Size(size) => json!({ "completions": size, "parallelism": size }),
            Step::DeletePod => {
                delete_pod(client, namespace, workload.name).await?;
                continue;
            }
            Step::DeleteJob => {
                jobs.delete(workload.name, &DeleteParams::background()).await?;
                continue;
            }
        };
        let change: Value = json!({ "spec": spec });
        match jobs.patch(workload.name, &PatchParams::default(), &Patch::Merge(change)).await {
            // A job that is over does not change its size any more.
            Err(Error::Api(status)) if status.code == 422 => {}
            other => drop(other.with_context(|| format!("{}: {spec}", workload.name))?),
        }
    }
    Ok(())
}

/// The first that lives and was not told to go.
async fn delete_pod(client: &Client, namespace: &str, job: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut of_job = pods.list(&ListParams::default().labels(&format!("{}={job}", keys::JOB_NAME))).await?.items;
    of_job.sort_by_key(|pod| pod.name_any());
    let phase = |pod: &Pod| pod.status.clone().unwrap_or_default().phase.unwrap_or_default();
    let living = of_job.iter().find(|pod| pod.metadata.deletion_timestamp.is_none() && phase(pod) == "Running");
    match living {
        Some(pod) => match pods.delete(&pod.name_any(), &DeleteParams::default()).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            other => {
                other?;
                Ok(())
            }
        },
        None => Ok(()),
    }
}

/// The next round has the machine for itself.
async fn clear_up(client: &Client, namespace: &str) -> Result<()> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces.delete(namespace, &DeleteParams::background()).await?;
    wait_for("the namespace is gone", Duration::from_secs(90), async || {
        Ok(namespaces.get_opt(namespace).await?.is_none().then_some(()))
    })
    .await
}

/// What was found, by door.
#[derive(Default)]
struct Findings {
    of: BTreeMap<Door, Found>,
}

#[derive(Default)]
struct Found {
    n_jobs: u64,
    n_events: u64,
    /// How often, in calm rounds and in others, and the first as an example.
    broken: BTreeMap<Law, (u64, u64, String)>,
    statuses: u64,
}

impl Findings {
    fn add(&mut self, door: Door, round: u64, history: &History, broken: Vec<Violation>) {
        let found = self.of.entry(door).or_default();
        found.n_jobs += history.jobs().len() as u64;
        found.n_events += history.entries.len() as u64;
        let is_status = |event: &&batchjob_oracle::Event| event.object.kind().ends_with("job");
        found.statuses += history.events().filter(is_status).count() as u64;
        for violation in broken {
            let entry = found.broken.entry(violation.law).or_insert_with(|| (0, 0, violation.to_string()));
            match round {
                0 => entry.0 += 1,
                _ => entry.1 += 1,
            }
        }
    }

    fn details(&self) -> Vec<String> {
        let of_door = |(door, found): (&Door, &Found)| {
            let name = door.name();
            let mut lines = vec![format!(
                "{name}: {} jobs, {} changes of jobs, {} changes in all",
                found.n_jobs, found.statuses, found.n_events
            )];
            let broken = found.broken.iter().map(|(law, (calm, killed, example))| {
                format!("{name}: {law:?} ({}) broken {calm} times in the calm round, {killed} times in the others; such as: {example}", law.text())
            });
            lines.extend(broken);
            lines
        };
        self.of.iter().flat_map(of_door).collect()
    }

    fn text(&self) -> String {
        self.details().iter().map(|line| format!("{line}\n")).collect()
    }

    fn report(&self, arguments: &Arguments, took: Duration) -> Result<Report> {
        let ours = || self.of.iter().filter(|(door, _)| **door != Door::Kubernetes).map(|(_, found)| found);
        let n = |found: &Found| found.broken.values().map(|(calm, killed, _)| calm + killed).sum::<u64>();
        let counts = [
            ("rounds", arguments.rounds),
            ("lives", ours().map(|found| found.n_jobs).sum()),
            ("kills", arguments.rounds.saturating_sub(1) * KILLS),
            ("events", ours().map(|found| found.n_events).sum()),
        ];
        Ok(Report {
            name: "laws".to_owned(),
            promise: "A job keeps every law although its controller is killed on the way".to_owned(),
            how: format!(
                "{} kinds of jobs, as BatchJobs and as managed Jobs, on a real API server; the operator is killed three times on \
                 the way; the same jobs are run by kube-controller-manager, for comparison",
                workloads().len()
            ),
            command: format!("make laws ROUNDS={}", arguments.rounds),
            counts: Report::count(counts),
            violations: ours().map(n).sum(),
            details: self.details(),
            ..stamped(took)?
        })
    }
}
