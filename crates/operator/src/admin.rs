//! /healthz, /readyz and /metrics, on a thread of their own: a busy operator must not look like a dead one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;
use crate::observe::jobs::Jobs;
use crate::observe::pods::Pods;
use crate::queue::Queue;

/// An operator whose tasks have not run for so long hangs.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// How the operator is, as its tasks say.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    last_beat_ms: AtomicU64,
    is_ready: AtomicBool,
}

impl Health {
    pub fn new() -> Arc<Health> {
        Arc::new(Health { started: Instant::now(), last_beat_ms: AtomicU64::new(0), is_ready: AtomicBool::new(false) })
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

    fn is_alive(&self) -> bool {
        let last_beat = Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last_beat) < STUCK_AFTER
    }
}

/// What is served.
#[derive(Clone)]
pub struct Admin {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub jobs: Arc<Jobs>,
    pub pods: Arc<Pods>,
    pub queue: Arc<Queue>,
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
    answer(admin.health.is_alive(), "the tasks of the operator have not run for 30 s")
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
    let text = admin.metrics.text(&admin.jobs, &admin.pods, &admin.queue);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
