//! What tests share: a namespace of their own, waiting with a limit, kubectl, Helm, and the operator as a process.

mod helm;
mod kubectl;
mod namespace;
mod operator;
mod wait;

pub use helm::Helm;
pub use kubectl::{Kubectl, Said};
pub use namespace::Namespace;
pub use operator::{Operator, image_archive, operator_binary};
pub use wait::wait_for;
