//! Ring 3: the operator against a real API server without nodes.
//!
//! | file | asks |
//! |---|---|
//! | `admit` | what the API server takes, what it refuses, and in which words |
//! | `verdicts` | is a BatchJob taken and refused exactly as a Job is |
//! | `life` | a job from its first pod to its end, and what its readers are told |
//! | `deletion` | a job or its namespace is deleted: nothing stays, nothing is stuck |
//! | `left_behind` | everything is taken away, in every order: nothing stays, nothing is stuck |
//! | `refuse` | a job that can make no pod says why, and goes on once it can |
//! | `operator` | the process: its flags, health, metrics, logs and its end |
//! | `kill` | it is killed again and again, and every index is still done once |
//! | `leader` | two operators, one of which leads: whatever ends it, the other goes on |
//! | `faults` | one thing goes wrong between it and the API server, and what comes of it is the same |
//! | `counts` | the counts of pods at every step, the metrics, and that no pod stays held |
//! | `suspended` | a job is suspended and resumed, and what of its pods may be changed meanwhile |
//! | `elastic` | an Indexed job is made larger and smaller while it runs |
//! | `replacement` | when a deleted pod is replaced, and that a job is over only with its last pod |
//! | `policies` | what a failure and a success mean: the policies, and the limits for each index |
//! | `door` | managed Jobs, and whose Jobs and pods are left alone; pods that are taken back and given up |
//! | `adoption` | pods that nobody owns: which of them a job takes in, and which are let go |
//! | `cron` | BatchCronJobs: what is started when, and what their readers are told |
//! | `cronjob` | Kubernetes' own CronJob controller, and the managed Jobs that it makes |
//! | `lifecycle` | a job as an object that everybody may change, list, delete and make again |
//! | `writes` | what the operator writes is refused or comes too late, and nothing is lost or counted twice |
//! | `both` | the stage for what is asked of a BatchJob and of a managed Job alike |
//! | `refusal` | updates that the API server refuses for a while |
//! | `odd` | pods, statuses and ledgers that look odd, or that somebody has forged |
//! | `in_memory` | the simulation's API server answers as the real one: random requests to both |
//!
//! All but one share one cluster; each has a namespace and, where it needs one, an operator that watches that namespace alone.
//! There is no kubelet: the tests play it (`kubelet`). Nothing sleeps for a time: that something does not happen is
//! shown by something else that happens after it.

mod admit;
mod adoption;
mod both;
mod counts;
mod cron;
mod cronjob;
mod deletion;
mod door;
mod elastic;
mod faults;
mod in_memory;
mod kill;
mod kubelet;
mod leader;
mod left_behind;
mod life;
mod lifecycle;
mod odd;
mod operator;
mod policies;
mod refusal;
mod refuse;
mod replacement;
mod stage;
mod suspended;
mod verdicts;
mod writes;
