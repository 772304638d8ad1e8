//! Any pods, any status of a job: what is read of them is decided on, and no law is broken (`World`).
#![no_main]

use batchjob_crd::BatchJobStatus;
use batchjob_decide::plan::AttemptId;
use batchjob_fuzz::{change, door, pod, settle, small_spec, start, world::World};
use batchjob_operator::observe::wire::{PodRecord, WirePod};
use jiff::SignedDuration;
use kube::api::WatchEvent;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::Deserialize;
use serde_json::Value;

/// Changes of a job and its pods, as merge patches; see `crates/operator/tests/odd/pods.yaml`.
#[derive(Debug, Deserialize)]
struct Input {
    #[serde(default)]
    is_managed: bool,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
    /// Attempt 1 of index 0, of index 1 and so on.
    #[serde(default)]
    pods: Vec<Value>,
    /// What happens to them then.
    #[serde(default)]
    later: Vec<Value>,
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change::in_place(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    // A line of a watch, whatever is in it.
    if let Ok(WatchEvent::Added(wire) | WatchEvent::Modified(wire) | WatchEvent::Deleted(wire)) =
        serde_json::from_slice::<WatchEvent<WirePod>>(data)
    {
        let record = PodRecord::from(wire);
        assert_eq!(record.pod.is_held, record.holder.is_some());
        return Corpus::Keep;
    }
    let Ok(Input { is_managed, spec, status, pods, later }) = serde_json::from_slice(data) else {
        return Corpus::Reject;
    };
    let Ok(status) = BatchJobStatus::deserialize(&status) else { return Corpus::Reject };
    let door = door(is_managed);
    let mut world = World::new(door, small_spec(door, &spec), &status, start());
    let mut uids = Vec::new();
    for (index, changes) in pods.iter().take(6).enumerate() {
        let id = AttemptId { index: index as u32, attempt: 1 };
        let Some(pod) = pod(&world, id, changes) else { break };
        // A pod that the API server could not have is no news.
        let Some(uid) = pod["metadata"]["uid"].as_str().map(str::to_owned) else { return Corpus::Reject };
        if world.put(pod).is_err() {
            return Corpus::Reject;
        }
        uids.push(uid);
    }
    settle(&mut world);
    for (uid, changes) in uids.iter().zip(&later) {
        let Some(mut pod) = world.pods.get(uid).cloned().filter(|_| changes.is_object()) else { continue };
        json_patch::merge(&mut pod, changes);
        if pod["metadata"]["uid"] != **uid || world.put(pod).is_err() {
            return Corpus::Reject;
        }
        settle(&mut world);
    }
    // What waited is due, at the latest, after the longest delay that there is.
    for _ in 0..2 {
        world.now = world.now.checked_add(SignedDuration::from_mins(11)).expect("it is far from the end of time");
        settle(&mut world);
    }
    Corpus::Keep
});
