//! The wiring: which task feeds which, in one readable list.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use batchjob_crd::keys;
use futures::future::join_all;
use kube::{Api, Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::act::Actor;
use crate::admin::{Admin, Health};
use crate::args::OperatorArgs;
use crate::controller::Controller;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::observe::job::{JobKey, WireBatchJob, WireManagedJob};
use crate::observe::jobs::{JobSink, Jobs};
use crate::observe::pods::{PodSink, Pods};
use crate::observe::watch::{self, Progress};
use crate::observe::wire::{Place, WirePod};
use crate::queue::Queue;
use crate::sweep::Sweep;
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
    // Watches have connections of their own, so that no write waits behind them.
    let watching = client(config.clone())?;
    let writer = Writer::new(client(config)?, args.max_requests_in_flight, args.request_timeout);

    let metrics = Metrics::new();
    let health = Health::new();
    let queue = Arc::new(Queue::default());
    let actor = Actor { writer: writer.clone(), jobs: Arc::new(Jobs::default()), pods: Arc::new(Pods::default()) };
    let admin = Admin {
        health: health.clone(),
        metrics: metrics.clone(),
        jobs: actor.jobs.clone(),
        pods: actor.pods.clone(),
        queue: queue.clone(),
    };
    admin.serve(args.listen)?;
    let namespace = args.namespace().unwrap_or("all namespaces");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), server, namespace, listen = %args.listen, "starting");

    let sweep_call = Arc::new(Notify::new());
    let (left, who_left) = mpsc::unbounded_channel();
    let mut caches = Vec::new();
    let mut cache = || {
        let is_filled = Arc::new(Notify::new());
        caches.push(is_filled.clone());
        is_filled
    };
    // Each of these runs for ever: one that ends takes the operator with it, to be started anew.
    let mut tasks = JoinSet::new();
    tasks.spawn(health.clone().beat());
    let notify = {
        let (queue, jobs, call) = (queue.clone(), actor.jobs.clone(), sweep_call.clone());
        move |key: &JobKey| {
            queue.add(key);
            if jobs.get(key).is_none() {
                call.notify_one();
            }
        }
    };
    tasks.spawn(watch::run(
        api::<WireBatchJob>(watching.clone(), args.namespace()),
        None,
        args.request_timeout,
        JobSink::new(actor.jobs.clone(), notify.clone()),
        watch_progress(&metrics, "BatchJob", cache()),
    ));
    if args.managed_jobs {
        tasks.spawn(watch::run(
            api::<WireManagedJob>(watching.clone(), args.namespace()),
            None,
            args.request_timeout,
            JobSink::new(actor.jobs.clone(), notify),
            watch_progress(&metrics, "Job", cache()),
        ));
    }
    tasks.spawn(watch::run(
        api::<WirePod>(watching, args.namespace()),
        // Every pod of ours has it, and no other.
        Some(keys::ATTEMPT),
        args.request_timeout,
        PodSink {
            pods: actor.pods.clone(),
            notify: {
                let (queue, jobs, call) = (queue.clone(), actor.jobs.clone(), sweep_call.clone());
                move |place: &Place| match (place, jobs.key_of(place.uid())) {
                    (Place::Owned(_), Some(key)) => queue.add(&key),
                    // The job may adopt it; if it does not, it is to be let go.
                    (Place::Orphan(_), Some(key)) => {
                        queue.add(&key);
                        call.notify_one();
                    }
                    (_, None) => call.notify_one(),
                }
            },
            left,
        },
        watch_progress(&metrics, "Pod", cache()),
    ));

    // Nothing is decided, and nothing let go, before every cache knows all that was written before now.
    tokio::select! {
        _ = join_all(caches.iter().map(|is_filled| is_filled.notified())) => health.ready(),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
    }
    tracing::info!(jobs = actor.jobs.len(), pods = actor.pods.len(), "watching");
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "batchjob-operator".to_owned());
    let (recorder, scribe) = Recorder::new(writer, metrics.clone(), instance);
    let scribe = tokio::spawn(scribe);
    tasks.spawn(Sweep { actor: actor.clone(), call: sweep_call, who_left, has_managed_jobs: args.managed_jobs }.run());
    let controller = Arc::new(Controller::new(actor, queue.clone(), recorder, metrics));
    let mut passes = tokio::spawn(controller.run(args.workers));

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing what has begun"),
        _ = interrupt.recv() => tracing::info!("SIGINT: finishing what has begun"),
        ended = tasks.join_next() => bail!("a task has ended, which is a bug: {ended:?}"),
        ended = &mut passes => bail!("the workers have ended, which is a bug: {ended:?}"),
    }
    queue.close();
    match tokio::time::timeout(SHUTDOWN, passes).await {
        Ok(_) => {
            // Nobody publishes any more, so the scribe writes what it has gathered, and ends.
            let _ = tokio::time::timeout(LAST_EVENTS, scribe).await;
            tracing::info!("stopped");
        }
        // Nothing is lost: every pass may be cut off between any two of its writes.
        Err(_) => tracing::warn!("stopped in the middle of a pass, after {SHUTDOWN:?}"),
    }
    Ok(())
}

/// The cluster that the operator runs in, or the one that the user's kubeconfig names.
pub async fn client_config() -> anyhow::Result<Config> {
    let mut config =
        Config::infer().await.context("failed to find a cluster: neither in a pod nor with a kubeconfig")?;
    // A pass tries again, on fresh state; the client must not.
    config.default_retry = false;
    Ok(config)
}

fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).context("failed to set up the connection to the cluster")
}

fn api<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Counts the lists of a watch, and says when its cache has been filled.
fn watch_progress(metrics: &Arc<Metrics>, kind: &'static str, is_filled: Arc<Notify>) -> impl Fn(Progress) + use<> {
    let metrics = metrics.clone();
    move |progress| match progress {
        Progress::Listing => metrics.relisted(kind),
        Progress::Filled => is_filled.notify_one(),
    }
}
