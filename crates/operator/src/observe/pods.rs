//! The pods, by the uid of their owner, fed by watch events and by our own writes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use batchjob_decide::observed::Pod;
use tokio::sync::mpsc;

use super::watch::{Change, Sink};
use super::wire::{Owner, PodRecord, WirePod};

/// The pods.
#[derive(Debug, Default)]
pub struct Pods {
    pods: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    by_owner: HashMap<Box<str>, HashMap<Box<str>, PodRecord>>,
    /// Whose pod it is, because the owner may be taken off a pod.
    owner_of: HashMap<Box<str>, Box<str>>,
}

/// The pods of one owner that still carry our finalizer.
#[derive(Debug)]
pub struct Held {
    pub namespace: Box<str>,
    /// None: nobody owns them.
    pub owner: Option<Owner>,
    pub pods: Vec<Arc<Pod>>,
}

impl Pods {
    /// The pods of a job. One in another namespace that names it as its owner is somebody's forgery.
    pub fn of(&self, namespace: &str, owner: &str) -> Vec<Arc<Pod>> {
        let map = self.lock();
        let records = map.by_owner.get(owner).into_iter().flat_map(HashMap::values);
        records.filter(|record| *record.namespace == *namespace).map(|record| record.pod.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.lock().owner_of.len()
    }

    /// A pod that we have created, or found when we wanted to.
    pub fn created(&self, record: PodRecord) {
        self.lock().apply(record);
    }

    /// The answer to another write of ours. It never brings back a pod that is gone.
    pub fn wrote(&self, record: PodRecord) {
        let mut map = self.lock();
        if map.owner_of.contains_key(&record.pod.uid) {
            map.apply(record);
        }
    }

    /// A write of ours found no such pod.
    pub fn is_gone(&self, uid: &str) {
        self.lock().remove(uid, u64::MAX);
    }

    /// The pods that we hold for an owner that `is_known` does not know.
    pub fn held_for_others(&self, is_known: impl Fn(&str) -> bool) -> Vec<Held> {
        let map = self.lock();
        let mut all = Vec::new();
        for (uid, records) in map.by_owner.iter().filter(|(uid, _)| !is_known(uid)) {
            let held: Vec<&PodRecord> = records.values().filter(|record| record.pod.is_held).collect();
            let Some(first) = held.first() else { continue };
            if uid.is_empty() {
                // Nobody's pods are of many namespaces.
                all.extend(held.iter().map(|record| Held {
                    namespace: record.namespace.clone(),
                    owner: None,
                    pods: vec![record.pod.clone()],
                }));
            } else {
                let pods = held.iter().map(|record| record.pod.clone()).collect();
                all.push(Held { namespace: first.namespace.clone(), owner: first.owner.clone(), pods });
            }
        }
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        // Nothing that holds the lock can panic half-way through a change.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn apply(&mut self, record: PodRecord) {
        let uid = record.pod.uid.clone();
        if self.version_of(&uid).is_some_and(|known| known > record.version) {
            return;
        }
        let owner = record.owner_uid();
        let before = self.owner_of.insert(uid.clone(), owner.clone());
        if let Some(before) = before.filter(|before| *before != owner) {
            self.take(&before, &uid);
        }
        self.by_owner.entry(owner).or_default().insert(uid, record);
    }

    /// Removes it unless what is known is newer than `version`.
    fn remove(&mut self, uid: &str, version: u64) {
        if self.version_of(uid).is_some_and(|known| known <= version)
            && let Some(owner) = self.owner_of.remove(uid)
        {
            self.take(&owner, uid);
        }
    }

    fn take(&mut self, owner: &str, uid: &str) {
        if let Some(records) = self.by_owner.get_mut(owner) {
            records.remove(uid);
            if records.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }

    fn version_of(&self, uid: &str) -> Option<u64> {
        let owner = self.owner_of.get(uid)?;
        Some(self.by_owner.get(owner)?.get(uid)?.version)
    }
}

/// Feeds [`Pods`] from a watch and tells whom it concerns: the uid of the owner, empty if nobody owns the pod.
pub struct PodSink<F> {
    pub pods: Arc<Pods>,
    pub notify: F,
    /// A pod that we hold is no longer among those we watch, although it is there: somebody took off its label.
    pub left: mpsc::UnboundedSender<PodRecord>,
}

impl<F: Fn(&str) + Send> Sink for PodSink<F> {
    type Record = PodRecord;
    type Wire = WirePod;

    const KIND: &'static str = "Pod";
    const WHERE_FROM: &'static str = "this is not a Kubernetes cluster";

    fn record(wire: WirePod) -> PodRecord {
        wire.into()
    }

    fn change(&mut self, change: Change<PodRecord>) {
        match change {
            Change::Applied(record) => {
                let owner = record.owner_uid();
                let before = self.pods.lock().owner_of.get(&record.pod.uid).cloned();
                self.pods.lock().apply(record);
                (self.notify)(&owner);
                if let Some(before) = before.filter(|before| *before != owner) {
                    (self.notify)(&before);
                }
            }
            Change::Deleted(record) => {
                let owner = record.owner_uid();
                self.pods.lock().remove(&record.pod.uid, record.version);
                (self.notify)(&owner);
                if record.pod.is_held && record.pod.deletion.is_none() {
                    // Nobody listens while the operator stops.
                    let _ = self.left.send(record);
                }
            }
            Change::Replaced { objects, version } => {
                let mut concerned: HashSet<Box<str>> = objects.iter().map(PodRecord::owner_uid).collect();
                {
                    let mut map = self.pods.lock();
                    let listed: HashSet<&str> = objects.iter().map(|record| &*record.pod.uid).collect();
                    let gone: Vec<(Box<str>, Box<str>)> = map
                        .owner_of
                        .iter()
                        .filter(|(uid, _)| !listed.contains(&***uid))
                        .map(|(uid, owner)| (uid.clone(), owner.clone()))
                        .collect();
                    for (uid, owner) in gone {
                        map.remove(&uid, version);
                        concerned.insert(owner);
                    }
                    for record in objects {
                        map.apply(record);
                    }
                }
                concerned.iter().for_each(|owner| (self.notify)(owner));
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
        let pod = serde_json::json!({ "metadata": {
            "name": uid, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
            "finalizers": finalizers, "ownerReferences": owners,
        }});
        serde_json::from_value::<WirePod>(pod).expect("a pod").into()
    }

    fn sink(pods: &Arc<Pods>) -> impl Sink<Record = PodRecord> {
        PodSink { pods: pods.clone(), notify: |_: &str| {}, left: mpsc::unbounded_channel().0 }
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
        assert_eq!((pods.of("ns", "job").len(), pods.len()), (0, 0));
    }

    #[test]
    fn a_pod_that_loses_its_owner_is_nobodys() {
        let pods = Arc::new(Pods::default());
        let mut sink = sink(&pods);
        sink.change(Change::Applied(record("a", "job", 5, true)));
        sink.change(Change::Applied(record("a", "", 6, true)));
        assert_eq!(pods.of("ns", "job").len(), 0);
        let held = pods.held_for_others(|uid| uid == "job");
        assert_eq!(held.len(), 1);
        assert!(held[0].owner.is_none());
    }
}
