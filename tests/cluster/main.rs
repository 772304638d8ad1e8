//! Ring 4: what users are promised, on a real node with real containers, the operator installed by its chart.
//!
//! | file | asks |
//! |---|---|
//! | `examples` | does each file in `examples/` end as its comment says? |
//! | `chart` | does the chart install, test, restrict and leave what it promises? |
//! | `containers` | what only a kubelet tells: sidecars, restarts, pulls, signals, deletions |
//! | `policies` | what do real exit codes, evictions, signals and restarts mean to the policies? |
//! | `doors` | is a plain Job that names us run, as every tool expects of a Job, and every other left alone? |
//! | `moving` | does every command of docs/moving.md do what it says? |
//! | `schedules` | do runs start on the minute, and do their policies hold? |
//! | `kill` | are the counts right when the operator is killed over and over? |
//! | `left_behind` | does anything stay when the release is taken away while pods are at work? |
//! | `nodes` | a kubelet falls silent and comes back: is every result still right? |
//! | `replicas` | does one of two go on when the other is deleted, evicted or replaced? |
//!
//! Most tests share one cluster. Those that end the operator have one of their own: it would take events and delays
//! of the others with it.

mod chart;
mod containers;
mod doors;
mod examples;
mod installed;
mod kill;
mod left_behind;
mod moving;
mod nodes;
mod policies;
mod replicas;
mod schedules;
mod story;
