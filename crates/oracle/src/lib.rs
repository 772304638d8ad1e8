//! What must hold of a history of jobs and pods, whatever went wrong meanwhile.
//!
//! A history is all that happened to the objects of a cluster, in the order in which it happened: etcd's revisions. An
//! [`Oracle`] is told one [`Event`] after the other and knows at once which [`Law`] is broken. It knows nothing of the
//! operator but what it writes: what a pod came to is judged from the pod's own history, and compared with what the job
//! says.
//!
//! ```text
//! history ──Event──► Oracle ──► Violation: law, object, revision, what
//!                      │
//!   Promises: what ────┘
//!   this run allows
//! ```
//!
//! | looking for | look in |
//! |---|---|
//! | every law, in one sentence | [`law`] |
//! | what of an object is looked at | [`object`] |
//! | the rules for one status, which the API server has for a Job | [`standing`] |
//! | when a pod may be created, and how many | `laws/creation.rs` |
//! | what a status must count | `laws/counting.rs` |
//! | when a pod may be let go, and when deleted | `laws/release.rs` |
//! | why a job may end | `laws/verdict.rs` |
//! | what is asked when all is over | `laws/settled.rs` |
//! | the counting of Kubernetes' own controller | `laws/kubernetes.rs` |
//! | what a run showed, for the page that users read | [`report`] |

mod event;
pub mod law;
mod laws;
pub mod object;
mod oracle;
mod promises;
pub mod report;
pub mod standing;
mod state;

pub use event::{Change, Event};
pub use law::{Law, Violation};
pub use object::Object;
pub use oracle::{End, Oracle};
pub use promises::{Controller, Leadership, Promises};
pub use report::Report;
