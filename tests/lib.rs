//! What every test against a real Kubernetes stands on.

pub mod faults;
pub mod kubernetes;
pub mod recorder;
pub mod support;
