//! Stored objects that are broken: one bit, one number, one label, straight in etcd, past everything that checks.
//!
//! ```text
//! seed ──► round ──► jobs, pods ──► API server ──► etcd
//!            │                                      ▲
//!            └── stored: one place is broken ───────┘
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `stored` | what can be broken in an object as it is stored, and breaks it |
//! | `protobuf` | the messages that pods and Jobs are stored as |
//! | `etcd`, `rest` | etcd past the API server, and the API server past all types |
//! | `jobs`, `kubelet` | the jobs, how it is told what became of one, and who runs their pods |
//! | `round` | many jobs, each broken in one place, and those beside them |
//! | `blind` | an object that the API server itself cannot read |
//!
//! After Mutiny (DSN 2024): half of what is broken says whose an object is, for that did half of the damage.

pub mod blind;
pub mod jobs;
pub mod kubelet;
pub mod protobuf;
pub mod rest;
pub mod round;
pub mod stored;
