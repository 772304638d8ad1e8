//! The condition types of a job.
//!
//! The first five are batch/v1 Job's, with its reasons and its order: the interim condition is written before the pods
//! are gone, the final one after. The last three are read by kstatus, and so by Helm, Flux, Argo CD and kpt:
//!
//! | the job | Reconciling | Stalled | Ready |
//! |---|---|---|---|
//! | is at work or backing off | True | | False |
//! | is suspended by its user | | | |
//! | is complete | | | True |
//! | has failed, or its spec makes no pod | | True | False |

/// True while `spec.suspend` holds the job, False once it was resumed. As batch/v1 Job.
pub const SUSPENDED: &str = "Suspended";
/// True once enough has succeeded, while the remaining pods are being ended. As batch/v1 Job.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// True once the job is bound to fail, while the remaining pods are being ended. As batch/v1 Job.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// True once the job is over and has succeeded. As batch/v1 Job.
pub const COMPLETE: &str = "Complete";
/// True once the job is over and has failed. As batch/v1 Job.
pub const FAILED: &str = "Failed";

/// True once the job is over, either way: `kubectl wait --for=condition=Finished` needs one word for both ends.
pub const FINISHED: &str = "Finished";

/// True while there is something to do or to wait for (kstatus: in progress).
pub const RECONCILING: &str = "Reconciling";
/// True when nothing will happen any more unless somebody changes something (kstatus: failed).
pub const STALLED: &str = "Stalled";
/// True once the job is complete (kstatus: current).
pub const READY: &str = "Ready";
