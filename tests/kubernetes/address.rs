//! Which addresses and ports does a cluster use?
//!
//! | address | is |
//! |---|---|
//! | `127.0.0.1`, free ports | an API-size cluster, on the machine itself |
//! | `198.18.<n>.1`, `198.18.<n>.2` | the two ends of the link between the machine and its n-th node |
//! | `10.244.0.0/16` | pods, inside the node's own network |
//! | `10.96.0.0/16` | services, inside the node's own network |
//!
//! 198.18.0.0/15 is set aside for tests of network devices (RFC 2544): no office, home or cloud network has it.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

pub(crate) const PODS: &str = "10.244.0.0/16";
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The first service address, which Kubernetes gives to `kubernetes.default`.
pub(crate) const API_SERVICE: &str = "10.96.0.1";

/// The service address that a cluster's name server usually has.
pub(crate) const CLUSTER_DNS: &str = "10.96.0.10";

/// The link between the machine and a node: a pair of virtual network cards.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    number: u8,
}

impl Link {
    pub(crate) fn new(number: u8) -> Link {
        Link { number }
    }

    /// The card on the machine's side.
    pub(crate) fn card(self) -> String {
        format!("bj{}", self.number)
    }

    pub(crate) fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    pub(crate) fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }
}

/// Ports nobody listens on just now. They are asked for together, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
