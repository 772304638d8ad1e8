//! What every test against a real Kubernetes stands on.

pub mod kubernetes;
pub mod support;
