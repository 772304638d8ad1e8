//! /healthz, /readyz and /metrics, on a thread of their own: a busy operator must not look like a dead one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::link::Link;
use crate::metrics::Metrics;
use crate::observe::crons::Crons;
use crate::observe::job::JobKey;
use crate::observe::jobs::Jobs;
use crate::observe::pods::Pods;
use crate::observe::watch::Reach;
use crate::queue::Queue;

/// An operator whose tasks have not run for so long hangs.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// A watch that hears nothing for so long from an API server that answers does not heal by itself. Three times over it
/// has found its connection dead and tried another.
const HEALS_WITHIN: Duration = Duration::from_secs(180);

/// How the operator is, as its tasks say.
///
/// It is alive as long as it heals by itself. An API server that is away is no reason to end: a new process would not find
/// it either.
pub struct Health {
    started: Instant,
    last_beat_ms: AtomicU64,
    is_ready: AtomicBool,
    link: OnceLock<Link>,
    watches: OnceLock<Vec<Reach>>,
}

impl Health {
    pub fn new() -> Arc<Health> {
        Arc::new(Health {
            started: Instant::now(),
            last_beat_ms: AtomicU64::new(0),
            is_ready: AtomicBool::new(false),
            link: OnceLock::new(),
            watches: OnceLock::new(),
        })
    }

    /// Who knows whether the API server is there.
    pub fn link(&self, link: Link) {
        // It is told once.
        let _ = self.link.set(link);
    }

    /// What has to hear from the API server.
    pub fn watches(&self, watches: Vec<Reach>) {
        // They are started once.
        let _ = self.watches.set(watches);
    }

    /// Beats once a second for as long as the tasks run.
    pub async fn beat(self: Arc<Self>) {
        loop {
            self.last_beat_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Every cache knows all that there is.
    pub fn ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// What is wrong that only a new process can mend.
    fn ailment(&self) -> Option<&'static str> {
        let last_beat = Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed));
        if self.started.elapsed().saturating_sub(last_beat) >= STUCK_AFTER {
            return Some("the tasks of the operator have not run for 30 s\n");
        }
        let is_there = self.link.get().and_then(Link::there_since).is_some_and(|since| since.elapsed() >= HEALS_WITHIN);
        let is_deaf = |watch: &Reach| watch.heard_at().elapsed() >= HEALS_WITHIN;
        if is_there && self.watches.get().is_some_and(|watches| watches.iter().any(is_deaf)) {
            return Some("a watch has heard nothing for 3 min, although the API server answers\n");
        }
        None
    }
}

/// What is served.
#[derive(Clone)]
pub struct Admin {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub jobs: Arc<Jobs>,
    pub crons: Arc<Crons>,
    pub pods: Arc<Pods>,
    pub queue: Arc<Queue<JobKey>>,
}

impl Admin {
    /// Serves until the process ends. An address that cannot be had is an error at once.
    pub fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = std::net::TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("failed to listen on {address} (--listen)"))?;
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let served = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => axum::serve(listener, router).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::error!(%error, "health and metrics are served no more");
                }
            });
        })?;
        Ok(())
    }
}

async fn healthz(State(admin): State<Admin>) -> impl IntoResponse {
    let ailment = admin.health.ailment();
    answer(ailment.is_none(), ailment.unwrap_or_default())
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    answer(
        admin.health.is_ready.load(Ordering::Acquire),
        "the jobs and pods are not listed yet: the log says what is in the way, if anything is",
    )
}

fn answer(is_well: bool, otherwise: &'static str) -> (StatusCode, &'static str) {
    if is_well { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise) }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let text = admin.metrics.text(&admin.jobs, &admin.crons, &admin.pods, &admin.queue);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_ill_when_a_watch_stays_deaf_to_an_api_server_that_answers() {
        let config = Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let (health, watches) = (Health::new(), vec![Reach::default(), Reach::default()]);
        health.watches(watches.clone());
        tokio::time::advance(HEALS_WITHIN * 2).await;
        assert_eq!(health.ailment(), None, "nobody says that the API server is there");
        // It has been there since now, and so it is not yet for long enough.
        health.link(Link::new(config, "operator"));
        assert_eq!(health.ailment(), None);
        tokio::time::advance(HEALS_WITHIN).await;
        watches[0].hear();
        assert!(health.ailment().is_some_and(|ailment| ailment.starts_with("a watch has heard nothing")));
        watches[1].hear();
        assert_eq!(health.ailment(), None);
    }
}
