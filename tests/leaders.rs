//! Two operators, of which one leads, with work going on: whatever ends its leadership, the other one goes on, nobody
//! writes who does not lead, and no law is broken.
//!
//! ```text
//! change ──► lane ─┬─► leader ──► proxy ──► API server ──► recorder ──┐
//!                  ├─► standby ──► proxy ──┘     ▲                     ▼
//!                  └─► work, kubelet ────────────┘        who wrote ──► judge
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `change` | what may end a leadership, and which changes a run is made of |
//! | `work` | the jobs that go on meanwhile, and how their pods end |
//! | `lane` | two operators in a namespace, and one change after the other |
//! | `judge` | is every write by the one who held the Lease, and does every law hold? |
//!
//! The proxy of `faults` stands between each operator and the API server: it knows who wrote what, and may let nothing of one
//! of them through.

pub mod change;
pub mod judge;
pub mod lane;
mod work;
