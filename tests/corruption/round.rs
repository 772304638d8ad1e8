//! One round: jobs in a namespace, each of which, or one of whose pods, is broken in one place, while it runs, between two
//! attempts, or when it is over; and what becomes of them, and of those beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use batchjob_crd::keys;
use futures::future::{try_join, try_join_all};
use kube::Client;
use serde_json::{Value, json};

use super::jobs::{self, Job, is_over, is_running, name, uid};
use super::kubelet::{Kubelet, ends};
use super::rest::{Rest, found, text};
use super::stored::{Kind, Stored};
use crate::kubernetes::Kubernetes;
use crate::support::{Etcd, Namespace, wait_for};
use batchjob_sim::random::Random;

/// What comes at once, on a busy machine.
const SOON: Duration = Duration::from_secs(120);
/// How long it may take until a broken job has come to its end, or tells why not: longer than the first retry delays.
const TOLD: Duration = Duration::from_secs(60);

/// What all rounds share.
pub struct Place<'a> {
    pub kubernetes: &'a Kubernetes,
    pub client: Client,
    pub etcd: Etcd,
    pub kubelet: Kubelet,
}

/// What came of a round.
#[derive(Debug, Default)]
pub struct Played {
    /// How often what kind of object was broken, and where in the life of its job.
    pub broken: BTreeMap<String, u64>,
    /// How the broken ones ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// How long the neighbours took, at most.
    pub slowest: Duration,
    /// In how many rounds nobody could read all objects of a kind for a while, so that nobody knows all that has happened.
    pub n_with_gap: u64,
    /// Namespace and name of those that somebody else runs, by what they say now.
    pub left: BTreeSet<(String, String)>,
    pub violations: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Between,
    Over,
}

struct Victim {
    job: Job,
    stage: Stage,
    random: Random,
    /// The pod of it that was broken, if it was not the job itself.
    pod: Option<String>,
    /// What was done to it.
    damage: String,
}

/// Breaks `n` jobs, beside new ones in a namespace of the healthy. `only` one of them: the same as when all are.
pub async fn play(place: &Place<'_>, seed: u64, healthy: &str, n: u64, only: Option<u64>) -> Result<Played> {
    let namespace = Namespace::new(place.kubernetes, &format!("broken-{seed}")).await?.name.clone();
    let pods = Rest::pods(&place.client, &namespace);
    let mut victims = (0..n)
        .filter(|i| only.is_none_or(|only| *i == only))
        .map(|i| {
            let mut random = Random::of(&[seed, i]);
            let kind = [Kind::BatchJob, Kind::BatchJob, Kind::Job][random.below(3) as usize];
            let stage = [Stage::Running, Stage::Between, Stage::Over][random.below(3) as usize];
            let job = Job::new(&place.client, kind, &namespace, &format!("victim-{i}"));
            Victim { job, stage, random, pod: None, damage: String::new() }
        })
        .collect::<Vec<_>>();
    let residents = [Kind::BatchJob, Kind::Job]
        .map(|kind| Job::new(&place.client, kind, &namespace, &format!("resident-{kind:?}").to_lowercase()));
    let made = try_join_all(victims.iter().map(|victim| &victim.job).chain(&residents).map(Job::create)).await?;
    let uids: Vec<String> = made.iter().map(|job| uid(job).to_owned()).collect();
    let bystander = make_bystander(place, &namespace, &uids[uids.len() - 1]).await?;

    bring_to_stage(&pods, &victims, &residents).await?;
    let version = latest(&pods).await?;
    let mut played = Played::default();
    for victim in &mut victims {
        break_one(place, &namespace, victim, &uids, &mut played).await?;
    }
    let began = Instant::now();
    let new = [(&*namespace, Kind::BatchJob), (&namespace, Kind::Job), (healthy, Kind::BatchJob), (healthy, Kind::Job)]
        .map(|(namespace, kind)| {
            Job::new(&place.client, kind, namespace, &format!("neighbour-{seed}-{kind:?}").to_lowercase())
        });
    try_join_all(new.iter().map(Job::create)).await?;
    place.kubelet.finish(&namespace);
    for job in residents.iter().chain(&new) {
        let limit = SOON.saturating_sub(began.elapsed());
        played.violations.extend(goes_wrong(job, limit).await.map(|wrong| format!("a neighbour, {wrong}")));
    }
    played.slowest = began.elapsed();
    for victim in &victims {
        let limit = TOLD.saturating_sub(began.elapsed());
        match becomes(place, &namespace, victim, version, limit).await? {
            Some(end) => {
                *played.ends.entry(end).or_default() += 1;
                if end == jobs::OF_OTHERS {
                    played.left.insert((namespace.clone(), victim.job.name.clone()));
                }
            }
            None => {
                let job = victim.job.get().await?;
                played.violations.push(format!("nobody tells what became of it: {}: {job}", victim.damage));
            }
        }
    }
    let after = pods.get(name(&bystander)).await?;
    if uid(&after) != uid(&bystander) || after["metadata"]["labels"] != bystander["metadata"]["labels"] {
        played.violations.push(format!("a pod that is not ours was changed: {after}"));
    }
    if !played.violations.is_empty() {
        let all = victims.iter().map(|victim| &*victim.damage).collect::<Vec<_>>().join("\n    ");
        played.violations.push(format!("what was broken in round {seed}:\n    {all}"));
    }
    let namespaces = Rest::of_namespaces(&place.client);
    namespaces.delete(&namespace, 0).await?;
    Ok(played)
}

/// A pod with the labels of a job, which somebody else owns: nobody may touch it.
async fn make_bystander(place: &Place<'_>, namespace: &str, job: &str) -> Result<Value> {
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "owner" } });
    let owner = Rest::new(&place.client, "v1", "configmaps", namespace).create(&owner).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "bystander",
            "labels": {
                keys::JOB_NAME: "resident-job", keys::CONTROLLER_UID: job, keys::INDEX: "0", keys::COMPLETION_INDEX: "0",
                keys::ATTEMPT: "1",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid(&owner), "controller": true,
            }],
        },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "main", "image": "none" }] },
    });
    Ok(Rest::pods(&place.client, namespace).create(&pod).await?)
}

async fn bring_to_stage(pods: &Rest, victims: &[Victim], residents: &[Job]) -> Result<()> {
    let n_running = |all: &[Value], job: &str| jobs::of(job, all).iter().filter(|pod| is_running(pod)).count();
    let all = wait_for("all pods run", SOON, async || {
        let all = pods.list().await?;
        let mut names = victims.iter().map(|victim| &victim.job).chain(residents).map(|job| &*job.name);
        Ok(names.all(|job| n_running(&all, job) >= 2).then_some(all))
    });
    let all = all.await?;
    for victim in victims {
        for pod in jobs::of(&victim.job.name, &all) {
            let exit_code = match (victim.stage, jobs::label(&pod, keys::COMPLETION_INDEX)) {
                (Stage::Running, _) => continue,
                (Stage::Between, "1") => 3,
                (Stage::Between | Stage::Over, _) => 0,
            };
            ends(pods, name(&pod), exit_code).await?;
        }
    }
    for victim in victims {
        let what = format!("{} is {:?}", victim.job.name, victim.stage);
        wait_for(&what, SOON, async || {
            let job = victim.job.get().await?;
            let is_so = match victim.stage {
                Stage::Running => job["status"]["ready"] == 2,
                Stage::Between => {
                    (&job["status"]["succeeded"], &job["status"]["failed"]) == (&1.into(), &1.into())
                        && victim.job.its_pods().await?.iter().any(is_running)
                }
                Stage::Over => is_over(&job),
            };
            Ok(is_so.then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// The version of the latest change there is.
async fn latest(pods: &Rest) -> Result<u64> {
    let all = pods.list().await?;
    let versions = all.iter().filter_map(|object| text(object, "/metadata/resourceVersion").parse().ok());
    versions.max().context("there are pods")
}

/// Breaks one place of the job or of one of its pods.
async fn break_one(
    place: &Place<'_>,
    namespace: &str,
    victim: &mut Victim,
    uids: &[String],
    played: &mut Played,
) -> Result<()> {
    let (kind, name) = if victim.random.below(2) == 0 {
        (victim.job.kind, victim.job.name.clone())
    } else {
        let mut names: Vec<String> = victim.job.its_pods().await?.iter().map(|pod| name(pod).to_owned()).collect();
        names.sort();
        (Kind::Pod, victim.random.pick(&names).context("it has pods")?.clone())
    };
    let key = kind.key(namespace, &name);
    let before = loop {
        let entry = place.etcd.get(&key).await?;
        let mut stored = Stored::read(kind, &entry.value)?;
        let (at, damage) = stored.choose(&mut victim.random.clone(), uids)?;
        let mut said = format!("{damage:?}");
        said.truncate(said.floor_char_boundary(60));
        victim.damage = format!("{}, {:?}: {kind:?} {name}: {}: {said}", victim.job.name, victim.stage, at.name);
        stored.break_at(&at, &damage).with_context(|| victim.damage.clone())?;
        if place.etcd.replace(&entry, &stored.write()).await? {
            break entry;
        }
    };
    victim.pod = (kind == Kind::Pod).then(|| name.clone());
    *played.broken.entry(format!("{kind:?}-{:?}", victim.stage).to_lowercase()).or_default() += 1;
    // What the API server itself cannot read stops everybody, not us alone: that is another test (`blind`).
    let api = match kind {
        Kind::Pod => Rest::pods(&place.client, namespace).get(&name).await,
        Kind::BatchJob | Kind::Job => victim.job.get().await,
    };
    match api {
        Err(kube::Error::Api(status)) if status.code != 404 => {
            place.etcd.put(&key, &before.value).await?;
            victim.damage += " (put back: the API server could not read it)";
            *played.ends.entry("it was put back, because the API server could not read it").or_default() += 1;
            played.n_with_gap = 1;
        }
        _ => {}
    }
    Ok(())
}

/// What is wrong with a job of which nothing was broken.
async fn goes_wrong(job: &Job, limit: Duration) -> Option<String> {
    let what = format!("{} comes to its end", job.name);
    let ended = wait_for(&what, limit, async || {
        let (found, pods) = try_join(async { Ok(job.get().await?) }, job.its_pods()).await?;
        let pods: Vec<Value> = pods.into_iter().filter(|pod| name(pod) != "bystander").collect();
        match jobs::complaint(&found, &pods) {
            None => Ok(Some(())),
            Some(complaint) => bail!(complaint),
        }
    });
    ended.await.err().map(|error| format!("{error:#}"))
}

/// How a broken job comes to its end, or how it is told why not.
async fn becomes(
    place: &Place<'_>,
    namespace: &str,
    victim: &Victim,
    version: u64,
    limit: Duration,
) -> Result<Option<&'static str>> {
    let events = Rest::new(&place.client, "v1", "events", namespace);
    let pods = Rest::pods(&place.client, namespace);
    let told = wait_for("it is told", limit, async || {
        let job = found(victim.job.get().await)?;
        let warnings = events.list().await?.into_iter().filter(|event| {
            let is_new = text(event, "/metadata/resourceVersion").parse().is_ok_and(|of: u64| of > version);
            is_new && text(event, "/type") == "Warning" && text(event, "/involvedObject/name") == victim.job.name
        });
        let warnings: Vec<String> = warnings.map(|event| text(&event, "/reason").to_owned()).collect();
        match (jobs::told(job.as_ref(), &warnings), &victim.pod) {
            (None, Some(pod)) => {
                Ok(is_fixed(&pods, pod).await?.then_some("the API server lets nobody write to its pod"))
            }
            (told, _) => Ok(told),
        }
    });
    Ok(told.await.ok())
}

/// Not even a kubelet can say how the pod ends: the API server checks all of an object at each write, and refuses it.
async fn is_fixed(pods: &Rest, pod: &str) -> Result<bool> {
    let patch = json!({ "status": { "message": "a word of its kubelet" } });
    match pods.patch(&format!("{pod}/status?dryRun=All"), &patch).await {
        Err(kube::Error::Api(refused)) => Ok(refused.code == 422),
        other => {
            other?;
            Ok(false)
        }
    }
}
