//! The operator under every fault, in virtual time: an API server in memory, and worlds that are played on it.

pub mod apiserver;
