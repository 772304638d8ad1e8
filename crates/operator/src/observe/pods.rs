//! The pods, by the uid of their owner, or of the job that their label names, fed by watch events and by our own writes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use batchjob_decide::observed::{Door, Pod};

use super::creations::Creations;
use super::watch::{Change, Sink};
use super::wire::{Owner, Place, PodRecord, WirePod};

/// The pods.
#[derive(Debug, Default)]
pub struct Pods {
    pods: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    by_place: BTreeMap<Place, BTreeMap<Box<str>, PodRecord>>,
    /// Where each pod is, because its owner may be taken off it, and given back.
    place_of: BTreeMap<Box<str>, Place>,
    /// Pods that we hold and that are no longer among those we watch, although they are there: somebody took off the label.
    left: BTreeMap<Box<str>, PodRecord>,
    /// The version of the last list.
    listed: u64,
    creations: Creations,
}

/// Creates are under way: from before they are sent until their answers are known to the cache.
#[derive(Debug)]
pub struct Creating<'a> {
    pods: &'a Pods,
    number: u64,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.pods.lock().creations.end(self.number);
    }
}

/// The pods of one owner that a finalizer of ours still holds.
#[derive(Debug)]
pub struct Held {
    pub namespace: Box<str>,
    /// None: nobody owns them.
    pub owner: Option<Owner>,
    /// Whose finalizer it is.
    pub holder: Door,
    pub pods: Vec<Arc<Pod>>,
}

impl Pods {
    /// The pods of a job. One in another namespace that names it as its owner is somebody's forgery.
    pub fn of(&self, namespace: &str, owner: &str) -> Vec<Arc<Pod>> {
        self.lock().at(namespace, &Place::Owned(owner.into()))
    }

    /// The pods of a job, and those that nobody owns and whose label names the job: one moment of both, for a pod may go
    /// from the ones to the others.
    pub fn with_orphans_of(&self, namespace: &str, job: &str) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let map = self.lock();
        (map.at(namespace, &Place::Owned(job.into())), map.at(namespace, &Place::Orphan(job.into())))
    }

    pub fn count(&self) -> usize {
        self.lock().place_of.len()
    }

    /// To be held while pods are created.
    pub fn creating(&self) -> Creating<'_> {
        Creating { pods: self, number: self.lock().creations.begin() }
    }

    /// A pod that we have created, or found when we wanted to. The answer may be late: one that is gone from our sight by now
    /// is looked after, and not brought back, for no event would ever tell of it again.
    pub fn created(&self, record: PodRecord) {
        let mut map = self.lock();
        let is_not_listed = map.version_of(&record.pod.uid).is_none() && record.version < map.listed;
        if is_not_listed || map.creations.knows_gone(&record.pod.uid, record.version) {
            map.look_after(record);
        } else {
            map.apply(record);
        }
    }

    /// The answer to another write of ours. It never brings back a pod that is gone.
    pub fn wrote(&self, record: PodRecord) {
        let mut map = self.lock();
        if map.version_of(&record.pod.uid).is_some_and(|known| known <= record.version) {
            map.put(record);
        }
    }

    /// A write of ours found no such pod.
    pub fn is_gone(&self, uid: &str) {
        self.lock().remove(uid, u64::MAX);
    }

    /// The pods that we hold for an owner whose uid `is_known` does not know, and those of nobody that `is_wanted` by no
    /// job.
    pub fn held_for_others(
        &self,
        is_known: impl Fn(&str) -> bool,
        is_wanted: impl Fn(&PodRecord) -> bool,
    ) -> Vec<Held> {
        let map = self.lock();
        let mut all = Vec::new();
        for (place, records) in &map.by_place {
            match place {
                // Nobody's pods are of many namespaces.
                Place::Orphan(_) => {
                    all.extend(records.values().filter(|record| !is_wanted(record)).filter_map(Held::of));
                }
                Place::Owned(uid) if !is_known(uid) => {
                    let together = records.values().filter_map(Held::of).reduce(|mut held, one| {
                        held.pods.extend(one.pods);
                        held
                    });
                    all.extend(together);
                }
                Place::Owned(_) => {}
            }
        }
        all
    }

    /// The pods that we hold and that have left our sight since it was last asked.
    pub fn who_left(&self) -> Vec<PodRecord> {
        std::mem::take(&mut self.lock().left).into_values().collect()
    }

    /// It is to be asked about again. It was there when it was read, even if nothing but our finalizer keeps it.
    pub fn look_after_again(&self, record: PodRecord) {
        self.lock().left.insert(record.pod.uid.clone(), record);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        // Nothing that holds the lock can panic half-way through a change.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// One pod; None if nothing of ours holds it.
    pub fn of(record: &PodRecord) -> Option<Held> {
        let (namespace, owner) = (record.namespace.clone(), record.owner.clone());
        record.holder.map(|holder| Held { namespace, owner, holder, pods: vec![record.pod.clone()] })
    }
}

impl Map {
    fn at(&self, namespace: &str, place: &Place) -> Vec<Arc<Pod>> {
        let records = self.by_place.get(place).into_iter().flat_map(BTreeMap::values);
        records.filter(|record| *record.namespace == *namespace).map(|record| record.pod.clone()).collect()
    }

    /// What a watch or a list says. It does not undo the answer to a write of ours that has the same version: a patch that
    /// takes the last finalizer off a pod that is to go is never stored, and its answer has the version before it
    /// (`errEmptiedFinalizers` in `registry/store.go` of k8s.io/apiserver).
    fn apply(&mut self, record: PodRecord) {
        if self.version_of(&record.pod.uid).is_none_or(|known| known < record.version) {
            self.put(record);
        }
    }

    fn put(&mut self, record: PodRecord) {
        let uid = record.pod.uid.clone();
        self.left.remove(&uid);
        let place = record.place();
        let before = self.place_of.insert(uid.clone(), place.clone());
        if let Some(before) = before.filter(|before| *before != place) {
            self.take(&before, &uid);
        }
        self.by_place.entry(place).or_default().insert(uid, record);
    }

    /// Removes it unless what is known is newer than `version`.
    fn remove(&mut self, uid: &str, version: u64) -> Option<PodRecord> {
        self.version_of(uid).filter(|&known| known <= version)?;
        let place = self.place_of.remove(uid)?;
        self.take(&place, uid)
    }

    fn take(&mut self, place: &Place, uid: &str) -> Option<PodRecord> {
        let records = self.by_place.get_mut(place)?;
        let record = records.remove(uid);
        if records.is_empty() {
            self.by_place.remove(place);
        }
        record
    }

    /// It is no longer among those we watch. If it may not be gone yet, it is most likely there still, and its label is not:
    /// a pod that is held goes only after its grace has been set to 0, by its kubelet or by force.
    fn look_after(&mut self, record: PodRecord) {
        let may_be_gone = record.pod.deletion.is_some_and(|deletion| deletion.grace_seconds == 0);
        if record.holder.is_some() && !may_be_gone {
            self.left.insert(record.pod.uid.clone(), record);
        }
    }

    fn version_of(&self, uid: &str) -> Option<u64> {
        let place = self.place_of.get(uid)?;
        Some(self.by_place.get(place)?.get(uid)?.version)
    }
}

/// Feeds [`Pods`] from a watch and tells where something has changed.
pub struct PodSink<F> {
    pub pods: Arc<Pods>,
    pub notify: F,
}

impl<F: Fn(&Place) + Send> Sink for PodSink<F> {
    type Record = PodRecord;
    type Wire = WirePod;

    const KIND: &'static str = "Pod";
    const WHERE_FROM: &'static str = "this is not a Kubernetes cluster";
    const WHAT_ALLOWS: &'static str = "allow get, list and watch of pods, as the Helm chart does";

    fn record(wire: WirePod) -> Option<PodRecord> {
        Some(wire.into())
    }

    fn change(&mut self, change: Change<PodRecord>) {
        match change {
            Change::Applied(record) => {
                let place = record.place();
                let before = self.pods.lock().place_of.get(&record.pod.uid).cloned();
                self.pods.lock().apply(record);
                (self.notify)(&place);
                if let Some(before) = before.filter(|before| *before != place) {
                    (self.notify)(&before);
                }
            }
            Change::Deleted(record) => {
                let place = record.place();
                {
                    let mut map = self.pods.lock();
                    map.remove(&record.pod.uid, record.version);
                    map.creations.is_gone(&record.pod.uid, record.version);
                    map.look_after(record);
                }
                (self.notify)(&place);
            }
            Change::Replaced { objects, version } => {
                let mut concerned: BTreeSet<Place> = objects.iter().map(PodRecord::place).collect();
                {
                    let mut map = self.pods.lock();
                    map.listed = version;
                    let listed: HashSet<&str> = objects.iter().map(|record| &*record.pod.uid).collect();
                    let gone: Vec<(Box<str>, Place)> = map
                        .place_of
                        .iter()
                        .filter(|(uid, _)| !listed.contains(&***uid))
                        .map(|(uid, place)| (uid.clone(), place.clone()))
                        .collect();
                    for (uid, place) in gone {
                        if let Some(record) = map.remove(&uid, version) {
                            map.look_after(record);
                        }
                        concerned.insert(place);
                    }
                    for record in objects {
                        map.apply(record);
                    }
                }
                concerned.iter().for_each(|place| (self.notify)(place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, owner: &str, version: u64, held: bool) -> PodRecord {
        let finalizers = if held { vec![batchjob_crd::keys::POD_FINALIZER] } else { vec![] };
        let owners = serde_json::json!([{ "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "name": "x", "uid": owner, "controller": true }]);
        let owners = if owner.is_empty() { serde_json::json!([]) } else { owners };
        let labels = serde_json::json!({ batchjob_crd::keys::CONTROLLER_UID: "job" });
        let pod = serde_json::json!({ "metadata": {
            "labels": labels, "name": uid, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
            "finalizers": finalizers, "ownerReferences": owners,
        }});
        serde_json::from_value::<WirePod>(pod).expect("a pod").into()
    }

    /// How many pods the job has, and how many orphans.
    fn counts(pods: &Pods, namespace: &str) -> (usize, usize) {
        let (own, orphans) = pods.with_orphans_of(namespace, "job");
        (own.len(), orphans.len())
    }

    fn sink(pods: &Arc<Pods>) -> impl Sink<Record = PodRecord> {
        PodSink { pods: pods.clone(), notify: |_: &Place| {} }
    }

    #[test]
    fn an_older_event_does_not_undo_a_write_of_ours() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        sink.change(Change::Applied(record("a", "job", 5, true)));
        pods.wrote(record("a", "job", 9, false));
        sink.change(Change::Applied(record("a", "job", 7, true)));
        assert!(!pods.of("ns", "job")[0].is_held);
    }

    /// The pod is gone with our write, and the watch has yet to tell how it was before.
    #[test]
    fn an_event_of_the_same_version_does_not_undo_a_write_of_ours() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        sink.change(Change::Applied(record("a", "job", 5, true)));
        pods.wrote(record("a", "job", 7, false));
        sink.change(Change::Applied(record("a", "job", 7, true)));
        assert!(!pods.of("ns", "job")[0].is_held, "it would be let go again");
        sink.change(Change::Deleted(record("a", "job", 8, false)));
        assert_eq!(pods.count(), 0);
    }

    /// A list that was read before our write, and arrives after it.
    #[test]
    fn an_older_list_does_not_undo_a_write_of_ours() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        pods.created(record("new", "job", 12, true));
        sink.change(Change::Replaced { objects: vec![record("old", "job", 3, true)], version: 10 });
        assert_eq!(pods.of("ns", "job").len(), 2);
        sink.change(Change::Replaced { objects: vec![record("old", "job", 3, true)], version: 20 });
        assert_eq!(pods.of("ns", "job").len(), 1, "the newer list knows that it is gone");
    }

    #[test]
    fn an_answer_does_not_bring_back_a_pod_that_is_gone() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        sink.change(Change::Applied(record("a", "job", 5, true)));
        sink.change(Change::Deleted(record("a", "job", 8, false)));
        pods.wrote(record("a", "job", 7, false));
        assert_eq!((pods.of("ns", "job").len(), pods.count()), (0, 0));
    }

    /// Somebody has taken off the label that we watch by before we were told that the pod is created.
    #[test]
    fn a_late_answer_to_a_create_does_not_bring_back_a_pod_that_has_left() {
        let left = |pods: &Pods| pods.who_left().iter().map(|record| record.pod.uid.to_string()).collect::<Vec<_>>();
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        let creating = pods.creating();
        sink.change(Change::Applied(record("told", "job", 5, true)));
        sink.change(Change::Deleted(record("told", "job", 8, true)));
        assert_eq!(left(&pods), ["told"]);
        pods.created(record("told", "job", 5, true));
        assert_eq!((pods.count(), left(&pods)), (0, vec!["told".to_owned()]));
        pods.created(record("told", "job", 9, true));
        assert_eq!(pods.count(), 1, "its label was put back since");
        sink.change(Change::Deleted(record("told", "job", 10, true)));
        let later = pods.creating();
        drop(creating);
        assert!(pods.lock().creations.remembers_nothing(), "the later one is about another pod");
        drop(later);

        sink.change(Change::Replaced { objects: Vec::new(), version: 20 });
        left(&pods);
        pods.created(record("not-listed", "job", 17, true));
        assert_eq!((pods.count(), left(&pods)), (0, vec!["not-listed".to_owned()]));
        pods.created(record("new", "job", 21, true));
        assert_eq!(pods.count(), 1);
    }

    #[test]
    fn a_pod_that_loses_its_owner_is_nobodys() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        sink.change(Change::Applied(record("a", "job", 5, true)));
        sink.change(Change::Applied(record("a", "", 6, true)));
        assert_eq!(counts(&pods, "ns"), (0, 1));
        let held = pods.held_for_others(|uid| uid == "job", |_| false);
        assert_eq!(held.len(), 1);
        assert!(held[0].owner.is_none());
        assert_eq!(pods.held_for_others(|_| false, |_| true).len(), 0, "its job wants it");
        sink.change(Change::Applied(record("a", "job", 7, true)));
        assert_eq!(counts(&pods, "ns"), (1, 0), "it is taken back");
    }

    #[test]
    fn an_orphan_of_another_namespace_is_not_the_jobs() {
        let pods = Arc::new(Pods::default());
        sink(&pods).change(Change::Applied(record("a", "", 5, true)));
        assert_eq!((counts(&pods, "ns"), counts(&pods, "other")), ((0, 1), (0, 0)));
    }

    #[test]
    fn the_job_of_an_orphan_is_told_of_it() {
        let told = std::sync::Mutex::new(Vec::new());
        let notify = |place: &Place| told.lock().expect("not poisoned").push(place.clone());
        let mut sink = PodSink { pods: Arc::default(), notify };
        sink.change(Change::Applied(record("a", "job", 5, true)));
        sink.change(Change::Applied(record("a", "", 6, true)));
        sink.change(Change::Deleted(record("a", "", 7, true)));
        let (owned, orphan) = (Place::Owned("job".into()), Place::Orphan("job".into()));
        assert_eq!(*told.lock().expect("not poisoned"), [owned.clone(), orphan.clone(), owned, orphan]);
    }
}
