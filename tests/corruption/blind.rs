//! An object that the API server itself cannot read: lists and watches of its whole kind fail, for everybody, until somebody
//! repairs it or removes it.
//!
//! What holds then: the operator goes on with the jobs that it knows, writes nothing wrong about those that it cannot see,
//! and does not end, nor does one that starts meanwhile; and when the object is repaired, all goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_crd::keys;
use serde_json::{Value, json};

use super::jobs::{Job, is_over, is_running, label, name};
use super::kubelet::ends;
use super::rest::{Rest, text};
use super::round::Place;
use super::stored::Kind;
use crate::support::{Namespace, Operator, wait_for};

const SOON: Duration = Duration::from_secs(120);

/// How it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The second half is missing.
    InHalf,
    /// No byte of it is what it was.
    Noise,
    /// A version that is still to come.
    FutureVersion,
}

impl Cut {
    pub const ALL: [Cut; 3] = [Cut::InHalf, Cut::Noise, Cut::FutureVersion];

    fn of(self, value: &[u8]) -> Vec<u8> {
        match self {
            Cut::InHalf => value[..value.len() / 2].to_vec(),
            Cut::Noise => value.iter().map(|byte| byte ^ 0x55).collect(),
            Cut::FutureVersion => {
                // Of the same length: in protobuf the length stands before it.
                let text: Vec<u8> = value.to_vec();
                ["v1alpha1", "batch/v1", "v1"].iter().fold(text, |text, version| {
                    let future = format!("{}9", &version[..version.len() - 1]);
                    replace_first(&text, version.as_bytes(), future.as_bytes())
                })
            }
        }
    }
}

fn replace_first(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|found| found == from) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text.to_vec(),
    }
}

/// Answers with how long everybody was blind, and what is wrong.
pub async fn play(
    place: &Place<'_>,
    operator: &mut Operator,
    arguments: &[&str],
    kind: Kind,
    cut: Cut,
) -> Result<(Duration, Vec<String>)> {
    let mut violations = Vec::new();
    let namespace =
        Namespace::new(place.kubernetes, &format!("cut-{kind:?}-{cut:?}").to_lowercase()).await?.name.clone();
    let (pods, door) =
        (Rest::pods(&place.client, &namespace), if kind == Kind::Job { Kind::Job } else { Kind::BatchJob });
    let job = |name: &str| Job::new(&place.client, door, &namespace, name);
    let (victim, known) = (job("victim"), job("known"));
    for job in [&victim, &known] {
        job.create().await?;
    }
    let its_pods = wait_for("all pods run, and the operator knows", SOON, async || {
        let (victims, knowns) = (victim.its_pods().await?, known.its_pods().await?);
        let run = [&victims, &knowns].iter().all(|pods| pods.iter().filter(|pod| is_running(pod)).count() == 2);
        let is_ready = known.get().await?["status"]["ready"] == 2;
        Ok((run && is_ready).then_some((victims, knowns)))
    });
    let (of_victim, of_known) = its_pods.await?;
    let key = match kind {
        Kind::Pod => kind.key(&namespace, name(&of_victim[0])),
        Kind::BatchJob | Kind::Job => kind.key(&namespace, "victim"),
    };
    let entry = place.etcd.get(&key).await?;
    place.etcd.put(&key, &cut.of(&entry.value)).await?;
    let began = Instant::now();
    let all = match kind {
        Kind::Pod => pods.clone(),
        Kind::Job => Rest::new(&place.client, "batch/v1", "jobs", &namespace),
        Kind::BatchJob => Rest::new(&place.client, "batchjob.dev/v1alpha1", "batchjobs", &namespace),
    };
    wait_for("lists of the kind fail", SOON, async || Ok(all.list().await.is_err().then_some(()))).await?;

    for pod in &of_known {
        ends(&pods, name(pod), 0).await?;
    }
    if kind != Kind::Pod {
        // What the operator knows already goes on.
        let over = wait_for("a job that is known comes to its end", SOON, async || {
            Ok(is_over(&known.get().await?).then_some(()))
        });
        violations.extend(over.await.err().map(|error| format!("{kind:?} {cut:?}: {error:#}")));
    }
    ensure!(operator.is_running()?, "the operator has ended: {}", operator.tail());

    // One that starts while everybody is blind waits, too.
    let started = Operator::spawn(place.kubernetes, &place.kubernetes.kubeconfig(), arguments)?;
    std::mem::replace(operator, started).kill()?;
    wait_for("it has tried to list", SOON, async || {
        ensure!(operator.is_running()?, "the operator has ended: {}", operator.tail());
        Ok((operator.tail().matches("trying again").count() >= 2).then_some(()))
    })
    .await?;
    let ready = operator.get("/readyz").await?;
    if ready.starts_with("HTTP/1.1 200") {
        violations.push(format!("{kind:?} {cut:?}: an operator that sees nothing says that it is ready"));
    }
    for pod in of_victim.iter().chain(&of_known) {
        // The one that is broken cannot be read by anybody.
        let Ok(now) = pods.get(name(pod)).await else { continue };
        if now["metadata"]["uid"] != pod["metadata"]["uid"] || !now["metadata"]["deletionTimestamp"].is_null() {
            violations.push(format!("{kind:?} {cut:?}: a pod was deleted by one who could not see: {now}"));
        }
    }

    // As an administrator would.
    let is_removed = cut == Cut::InHalf;
    if is_removed {
        all.delete_unread(key.rsplit('/').next().context("a key ends with a name")?).await?;
    } else {
        place.etcd.put(&key, &entry.value).await?;
    }
    let blind = began.elapsed();
    let fresh = job("fresh");
    wait_for("a new job can be made", SOON, async || Ok(fresh.create().await.ok())).await?;
    place.kubelet.finish(&namespace);
    if is_removed && kind != Kind::Pod {
        let gone = wait_for("the pods of a job that was removed are let go", SOON, async || {
            Ok(victim.its_pods().await?.is_empty().then_some(()))
        });
        violations.extend(gone.await.err().map(|error| format!("{kind:?} {cut:?}: {error:#}")));
    }
    for job in [&victim, &known, &fresh] {
        if is_removed && kind != Kind::Pod && job.name == victim.name {
            continue;
        }
        let over = wait_for("it goes on", SOON, async || {
            let job = job.get().await?;
            // A Job leaves out a count of nothing.
            let n = |count: &str| job["status"][count].as_i64().unwrap_or_default();
            Ok((is_over(&job) && (n("succeeded"), n("failed")) == (2, 0)).then_some(()))
        });
        if let Err(error) = over.await {
            let job: Option<Value> = job.get().await.ok();
            violations.push(format!("{kind:?} {cut:?}: after the repair, {error:#}: {job:?}"));
        }
    }
    Rest::of_namespaces(&place.client).delete(&namespace, 0).await?;
    Ok((blind, violations))
}

/// Once the namespaces of these tests are deleted, nothing of ours holds a pod, unless the API server lets nobody write to it, or
/// its job is in `left`: whoever runs it now, by what it says, lets go its pods. Answers with what is held.
pub async fn until_nothing_is_held(place: &Place<'_>, left: &BTreeSet<(String, String)>) -> Result<Vec<String>> {
    let held = async || -> Result<Vec<String>> {
        let mut held = Vec::new();
        for pod in Rest::of_all_pods(&place.client).list().await? {
            let namespace = text(&pod, "/metadata/namespace");
            let job = (namespace.to_owned(), label(&pod, keys::JOB_NAME).to_owned());
            if !is_held(&pod) || is_of_others(&pod) || left.contains(&job) {
                continue;
            }
            let let_go = json!({ "metadata": { "finalizers": null } });
            let pods = Rest::pods(&place.client, namespace);
            if pods.patch(&format!("{}?dryRun=All", name(&pod)), &let_go).await.is_ok() {
                held.push(format!("a pod of a namespace that is deleted is held: {pod}"));
            }
        }
        Ok(held)
    };
    let gone = wait_for("no pod is held", SOON, async || Ok(held().await?.is_empty().then_some(()))).await;
    if gone.is_ok() { Ok(Vec::new()) } else { held().await }
}

/// By a finalizer of ours, not by one that was made of it.
fn is_held(pod: &Value) -> bool {
    let finalizers = pod.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let ours = [keys::POD_FINALIZER, keys::JOB_POD_FINALIZER];
    finalizers.filter_map(Value::as_str).any(|finalizer| ours.contains(&finalizer))
}

/// It says that it is controlled by something of a kind that is none of ours: it is not touched, whatever holds it.
fn is_of_others(pod: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut controllers = owners.filter(|owner| owner["controller"] == true);
    controllers.any(|owner| {
        let (group, _) = text(owner, "/apiVersion").split_once('/').unwrap_or_default();
        !matches!((group, text(owner, "/kind")), ("batchjob.dev", "BatchJob") | ("batch", "Job"))
    })
}
