//! The clusters that outages are played on.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::kubernetes::{Kubernetes, Options, Size};
use crate::support::{Etcd, serve_batch_jobs};

/// How an API server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// As usual.
    Plain,
    /// It forgets what was two seconds ago, and answers every watch from etcd; it takes few writes at a time, and has little
    /// room for them; and it ends watches and connections where a client leaves that to it.
    Harsh,
}

/// A cluster.
pub struct Ground {
    pub kubernetes: Kubernetes,
    pub etcd: Etcd,
}

impl Ground {
    pub async fn start(temper: Temper) -> Result<Ground> {
        let mut api_server_flags = Vec::new();
        let mut etcd_flags = Vec::new();
        if temper == Temper::Harsh {
            let flags = [
                "--watch-cache=false",
                "--etcd-compaction-interval=2s",
                "--min-request-timeout=5",
                "--goaway-chance=0.02",
                "--enable-priority-and-fairness=false",
                "--max-mutating-requests-inflight=4",
            ];
            api_server_flags.extend(flags.map(str::to_owned));
            etcd_flags.push(format!("--quota-backend-bytes={}", 32 << 20));
        }
        let options = Options {
            audit: true,
            api_server_flags,
            etcd_flags,
            // Pods of nodes that do not exist are garbage to one of them.
            controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
            ..Options::from(Size::Api)
        };
        let kubernetes = Kubernetes::start(options).await?;
        serve_batch_jobs(&kubernetes).await?;
        Ok(Ground { etcd: Etcd::of(&kubernetes)?, kubernetes })
    }

    /// Where the API server listens.
    pub fn server(&self) -> Result<SocketAddr> {
        let address = self.kubernetes.server().strip_prefix("https://").context("an address")?;
        Ok(address.parse()?)
    }
}
