//! Any BatchCronJob, with any status, is acted on or refused, and comes to rest.
#![no_main]

use std::sync::Arc;

use batchjob_decide::cron::observed::{Group, Observed, Run};
use batchjob_decide::cron::plan::Action;
use batchjob_decide::cron::{decide, run};
use batchjob_fuzz::{change, start};
use batchjob_operator::observe::cron::{CronRecord, WireBatchCronJob};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};

/// More passes than a thousand slots take that wait, fifty in each, and a backfill of as many.
const MAX_PASSES: usize = 200;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change::in_place(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(wire) = serde_json::from_slice::<WireBatchCronJob>(data) else { return Corpus::Reject };
    let record = CronRecord::from(wire);
    let Some(cron) = record.cron() else { return Corpus::Keep };
    let mut observed = Observed { cron: cron.clone(), runs: Vec::new(), group: Group::default(), obstacle: None, now: start() };
    for n in 0.. {
        if n >= MAX_PASSES && observed.cron.spec.backfill.is_some() {
            // It may be of a thousand years, of which one pass leaves out ten thousand slots.
            break;
        }
        assert!(n < MAX_PASSES, "it wants more and more: {:#?}", decide(&observed));
        let plan = decide(&observed);
        if plan.is_empty() {
            assert!(plan.wake_at.is_none_or(|at| at > observed.now), "{plan:?}");
            break;
        }
        for action in plan.actions {
            match action {
                Action::CreateRun(start) => {
                    let job = run::build(&observed.cron, &start);
                    let name = job.metadata.name.expect("a name");
                    assert!(observed.runs.iter().all(|run| *run.name != *name), "{name} twice");
                    observed.runs.push(Run {
                        name: name.as_str().into(),
                        uid: name.into(),
                        created: observed.now,
                        slot: Some(start.time).filter(|_| !start.is_manual),
                        is_backfill: start.is_backfill,
                        is_deleted: false,
                        end: None,
                    });
                }
                Action::DeleteRun(gone) => observed.runs.retain(|run| run.uid != gone.uid),
                Action::WriteStatus(status) => Arc::make_mut(&mut observed.cron).status = *status,
            }
        }
    }
    Corpus::Keep
});
