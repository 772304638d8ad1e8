//! The wiring: which task feeds which, in one readable list.
//!
//! ```text
//! standby ──election won──► barrier ──caches know all──► work ──SIGTERM──► passes end, lease given up
//!    ▲                         │                           │
//!    └───────── term over ─────┴───────────────────────────┘
//! ```
//!
//! The watches run all the time, so that whoever stands by knows nearly all that the leader knows. What it lacks it learns
//! at the barrier: by a consistent read of each kind, made after the Lease was won.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, bail};
use batchjob_crd::keys;
use futures::future::join_all;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Api, Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinSet;

use crate::act::Actor;
use crate::admin::{Admin, Health};
use crate::args::OperatorArgs;
use crate::clock::Clock;
use crate::controller::Controller;
use crate::cron_controller::CronController;
use crate::events::Recorder;
use crate::lease::{Election, Elector, Term, Timing};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::observe::cron::{CronKey, WireBatchCronJob};
use crate::observe::crons::{CronSink, Crons};
use crate::observe::job::{JobKey, JobRecord, WireBatchJob, WireManagedJob};
use crate::observe::jobs::{JobSink, Jobs};
use crate::observe::pods::{PodSink, Pods};
use crate::observe::watch::{self, Reach};
use crate::observe::wire::{Place, WirePod};
use crate::queue::Queue;
use crate::sweep::Sweep;
use crate::workers::work;
use crate::writer::Writer;

/// How long passes that have begun may take to end after SIGTERM.
const SHUTDOWN: Duration = Duration::from_secs(8);

/// How long the last events may take. Nothing depends on them.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = client_config().await?;
    let server = config.cluster_url.to_string();
    let (identity, lease_namespace) = (identity(), config.default_namespace.clone());
    let link = Link::new(config, &identity);
    let client = || link.client().context("failed to set up the connection to the cluster");
    let clients = Clients { watching: client()?, leasing: client()?, writing: client()?, lease_namespace };
    let operator = Operator::new(args, clients, Clock::of_the_machine(), identity)?;
    operator.health.link(link.clone());
    operator.admin().serve(operator.args.listen)?;
    let namespace = operator.args.namespace().unwrap_or("all namespaces");
    let listen = operator.args.listen;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), server, namespace, %listen, "starting");
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: finishing what has begun"),
            _ = interrupt.recv() => tracing::info!("SIGINT: finishing what has begun"),
        }
    };
    tokio::select! {
        biased;
        ended = operator.run(stop) => ended,
        () = link.watch() => bail!("the watch over the link has ended, which is a bug"),
    }
}

/// The ways to the API server. Each has connections of its own, so that no write waits behind a watch, nor the lease
/// behind the writes.
pub struct Clients {
    pub watching: Client,
    pub writing: Client,
    pub leasing: Client,
    /// Where the Lease is if no flag says so.
    pub lease_namespace: String,
}

/// An operator, whatever it runs on.
pub struct Operator {
    args: OperatorArgs,
    timing: Timing,
    clients: Clients,
    clock: Clock,
    identity: String,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    queue: Arc<Queue<JobKey>>,
    cron_queue: Arc<Queue<CronKey>>,
    jobs: Arc<Jobs>,
    crons: Arc<Crons>,
    pods: Arc<Pods>,
    sweep_call: Arc<Notify>,
}

/// How a time of work came to its end.
enum Ended {
    Term,
    Stopped,
}

impl Operator {
    pub fn new(args: OperatorArgs, clients: Clients, clock: Clock, identity: String) -> anyhow::Result<Operator> {
        Ok(Operator {
            timing: args.election_timing().map_err(Error::msg)?,
            args,
            clients,
            clock,
            identity,
            metrics: Metrics::new(),
            health: Health::new(),
            queue: Arc::default(),
            cron_queue: Arc::default(),
            jobs: Arc::default(),
            crons: Arc::default(),
            pods: Arc::default(),
            sweep_call: Arc::default(),
        })
    }

    /// What it serves.
    pub fn admin(&self) -> Admin {
        Admin {
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            jobs: self.jobs.clone(),
            crons: self.crons.clone(),
            pods: self.pods.clone(),
            queue: self.queue.clone(),
        }
    }

    /// Works until `stop`. Dropping it is a crash: nothing that has begun is finished.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(stop);
        // Each of these runs for ever: one that ends takes the operator with it, to be started anew.
        let mut tasks = JoinSet::new();
        tasks.spawn(self.health.clone().beat());
        let caches = self.watch(&mut tasks);
        self.health.watches(caches.clone());
        let caches_filled = async || {
            join_all(caches.iter().map(Reach::now)).await;
        };
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
            () = caches_filled() => self.health.ready(),
        }
        tracing::info!(jobs = self.jobs.count(), pods = self.pods.count(), "watching");

        let (end_election, election_is_over) = channel::channel(false);
        let (election, mut elector) = self.election(election_is_over);
        loop {
            let term = tokio::select! {
                biased;
                () = &mut stop => break,
                ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
                Some(ended) = elector.join_next() => bail!("the elector has ended, which is a bug: {ended:?}"),
                term = next_term(election.as_ref()) => term,
            };
            // Nothing is decided, and nothing let go, before every cache knows all that was written before the term.
            tokio::select! {
                biased;
                () = &mut stop => break,
                ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
                () = term.ended() => continue,
                () = caches_filled() => {}
            }
            self.metrics.leads(&self.args.leader_elect_resource_name, true);
            let ended = tokio::select! {
                biased;
                ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
                ended = self.work(term, &mut stop) => ended?,
            };
            self.metrics.leads(&self.args.leader_elect_resource_name, false);
            match ended {
                Ended::Stopped => break,
                Ended::Term => tracing::warn!("the term is over: nothing is written until the next one"),
            }
        }
        // Whoever comes next need not wait.
        let _ = end_election.send(true);
        elector.join_next().await;
        tracing::info!("stopped");
        Ok(())
    }

    /// Decides and writes for a term.
    async fn work(&self, term: Term, stop: impl Future<Output = ()>) -> anyhow::Result<Ended> {
        let client = self.clients.writing.clone();
        let writer = Writer::new(client, self.args.max_requests_in_flight, self.args.request_timeout, term.clone());
        let outage = writer.outage.clone();
        let (jobs, pods, crons) = (self.jobs.clone(), self.pods.clone(), self.crons.clone());
        let actor = Actor { writer: writer.clone(), jobs, pods, crons };
        let (recorder, scribe) = Recorder::new(writer, self.metrics.clone(), &self.identity, self.clock.clone());
        let mut scribe = task(scribe);
        let sweep =
            Sweep { actor: actor.clone(), call: self.sweep_call.clone(), has_managed_jobs: self.args.managed_jobs };
        let mut sweep = task(sweep.run());
        // What happened while another one led is in the caches; whom it concerned is not known.
        self.queue.restart(self.jobs.keys());
        self.sweep_call.notify_one();
        self.cron_queue.restart(self.crons.keys());
        let (metrics, clock) = (self.metrics.clone(), self.clock.clone());
        let crons = CronController::new(actor.clone(), self.cron_queue.clone(), recorder.clone(), metrics, clock);
        let controller = Controller::new(actor, self.queue.clone(), recorder, self.metrics.clone(), self.clock.clone());
        let workers = self.args.workers;
        let mut passes = task(async move {
            tokio::join!(work(Arc::new(controller), workers), work(Arc::new(crons), workers));
        });
        let ended = tokio::select! {
            biased;
            () = stop => Ended::Stopped,
            () = term.ended() => Ended::Term,
            ended = passes.join_next() => bail!("the workers have ended, which is a bug: {ended:?}"),
            ended = sweep.join_next() => bail!("the sweep has ended, which is a bug: {ended:?}"),
            ended = scribe.join_next() => bail!("the scribe has ended, which is a bug: {ended:?}"),
        };
        sweep.shutdown().await;
        if matches!(ended, Ended::Stopped) {
            self.queue.close();
            self.cron_queue.close();
            outage.give_up();
            if tokio::time::timeout(SHUTDOWN, passes.join_next()).await.is_ok() {
                // Nobody publishes any more, so the scribe writes what it has gathered, and ends.
                let _ = tokio::time::timeout(LAST_EVENTS, scribe.join_next()).await;
            } else {
                // Nothing is lost: every pass may be cut off between any two of its writes.
                tracing::warn!("stopped in the middle of a pass, after {SHUTDOWN:?}");
            }
        }
        // No pass of this term may meet one of the next.
        passes.shutdown().await;
        scribe.shutdown().await;
        Ok(ended)
    }

    /// Starts the watches; answers with a way to wait for each cache.
    fn watch(&self, tasks: &mut JoinSet<()>) -> Vec<Reach> {
        let mut caches = Vec::new();
        let mut reach = || {
            let reach = Reach::default();
            caches.push(reach.clone());
            reach
        };
        let notify = {
            let (queue, jobs, call) = (self.queue.clone(), self.jobs.clone(), self.sweep_call.clone());
            let (cron_queue, crons) = (self.cron_queue.clone(), self.crons.clone());
            move |record: &JobRecord| {
                queue.add(&record.key);
                if jobs.get(&record.key).is_none() {
                    call.notify_one();
                }
                if let Some(run) = &record.run {
                    crons.concerned(&record.key.namespace, &run.cron_uid).iter().for_each(|key| cron_queue.add(key));
                }
            }
        };
        tasks.spawn(watch::run(
            self.api::<WireBatchJob>(),
            None,
            self.args.request_timeout,
            JobSink::new(self.jobs.clone(), notify.clone()),
            reach(),
            self.lists("BatchJob"),
        ));
        if self.args.managed_jobs {
            tasks.spawn(watch::run(
                self.api::<WireManagedJob>(),
                None,
                self.args.request_timeout,
                JobSink::new(self.jobs.clone(), notify),
                reach(),
                self.lists("Job"),
            ));
        }
        if self.args.cron_jobs {
            let queue = self.cron_queue.clone();
            let notify = move |key: &CronKey| queue.add(key);
            tasks.spawn(watch::run(
                self.api::<WireBatchCronJob>(),
                None,
                self.args.request_timeout,
                CronSink { crons: self.crons.clone(), notify },
                reach(),
                self.lists("BatchCronJob"),
            ));
        }
        let notify = {
            let (queue, jobs, call) = (self.queue.clone(), self.jobs.clone(), self.sweep_call.clone());
            move |place: &Place| match (place, jobs.key_of(place.uid())) {
                (Place::Owned(_), Some(key)) => queue.add(&key),
                // The job may adopt it; if it does not, it is to be let go.
                (Place::Orphan(_), Some(key)) => {
                    queue.add(&key);
                    call.notify_one();
                }
                (_, None) => call.notify_one(),
            }
        };
        tasks.spawn(watch::run(
            self.api::<WirePod>(),
            // Every pod of ours has it, and no other.
            Some(keys::ATTEMPT),
            self.args.request_timeout,
            PodSink { pods: self.pods.clone(), notify },
            reach(),
            self.lists("Pod"),
        ));
        caches
    }

    /// Takes part in the election, until told that it is over; None where there is no election.
    fn election(&self, is_over: channel::Receiver<bool>) -> (Option<Election>, JoinSet<()>) {
        let name = &self.args.leader_elect_resource_name;
        self.metrics.leads(name, false);
        if !self.args.leader_elect {
            return (None, JoinSet::new());
        }
        let flag = Some(&self.args.leader_elect_resource_namespace).filter(|namespace| !namespace.is_empty());
        let leases = Api::namespaced(self.clients.leasing.clone(), flag.unwrap_or(&self.clients.lease_namespace));
        let (elector, election) = Elector::new(leases, name, &self.identity, self.timing, self.clock.clone());
        (Some(election), task(elector.run(is_over)))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        let client = self.clients.watching.clone();
        match self.args.namespace() {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    /// Counts the lists of a watch.
    fn lists(&self, kind: &'static str) -> impl Fn() + Send + use<> {
        let metrics = self.metrics.clone();
        move || metrics.relisted(kind)
    }
}

/// A task that ends with whoever waits for it.
fn task(work: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    tasks
}

/// Who is alone leads for ever.
async fn next_term(election: Option<&Election>) -> Term {
    match election {
        Some(election) => election.won().await,
        None => Term::for_ever(),
    }
}

/// The name of the pod, and what tells it from another process of the same name.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "batchjob-operator".to_owned());
    let since_boot = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let ticks: String = since_boot.chars().take_while(|c| !c.is_whitespace()).filter(char::is_ascii_digit).collect();
    format!("{host}_{}-{ticks}", std::process::id())
}

/// The cluster that the operator runs in, or the one that the user's kubeconfig names.
pub async fn client_config() -> anyhow::Result<Config> {
    let mut config =
        Config::infer().await.context("failed to find a cluster: neither in a pod nor with a kubeconfig")?;
    // A pass tries again, on fresh state; the client must not.
    config.default_retry = false;
    // Who we are, in audit logs and in `managedFields`.
    let name = concat!("batchjob-operator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::from_static(name)));
    Ok(config)
}
