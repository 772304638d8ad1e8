//! What every test against a real Kubernetes stands on.

pub mod invariants;
pub mod kubernetes;
pub mod support;
