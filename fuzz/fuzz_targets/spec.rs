//! Any spec is acted on or refused; and a job that is acted on comes to its end once all of its pods succeed.
#![no_main]

use batchjob_crd::{BatchJobSpec, BatchJobStatus, reason};
use batchjob_decide::job::pod::finalizer;
use batchjob_decide::job::spec::Spec;
use batchjob_decide::observed::Job;
use batchjob_fuzz::world::{Pass, World};
use batchjob_fuzz::{change, door, make_small, settle, start};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Input {
    #[serde(default)]
    is_managed: bool,
    #[serde(default)]
    spec: Value,
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change::in_place(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(Input { is_managed, mut spec }) = serde_json::from_slice(data) else { return Corpus::Reject };
    let door = door(is_managed);
    // As large as it is, once; and smaller, to its end.
    let mut large = World::new(door, spec.clone(), &BatchJobStatus::default(), start());
    let pass = large.pass().unwrap_or_else(|broken| panic!("{broken}"));
    if let Pass::Unreadable(error) = &pass {
        assert!(error.starts_with("spec: "), "{error}");
    }
    make_small(&mut spec);
    let mut world = World::new(door, spec.clone(), &BatchJobStatus::default(), start());
    settle(&mut world);
    let Ok(spec) = BatchJobSpec::deserialize(&spec) else { return Corpus::Keep };
    let read = Spec::read(&Job { door, spec: spec.clone(), ..Job::default() });
    let Some(job) = &world.job else { return Corpus::Keep };
    if let Err(message) = &read {
        let is_said = job["status"]["reason"] == reason::INVALID_SPEC || is_managed || pass_is_nothing(&pass);
        assert!(is_said, "{message}: {job}");
        assert!(world.pods.is_empty());
        return Corpus::Keep;
    }
    for _ in 0..20 {
        let living: Vec<Value> = world.pods.values().filter(|pod| pod["status"]["phase"].is_null()).cloned().collect();
        if living.is_empty() {
            break;
        }
        for mut pod in living {
            pod["spec"]["nodeName"] = "node-a".into();
            pod["status"]["phase"] = "Succeeded".into();
            world.put(pod).expect("a pod");
        }
        settle(&mut world);
    }
    let (Some(job), Ok(read)) = (&world.job, read) else { return Corpus::Keep };
    let is = |type_: &str| {
        let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|it| it["type"] == type_ && it["status"] == "True")
    };
    let goes_on = !read.is_suspended && read.parallelism > 0;
    if goes_on && !pass_is_nothing(&pass) {
        let is_late = read.active_deadline.is_some_and(|deadline| deadline.is_zero());
        assert!(is("Complete") || (is_late && is("Failed")), "{job:#}");
        let is_held = |pod: &&Value| {
            let mut finalizers = pod["metadata"]["finalizers"].as_array().into_iter().flatten();
            finalizers.any(|it| it == finalizer(door))
        };
        assert_eq!(world.pods.values().filter(is_held).count(), 0, "{:#?}", world.pods);
    }
    Corpus::Keep
});

/// It is somebody else's.
fn pass_is_nothing(pass: &Pass) -> bool {
    matches!(pass, Pass::Nothing)
}
