//! Objects by name and by uid: what a watch and our own writes say of them, of which the newer always counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::creations::Creations;

/// What is kept of an object.
pub(super) trait Record {
    /// What is deleted and made again has the same one, and another uid.
    type Key: Clone + Ord;

    fn key(&self) -> &Self::Key;
    fn uid(&self) -> &Arc<str>;
    fn version(&self) -> u64;
    /// The uid of the object whose run it is.
    fn owner(&self) -> Option<&Arc<str>>;
    /// It replaces one that is older, and keeps what counts of it.
    fn keep(&mut self, known: &Self);
}

/// The objects of a kind, or of several.
#[derive(Debug)]
pub(super) struct Cache<R: Record> {
    by_key: BTreeMap<R::Key, R>,
    by_uid: BTreeMap<Arc<str>, R::Key>,
    by_owner: BTreeMap<Arc<str>, BTreeSet<R::Key>>,
    /// The uids of those of which the API server itself has told since we began, in answer to a request.
    confirmed: HashSet<Arc<str>>,
    /// The version of the last list.
    listed: u64,
    pub creations: Creations,
}

impl<R: Record> Default for Cache<R> {
    fn default() -> Cache<R> {
        Cache {
            by_key: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            confirmed: HashSet::new(),
            listed: 0,
            creations: Creations::default(),
        }
    }
}

impl<R: Record> Cache<R> {
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.by_key.get(key)
    }

    pub fn key_of(&self, uid: &str) -> Option<&R::Key> {
        self.by_uid.get(uid)
    }

    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// In the order of their keys.
    pub fn all(&self) -> impl Iterator<Item = &R> {
        self.by_key.values()
    }

    /// In the order of their keys, from that one on.
    pub fn from(&self, key: R::Key) -> impl Iterator<Item = &R> {
        self.by_key.range(key..).map(|(_, record)| record)
    }

    /// The runs of an object.
    pub fn of_owner(&self, uid: &str) -> impl Iterator<Item = &R> {
        self.by_owner.get(uid).into_iter().flatten().filter_map(|key| self.by_key.get(key))
    }

    /// The answer to a write of ours, or to a read. It never brings back an object that is gone.
    pub fn wrote(&mut self, record: R) {
        if self.get(record.key()).is_some_and(|known| known.uid() == record.uid()) {
            self.confirmed.insert(record.uid().clone());
            self.apply(record);
        }
    }

    /// One that we have created, or found when we wanted to. The answer may be late: one that is gone by now is not brought
    /// back, for no event would ever tell of it again.
    pub fn created(&mut self, record: R) {
        let is_not_listed = self.key_of(record.uid()).is_none() && record.version() < self.listed;
        if !is_not_listed && !self.creations.knows_gone(record.uid(), record.version()) {
            self.apply(record);
        }
    }

    /// Whether what is known of the object is at least as new as our last write to it, in this life or in one before: a list or
    /// a watch alone may be behind.
    pub fn is_confirmed(&self, uid: &str) -> bool {
        self.confirmed.contains(uid)
    }

    /// A read found no such object. One made anew under the same name is another one.
    pub fn is_gone(&mut self, key: &R::Key, uid: &str) {
        if self.get(key).is_some_and(|known| **known.uid() == *uid) {
            self.remove(key, u64::MAX);
        }
    }

    pub fn apply(&mut self, mut record: R) {
        if let Some(known) = self.by_key.get(record.key()) {
            if known.version() > record.version() {
                return;
            }
            if known.uid() == record.uid() {
                record.keep(known);
            }
            let key = record.key().clone();
            let known = self.by_key.remove(&key);
            self.forget(known.as_ref(), Some(record.uid()));
        }
        let key = record.key().clone();
        self.by_uid.insert(record.uid().clone(), key.clone());
        if let Some(owner) = record.owner() {
            self.by_owner.entry(owner.clone()).or_default().insert(key.clone());
        }
        self.by_key.insert(key, record);
    }

    /// A watch says that it is gone.
    pub fn deleted(&mut self, record: &R) {
        self.remove(record.key(), record.version());
        self.creations.is_gone(record.uid(), record.version());
    }

    /// A list says what there is of that version, among those that `is_listed`. Answers with those that are gone.
    pub fn replace(&mut self, objects: Vec<R>, version: u64, is_listed: impl Fn(&R) -> bool) -> Vec<R> {
        self.listed = version;
        let listed: HashSet<Arc<str>> = objects.iter().map(|record| record.uid().clone()).collect();
        let is_gone = |known: &&R| is_listed(known) && !listed.contains(known.uid());
        let gone: Vec<R::Key> = self.all().filter(is_gone).map(|known| known.key().clone()).collect();
        let gone = gone.iter().filter_map(|key| self.remove(key, version)).collect();
        for record in objects {
            self.apply(record);
        }
        gone
    }

    /// Removes it unless what is known is newer than `version`.
    fn remove(&mut self, key: &R::Key, version: u64) -> Option<R> {
        self.by_key.get(key).filter(|known| known.version() <= version)?;
        let record = self.by_key.remove(key);
        self.forget(record.as_ref(), None);
        record
    }

    /// It is no longer there, or another state of it is about to be, whose uid may be the same.
    fn forget(&mut self, record: Option<&R>, uid_of_next: Option<&Arc<str>>) {
        let Some(record) = record else { return };
        if let Some(owner) = record.owner()
            && let Some(keys) = self.by_owner.get_mut(owner)
        {
            keys.remove(record.key());
            if keys.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        if uid_of_next != Some(record.uid()) {
            self.by_uid.remove(record.uid());
            self.confirmed.remove(record.uid());
        }
    }
}
