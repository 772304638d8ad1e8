//! A small world for stories: one job, its pods, a clock; and plans carried out at once and without fault.

mod events;
mod render;

use std::sync::Arc;

use batchjob_crd::BatchJobSpec;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed::{Deletion, Door, Job, Obstacle, Pod, PodPhase};
use batchjob_decide::plan::PodRef;
use batchjob_decide::{Action, Observed, Plan, decide};
use jiff::{SignedDuration, Timestamp};

use crate::stored::stored;

/// More passes than any event can need: a plan that never comes to rest is a bug.
const MAX_PASSES: usize = 10;

#[derive(Debug, Default)]
pub(crate) struct World {
    job: Job,
    pods: Vec<Pod>,
    obstacle: Option<Obstacle>,
    now: Timestamp,
    /// The uids of the pods that nobody owns.
    is_orphan: Vec<Box<str>>,
    is_gone: bool,
    is_undeletable: bool,
}

impl World {
    /// Lets `event` happen, and then pass after pass, until nothing more is wanted. Answers with the plans as text.
    pub(crate) fn happen(&mut self, event: &str) -> Result<Vec<String>, String> {
        for (word, door) in [("job ", Door::BatchJob), ("managed job ", Door::ManagedJob)] {
            if let Some(spec) = event.strip_prefix(word) {
                self.submit(door, spec)?;
                return Ok(Vec::new());
            }
        }
        let (at, event) = event.strip_prefix("at ").and_then(|rest| rest.split_once('s')).ok_or("no time")?;
        self.now = Timestamp::default() + SignedDuration::from_secs(at.parse().map_err(|error| format!("{error}"))?);
        let event = event.trim();
        if let Some(event) = event.strip_prefix("unseen ") {
            self.apply(event)?;
            return Ok(Vec::new());
        }
        for event in event.split(';').map(str::trim).filter(|event| !event.is_empty()) {
            self.apply(event)?;
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<Vec<String>, String> {
        let mut told = Vec::new();
        for _ in 0..MAX_PASSES {
            if self.is_gone {
                return Ok(told);
            }
            let plan = decide(&self.observed());
            told.push(render::plan(&plan, self));
            if plan.is_empty() {
                return Ok(told);
            }
            self.carry_out(plan)?;
            if std::mem::take(&mut self.is_undeletable) {
                return Ok(told);
            }
        }
        Err(format!("no rest after {MAX_PASSES} passes: {told:#?}"))
    }

    fn observed(&self) -> Observed {
        let pods = self.pods.iter().cloned().map(Arc::new);
        let (orphans, pods) = pods.partition(|pod| self.is_orphan.contains(&pod.uid));
        Observed { job: Arc::new(self.job.clone()), pods, orphans, obstacle: self.obstacle.clone(), now: self.now }
    }

    fn carry_out(&mut self, plan: Plan) -> Result<(), String> {
        for action in plan.actions {
            match action {
                Action::CreatePod(start) => {
                    let name = PodNames::of(&self.job).write(start.id);
                    if self.pods.iter().any(|pod| *pod.name == *name) {
                        return Err(format!("{name} is created twice"));
                    }
                    self.pods.push(new_pod(&name, self.now));
                }
                Action::DeletePod(_) if self.is_undeletable => {}
                Action::DeletePod(pod) => self.delete(&pod)?,
                Action::AdoptPod(pod) => {
                    self.find(&pod)?.is_held = true;
                    self.is_orphan.retain(|uid| *uid != pod.uid);
                }
                Action::DisownPod(pod) => self.pods.retain(|other| other.uid != pod.uid),
                Action::WriteStatus(status) => {
                    self.job.status = stored(&self.job, *status)?;
                    self.job.has_lost_its_ledger = false;
                }
                Action::ReleasePod(pod) => {
                    let pod = self.find(&pod)?;
                    pod.is_held = false;
                    self.remove_ended();
                }
                Action::DeleteJob => self.is_gone = true,
            }
        }
        Ok(())
    }

    fn delete(&mut self, pod: &PodRef) -> Result<(), String> {
        let now = self.now;
        let pod = self.find(pod)?;
        let waits = pod.node.is_some() && matches!(pod.phase, PodPhase::Pending | PodPhase::Running);
        pod.deletion = Some(Deletion { asked: now, grace_seconds: if waits { 30 } else { 0 } });
        self.remove_ended();
        Ok(())
    }

    /// The API server removes what is deleted, has no finalizer and waits for no kubelet.
    fn remove_ended(&mut self) {
        self.pods.retain(|pod| {
            let is_ended = matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
            pod.is_held || pod.deletion.is_none_or(|deletion| deletion.grace_seconds > 0 && !is_ended)
        });
    }

    fn find(&mut self, pod: &PodRef) -> Result<&mut Pod, String> {
        self.pods.iter_mut().find(|found| found.uid == pod.uid).ok_or_else(|| format!("{} is not there", pod.name))
    }

    fn submit(&mut self, door: Door, words: &str) -> Result<(), String> {
        let mut words = words.split_whitespace();
        self.job = Job {
            door,
            namespace: "default".to_owned(),
            name: words.next().ok_or("no name")?.to_owned(),
            uid: "uid-1".to_owned(),
            generation: 1,
            ..Job::default()
        };
        self.edit(words)
    }

    /// Changes fields of the spec: "parallelism=3 completionMode=Indexed".
    fn edit<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> Result<(), String> {
        let mut spec = serde_json::to_value(&self.job.spec).map_err(|error| error.to_string())?;
        spec["template"]["spec"]["containers"] = serde_json::json!([{ "name": "main" }]);
        if spec["template"]["spec"]["restartPolicy"].is_null() {
            spec["template"]["spec"]["restartPolicy"] = "Never".into();
        }
        for word in words {
            let (field, value) = word.split_once('=').ok_or_else(|| format!("{word} is no field=value"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            match field {
                "restartPolicy" => spec["template"]["spec"]["restartPolicy"] = value,
                field => spec[field] = value,
            }
        }
        self.job.spec = serde_json::from_value::<BatchJobSpec>(spec).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn new_pod(name: &str, now: Timestamp) -> Pod {
    Pod {
        name: name.into(),
        uid: name.into(),
        resource_version: "1".into(),
        created: Some(now),
        is_held: true,
        is_selected: true,
        ..Pod::default()
    }
}
