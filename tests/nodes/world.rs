//! What a case stands on: a namespace, two nodes of its own, and jobs that go to the first of them.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, keys};
use batchjob_oracle::standing::Standing;
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Kubectl, Kwok, Namespace, Nodes, wait_for};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// A node that was not heard of for so long is not ready (`--node-monitor-grace-period`).
pub const GRACE: u64 = 10;
/// What the jobs of the cases set: how long they want to wait for a node that is not ready.
pub const TOLERATION: u64 = 5;
/// A node is found out, a pod is evicted and retried within this time, on a busy machine.
pub const SOON: Duration = Duration::from_secs(90);
/// For what Kubernetes' pod garbage collector does: it looks every 20 s, and asks twice in 40 s whether a node is gone.
pub const LATER: Duration = Duration::from_secs(150);

/// What the nodes of all cases have in common.
pub struct World {
    pub kubernetes: Kubernetes,
    /// How nodes and pods live.
    pub stages: PathBuf,
    /// From the last sign of a node to the attempt that does its work again, by case.
    pub bounds: Mutex<Vec<(String, f64)>>,
}

/// One case.
pub struct Case<'a> {
    pub world: &'a World,
    pub name: &'static str,
    pub namespace: Namespace,
    pub nodes: Api<Node>,
    pub pods: Api<Pod>,
    pub client: Client,
    /// The kubelet of the first node.
    pub first: Option<Kwok>,
}

/// Through which door a job comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    BatchJob,
    ManagedJob,
}

/// A job of a case.
#[derive(Clone)]
pub struct Played {
    pub door: Door,
    pub name: String,
    jobs: Api<DynamicObject>,
    pods: Api<Pod>,
}

impl World {
    /// Makes the nodes of the case, and starts the kubelet of the first; the others have one that is never stopped.
    pub async fn case(&self, name: &'static str) -> Result<Case<'_>> {
        let namespace = Namespace::new(&self.kubernetes, name).await?;
        let client = self.kubernetes.client().await?;
        let nodes: Api<Node> = Api::all(client.clone());
        for (which, more) in [("first", ("first", "true")), ("second", ("steady", "true"))] {
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": {
                "name": format!("{name}-{which}"), "labels": { "case": name, more.0: more.1 },
            } });
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        let case = Case {
            first: Some(Kwok::start(&self.kubernetes, &self.stages, Nodes::Named(&format!("{name}-first")))?),
            pods: Api::namespaced(client.clone(), &namespace.name),
            world: self,
            name,
            namespace,
            nodes,
            client,
        };
        for which in ["first", "second"] {
            case.until_node(which, "True").await?;
        }
        Ok(case)
    }
}

impl Case<'_> {
    pub fn node(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    /// Until the node's condition Ready is so, and the scheduler may use it if it is.
    pub async fn until_node(&self, which: &str, is_ready: &str) -> Result<()> {
        let name = self.node(which);
        wait_for(&format!("node {name}: Ready is {is_ready}"), SOON, async || {
            let node = self.nodes.get(&name).await?;
            let is_tainted = node.spec.and_then(|spec| spec.taints).is_some_and(|taints| !taints.is_empty());
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_so = conditions.iter().any(|it| it.type_ == "Ready" && it.status == is_ready);
            Ok((is_so && (is_ready == "True") != is_tainted).then_some(()))
        })
        .await
    }

    pub fn kubectl(&self) -> Kubectl {
        self.namespace.kubectl.clone()
    }

    /// The same job through both doors, as soon as its first attempts run on the first node.
    pub async fn play(&self, name: &str, spec: &Value, annotations: &Value) -> Result<Vec<Played>> {
        let mut played = Vec::new();
        for door in [Door::BatchJob, Door::ManagedJob] {
            let name = if door == Door::BatchJob { name.to_owned() } else { format!("{name}-managed") };
            played.push(self.create(door, &name, spec, annotations).await?);
        }
        for job in &played {
            let pod = job.pod(1).await?;
            ensure!(node_of(&pod) == self.node("first"), "{} runs on {}", pod.name_any(), node_of(&pod));
            job.until_pod(1, "it runs", |pod| phase(pod) == "Running").await?;
        }
        Ok(played)
    }

    pub async fn create(&self, door: Door, name: &str, spec: &Value, annotations: &Value) -> Result<Played> {
        let (resource, manager) = match door {
            Door::BatchJob => (ApiResource::erase::<BatchJob>(&()), None),
            Door::ManagedJob => (ApiResource::erase::<Job>(&()), Some(keys::MANAGED_BY)),
        };
        let mut whole = spec.clone();
        let fields = whole.as_object_mut().context("a spec")?;
        fields.extend(manager.map(|manager| ("managedBy".to_owned(), manager.into())));
        fields.entry("template").or_insert_with(|| template(self.name, annotations));
        let job = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": { "name": name }, "spec": whole,
        });
        let jobs: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace.name, &resource);
        jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
        Ok(Played { door, name: name.to_owned(), jobs, pods: self.pods.clone() })
    }

    /// Stops the first node's kubelet for good.
    pub fn lose(&mut self) -> Result<Timestamp> {
        self.first.take().context("the node is there")?.kill()?;
        Ok(now())
    }

    pub fn pause(&self) -> Result<Timestamp> {
        self.first.as_ref().context("the node is there")?.pause()?;
        Ok(now())
    }

    pub fn resume(&self) -> Result<()> {
        self.first.as_ref().context("the node is there")?.resume()
    }

    /// As a cloud does that has taken a machine away.
    pub async fn delete_first(&self) -> Result<()> {
        self.nodes.delete(&self.node("first"), &DeleteParams::default()).await?;
        Ok(())
    }

    /// How long it took from `since` to the creation of that pod.
    pub fn measure(&self, since: Timestamp, pod: &Pod) -> Result<Duration> {
        let created = pod.metadata.creation_timestamp.as_ref().context("a creation time")?.0;
        let took = Duration::try_from(created.duration_since(since)).unwrap_or_default();
        let mut bounds = self.world.bounds.lock().map_err(|_| anyhow::anyhow!("a case has panicked"))?;
        bounds.push((self.name.to_owned(), took.as_secs_f64()));
        Ok(took)
    }
}

impl Played {
    /// The pod of that attempt of index 0, as soon as it has a node.
    pub async fn pod(&self, attempt: u32) -> Result<Pod> {
        self.until_pod(attempt, "it has a node", |pod| !node_of(pod).is_empty()).await
    }

    pub async fn until_pod(&self, attempt: u32, what: &str, is_so: impl Fn(&Pod) -> bool) -> Result<Pod> {
        wait_for(&format!("{} attempt {attempt}: {what}", self.name), SOON, async || {
            Ok(self.attempts().await?.into_iter().find(|pod| attempt_of(pod) == Some(attempt) && is_so(pod)))
        })
        .await
    }

    /// Until the API server has removed the pod of that attempt.
    pub async fn until_gone(&self, attempt: u32) -> Result<()> {
        wait_for(&format!("{} attempt {attempt} is gone", self.name), LATER, async || {
            let attempts = self.attempts().await?;
            Ok(attempts.iter().all(|pod| attempt_of(pod) != Some(attempt)).then_some(()))
        })
        .await
    }

    /// Its pods, in the order of their attempts.
    pub async fn attempts(&self) -> Result<Vec<Pod>> {
        let of_job = ListParams::default().labels(&format!("{}={}", keys::JOB_NAME, self.name));
        let mut pods = self.pods.list(&of_job).await?.items;
        pods.sort_by_key(attempt_of);
        Ok(pods)
    }

    pub async fn standing(&self) -> Result<Standing> {
        let json = serde_json::to_value(self.jobs.get(&self.name).await?)?;
        Ok(match self.door {
            Door::BatchJob => Standing::from(&serde_json::from_value::<BatchJob>(json)?),
            Door::ManagedJob => Standing::from(&serde_json::from_value::<Job>(json)?),
        })
    }

    pub async fn until(&self, limit: Duration, what: &str, is_so: impl Fn(&Standing) -> bool) -> Result<Standing> {
        let what = format!("{}: {what}", self.name);
        let ask = async || Ok(Some(self.standing().await?).filter(|job| is_so(job)));
        match wait_for(&what, limit, ask).await {
            Ok(found) => Ok(found),
            Err(error) => Err(error.context(format!("{} stands at {:?}", self.name, self.standing().await?))),
        }
    }

    /// Its work is done; whether it is over depends on pods that still end.
    pub async fn until_done(&self, limit: Duration) -> Result<Standing> {
        self.until(limit, "its work is done", |job| has(job, "SuccessCriteriaMet")).await
    }

    pub async fn until_complete(&self, limit: Duration) -> Result<Standing> {
        self.until(limit, "it is complete", |job| has(job, "Complete")).await
    }

    /// Ends it, pods and all.
    pub async fn delete(&self) -> Result<()> {
        self.jobs.delete(&self.name, &DeleteParams::background()).await?;
        Ok(())
    }
}

/// Sets a condition of a node, as its kubelet would.
pub async fn set_condition(nodes: &Api<Node>, name: &str, type_: &str, status: &str) -> Result<()> {
    let at = now();
    let condition = json!({
        "type": type_, "status": status, "reason": "Test", "message": "a test says so",
        "lastHeartbeatTime": at, "lastTransitionTime": at,
    });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    nodes.patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A pod that goes to the case's first node, or else to its second.
pub fn template(case: &str, annotations: &Value) -> Value {
    let wait = |taint: &str| json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION });
    let first = json!([{ "weight": 100, "preference": {
        "matchExpressions": [{ "key": "first", "operator": "Exists" }],
    } }]);
    json!({
        "metadata": { "annotations": annotations },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "nodeSelector": { "case": case },
            "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": first } },
            "tolerations": [wait("node.kubernetes.io/not-ready"), wait("node.kubernetes.io/unreachable")],
            "containers": [{ "name": "main", "image": "none" }],
        },
    })
}

pub fn has(job: &Standing, condition: &str) -> bool {
    job.conditions.iter().any(|it| it.type_ == condition && it.is_true)
}

pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn is_told(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Why the cluster ends it, if it does: the reason of the condition DisruptionTarget.
pub fn disruption(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|it| it.type_ == "DisruptionTarget" && it.status == "True")?;
    found.reason.clone()
}

pub fn attempt_of(pod: &Pod) -> Option<u32> {
    pod.metadata.labels.as_ref()?.get(keys::ATTEMPT)?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "it is measured how long something takes")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
