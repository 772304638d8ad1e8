//! Ring 3: the operator against a real API server without nodes.
//!
//! | file | asks |
//! |---|---|
//! | `admit` | what the API server takes, what it refuses, and in which words |
//! | `life` | a job from its first pod to its end, and what its readers are told |
//! | `deletion` | a job or its namespace is deleted: nothing stays, nothing is stuck |
//! | `refuse` | a job that can make no pod says why, and goes on once it can |
//! | `operator` | the process: its flags, health, metrics, logs and its end |
//! | `kill` | it is killed again and again, and every index is still done once |
//!
//! All share one cluster; each has a namespace and, where it needs one, an operator that watches that namespace alone.
//! There is no kubelet: the tests play it (`kubelet`). Nothing sleeps for a time: that something does not happen is
//! shown by something else that happens after it.

mod admit;
mod deletion;
mod kill;
mod kubelet;
mod life;
mod operator;
mod refuse;
mod stage;
