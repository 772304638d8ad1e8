//! The answers to creates, and the events that may have overtaken them.

use std::collections::{BTreeSet, HashMap};

/// Creates that have no answer yet, and what is gone meanwhile: an answer may come after all events about its object.
#[derive(Debug, Default)]
pub(super) struct Creations {
    /// By the order in which they began.
    under_way: BTreeSet<u64>,
    n_begun: u64,
    /// As of which version each object is gone that was told to be, and how many creations had begun by then.
    gone: HashMap<Box<str>, (u64, u64)>,
}

impl Creations {
    pub fn begin(&mut self) -> u64 {
        self.n_begun += 1;
        self.under_way.insert(self.n_begun);
        self.n_begun
    }

    /// What was gone before all that is under way began is forgotten: none of its answers is about that.
    pub fn end(&mut self, number: u64) {
        let was_first = self.under_way.first() == Some(&number);
        self.under_way.remove(&number);
        if was_first {
            let first = self.under_way.first().copied().unwrap_or(u64::MAX);
            self.gone.retain(|_, (_, n_begun)| *n_begun >= first);
        }
    }

    pub fn is_gone(&mut self, uid: &str, version: u64) {
        if !self.under_way.is_empty() {
            self.gone.insert(uid.into(), (version, self.n_begun));
        }
    }

    #[cfg(test)]
    pub fn remembers_nothing(&self) -> bool {
        self.gone.is_empty()
    }

    /// Whether the object in an answer of that version is gone.
    pub fn knows_gone(&self, uid: &str, version: u64) -> bool {
        self.gone.get(uid).is_some_and(|&(gone, _)| gone >= version)
    }
}
