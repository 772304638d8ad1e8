//! One job through one door, from its creation to its end, in rounds: when everything about it is quiet one thing
//! happens, an event or the end of one pod, and then it is waited for the answer.
//!
//! Quiet is what a controller of Jobs comes to when it has seen everything: each ended pod is counted and let go, the
//! counts are those of the pods, and there are as many pods as there should be. batch/v1 Job has no observedGeneration, so
//! there is no other sign.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{condition, keys};
use batchjob_oracle::standing::{Standing, indexes};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use kube::{Error, ResourceExt as _};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::case::{Case, End, Event};
use crate::door::{Answer, Door, Jobs};
use crate::kubelet::{BY_SIGNAL, Kubelet, phase};
use crate::world::{View, Watched, World, text};

/// For one answer; a busy kube-controller-manager takes seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// No case needs as many.
const MAX_ROUNDS: usize = 80;

/// What happened, and how the job stood when it was quiet again.
#[derive(Clone, Debug)]
pub struct Round {
    pub what: String,
    pub standing: Standing,
    /// A failed pod is not counted yet: batch/v1 Job does that only when its index has its next pod.
    pub is_waiting: bool,
}

/// All of it.
pub struct Performance {
    pub door: Door,
    pub rounds: Vec<Round>,
    pub history: Vec<String>,
    pub violations: Vec<String>,
    /// Why it did not come to its end.
    pub stuck: Option<String>,
}

impl Performance {
    pub fn last(&self) -> Option<&Round> {
        self.rounds.last()
    }

    /// What would be the reason of its end.
    pub fn verdict(&self) -> String {
        let Some(Round { standing, what, .. }) = self.last() else { return "nothing".to_owned() };
        let end = [condition::COMPLETE, condition::FAILED];
        let found = standing.conditions.iter().find(|found| end.contains(&&*found.type_) && found.is_true);
        match found {
            Some(found) => format!("{} {}", found.type_, found.reason),
            None if what == "refused" => "refused".to_owned(),
            None => "waits".to_owned(),
        }
    }
}

/// Plays the case with the jobs of one door.
pub async fn play(case: &Case, world: &World, jobs: &Jobs) -> Result<Performance> {
    let name = case.name();
    let job = match jobs.create(&name, &case.spec).await? {
        Answer::Accepted(job) => job,
        Answer::Refused(message) => {
            let round = Round { what: "refused".to_owned(), standing: Standing::default(), is_waiting: false };
            let (history, violations) = (vec![message], Vec::new());
            return Ok(Performance { door: jobs.door, rounds: vec![round], history, violations, stuck: None });
        }
    };
    let watched = world.job(&job.uid);
    let mut play = Play {
        case,
        jobs,
        pods: jobs.api(),
        watched: Arc::clone(&watched),
        spec: case.spec.clone(),
        events: case.events.clone(),
        version: job.version,
        slots: HashMap::new(),
        n_ended: BTreeMap::new(),
        restarts: HashMap::new(),
        told: HashSet::new(),
        lingering: VecDeque::new(),
        rounds: Vec::new(),
    };
    let stuck = play.until_the_end().await.err().map(|error| format!("{error:#}"));
    let rounds = play.rounds;
    let (history, violations) = watched.told();
    if stuck.is_none() {
        clear_up(jobs, &name, &watched).await?;
    }
    world.forget(&job.uid);
    Ok(Performance { door: jobs.door, rounds, history, violations, stuck })
}

/// The next cases have the machine for themselves. Pods that live are told by nobody that they have ended.
async fn clear_up(jobs: &Jobs, name: &str, watched: &Watched) -> Result<()> {
    jobs.delete(name).await?;
    let pods: Api<Pod> = jobs.api();
    let left: Vec<String> = watched.view.borrow().pods.keys().cloned().collect();
    for pod in left {
        match pods.delete(&pod, &DeleteParams::default().grace_period(0)).await {
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

struct Play<'a> {
    case: &'a Case,
    jobs: &'a Jobs,
    pods: Api<Pod>,
    watched: Arc<Watched>,
    /// As it is after all edits.
    spec: Map<String, Value>,
    events: VecDeque<(usize, Event)>,
    /// Of the last edit: what is older tells nothing.
    version: u64,
    /// Which slot a pod is in: its index, or for jobs without indexes the first that was free.
    slots: HashMap<String, u32>,
    /// How many pods of each index have ended by themselves; of all together under 0 if there are no indexes.
    n_ended: BTreeMap<u32, u32>,
    restarts: HashMap<String, u32>,
    /// Pods about which the last word is said, with the word: a watch may be behind.
    told: HashSet<(String, Word)>,
    /// Pods that a user has deleted and that have not ended yet.
    lingering: VecDeque<String>,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Runs,
    Ends,
    Goes,
}

/// What the view is, looked at with what the kubelet has said.
struct Pods<'v> {
    living: Vec<&'v Arc<Pod>>,
    terminating: Vec<&'v Arc<Pod>>,
    /// Ended, and not let go.
    held: Vec<&'v Arc<Pod>>,
}

impl Play<'_> {
    async fn until_the_end(&mut self) -> Result<()> {
        let mut what = "it is created".to_owned();
        loop {
            let is_over = self.settle(&what).await?;
            if is_over {
                return Ok(());
            }
            let Some(next) = self.next_round().await? else { return Ok(()) };
            what = next;
            self.watched.note(format!("--- {}: {what}", self.rounds.len()));
            anyhow::ensure!(self.rounds.len() < MAX_ROUNDS, "it does not end");
        }
    }

    /// Lets the next thing happen, and says what it is; None if nothing is left that could.
    async fn next_round(&mut self) -> Result<Option<String>> {
        let round = self.rounds.len();
        let view = self.watched.view.borrow().clone();
        let slots: BTreeMap<u32, Arc<Pod>> =
            self.pods(&view).living.into_iter().map(|pod| (self.slots[&pod.name_any()], Arc::clone(pod))).collect();
        let chosen = self.case.chosen(round, &slots.keys().copied().collect());
        let is_stuck = chosen.is_none() && self.events.is_empty();
        let is_suspended_next = self.events.front().is_some_and(|(_, event)| event.changes("suspend"));
        let is_waited_for = is_stuck || is_suspended_next || !self.case.lingers(round);
        if let Some(name) = self.lingering.pop_front_if(|_| is_waited_for) {
            // In success only where batch/v1 Job waits for its end.
            let in_peace = self.only_replaces_failed() && self.case.leaves_in_peace(round);
            let end = if in_peace { End::Success } else { BY_SIGNAL };
            self.let_go(&view, &name, end).await?;
            return Ok(Some(format!("the deleted pod ends: {end:?}")));
        }
        let is_due = |&(at, _): &(usize, Event)| at <= round || chosen.is_none();
        if let Some((_, event)) = self.events.pop_front_if(|event| is_due(event)) {
            return Ok(Some(match (event, chosen) {
                (Event::Edit(spec), _) => self.edit(&spec).await?,
                (Event::Delete, Some(slot)) => self.delete(&slots[&slot], slot).await?,
                (Event::Crash, Some(slot)) => self.crash(&slots[&slot], slot).await?,
                (Event::AllEnd(end), Some(_)) => self.all_end(slots.values(), end).await?,
                (Event::Delete | Event::Crash | Event::AllEnd(_), None) => {
                    "there is no pod to which it could happen".to_owned()
                }
            }));
        }
        let Some(slot) = chosen else { return Ok(None) };
        let pod = &slots[&slot];
        let counter = if self.is_indexed() { slot } else { 0 };
        let nth = self.n_ended.entry(counter).or_default();
        let end = self.case.end(counter, *nth);
        let what = format!("slot {slot} ends, {}: {end:?}", *nth);
        *nth += 1;
        self.told.insert((pod.name_any(), Word::Ends));
        self.kubelet().ends(pod, end).await?;
        Ok(Some(what))
    }

    async fn edit(&mut self, spec: &Value) -> Result<String> {
        match self.jobs.edit(&self.case.name(), spec).await? {
            Answer::Accepted(job) => {
                self.version = job.version;
                self.spec.extend(spec.as_object().context("an edit is an object")?.clone());
                Ok(format!("edit {spec}"))
            }
            Answer::Refused(message) => {
                self.watched.note(message);
                Ok(format!("refused: edit {spec}"))
            }
        }
    }

    /// The user deletes a pod: it has been told to go, and takes its time.
    async fn delete(&mut self, pod: &Pod, slot: u32) -> Result<String> {
        // Where the deletion itself counts as a failure, this says when that was: long enough ago for the retry delay.
        self.kubelet().is_unready(pod).await?;
        self.pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(30)).await?;
        self.lingering.push_back(pod.name_any());
        Ok(format!("a user deletes the pod of slot {slot}"))
    }

    /// A pod that a user has deleted ends.
    async fn let_go(&mut self, view: &View, name: &str, end: End) -> Result<()> {
        self.told.insert((name.to_owned(), Word::Goes));
        match view.pods.get(name) {
            Some(pod) => self.kubelet().goes(pod, end).await,
            None => Ok(()),
        }
    }

    async fn all_end(&mut self, pods: impl Iterator<Item = &Arc<Pod>>, end: End) -> Result<String> {
        let pods: Vec<Arc<Pod>> = pods.cloned().collect();
        self.told.extend(pods.iter().map(|pod| (pod.name_any(), Word::Ends)));
        let kubelet = self.kubelet();
        futures::future::try_join_all(pods.iter().map(|pod| kubelet.ends(pod, end))).await?;
        Ok(format!("{} pods end: {end:?}", pods.len()))
    }

    async fn crash(&mut self, pod: &Pod, slot: u32) -> Result<String> {
        let restarts = self.restarts.entry(pod.name_any()).or_default();
        *restarts += 1;
        let restarts = *restarts;
        self.kubelet().runs(pod, restarts, self.case.ready_for(slot)).await?;
        Ok(format!("slot {slot} restarts a container, {restarts}"))
    }

    /// Plays on until nothing more comes from the controller; whether the job is over then.
    async fn settle(&mut self, what: &str) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        let mut views = self.watched.view.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            self.give_slots(&view);
            self.play_kubelet(&view).await?;
            let open = match self.open(&view) {
                Ok(is_waiting) => {
                    // A watch of jobs and one of pods are not equally fast: only what the job is now counts.
                    let now = self.jobs.now(&self.case.name()).await?;
                    let seen = view.job.as_ref().context("it was seen")?;
                    if now.version == seen.version {
                        let is_over = now.standing.is_finished();
                        self.rounds.push(Round { what: what.to_owned(), standing: now.standing, is_waiting });
                        return Ok(is_over);
                    }
                    "its newest status is not seen yet".to_owned()
                }
                Err(open) => open,
            };
            if timeout_at(deadline, views.changed()).await.is_err() {
                let standing = view.job.map(|job| text(&job.standing)).unwrap_or_default();
                anyhow::bail!("after {what:?}: {open}; {standing}");
            }
        }
    }

    fn give_slots(&mut self, view: &View) {
        let living: Vec<Arc<Pod>> = self.pods(view).living.into_iter().cloned().collect();
        let mut taken: BTreeSet<u32> =
            living.iter().filter_map(|pod| self.slots.get(&pod.name_any())).copied().collect();
        for pod in living {
            if self.slots.contains_key(&pod.name_any()) {
                continue;
            }
            let slot = match self.is_indexed() {
                true => index(&pod),
                false => (0..).find(|slot| !taken.contains(slot)),
            };
            taken.extend(slot);
            self.slots.insert(pod.name_any(), slot.unwrap_or_default());
        }
    }

    /// What every kubelet does by itself: it starts the pods, and ends those that are told to go.
    async fn play_kubelet(&mut self, view: &View) -> Result<()> {
        let pods = self.pods(view);
        let new = pods.living.iter().filter(|pod| phase(pod) != "Running");
        let mut next: Vec<(Arc<Pod>, Word)> = new.map(|pod| (Arc::clone(pod), Word::Runs)).collect();
        let gone = pods.terminating.iter().filter(|pod| !self.lingering.contains(&pod.name_any()));
        next.extend(gone.map(|pod| (Arc::clone(pod), Word::Goes)));
        for (pod, word) in next {
            let name = pod.name_any();
            if !self.told.insert((name.clone(), word)) {
                continue;
            }
            match word {
                Word::Runs => self.kubelet().runs(&pod, 0, self.case.ready_for(self.slots[&name])).await?,
                Word::Ends | Word::Goes => self.kubelet().goes(&pod, BY_SIGNAL).await?,
            }
        }
        // The job only waits for those that a user has deleted. By a signal: batch/v1 Job counts each of them as failed at
        // once when the job fails, we when it ends.
        if let Some(job) = &view.job
            && job.version >= self.version
            && job.standing.is_decided()
            && job.standing.terminating > 0
        {
            for name in std::mem::take(&mut self.lingering) {
                self.let_go(view, &name, BY_SIGNAL).await?;
            }
        }
        Ok(())
    }

    /// Whether it is quiet: Ok tells whether a failed pod waits to be counted, Err what is still open.
    fn open(&self, view: &View) -> Result<bool, String> {
        let job = view.job.as_ref().ok_or("it was not seen yet")?;
        let standing = &job.standing;
        let pods = self.pods(view);
        let open = |is_open: bool, what: &str| if is_open { Err(what.to_owned()) } else { Ok(()) };
        open(job.version < self.version, "the edit is not seen yet")?;
        open(job.is_behind, "observedGeneration is behind")?;
        if standing.is_finished() {
            open(!pods.living.is_empty() || !pods.terminating.is_empty(), "it is finished, and a pod lives")?;
            open(!pods.held.is_empty(), "it is finished, and a pod is held")?;
            return Ok(false);
        }
        open(standing.is_decided(), "it is decided, and not finished")?;
        if let Some(due) = self.verdict_is_due(standing, &pods) {
            return Err(format!("it is not over, though {due}"));
        }
        open(standing.start_time.is_none() && !standing.is_suspended, "it was not started yet")?;
        open(standing.n_uncounted > 0, "pods are uncounted")?;
        open(pods.living.iter().any(|pod| phase(pod) != "Running"), "a pod does not run yet")?;
        let (n_living, n_terminating) = (count(pods.living.len()), count(pods.terminating.len()));
        let is_told_to_go = pods.terminating.iter().any(|pod| !self.lingering.contains(&pod.name_any()));
        open(is_told_to_go, "a pod is told to go")?;
        open(standing.active != n_living, &format!("{n_living} pods are active"))?;
        open(standing.terminating != n_terminating, &format!("{n_terminating} pods are terminating"))?;
        // The order in which pods are stopped depends on what is known of them.
        open(!self.events.is_empty() && standing.ready != n_living, "not every ready pod is counted")?;
        open(standing.is(condition::SUSPENDED) != standing.is_suspended, "the condition Suspended is behind")?;
        let wanted = self.wanted(standing, &pods);
        // Those that still end stand in the way of new pods, and drive none away.
        let in_the_way = if self.only_replaces_failed() { n_terminating } else { 0 };
        let is_stable = n_living <= wanted && wanted <= n_living + in_the_way;
        open(!is_stable, &format!("{n_living} pods live, of {wanted}"))?;
        // Kubernetes holds the failed pod of an index until it has made the next one ("delayed deletion").
        let next_is_due = |pod: &Arc<Pod>| pods.living.iter().any(|other| index(other) == index(pod));
        let may_wait = |pod: &Arc<Pod>| {
            self.jobs.door == Door::Reference
                && standing.has_backoff_limit_per_index
                && !next_is_due(pod)
                && !is_closed(standing, pod)
        };
        open(!pods.held.iter().all(|pod| may_wait(pod)), "an ended pod is held")?;
        let is_told = |name: &String| view.pods.get(name).is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        open(!self.lingering.iter().all(is_told), "a deletion is not seen yet")?;
        // It holds and counts a pod that is being deleted by the same rule.
        let is_held = |pod: &&Arc<Pod>| self.jobs.door == Door::Reference && !pod.finalizers().is_empty();
        Ok(!pods.held.is_empty() || standing.has_backoff_limit_per_index && pods.terminating.iter().any(is_held))
    }

    /// How many pods there should be (`manageJob` in `pkg/controller/job/job_controller.go`).
    fn wanted(&self, standing: &Standing, pods: &Pods<'_>) -> i32 {
        if standing.is_suspended {
            return 0;
        }
        match standing.completions {
            None if standing.succeeded > 0 => count(pods.living.len()),
            None => standing.parallelism,
            Some(completions) => {
                standing.parallelism.min(completions - standing.succeeded - n_failed_indexes(standing)).max(0)
            }
        }
    }

    /// Why the job has to come to its end by what its status says already. Where this is so an answer is still to come.
    fn verdict_is_due(&self, standing: &Standing, pods: &Pods<'_>) -> Option<String> {
        let number = |field: &str| self.spec.get(field).and_then(Value::as_i64);
        let default_limit = if standing.has_backoff_limit_per_index { i64::from(i32::MAX) } else { 6 };
        let limit = number("backoffLimit").unwrap_or(default_limit);
        let failed = i64::from(standing.failed);
        if failed > limit {
            return Some(format!("failed {failed} is above backoffLimit {limit}"));
        }
        let names = pods.living.iter().map(|pod| pod.name_any());
        let restarts: i64 = names.filter_map(|name| self.restarts.get(&name)).map(|&n| i64::from(n)).sum();
        let is_exceeded = match self.jobs.door {
            Door::Reference => restarts > 0 && restarts >= limit,
            Door::BatchJob | Door::ManagedJob => failed + restarts > limit,
        };
        if is_exceeded {
            return Some(format!("{restarts} restarts are too many for backoffLimit {limit}"));
        }
        if number("activeDeadlineSeconds").is_some_and(|seconds| seconds < 60) && !standing.is_suspended {
            return Some("its deadline is near".to_owned());
        }
        let n_failed_indexes = n_failed_indexes(standing);
        if let Some(max) = number("maxFailedIndexes")
            && i64::from(n_failed_indexes) > max
        {
            return Some(format!("more than {max} indexes have failed"));
        }
        if n_failed_indexes > 0 && standing.completions.is_some_and(|all| n_failed_indexes + standing.succeeded >= all)
        {
            return Some("every index has been tried".to_owned());
        }
        if self.success_policy_is_met(standing) {
            return Some("successPolicy is met".to_owned());
        }
        let is_done = match standing.completions {
            Some(completions) => standing.succeeded >= completions,
            None => standing.succeeded > 0,
        };
        (is_done && pods.living.is_empty()).then(|| "all is done".to_owned())
    }

    fn success_policy_is_met(&self, standing: &Standing) -> bool {
        let Some(rules) = self.spec.get("successPolicy").and_then(|policy| policy["rules"].as_array()) else {
            return false;
        };
        let done = indexes(&standing.completed_indexes, i32::MAX).unwrap_or_default();
        rules.iter().any(|rule| {
            let asked = rule["succeededIndexes"].as_str().map(|text| indexes(text, i32::MAX).unwrap_or_default());
            let enough = rule["succeededCount"].as_u64().and_then(|count| usize::try_from(count).ok());
            let n_done = |asked: &BTreeSet<i32>| asked.intersection(&done).count();
            match asked {
                Some(asked) => n_done(&asked) >= enough.unwrap_or(asked.len()),
                None => enough.is_some_and(|enough| done.len() >= enough),
            }
        })
    }

    fn pods<'v>(&self, view: &'v View) -> Pods<'v> {
        let mut pods = Pods { living: Vec::new(), terminating: Vec::new(), held: Vec::new() };
        for (name, pod) in &view.pods {
            let has_ended = matches!(phase(pod), "Succeeded" | "Failed");
            let is_told_to_end = self.told.contains(&(name.clone(), Word::Ends));
            if has_ended || is_told_to_end {
                if !pod.finalizers().is_empty() {
                    pods.held.push(pod);
                }
            } else if pod.metadata.deletion_timestamp.is_some() {
                pods.terminating.push(pod);
            } else {
                pods.living.push(pod);
            }
        }
        pods
    }

    fn kubelet(&self) -> Kubelet<'_> {
        Kubelet { pods: &self.pods, has: self.case.has_containers() }
    }

    fn is_indexed(&self) -> bool {
        self.spec.contains_key("completionMode")
    }

    fn only_replaces_failed(&self) -> bool {
        match self.spec.get("podReplacementPolicy") {
            Some(policy) => policy == "Failed",
            None => self.spec.contains_key("podFailurePolicy"),
        }
    }
}

fn index(pod: &Pod) -> Option<u32> {
    pod.labels().get(keys::COMPLETION_INDEX)?.parse().ok()
}

fn n_failed_indexes(standing: &Standing) -> i32 {
    let text = standing.failed_indexes.as_deref().unwrap_or_default();
    count(indexes(text, i32::MAX).unwrap_or_default().len())
}

/// Its index has succeeded or failed.
fn is_closed(standing: &Standing, pod: &Pod) -> bool {
    let failed = standing.failed_indexes.as_deref().unwrap_or_default();
    let closed = [&*standing.completed_indexes, failed].map(|text| indexes(text, i32::MAX).unwrap_or_default());
    let index = index(pod).and_then(|index| i32::try_from(index).ok());
    index.is_some_and(|index| closed.iter().any(|closed| closed.contains(&index)))
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
