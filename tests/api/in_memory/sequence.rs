//! Random requests that are likely to meet each other: few names, all on the same objects, often outdated.
//!
//! A body has placeholders where each side has its own value: `<uid>`, `<version>`, and `<old-version>` of the object as
//! it was last seen.

use batchjob_sim::random::Random;
use serde_json::{Map, Value, json};

/// A kind of object, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Pod,
    BatchJob,
    Job,
    Lease,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Pod, Kind::BatchJob, Kind::Job, Kind::Lease];

    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Pod => "v1",
            Kind::BatchJob => "batchjob.dev/v1alpha1",
            Kind::Job => "batch/v1",
            Kind::Lease => "coordination.k8s.io/v1",
        }
    }

    /// The path of all of them in a namespace.
    pub fn path(self, namespace: &str) -> String {
        let (root, plural) = match self {
            Kind::Pod => ("api", "pods"),
            Kind::BatchJob => ("apis", "batchjobs"),
            Kind::Job => ("apis", "jobs"),
            Kind::Lease => ("apis", "leases"),
        };
        format!("/{root}/{}/namespaces/{namespace}/{plural}", self.api_version())
    }
}

/// Which way a body is sent.
#[derive(Clone, Debug)]
pub enum Verb {
    Get,
    /// With a query.
    List(String),
    /// The next page of the list that was last cut off.
    Continue,
    Create(Value),
    /// As it was last seen, with these changes.
    Replace(Value),
    Merge(Value),
    Strategic(Value),
    Delete(Value),
    Bind(Value),
    Evict(Value),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Step {
    pub kind: Kind,
    pub name: &'static str,
    /// "" or "/status".
    pub part: &'static str,
    pub verb: Verb,
}

const NAMES: [&str; 2] = ["a", "b"];
const FINALIZERS: [&str; 3] = ["example.com/one", "example.com/two", "batchjob.dev/pod"];
const OWNERS: [&str; 3] = [
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
];
pub const SOME_UID: &str = "99999999-9999-4999-8999-999999999999";
/// Times that requests carry, in order; none of them is the present.
const TIMES: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z", "2026-01-01T01:00:00Z"];

/// The next request; `exists` says whether there is such an object: if not, it is mostly made.
pub fn step(random: &mut Random, exists: impl Fn(Kind, &str) -> bool) -> Step {
    let kind = random.one_of(&[
        Kind::Pod,
        Kind::Pod,
        Kind::Pod,
        Kind::Pod,
        Kind::BatchJob,
        Kind::BatchJob,
        Kind::Job,
        Kind::Job,
        Kind::Lease,
    ]);
    let name = random.one_of(&NAMES);
    let whole = |verb| Step { kind, name, part: "", verb };
    let status = |verb| Step { kind, name, part: "/status", verb };
    if !exists(kind, name) && !random.one_in(4) {
        return whole(Verb::Create(new(random, kind, name)));
    }
    match random.below(20) {
        0 => whole(Verb::Get),
        1 => whole(list(random)),
        2..=3 => whole(Verb::Create(new(random, kind, name))),
        4..=6 => whole(Verb::Replace(change(random, kind))),
        7..=9 => whole(Verb::Merge(change(random, kind))),
        10..=11 => whole(Verb::Delete(delete_options(random))),
        _ => match kind {
            Kind::Pod => match random.below(8) {
                0 => whole(Verb::Bind(binding(random, name))),
                1 => whole(Verb::Evict(eviction(random, name))),
                2..=4 => whole(Verb::Strategic(operators_patch(random))),
                5 => status(Verb::Replace(pod_status(random))),
                6 => status(Verb::Merge(pod_status(random))),
                _ => status(Verb::Strategic(pod_status(random))),
            },
            Kind::BatchJob => {
                let body = batchjob_status(random);
                status(if random.one_in(3) { Verb::Merge(body) } else { Verb::Replace(body) })
            }
            Kind::Job => {
                let body = job_status(random);
                let verbs = [Verb::Replace, Verb::Merge, Verb::Strategic, Verb::Strategic];
                status(random.one_of(&verbs)(body))
            }
            Kind::Lease => whole(Verb::Replace(change(random, kind))),
        },
    }
}

fn list(random: &mut Random) -> Verb {
    if random.one_in(4) {
        return Verb::Continue;
    }
    let selectors = [
        "",
        "labelSelector=colour",
        "labelSelector=colour%3Dred",
        "labelSelector=colour!%3Dred",
        "labelSelector=!colour",
    ];
    let mut query = random.one_of(&selectors).to_string();
    if random.one_in(2) {
        query += "&limit=1";
    }
    Verb::List(query)
}

/// Sets preconditions in the metadata of a body: mostly none, or those that hold.
fn with_preconditions(random: &mut Random, mut body: Value) -> Value {
    match random.below(8) {
        0 | 1 => body["metadata"]["uid"] = "<uid>".into(),
        2 => body["metadata"]["uid"] = SOME_UID.into(),
        _ => {}
    }
    match random.below(8) {
        0..=2 => body["metadata"]["resourceVersion"] = "<version>".into(),
        3 => body["metadata"]["resourceVersion"] = "<old-version>".into(),
        _ => {}
    }
    body
}

/// Some of the metadata; `is_new` leaves out what only a patch has.
fn metadata(random: &mut Random, is_new: bool) -> Value {
    let mut metadata = json!({});
    for (field, label) in [("labels", "colour"), ("labels", "batchjob.dev/attempt"), ("annotations", "note")] {
        match random.below(6) {
            0 => metadata[field][label] = "red".into(),
            1 => metadata[field][label] = "blue".into(),
            2 if !is_new => metadata[field][label] = Value::Null,
            _ => {}
        }
    }
    match random.below(6) {
        0 | 1 => metadata["finalizers"] = some(random, &FINALIZERS),
        2 if !is_new => metadata["finalizers"] = json!([]),
        3 if !is_new => metadata["finalizers"] = Value::Null,
        _ => {}
    }
    match random.below(10) {
        0 | 1 => metadata["ownerReferences"] = owners(random),
        2 if !is_new => metadata["ownerReferences"] = Value::Null,
        _ => {}
    }
    if random.one_in(25) {
        metadata["deletionTimestamp"] = TIMES[0].into();
    }
    if random.one_in(25) {
        metadata["deletionGracePeriodSeconds"] = 7.into();
    }
    if random.one_in(30) {
        metadata["finalizers"] = json!(["foregroundDeletion"]);
    }
    if random.one_in(40) {
        metadata["finalizers"] = json!(["orphan", "foregroundDeletion"]);
    }
    if random.one_in(40) {
        metadata["generation"] = 9.into();
    }
    metadata
}

fn some(random: &mut Random, of: &[&str]) -> Value {
    let mut chosen: Vec<&str> = of.iter().copied().filter(|_| random.one_in(2)).collect();
    if random.one_in(2) {
        chosen.reverse();
    }
    json!(chosen)
}

fn owner(random: &mut Random) -> Value {
    let uid = random.one_of(&OWNERS);
    let mut owner = json!({ "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "name": "owner", "uid": uid });
    for field in ["controller", "blockOwnerDeletion"] {
        if random.one_in(2) {
            owner[field] = (!random.one_in(4)).into();
        }
    }
    if random.one_in(20) {
        owner["name"] = "".into();
    }
    owner
}

fn owners(random: &mut Random) -> Value {
    let n = random.below(3);
    (0..n).map(|_| owner(random)).collect()
}

fn pod_spec(random: &mut Random) -> Value {
    let mut spec = json!({ "containers": [{ "name": "main", "image": "none" }] });
    if random.one_in(2) {
        spec["terminationGracePeriodSeconds"] = random.one_of(&[0, 5, 600]).into();
    }
    spec["restartPolicy"] = random.one_of(&["Never", "Never", "OnFailure"]).into();
    spec
}

fn new(random: &mut Random, kind: Kind, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(),
        "kind": format!("{kind:?}"),
        "metadata": metadata(random, true),
    });
    object["metadata"]["name"] = name.into();
    match random.below(30) {
        0 => object["metadata"]["resourceVersion"] = "7".into(),
        1 => object["metadata"]["namespace"] = "elsewhere".into(),
        2 => object["metadata"]["uid"] = SOME_UID.into(),
        _ => {}
    }
    match kind {
        Kind::Pod => {
            object["spec"] = pod_spec(random);
            if random.one_in(4) {
                object["spec"]["nodeName"] = "node-1".into();
            } else if random.one_in(10) {
                object["spec"]["schedulingGates"] = json!([{ "name": "example.com/wait" }]);
            }
            if random.one_in(10) {
                object["status"] = json!({ "phase": "Running" });
            }
        }
        Kind::BatchJob | Kind::Job => {
            let mut template = json!({ "spec": pod_spec(random) });
            if random.one_in(4) {
                template["metadata"]["labels"]["app"] = "etl".into();
            }
            object["spec"] = json!({ "template": template });
            for field in ["completions", "parallelism", "backoffLimit"] {
                if random.one_in(3) {
                    object["spec"][field] = (1 + random.below(3)).into();
                }
            }
            if kind == Kind::BatchJob && object["spec"].get("completions").is_none() {
                // The parallelism of a work queue may not be changed: a rule of the schema, which is not played.
                object["spec"]["completions"] = 2.into();
            }
            if random.one_in(3) {
                object["spec"]["suspend"] = true.into();
            }
            if random.one_in(3) {
                object["spec"]["completionMode"] = "Indexed".into();
                object["spec"]["completions"] = 3.into();
                if random.one_in(2) {
                    object["spec"]["backoffLimitPerIndex"] = 1.into();
                }
            }
            if kind == Kind::Job && random.one_in(2) {
                object["spec"]["managedBy"] = "batchjob.dev/operator".into();
            }
            if random.one_in(10) {
                object["status"] = json!({ "active": 1 });
            }
        }
        Kind::Lease => object["spec"] = lease_spec(random),
    }
    object
}

fn lease_spec(random: &mut Random) -> Value {
    json!({
        "holderIdentity": random.one_of(&["one", "two"]),
        "leaseDurationSeconds": 15,
        "renewTime": format!("2026-01-01T00:00:0{}.000000Z", random.below(4)),
        "leaseTransitions": random.below(3),
    })
}

/// A change of an object, for a merge patch or on top of what was seen.
fn change(random: &mut Random, kind: Kind) -> Value {
    let mut body = json!({ "metadata": metadata(random, false) });
    match kind {
        Kind::Pod => match random.below(10) {
            0 => body["spec"] = json!({ "containers": [{ "name": "main", "image": "other" }] }),
            1 => body["spec"] = json!({ "nodeName": "node-2" }),
            2 => body["spec"] = json!({ "terminationGracePeriodSeconds": 3 }),
            3 => body["status"] = json!({ "phase": "Failed" }),
            _ => {}
        },
        Kind::BatchJob | Kind::Job => {
            let n = random.below(4);
            match random.below(12) {
                0 => body["spec"]["parallelism"] = n.into(),
                1 => body["spec"]["suspend"] = random.one_in(2).into(),
                2 => body["spec"]["activeDeadlineSeconds"] = (100 + n).into(),
                3 => body["spec"]["ttlSecondsAfterFinished"] = n.into(),
                4 => body["status"] = json!({ "active": 2 }),
                // What follows is forbidden: by code for a Job, by rules of the schema, which are not played, for a BatchJob.
                5 if kind == Kind::Job => body["spec"]["completions"] = n.into(),
                6 if kind == Kind::Job => {
                    body["spec"]["completions"] = n.into();
                    body["spec"]["parallelism"] = n.into();
                }
                7 if kind == Kind::Job => body["spec"]["template"]["metadata"]["annotations"]["a"] = "b".into(),
                8 if kind == Kind::Job => body["spec"]["managedBy"] = "example.com/other".into(),
                9 if kind == Kind::Job => body["spec"]["parallelism"] = (-1).into(),
                _ => {}
            }
        }
        Kind::Lease => body["spec"] = lease_spec(random),
    }
    if random.one_in(40) {
        body["metadata"]["name"] = "c".into();
    }
    with_preconditions(random, body)
}

/// What the operator does to a pod: releases, adopts, gives up, labels.
fn operators_patch(random: &mut Random) -> Value {
    let mut metadata = Map::new();
    match random.below(6) {
        0 | 1 => _ = metadata.insert("$deleteFromPrimitiveList/finalizers".to_owned(), some(random, &FINALIZERS)),
        2 => {
            metadata.insert("ownerReferences".to_owned(), json!([owner(random)]));
            metadata.insert("finalizers".to_owned(), some(random, &FINALIZERS));
        }
        3 => {
            let gone = json!([{ "$patch": "delete", "uid": random.one_of(&OWNERS) }]);
            metadata.insert("ownerReferences".to_owned(), gone);
            metadata.insert("$deleteFromPrimitiveList/finalizers".to_owned(), some(random, &FINALIZERS));
            metadata.insert("labels".to_owned(), json!({ "batchjob.dev/attempt": null }));
        }
        4 => _ = metadata.insert("labels".to_owned(), json!({ "batchjob.dev/attempt": "1", "colour": null })),
        _ => {
            let body = json!({ "metadata": self::metadata(random, false) });
            return with_preconditions(random, body);
        }
    }
    with_preconditions(random, json!({ "metadata": metadata }))
}

fn pod_status(random: &mut Random) -> Value {
    let phase = random.one_of(&["Pending", "Running", "Running", "Succeeded", "Failed"]);
    let state = match random.below(4) {
        0 => json!({ "running": { "startedAt": TIMES[0] } }),
        1 => {
            json!({ "terminated": { "exitCode": 0, "reason": "Completed", "startedAt": TIMES[0], "finishedAt": TIMES[1] } })
        }
        2 => json!({ "terminated": { "exitCode": 3, "finishedAt": TIMES[1] } }),
        _ => json!({ "waiting": { "reason": "ErrImagePull", "message": "no" } }),
    };
    let mut status = json!({ "phase": phase });
    if !random.one_in(4) {
        status["containerStatuses"] = json!([{
            "name": "main", "image": "none", "imageID": "", "ready": phase == "Running",
            "restartCount": random.below(3), "state": state,
        }]);
    }
    if random.one_in(2) {
        let ready = if random.one_in(2) { "True" } else { "False" };
        status["conditions"] =
            json!([{ "type": "Ready", "status": ready, "lastTransitionTime": random.one_of(&TIMES) }]);
    }
    if random.one_in(4) {
        status["reason"] = random.one_of(&["Evicted", ""]).into();
    }
    let mut body = json!({ "status": status });
    if random.one_in(4) {
        body["metadata"] = metadata(random, false);
    }
    if random.one_in(10) {
        body["spec"]["nodeName"] = "node-3".into();
    }
    with_preconditions(random, body)
}

fn batchjob_status(random: &mut Random) -> Value {
    let mut status = json!({ "observedGeneration": random.below(3) });
    if random.one_in(2) {
        status["active"] = random.below(3).into();
        status["phase"] = random.one_of(&["Running", "Failed"]).into();
    }
    if random.one_in(3) {
        status["conditions"] = json!([{
            "type": "Ready", "status": "True", "reason": random.one_of(&["One", "Two"]), "message": "", "lastTransitionTime": TIMES[0],
        }]);
    }
    if random.one_in(4) {
        status["startTime"] = if random.one_in(2) { Value::Null } else { TIMES[0].into() };
    }
    let mut body = json!({ "status": status });
    match random.below(12) {
        0 => body["status"] = json!({}),
        1 => body["status"] = Value::Null,
        2 => body["metadata"] = metadata(random, false),
        3 => body["spec"]["parallelism"] = 9.into(),
        _ => {}
    }
    let mut body = with_preconditions(random, body);
    if random.one_in(3) {
        body["metadata"]["resourceVersion"] = "<version>".into();
    }
    body
}

fn job_status(random: &mut Random) -> Value {
    let mut status = json!({});
    for count in ["active", "succeeded", "failed", "ready", "terminating"] {
        if random.one_in(3) {
            status[count] = random.below(3).into();
        }
    }
    for time in ["startTime", "completionTime"] {
        match random.below(6) {
            0 | 1 => status[time] = random.one_of(&TIMES).into(),
            2 => status[time] = Value::Null,
            _ => {}
        }
    }
    for indexes in ["completedIndexes", "failedIndexes"] {
        match random.below(8) {
            0 | 1 => status[indexes] = random.one_of(&["", "0", "0-2", "1,2", "2,1", "0-3", "x"]).into(),
            2 => status[indexes] = Value::Null,
            _ => {}
        }
    }
    if random.one_in(6) {
        status["uncountedTerminatedPods"] = random.one_of(&[json!({}), json!({ "succeeded": ["u"] })]);
    }
    if random.one_in(2) {
        let types = ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"];
        let n = 1 + random.below(2);
        let conditions = (0..n).map(|_| {
            let value = if random.one_in(4) { "False" } else { "True" };
            json!({ "type": random.one_of(&types), "status": value, "lastTransitionTime": TIMES[0], "reason": "" })
        });
        status["conditions"] = conditions.collect();
    }
    if random.one_in(8) {
        // A whole and good end.
        status = json!({
            "active": 0, "ready": 0, "terminating": 0, "startTime": TIMES[0], "completionTime": TIMES[1], "succeeded": 2,
            "conditions": [
                { "type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": TIMES[1] },
                { "type": "Complete", "status": "True", "lastTransitionTime": TIMES[1] },
            ],
        });
    }
    let mut body = json!({ "status": status });
    if random.one_in(3) {
        body["metadata"]["annotations"]["batchjob.dev/ledger"] = random.one_of(&["0:1", "0:2"]).into();
    }
    if random.one_in(10) {
        body["metadata"] = metadata(random, false);
    }
    if random.one_in(10) {
        body["spec"]["parallelism"] = 9.into();
    }
    with_preconditions(random, body)
}

fn delete_options(random: &mut Random) -> Value {
    let mut options = json!({});
    match random.below(8) {
        0 | 1 => options["gracePeriodSeconds"] = 0.into(),
        2 => options["gracePeriodSeconds"] = 300.into(),
        3 => options["gracePeriodSeconds"] = (-1).into(),
        _ => {}
    }
    match random.below(6) {
        0 => options["propagationPolicy"] = "Foreground".into(),
        1 => options["propagationPolicy"] = "Orphan".into(),
        2 | 3 => options["propagationPolicy"] = "Background".into(),
        _ => {}
    }
    match random.below(6) {
        0 | 1 => options["preconditions"]["uid"] = "<uid>".into(),
        2 if random.one_in(2) => options["preconditions"]["uid"] = SOME_UID.into(),
        _ => {}
    }
    match random.below(6) {
        0 | 1 => options["preconditions"]["resourceVersion"] = "<version>".into(),
        2 if random.one_in(2) => options["preconditions"]["resourceVersion"] = "<old-version>".into(),
        _ => {}
    }
    options
}

fn binding(random: &mut Random, name: &str) -> Value {
    let mut binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": "node-1" },
    });
    if random.one_in(6) {
        binding["metadata"]["uid"] = SOME_UID.into();
    }
    binding
}

fn eviction(random: &mut Random, name: &str) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name }, "deleteOptions": delete_options(random),
    })
}
