//! Every metric: name, labels, help. Nothing is labelled by job, pod or user, so nothing grows without bound.
//!
//! The first group has the names, labels and meanings of kube-controller-manager's Job metrics
//! (`pkg/controller/job/metrics/metrics.go`), so that dashboards and alerts for Jobs read ours.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use batchjob_crd::{CompletionMode, PodReplacementPolicy};
use batchjob_decide::Plan;
use batchjob_decide::job::status::finished_at;
use batchjob_decide::observed::Job;
use batchjob_decide::plan::Counted;
use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::act::Outcome;
use crate::observe::crons::Crons;
use crate::observe::job::JobKey;
use crate::observe::jobs::Jobs;
use crate::observe::pods::Pods;
use crate::queue::Queue;

/// Every metric.
pub struct Metrics {
    sync_duration: Family<SyncLabels, Histogram>,
    syncs: Family<SyncLabels, Counter>,
    jobs_finished: Family<FinishedLabels, Counter>,
    pods_finished: Family<PodsFinishedLabels, Counter>,
    by_policy: Family<PolicyLabels, Counter>,
    pods_created: Family<CreatedLabels, Counter>,
    indexes_finished: Family<IndexesLabels, Counter>,
    finalizers: Family<FinalizerLabels, Counter>,
    run_skew: Histogram,

    errors: Family<ErrorLabels, Counter>,
    events_dropped: Counter,
    relists: Family<KindLabels, Counter>,
    leads: Family<LeaseLabels, Gauge>,
    jobs: Gauge,
    crons: Gauge,
    pods: Gauge,
    queued: Gauge,
    resident: Gauge<f64, AtomicU64>,
    registry: Registry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncLabels {
    completion_mode: &'static str,
    result: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishedLabels {
    completion_mode: &'static str,
    result: &'static str,
    /// One of the few words of `batchjob_crd::reason`.
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodsFinishedLabels {
    completion_mode: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CreatedLabels {
    reason: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "upstream's label")]
struct IndexesLabels {
    status: &'static str,
    backoffLimit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinalizerLabels {
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// How a pass that carried out no plan ended.
#[derive(Clone, Copy, Debug)]
pub enum PassResult {
    Unreadable,
    Panicked,
}

impl Metrics {
    pub fn new() -> Arc<Metrics> {
        // Upstream's buckets: from 4 ms, doubling, 15 of them.
        let histogram: fn() -> Histogram = || Histogram::new((0..15).map(|n| 0.004 * f64::from(1 << n)));
        let mut metrics = Metrics {
            sync_duration: Family::new_with_constructor(histogram),
            syncs: Family::default(),
            jobs_finished: Family::default(),
            pods_finished: Family::default(),
            by_policy: Family::default(),
            pods_created: Family::default(),
            indexes_finished: Family::default(),
            finalizers: Family::default(),
            // Upstream's buckets: from 1 s, doubling, 10 of them.
            run_skew: Histogram::new((0..10).map(|n| f64::from(1 << n))),
            errors: Family::default(),
            events_dropped: Counter::default(),
            relists: Family::default(),
            leads: Family::default(),
            jobs: Gauge::default(),
            crons: Gauge::default(),
            pods: Gauge::default(),
            queued: Gauge::default(),
            resident: Gauge::default(),
            registry: Registry::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let job = self.registry.sub_registry_with_prefix("job_controller");
        job.register("job_sync_duration_seconds", "How long a pass over a job takes", self.sync_duration.clone());
        job.register("job_syncs", "Passes over jobs", self.syncs.clone());
        job.register("jobs_finished", "Jobs that have ended, and why", self.jobs_finished.clone());
        job.register("job_pods_finished", "Pods whose end is counted", self.pods_finished.clone());
        job.register(
            "pod_failures_handled_by_failure_policy",
            "Failures of pods that matched a rule of podFailurePolicy, by what the rule says",
            self.by_policy.clone(),
        );
        job.register("job_pods_creation", "Pods created, or refused", self.pods_created.clone());
        job.register("job_finished_indexes", "Indexes that have come to their end", self.indexes_finished.clone());
        // Upstream's (`pkg/controller/cronjob/metrics`).
        let cron = self.registry.sub_registry_with_prefix("cronjob_controller");
        cron.register(
            "job_creation_skew_duration_seconds",
            "Time between when a run of a BatchCronJob is scheduled to start, and when it is created",
            self.run_skew.clone(),
        );
        let own = self.registry.sub_registry_with_prefix("batchjob");
        own.register(
            "errors",
            "What went wrong, by class: unavailable, busy, failing, stale, refused, rejected, unreadable, panic",
            self.errors.clone(),
        );
        own.register("pod_finalizers", "Finalizers added to pods and taken off", self.finalizers.clone());
        own.register("events_dropped", "Events that were not written", self.events_dropped.clone());
        own.register("lists", "How often a watch began anew with a list", self.relists.clone());
        own.register(
            "jobs",
            "Jobs in the cache: BatchJobs, and the managed batch/v1 Jobs if they are watched",
            self.jobs.clone(),
        );
        own.register("cron_jobs", "BatchCronJobs in the cache", self.crons.clone());
        own.register("pods", "Pods in the cache", self.pods.clone());
        own.register("queued_jobs", "Jobs that wait for a worker", self.queued.clone());
        // Upstream's name (`k8s.io/component-base/metrics/prometheus/clientgo/leaderelection`).
        self.registry.register(
            "leader_election_master_status",
            "1 on the operator that leads, 0 on one that stands by",
            self.leads.clone(),
        );
        self.registry.register("process_resident_memory_bytes", "Memory in use", self.resident.clone());
        let build = prometheus_client::metrics::info::Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry.register("batchjob_build", "What is running", build);
    }

    /// A pass has ended.
    pub fn passed(&self, job: &Job, plan: &Plan, outcome: &Outcome, took: Duration) {
        let completion_mode = match job.spec.completion_mode.unwrap_or_default() {
            CompletionMode::Indexed => "Indexed",
            CompletionMode::NonIndexed => "NonIndexed",
        };
        let result = if outcome.error.is_some() { "error" } else { "success" };
        let action = action(job, plan);
        let labels = SyncLabels { completion_mode, result, action };
        self.sync_duration.get_or_create(&labels).observe(took.as_secs_f64());
        self.syncs.get_or_create(&labels).inc();
        let reason = creation_reason(job, plan);
        let created = |status| self.pods_created.get_or_create_owned(&CreatedLabels { reason, status });
        if outcome.n_created > 0 {
            created("succeeded").inc_by(outcome.n_created as u64);
        }
        self.finalizers.get_or_create(&FinalizerLabels { event: "add" }).inc_by(outcome.n_created as u64);
        self.finalizers.get_or_create(&FinalizerLabels { event: "delete" }).inc_by(outcome.n_released as u64);
        if outcome.is_counted {
            self.counted(job, completion_mode, plan);
        }
        if let Some(error) = &outcome.error {
            if error.is_create() {
                created("failed").inc();
            }
            self.errors.get_or_create(&ErrorLabels { class: error.label() }).inc();
        }
    }

    fn counted(&self, job: &Job, completion_mode: &'static str, plan: &Plan) {
        let pods = |result| self.pods_finished.get_or_create_owned(&PodsFinishedLabels { completion_mode, result });
        pods("succeeded").inc_by(u64::from(plan.counted.succeeded));
        pods("failed").inc_by(u64::from(plan.counted.failed));
        if completion_mode == "Indexed" {
            let limit = if job.spec.backoff_limit_per_index.is_some() { "perIndex" } else { "global" };
            let indexes = |status| IndexesLabels { status, backoffLimit: limit };
            let Counted { succeeded, failed_indexes, .. } = plan.counted;
            self.indexes_finished.get_or_create(&indexes("succeeded")).inc_by(u64::from(succeeded));
            self.indexes_finished.get_or_create(&indexes("failed")).inc_by(u64::from(failed_indexes));
        }
        for action in &plan.counted.by_policy {
            self.by_policy.get_or_create(&PolicyLabels { action: action.as_str() }).inc();
        }
        if let Some(finished) = &plan.counted.finished {
            let result = if finished.succeeded { "succeeded" } else { "failed" };
            let labels = FinishedLabels { completion_mode, result, reason: finished.reason.clone() };
            self.jobs_finished.get_or_create(&labels).inc();
        }
    }

    /// A run of a BatchCronJob was created, so long after its slot.
    pub fn run_created(&self, after: SignedDuration) {
        self.run_skew.observe(after.as_secs_f64());
    }

    /// A pass over a BatchCronJob failed.
    pub fn cron_failed(&self, class: &'static str) {
        self.errors.get_or_create(&ErrorLabels { class }).inc();
    }

    /// A pass that found nothing to decide on.
    pub fn pass(&self, result: PassResult) {
        match result {
            PassResult::Unreadable => self.errors.get_or_create(&ErrorLabels { class: "unreadable" }).inc(),
            PassResult::Panicked => self.errors.get_or_create(&ErrorLabels { class: "panic" }).inc(),
        };
    }

    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    pub fn relisted(&self, kind: &'static str) {
        self.relists.get_or_create(&KindLabels { kind }).inc();
    }

    /// Whether this operator holds that lease.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.leads.get_or_create(&LeaseLabels { name: lease.to_owned() }).set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    pub fn text(&self, jobs: &Jobs, crons: &Crons, pods: &Pods, queue: &Queue<JobKey>) -> String {
        self.jobs.set(jobs.count() as i64);
        self.crons.set(crons.count() as i64);
        self.pods.set(pods.count() as i64);
        self.queued.set(queue.count() as i64);
        self.resident.set(resident_bytes());
        let mut text = String::new();
        // Writing to a String cannot fail.
        encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}

/// Upstream's word for what a pass did: "tracking" where it looked whether pods should be created or deleted, and none
/// should; "reconciling" where it did not look, because the job ends.
fn action(job: &Job, plan: &Plan) -> &'static str {
    use batchjob_decide::Action;
    let has = |is: fn(&Action) -> bool| plan.actions.iter().any(is);
    if has(|action| matches!(action, Action::CreatePod(_))) {
        "pods_created"
    } else if has(|action| matches!(action, Action::DeletePod(_))) {
        "pods_deleted"
    } else if job.is_deleted || plan.counted.finished.is_some() || finished_at(&job.status).is_some() {
        "reconciling"
    } else {
        "tracking"
    }
}

/// Upstream's word for why pods are created (`recordJobPodsCreationTotal`).
fn creation_reason(job: &Job, plan: &Plan) -> &'static str {
    let has_failed = plan.counted.failed > 0 || job.status.failed.unwrap_or_default() > 0;
    let is_terminating = job.status.terminating.unwrap_or_default() > 0;
    let default = || job.spec.pod_failure_policy.as_ref().map(|_| PodReplacementPolicy::Failed).unwrap_or_default();
    match job.spec.pod_replacement_policy.unwrap_or_else(default) {
        PodReplacementPolicy::Failed if has_failed => "recreate_failed",
        _ if has_failed || is_terminating => "recreate_terminating_or_failed",
        _ => "new",
    }
}

/// 0 where the kernel does not say.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0
}
