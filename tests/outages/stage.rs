//! The jobs, what becomes of their pods and what their users do while the API server is away, and what is due once it is
//! back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use batchjob_crd::{BatchJob, keys};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::kubelet::{NODE, ago, condition, container, gone_or};
use crate::support::wait_for;

/// How often the kubelet looks.
const LOOK: Duration = Duration::from_millis(100);
/// On a busy machine, and while etcd is full for a minute.
const LIMIT: Duration = Duration::from_secs(120);
/// No retry delay is left.
const LONG_AGO: Duration = Duration::from_secs(20 * 60);

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    #[default]
    Begins,
    Away,
    Ends,
}

/// A namespace with jobs.
pub struct Stage {
    client: Client,
    namespace: String,
    pods: Api<Pod>,
    act: watch::Sender<Act>,
    /// The pods that have to outlive everything.
    steady: BTreeSet<String>,
}

/// Each with its kind, and how many pods run before the outage.
const JOBS: [(&str, Kind, u64); 5] = [
    // Of the first three pods two succeed and one fails while the API server is away.
    ("indexed", Kind::BatchJob, 3),
    ("managed", Kind::ManagedJob, 3),
    // Nothing happens to it.
    ("steady", Kind::BatchJob, 2),
    // Their user suspends the one and deletes the other meanwhile.
    ("suspended", Kind::BatchJob, 2),
    ("deleted", Kind::BatchJob, 2),
];
/// Its user creates it meanwhile.
const LATE: (&str, Kind, u64) = ("late", Kind::BatchJob, 2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BatchJob,
    ManagedJob,
}

impl Stage {
    pub fn new(client: Client, namespace: &str) -> Stage {
        let pods = Api::namespaced(client.clone(), namespace);
        Stage { client, namespace: namespace.to_owned(), pods, act: watch::Sender::default(), steady: BTreeSet::new() }
    }

    /// Creates the jobs, and waits until all of their pods run and the statuses say so. The kubelet has to play.
    pub async fn begin(&mut self) -> Result<()> {
        for (name, kind, n) in JOBS {
            self.create(name, kind, n).await?;
        }
        for (name, kind, n) in JOBS {
            wait_for(&format!("the pods of {name} run"), LIMIT, async || {
                let status = self.status(name, kind).await?;
                Ok((status["active"] == n && status["ready"] == n).then_some(()))
            })
            .await?;
        }
        self.steady = self.of("steady").await?.iter().map(Seen::uid).collect();
        ensure!(self.steady.len() == 2, "two pods are steady");
        Ok(())
    }

    /// Pods end, and users do what they like. Each of it is tried until the API server does it.
    pub async fn meanwhile(&self) -> Result<()> {
        self.act.send_replace(Act::Away);
        wait_for("a job is created", LIMIT, async || {
            self.create(LATE.0, LATE.1, LATE.2).await?;
            Ok(Some(()))
        })
        .await?;
        let jobs = self.jobs(Kind::BatchJob);
        wait_for("a job is suspended", LIMIT, async || {
            let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
            Ok(Some(jobs.patch("suspended", &PatchParams::default(), &patch).await?))
        })
        .await?;
        wait_for("a job is deleted", LIMIT, async || match jobs.get_opt("deleted").await? {
            Some(job) if job.metadata.deletion_timestamp.is_none() => {
                jobs.delete("deleted", &DeleteParams::background()).await?;
                Ok(None)
            }
            _ => Ok(Some(())),
        })
        .await?;
        wait_for("pods have ended", LIMIT, async || {
            let mut n_ended = 0;
            for name in ["indexed", "managed"] {
                n_ended += self.of(name).await?.iter().filter(|pod| pod.has_ended()).count();
            }
            Ok((n_ended >= 6).then_some(()))
        })
        .await
    }

    /// What has to be done, and is not yet.
    pub async fn due(&self) -> Result<Vec<String>> {
        let mut due = Vec::new();
        for name in ["indexed", "managed"] {
            let kind = if name == "managed" { Kind::ManagedJob } else { Kind::BatchJob };
            let (status, pods) = (self.status(name, kind).await?, self.of(name).await?);
            if status["succeeded"] != 2 || status["failed"] != 1 {
                due.push(format!("{name}: two successes and a failure are to be counted"));
            }
            if pods.iter().any(|pod| pod.has_ended() && pod.is_held()) {
                due.push(format!("{name}: pods that have ended are to be let go"));
            }
            if pods.iter().filter(|pod| !pod.has_ended()).count() != 3 {
                due.push(format!("{name}: three pods are to run"));
            }
        }
        if self.of("suspended").await?.iter().any(|pod| !pod.has_ended() && !pod.is_deleted()) {
            due.push("suspended: its pods are to go".to_owned());
        }
        if self.of("deleted").await?.iter().any(Seen::is_held) {
            due.push("deleted: its pods are to be let go".to_owned());
        }
        if self.of("late").await?.len() != 2 {
            due.push("late: two pods are to run".to_owned());
        }
        Ok(due)
    }

    /// The pods of a job to which nothing happened: each still has to run.
    pub async fn lost(&self) -> Result<Vec<String>> {
        let there: BTreeSet<String> =
            self.of("steady").await?.iter().filter(|pod| !pod.is_deleted()).map(Seen::uid).collect();
        Ok(self
            .steady
            .difference(&there)
            .map(|uid| format!("the pod with uid {uid} was deleted for no reason"))
            .collect())
    }

    /// Everything comes to its end.
    pub async fn end(&self) -> Result<()> {
        self.act.send_replace(Act::Ends);
        for (name, kind, _) in
            JOBS.into_iter().chain([LATE]).filter(|(name, ..)| !["suspended", "deleted"].contains(name))
        {
            wait_for(&format!("{name} is complete"), LIMIT, async || {
                let status = self.status(name, kind).await?;
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let mut is_complete = conditions.map(|found| found["type"] == "Complete" && found["status"] == "True");
                Ok(is_complete.any(|it| it).then_some(()))
            })
            .await?;
        }
        wait_for("no pod is held", LIMIT, async || {
            let pods = self.pods.list(&ListParams::default()).await?.items;
            let is_waited_for = |pod: Seen| pod.is_held() || pod.is_deleted();
            Ok((!pods.into_iter().map(Seen).any(is_waited_for)).then_some(()))
        })
        .await
    }

    async fn create(&self, name: &str, kind: Kind, n: u64) -> Result<()> {
        let resource = kind.resource();
        let mut job = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": { "name": name },
            "spec": {
                "completionMode": "Indexed", "parallelism": n,
                "completions": if n == 3 { 6 } else { n },
                "template": { "spec": {
                    // There is no such node and nobody asks; that the pods are born with it saves the scheduler.
                    "nodeName": NODE, "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }],
                } },
            },
        });
        if kind == Kind::ManagedJob {
            job["spec"]["managedBy"] = keys::MANAGED_BY.into();
        }
        match self.jobs(kind).create(&PostParams::default(), &serde_json::from_value(job)?).await {
            // It was done the last time, and the answer was something else.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn jobs(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    async fn status(&self, name: &str, kind: Kind) -> Result<Value> {
        Ok(self.jobs(kind).get(name).await?.data["status"].take())
    }

    async fn of(&self, job: &str) -> Result<Vec<Seen>> {
        let pods = self.pods.list(&ListParams::default().labels(&format!("{}={job}", keys::JOB_NAME))).await?;
        Ok(pods.items.into_iter().map(Seen).collect())
    }

    /// Plays the kubelet, until it is dropped. What the API server does not take is said again at the next look.
    pub fn kubelet(&self) -> impl Future<Output = ()> + Send + use<> {
        let (pods, act) = (self.pods.clone(), self.act.subscribe());
        async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Ok(list) = pods.list(&ListParams::default()).await else { continue };
                let act = *act.borrow();
                for pod in list.items {
                    // It comes again.
                    let _ = look_at(&pods, &Seen(pod), act).await;
                }
            }
        }
    }
}

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Kind::BatchJob => ApiResource::erase::<BatchJob>(&()),
            Kind::ManagedJob => ApiResource::erase::<Job>(&()),
        }
    }
}

/// A pod, as a kubelet and this story look at it.
struct Seen(Pod);

impl Seen {
    fn uid(&self) -> String {
        self.0.uid().unwrap_or_default()
    }

    fn phase(&self) -> &str {
        self.0.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    fn has_ended(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn is_deleted(&self) -> bool {
        self.0.metadata.deletion_timestamp.is_some()
    }

    fn is_held(&self) -> bool {
        let ours = [keys::POD_FINALIZER, keys::JOB_POD_FINALIZER];
        self.0.finalizers().iter().any(|finalizer| ours.contains(&finalizer.as_str()))
    }

    /// Which attempt of which index of which job.
    fn place(&self) -> (&str, &str, &str) {
        let label = |key| self.0.labels().get(key).map(String::as_str).unwrap_or_default();
        (label(keys::JOB_NAME), label(keys::COMPLETION_INDEX), label(keys::ATTEMPT))
    }
}

async fn look_at(pods: &Api<Pod>, pod: &Seen, act: Act) -> Result<()> {
    let name = pod.0.name_any();
    let grace = pod.0.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let exit_code = match (pod.has_ended(), pod.is_deleted()) {
        (true, true) if grace > 0 => {
            return gone_or(pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop));
        }
        (true, _) => return Ok(()),
        // By the signal.
        (false, true) => 143,
        (false, false) if pod.phase() != "Running" => {
            let state = json!({ "running": { "startedAt": ago(LONG_AGO) } });
            return says(pods, pod, "Running", &state).await;
        }
        (false, false) => match (pod.place(), act) {
            (_, Act::Begins) => return Ok(()),
            (("indexed" | "managed", "0" | "1", "1"), _) => 0,
            (("indexed" | "managed", "2", "1"), _) => 1,
            (_, Act::Away) => return Ok(()),
            (_, Act::Ends) => 0,
        },
    };
    let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let ended = json!({ "exitCode": exit_code, "reason": reason, "finishedAt": ago(LONG_AGO) });
    says(pods, pod, phase, &json!({ "terminated": ended })).await
}

async fn says(pods: &Api<Pod>, pod: &Seen, phase: &str, state: &Value) -> Result<()> {
    let runs: Timestamp = ago(LONG_AGO);
    let status = json!({
        "phase": phase,
        "conditions": [condition("Ready", state.get("running").is_some(), runs)],
        "containerStatuses": [container("main", state, 0)],
    });
    let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
    gone_or(pods.patch_status(&pod.0.name_any(), &PatchParams::default(), &patch).await.map(drop))
}
