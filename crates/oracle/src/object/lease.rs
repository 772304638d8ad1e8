//! A Lease: who leads.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{Meta, count};

#[derive(Clone, Debug)]
pub struct Lease {
    pub meta: Meta,
    /// None: nobody, as after a release.
    pub holder: Option<Arc<str>>,
    pub renewed: Option<Timestamp>,
    pub duration_seconds: Option<u32>,
}

impl Lease {
    pub fn read(json: &Value) -> Lease {
        let spec = &json["spec"];
        Lease {
            meta: Meta::read(json),
            holder: spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(Arc::from),
            renewed: super::time(spec, "renewTime"),
            duration_seconds: count(spec, "leaseDurationSeconds"),
        }
    }
}
