//! Faults between the operator and the API server, one at a time and every one: the operator dies at each of its writes,
//! an answer is lost, a watch is behind, an event is never told, an old list comes again. What comes of it has to be
//! what comes without them.
//!
//! ```text
//! plan ──► run ──┬─► world ◄──── three watches ───────────┐
//!   ▲            ├─► kubelet, user ──────────────────► API server
//!   │            └─► operator ──► proxy ──(faults)────────┘
//! reference                        │ numbers writes and events
//!   └──────── judge ◄──────────────┘
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `fault` | which faults there are, and how one is written: `kill-after.7` |
//! | `plan` | which plans there are: a workload with its faults, all of them, a part of them, by name |
//! | `proxy` | numbers writes and events, and lets the faults happen |
//! | `workload` | the jobs, how their attempts end, and what users do meanwhile |
//! | `world` | everything that has happened to the objects of a namespace |
//! | `kubelet` | plays the kubelet, and what must be cleared up afterwards |
//! | `run` | one plan from its first object to the silence after its end |
//! | `judge` | is it the same as without faults, and does every law hold? |
//! | `campaign` | many plans at a time on one cluster |
//!
//! After Sieve (OSDI 2022): intermediate, stale and unobserved states, with the run without faults as the measure.

pub mod campaign;
pub mod fault;
pub mod judge;
pub mod kubelet;
pub mod plan;
pub mod proxy;
pub mod run;
pub mod workload;
pub mod world;
