//! Objects as the laws look at them: plain records, read from JSON, whatever is in it.
//!
//! Reading is total: a field that is missing or odd is read as if it were absent. A history of a fault must not end the
//! one who judges it.

mod job;
mod lease;
mod meta;
mod news;
mod pod;

pub use job::{FailureAction, FailureRule, Job, LedgerTexts, Manager, On, Spec, SuccessRule, Uncounted, Verdict};
pub use lease::Lease;
pub use meta::{Deletion, Meta};
pub use news::News;
pub use pod::{FailedContainer, Phase, Pod};

use serde_json::Value;

/// An object of one of the kinds that laws speak of.
#[derive(Clone, Debug)]
pub enum Object {
    Pod(Pod),
    BatchJob(Job),
    Job(Job),
    Lease(Lease),
    /// An event of `events.k8s.io/v1` or of the core API.
    News(News),
    Other(Meta),
}

impl Object {
    /// Reads an object by its `kind`.
    pub fn read(json: &Value) -> Object {
        match json["kind"].as_str().unwrap_or_default() {
            "Pod" => Object::Pod(Pod::read(json)),
            "BatchJob" => Object::BatchJob(Job::read(json, batchjob_decide::observed::Door::BatchJob)),
            "Job" => Object::Job(Job::read(json, batchjob_decide::observed::Door::ManagedJob)),
            "Lease" => Object::Lease(Lease::read(json)),
            "Event" => Object::News(News::read(json)),
            _ => Object::Other(Meta::read(json)),
        }
    }

    pub fn meta(&self) -> &Meta {
        match self {
            Object::Pod(pod) => &pod.meta,
            Object::BatchJob(job) | Object::Job(job) => &job.meta,
            Object::Lease(lease) => &lease.meta,
            Object::News(news) => &news.meta,
            Object::Other(meta) => meta,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Object::Pod(_) => "pod",
            Object::BatchJob(_) => "batchjob",
            Object::Job(_) => "job",
            Object::Lease(_) => "lease",
            Object::News(_) => "event",
            Object::Other(_) => "object",
        }
    }
}

/// A list, or nothing.
fn list<'a>(json: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    json[field].as_array().into_iter().flatten()
}

fn count(json: &Value, field: &str) -> Option<u32> {
    json[field].as_i64().map(|n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
}

fn time(json: &Value, field: &str) -> Option<jiff::Timestamp> {
    json[field].as_str()?.parse().ok()
}
