//! What every test against a real Kubernetes stands on.

pub mod corruption;
pub mod faults;
pub mod kubernetes;
pub mod leaders;
pub mod outages;
pub mod recorder;
pub mod support;
