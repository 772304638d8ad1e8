//! Many plans at a time on one cluster: what they share, and what came of all.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batchjob_crd::BatchJob;
use futures::stream::{self, StreamExt as _};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use serde_json::json;

use super::judge::Reference;
use super::plan::{Plan, of_standbys, of_two_kills, of_two_leaders, of_views, of_writes};
use super::run::{Place, Played};
use super::workload;
use crate::kubernetes::{Kubernetes, Options, Size};
use crate::support::{Namespace, serve_batch_jobs, wait_for};

/// So many runs without faults say what differs from run to run.
const N_REFERENCES: usize = 3;

/// The workloads that are small enough for every pair of kills.
pub const SMALLEST: [&str; 3] = ["one", "retry", "success-policy"];

/// A cluster for plans.
pub async fn kubernetes() -> Result<Kubernetes> {
    let options = Options {
        // Pods of nodes that do not exist are garbage to it.
        controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    until_collected(&kubernetes).await?;
    Ok(kubernetes)
}

/// Stops it; what came of what was played on it, as a program says it.
pub async fn conclude(kubernetes: Kubernetes, n_violated: Result<u64>) -> Result<ExitCode> {
    kubernetes.stop().await?;
    Ok(if n_violated? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the garbage collector knows BatchJobs: it takes up to 30 s until it knows a new kind.
pub async fn until_collected(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = Namespace::new(kubernetes, "collected").await?;
    let jobs: Api<BatchJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let job = json!({
        "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": "first" },
        "spec": { "template": workload::pod("Never") },
    });
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
    // In the foreground it is the garbage collector that lets the job go.
    jobs.delete("first", &DeleteParams::foreground()).await?;
    wait_for("BatchJobs are known to the garbage collector", Duration::from_secs(60), async || {
        Ok(jobs.get_opt("first").await?.is_none().then_some(()))
    })
    .await
}

/// A client that sends each request once: what comes of it is to be seen.
pub async fn sends_once(kubernetes: &Kubernetes) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubernetes.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.proxy_url = None;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Plays plans, and remembers what the workloads come to without faults.
pub struct Campaign<'a> {
    kubernetes: &'a Kubernetes,
    api_server: Client,
    at_once: usize,
    quiet: Duration,
    free: Mutex<Vec<Place<'a>>>,
    references: BTreeMap<String, Reference>,
}

/// So many plans in a row that cannot be played say that it is not for them.
const MOST_UNPLAYED: usize = 10;

/// A plan, and what is wrong with it: nothing, if all is well.
pub struct Verdict {
    pub plan: Plan,
    /// None if it could not be played to its end, which is a violation.
    pub played: Option<Played>,
    pub violations: Vec<String>,
}

impl<'a> Campaign<'a> {
    pub async fn new(kubernetes: &'a Kubernetes, at_once: usize, quiet: Duration) -> Result<Campaign<'a>> {
        let api_server = sends_once(kubernetes).await?;
        Ok(Campaign { kubernetes, api_server, at_once, quiet, free: Mutex::default(), references: BTreeMap::new() })
    }

    /// Finds out what these workloads come to without faults.
    pub async fn refer(&mut self, workloads: &BTreeSet<&str>) -> Result<()> {
        let missing = workloads.iter().filter(|&&name| !self.references.contains_key(name));
        let plans: Vec<Plan> = missing.flat_map(|name| (0..N_REFERENCES).map(|_| Plan::without_faults(name))).collect();
        let mut runs: BTreeMap<String, Vec<Played>> = BTreeMap::new();
        let mut failed = Ok(());
        let played = self.play_each(plans, |plan, played| match played {
            Ok(played) => runs.entry(plan.workload).or_default().push(played),
            Err(error) => failed = Err(error),
        });
        played.await;
        failed?;
        self.references.extend(runs.into_iter().map(|(workload, runs)| (workload, Reference::of(&runs))));
        Ok(())
    }

    pub fn references(&self) -> impl Iterator<Item = (&str, &Reference)> {
        self.references.iter().map(|(name, reference)| (name.as_str(), reference))
    }

    /// Every plan in which one write goes wrong, of the workloads that are referred to.
    pub fn all_of_writes(&self) -> Vec<Plan> {
        self.references().flat_map(|(workload, reference)| of_writes(workload, reference.n_writes)).collect()
    }

    /// Every plan with two kills, of the smallest workloads.
    pub fn all_of_two_kills(&self) -> Vec<Plan> {
        let smallest = self.references().filter(|(workload, _)| SMALLEST.contains(workload));
        smallest.flat_map(|(workload, reference)| of_two_kills(workload, reference.n_writes)).collect()
    }

    /// Every plan about what the operator is told.
    pub fn all_of_views(&self) -> Vec<Plan> {
        self.references().flat_map(|(workload, reference)| of_views(workload, &reference.told)).collect()
    }

    /// Every plan with two operators.
    pub fn all_of_operators(&self) -> Vec<Plan> {
        let of_both = |(workload, reference): (&str, &Reference)| {
            [of_standbys(workload, reference.n_writes), of_two_leaders(workload, reference.n_writes)].concat()
        };
        self.references().flat_map(of_both).collect()
    }

    /// Plays and judges plans; `tell` hears of each as soon as it is over.
    pub async fn judge(&self, plans: Vec<Plan>, mut tell: impl FnMut(Verdict)) -> Result<()> {
        if let Some(plan) = plans.iter().find(|plan| !self.references.contains_key(&plan.workload)) {
            bail!("there is no reference for {plan}");
        }
        let played = self.play_each(plans, |plan, played| {
            let verdict = match played {
                Ok(played) => {
                    let violations = self.references[&plan.workload].violations(&played);
                    Verdict { plan, played: Some(played), violations }
                }
                Err(error) => Verdict { plan, played: None, violations: vec![format!("{error:#}")] },
            };
            tell(verdict);
        });
        played.await;
        Ok(())
    }

    /// Ends before all are played if nothing can be played any more.
    async fn play_each(&self, plans: Vec<Plan>, mut tell: impl FnMut(Plan, Result<Played>)) {
        let played = stream::iter(plans).map(|plan| async move {
            let played = self.play(&plan).await;
            (plan, played)
        });
        let mut played = std::pin::pin!(played.buffer_unordered(self.at_once));
        let mut n_unplayed = 0;
        while let Some((plan, played)) = played.next().await {
            n_unplayed = if played.is_err() { n_unplayed + 1 } else { 0 };
            tell(plan, played);
            if n_unplayed == MOST_UNPLAYED {
                return;
            }
        }
    }

    async fn play(&self, plan: &Plan) -> Result<Played> {
        let place = self.place().await?;
        let played = place.play(plan, self.quiet).await.with_context(|| format!("play {plan}"))?;
        place.clear().await.with_context(|| format!("clear up after {plan}"))?;
        // Where something went wrong nothing is played any more.
        self.free.lock().expect("nobody panics with it").push(place);
        Ok(played)
    }

    async fn place(&self) -> Result<Place<'a>> {
        let free = self.free.lock().expect("nobody panics with it").pop();
        match free {
            Some(place) => Ok(place),
            None => Ok(Place {
                kubernetes: self.kubernetes,
                namespace: Namespace::new(self.kubernetes, "faults").await?,
                api_server: self.api_server.clone(),
            }),
        }
    }
}

/// What came of many plans.
#[derive(Default)]
pub struct Summary {
    pub n_plans: u64,
    /// Their faults never came about: the run had fewer writes or events than the one without faults.
    pub n_not_begun: u64,
    pub n_violated: u64,
    /// By class of plan, for those that came about.
    pub classes: BTreeMap<String, u64>,
    pub slowest: Duration,
}

impl Summary {
    pub fn add(&mut self, verdict: &Verdict) {
        self.n_plans += 1;
        self.n_violated += u64::from(!verdict.violations.is_empty());
        let Some(Played { plan, not_begun, converged_after, .. }) = &verdict.played else { return };
        self.n_not_begun += u64::from(!not_begun.is_empty());
        if not_begun.is_empty() {
            *self.classes.entry(plan.class()).or_default() += 1;
            self.slowest = self.slowest.max(*converged_after);
        }
    }
}
