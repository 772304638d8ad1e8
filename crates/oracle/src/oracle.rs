//! The judge: one event after the other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{Change, Event};
use crate::law::{Law, Violation};
use crate::laws;
use crate::object::{Job, Lease, Manager, News, Object, Pod};
use crate::promises::{Controller, Promises};
use crate::state::{JobState, Moment};

/// Judges a history, event by event.
pub struct Oracle {
    promises: Promises,
    jobs: HashMap<Arc<str>, JobState>,
    /// Whose a pod is.
    owners: HashMap<Arc<str>, Arc<str>>,
    /// Jobs that somebody else runs.
    foreign: HashSet<Arc<str>>,
    /// Jobs that are gone with all their pods; and pods that came for them afterwards.
    gone: HashMap<Arc<str>, Timestamp>,
    latecomers: HashMap<Arc<str>, String>,
    /// When to look at which job for finalizers that are left.
    due: BTreeSet<(Timestamp, Arc<str>)>,
    holder: Option<Arc<str>>,
    violations: Vec<Violation>,
    revision: u64,
    n_events: u64,
    n_lives: u64,
}

/// How a history ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// In the middle: nothing is asked of how things are left.
    Cut,
    /// All was let come to rest: the last fault, edit and change of a pod is before `quiet_since`, and the history ends at
    /// `at`.
    Settled { quiet_since: Timestamp, at: Timestamp },
}

impl Oracle {
    pub fn new(promises: Promises) -> Oracle {
        Oracle {
            promises,
            jobs: HashMap::new(),
            owners: HashMap::new(),
            foreign: HashSet::new(),
            gone: HashMap::new(),
            latecomers: HashMap::new(),
            due: BTreeSet::new(),
            holder: None,
            violations: Vec::new(),
            revision: 0,
            n_events: 0,
            n_lives: 0,
        }
    }

    /// Judges one event; they come in the order of their revisions.
    pub fn see(&mut self, event: &Event) {
        self.revision = event.revision;
        self.n_events += 1;
        self.look_for_what_is_left(event.at);
        self.ask_who_leads(event);
        match &event.object {
            Object::Pod(pod) => self.see_pod(event, pod),
            Object::BatchJob(job) | Object::Job(job) => self.see_job(event, job),
            Object::Lease(lease) => self.see_lease(event, lease),
            Object::News(news) => self.see_news(event, news),
            Object::Other(_) => {}
        }
    }

    /// The laws that are broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn n_events(&self) -> u64 {
        self.n_events
    }

    /// How many jobs have been judged.
    pub fn n_lives(&self) -> u64 {
        self.n_lives
    }

    /// Judges how things are left, and answers with all the laws that are broken.
    pub fn finish(mut self, end: End) -> Vec<Violation> {
        let End::Settled { quiet_since, at } = end else { return self.violations };
        self.look_for_what_is_left(at);
        let mut moment = Moment {
            promises: &self.promises,
            revision: self.revision,
            at,
            writer: None,
            violations: &mut self.violations,
        };
        let mut jobs: Vec<&JobState> = self.jobs.values().collect();
        jobs.sort_by_cached_key(|state| state.job.meta.place());
        for job in jobs {
            laws::settled::judge(job, quiet_since, &mut moment);
        }
        let mut latecomers: Vec<&String> = self.latecomers.values().collect();
        latecomers.sort();
        for pod in latecomers {
            moment.broken(Law::I6, pod.clone(), "its job was gone before it came, and it is there still");
        }
        self.violations
    }

    fn see_job(&mut self, event: &Event, job: &Job) {
        let judged = match self.promises.controller {
            Controller::Ours => Manager::Ours,
            Controller::Kubernetes => Manager::Kubernetes,
        };
        let uid = &job.meta.uid;
        if job.manager != judged {
            if !self.foreign.contains(uid) {
                self.foreign.insert(uid.clone());
            }
            return;
        }
        let mut moment = moment(&self.promises, event, &mut self.violations);
        let within = self.promises.finalizers_go_within;
        let look_at = |at: Timestamp| within.and_then(|within| at.checked_add(within).ok());
        match (event.change, self.jobs.get_mut(uid)) {
            (Change::Deleted, None) => {}
            (Change::Deleted, Some(state)) => {
                state.gone_at = Some(event.at);
                self.due.extend(look_at(event.at).map(|at| (at, uid.clone())));
                self.forget_if_over(uid);
            }
            (_, Some(state)) => {
                let was_finished = state.finished_at.is_some();
                laws::see_job(state, job, &mut moment);
                if state.finished_at.is_some() && !was_finished {
                    self.due.extend(look_at(event.at).map(|at| (at, uid.clone())));
                }
            }
            (_, None) => {
                self.n_lives += 1;
                let state = JobState::new(job.clone(), event.at);
                laws::see_new_job(&state, &mut moment);
                self.jobs.insert(uid.clone(), state);
            }
        }
    }

    fn see_pod(&mut self, event: &Event, pod: &Pod) {
        let uid = &pod.meta.uid;
        let owner = match self.owners.get(uid) {
            Some(owner) => owner.clone(),
            None => {
                let said = [&pod.meta.controller, &pod.job];
                let known = said.into_iter().flatten().find(|&job| self.jobs.contains_key(job));
                let Some(owner) = known.cloned() else { return self.see_strange_pod(event, pod) };
                self.owners.insert(uid.clone(), owner.clone());
                owner
            }
        };
        let Some(state) = self.jobs.get_mut(&owner) else { return };
        let mut moment = moment(&self.promises, event, &mut self.violations);
        laws::see_pod(state, event.change, pod, &mut moment);
        if event.change == Change::Deleted {
            self.owners.remove(uid);
            self.forget_if_over(&owner);
        }
    }

    /// A pod of a job that is not known: somebody else's, or of one that is gone.
    fn see_strange_pod(&mut self, event: &Event, pod: &Pod) {
        let owner = pod.meta.controller.as_ref().or(pod.job.as_ref());
        let gone_at = owner.and_then(|owner| self.gone.get(owner)).copied();
        let is_foreign = owner.is_some_and(|owner| self.foreign.contains(owner));
        let place = format!("pod {}", pod.meta.place());
        let mut moment = moment(&self.promises, event, &mut self.violations);
        match gone_at {
            _ if event.change == Change::Deleted => drop(self.latecomers.remove(&pod.meta.uid)),
            Some(gone_at) if event.change == Change::Added => {
                laws::creation::of_a_gone_job(&place, gone_at, &mut moment);
                self.latecomers.insert(pod.meta.uid.clone(), place);
            }
            // Somebody has taken off its owner, so that it is deleted with nobody: it is his.
            Some(_) if pod.meta.controller.is_none() => drop(self.latecomers.remove(&pod.meta.uid)),
            Some(_) => {}
            None if event.change == Change::Added && pod.is_held && !is_foreign && !moment.promises.tampering => {
                moment.broken(Law::I8, place, "it has our finalizer, and its owner is no job that ever was");
            }
            None => {}
        }
    }

    fn see_lease(&mut self, event: &Event, lease: &Lease) {
        let is_ours = |place: &Arc<str>| **place == *lease.meta.place();
        if self.promises.leadership.as_ref().is_some_and(|leadership| is_ours(&leadership.lease)) {
            self.holder = lease.holder.clone().filter(|_| event.change != Change::Deleted);
        }
    }

    fn see_news(&mut self, event: &Event, news: &News) {
        let Some(state) = self.jobs.get_mut(&news.about) else { return };
        let mut moment = moment(&self.promises, event, &mut self.violations);
        laws::writes::see_news(state, event.change, news, &mut moment);
    }

    /// One writer that is not the leader is enough to break everything else.
    fn ask_who_leads(&mut self, event: &Event) {
        let mut moment = moment(&self.promises, event, &mut self.violations);
        let is_about_leading = matches!(event.object, Object::Lease(_));
        if moment.is_ours() && !is_about_leading && self.holder.as_ref() != event.writer.as_ref() {
            let place = format!("{} {}", event.object.kind(), event.object.meta().place());
            let words = |who: Option<&Arc<str>>| who.map_or("nobody".to_owned(), |who| who.to_string());
            let (writer, holder) = (words(event.writer.as_ref()), words(self.holder.as_ref()));
            moment.broken(Law::I13, place, format!("it was written by {writer}, and {holder} held the Lease"));
        }
    }

    fn look_for_what_is_left(&mut self, at: Timestamp) {
        while let Some((due, _)) = self.due.first()
            && *due < at
        {
            let Some((due, uid)) = self.due.pop_first() else { return };
            let Some(state) = self.jobs.get(&uid) else { continue };
            let mut moment = Moment {
                promises: &self.promises,
                revision: self.revision,
                at: due,
                writer: None,
                violations: &mut self.violations,
            };
            laws::release::left_behind(state, &mut moment);
        }
    }

    fn forget_if_over(&mut self, uid: &Arc<str>) {
        let Some(state) = self.jobs.get(uid) else { return };
        if let Some(gone_at) = state.gone_at
            && state.present().next().is_none()
        {
            self.jobs.remove(uid);
            self.gone.insert(uid.clone(), gone_at);
        }
    }
}

fn moment<'a>(promises: &'a Promises, event: &'a Event, violations: &'a mut Vec<Violation>) -> Moment<'a> {
    Moment { promises, revision: event.revision, at: event.at, writer: event.writer.as_ref(), violations }
}
