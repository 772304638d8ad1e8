//! What tests share: a namespace of their own, waiting with a limit, kubectl, and the operator as a process.

mod kubectl;
mod namespace;
mod operator;
mod wait;

pub use kubectl::{Kubectl, Said};
pub use namespace::Namespace;
pub use operator::{Operator, image_archive, operator_binary};
pub use wait::wait_for;
