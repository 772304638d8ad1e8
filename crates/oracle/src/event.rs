//! One thing that happened to one object.

use std::sync::Arc;

use jiff::Timestamp;

use crate::object::Object;

/// What happened to an object at one revision.
#[derive(Clone, Debug)]
pub struct Event {
    /// etcd's: one order for all kinds.
    pub revision: u64,
    /// When, by the clock of whoever has written the history down.
    pub at: Timestamp,
    pub change: Change,
    /// The object as it is after the change; of a deleted one, as it was at last.
    pub object: Object,
    /// Who did it, where that is known.
    pub writer: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}
