//! What tests share: a namespace of their own, waiting with a limit, kubectl, Helm, the CRD, the operator as a process,
//! the words of a kubelet that is played, the audit log, and etcd past the API server.

pub mod audit;
mod etcd;
mod helm;
mod kubectl;
pub mod kubelet;
mod kwok;
mod namespace;
mod operator;
mod served;
mod stamp;
mod wait;

pub use audit::Audit;
pub use etcd::{Entry, Etcd};
pub use helm::Helm;
pub use kubectl::{Kubectl, Said};
pub use kwok::{Kwok, Nodes};
pub use namespace::Namespace;
pub use operator::{Operator, image_archive, operator_binary};
pub use served::serve_batch_jobs;
pub use stamp::stamped;
pub use wait::wait_for;
