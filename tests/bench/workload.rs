//! What is run: the same work as Jobs of Kubernetes' own controller, as BatchJobs, and as managed Jobs.

use batchjob_crd::{BatchJob, keys};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ApiResource;
use serde_json::{Value, json};

/// The node on which all pods are, so that nobody has to schedule them.
pub const NODE: &str = "bench";

/// A piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub jobs: usize,
    pub completions: usize,
    pub parallelism: usize,
    /// The first attempt of every tenth index fails.
    pub fails: bool,
    pub play: Play,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// It runs to its end.
    Runs,
    /// All its pods run, it is suspended, and resumed.
    Suspends,
    /// All its pods run, and it is deleted.
    IsDeleted,
}

/// As what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Job,
    BatchJob,
    ManagedJob,
}

pub const ALL: [Workload; 6] = [
    Workload {
        name: "large",
        what: "one Indexed job of 5,000, 500 at a time",
        jobs: 1,
        completions: 5000,
        parallelism: 500,
        fails: false,
        play: Play::Runs,
    },
    Workload {
        name: "many",
        what: "100 jobs of 20, 5 at a time",
        jobs: 100,
        completions: 20,
        parallelism: 5,
        fails: false,
        play: Play::Runs,
    },
    Workload {
        name: "single",
        what: "1,000 jobs of one pod",
        jobs: 1000,
        completions: 1,
        parallelism: 1,
        fails: false,
        play: Play::Runs,
    },
    Workload {
        name: "failing",
        what: "5,000 indexes, 500 at a time, of which every tenth fails once",
        jobs: 1,
        completions: 5000,
        parallelism: 500,
        fails: true,
        play: Play::Runs,
    },
    Workload {
        name: "suspended",
        what: "1,000 running pods of one job are suspended and resumed",
        jobs: 1,
        completions: 1000,
        parallelism: 1000,
        fails: false,
        play: Play::Suspends,
    },
    Workload {
        name: "deleted",
        what: "a job with 5,000 running pods is deleted",
        jobs: 1,
        completions: 5000,
        parallelism: 5000,
        fails: false,
        play: Play::IsDeleted,
    },
];

impl Workload {
    /// A smaller one of its kind, a so-manieth of it.
    pub fn divided_by(self, part: usize) -> Workload {
        let less = |n: usize| (n / part).max(1);
        match self.jobs {
            1 => Workload { completions: less(self.completions), parallelism: less(self.parallelism), ..self },
            jobs => Workload { jobs: less(jobs), ..self },
        }
    }

    /// How many pods end in it, if nothing but it ends them.
    pub fn pods(self) -> usize {
        let failed = if self.fails { self.completions.div_ceil(10) } else { 0 };
        self.jobs * (self.completions + failed)
    }

    /// Its n-th job.
    pub fn job(self, kind: Kind, n: usize) -> Value {
        let resource = kind.resource();
        let mut annotations = json!({});
        if self.play == Play::Runs {
            annotations["run-for"] = "1s".into();
        }
        if self.fails {
            annotations["fails-once"] = "true".into();
        }
        let mut spec = json!({
            "completionMode": "Indexed",
            "completions": self.completions,
            "parallelism": self.parallelism,
            "template": {
                "metadata": { "annotations": annotations },
                "spec": {
                    "restartPolicy": "Never",
                    "nodeName": NODE,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{ "name": "main", "image": "none" }],
                },
            },
        });
        if self.fails {
            spec["backoffLimitPerIndex"] = 5.into();
        }
        if kind == Kind::ManagedJob {
            spec["managedBy"] = keys::MANAGED_BY.into();
        }
        json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": { "name": format!("job-{n}") }, "spec": spec,
        })
    }
}

impl Kind {
    pub fn resource(self) -> ApiResource {
        match self {
            Kind::BatchJob => ApiResource::erase::<BatchJob>(&()),
            Kind::Job | Kind::ManagedJob => ApiResource::erase::<Job>(&()),
        }
    }
}
