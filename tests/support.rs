//! What tests share: a namespace of their own, waiting with a limit, kubectl, Helm, the CRDs, the operator as a process,
//! the words of a kubelet that is played, the audit log, etcd past the API server, and what the kernel says of a process.

pub mod audit;
mod etcd;
mod helm;
mod kubectl;
pub mod kubelet;
mod kwok;
mod namespace;
mod operator;
pub mod process;
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
