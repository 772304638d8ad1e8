//! A real Kubernetes on this machine, for the demo and the tests: nothing is mocked, no image is pulled.
//!
//! | size | what runs | needs | several at once |
//! |---|---|---|---|
//! | [`Size::Api`] | etcd, kube-apiserver, kube-controller-manager (and kube-scheduler, if asked) | nothing | yes |
//! | [`Size::Node`] | the same, kube-scheduler, containerd, kubelet, kube-proxy, bridge CNI | root | yes |
//!
//! ```text
//! modules ──► binaries ──► launch ──► control_plane ──► node
//! (pins)      (cache)        │            │              │
//!                            └── folder, record, process, machine: where things live, and how they end
//! ```
//!
//! The components are built from pinned Go modules (`kubernetes/modules/*/go.mod`) into a cache outside the work tree.
//! A cluster lives in a state folder of its own, kubeconfig included: `~/.kube/config` is never read or written.
//!
//! A node runs in namespaces of its own (mounts, processes, network: see `machine.rs`). That is what makes it safe to
//! have one on a laptop: its bridge, iptables rules, mounts, shims and containers end with the namespaces, however the
//! cluster dies, and can never be mistaken for somebody else's.

mod address;
mod binaries;
mod certificates;
mod cgroup;
mod control_plane;
mod folder;
pub mod image;
mod kubeconfig;
mod launch;
mod machine;
mod modules;
mod node;
mod prerequisites;
mod process;
mod record;
mod steps;
mod teardown;
pub mod up;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use binaries::{Binaries, cache_root, go_build};
pub use modules::versions;
pub use prerequisites::{check, install, python};
pub use teardown::sweep;

use folder::Folder;
use launch::{Launched, launch};
use process::Lifetime;
use steps::Steps;

/// How much of a Kubernetes. What the smaller needs the larger needs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Size {
    /// An API server and the controllers: objects live, no container runs.
    Api,
    /// One node more, on which containers run.
    Node,
}

/// What to start; `Options::from(size)` is what most tests want.
#[derive(Clone, Debug)]
pub struct Options {
    /// Without or with a node.
    pub size: Size,
    /// Run kube-controller-manager: garbage collector, namespaces, service accounts, quotas, Jobs and all its others.
    pub controllers: bool,
    /// Run kube-scheduler (a node always has it).
    pub scheduler: bool,
    /// Have kube-apiserver note every request ([`Kubernetes::audit_log`]).
    pub audit: bool,
    /// More flags for kube-apiserver. Where a flag is given twice the last one counts.
    pub api_server_flags: Vec<String>,
    /// More flags for etcd, likewise.
    pub etcd_flags: Vec<String>,
    /// More flags for kube-controller-manager, such as `--controllers=*,-job-controller`.
    pub controller_flags: Vec<String>,
}

impl From<Size> for Options {
    fn from(size: Size) -> Options {
        Options {
            size,
            controllers: true,
            scheduler: size == Size::Node,
            audit: false,
            api_server_flags: Vec::new(),
            etcd_flags: Vec::new(),
            controller_flags: Vec::new(),
        }
    }
}

/// A running Kubernetes. Dropping it ends every process and removes its folder.
///
/// A test that is killed cannot drop, nor does a `static` that tests share: then the kernel ends the components together
/// with the process (`setpriv --pdeathsig`), and the next start removes what they leave on disk.
pub struct Kubernetes {
    launched: Launched,
    /// Held for as long as the cluster lives: a folder whose lock is free is a remain of a dead run.
    _lock: File,
}

impl Kubernetes {
    /// Builds what is missing, starts a cluster and waits until it is ready.
    pub async fn start(options: impl Into<Options>) -> Result<Kubernetes> {
        let options = options.into();
        let binaries = Binaries::build(options.size)?;
        teardown::sweep()?;
        let (folder, lock) = Folder::for_test()?;
        let launched = launch(folder, binaries, &options, Lifetime::Ours, &Steps::quiet()).await?;
        Ok(Kubernetes { launched, _lock: lock })
    }

    /// The kubeconfig of the administrator (`system:masters`).
    pub fn kubeconfig(&self) -> PathBuf {
        self.launched.folder.kubeconfig()
    }

    /// The API server, as `https://address:port`.
    pub fn server(&self) -> &str {
        &self.launched.server
    }

    /// etcd, as `http://address:port`, for those who look or write past the API server; None on a node, whose network is its
    /// own.
    pub fn etcd(&self) -> Option<&str> {
        self.launched.etcd.as_deref()
    }

    /// A client with the administrator's rights. Each call makes a new one: a client belongs to the tokio runtime it
    /// was made on, and every `#[tokio::test]` has its own.
    pub async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// Where the built commands are: kubectl, helm, kwok and the components.
    pub fn binaries(&self) -> &Binaries {
        &self.launched.binaries
    }

    /// The folder that holds everything of this cluster, and goes with it.
    pub fn folder(&self) -> &Path {
        self.launched.folder.path()
    }

    /// The log of a component, by the name of its binary.
    pub fn log(&self, component: &str) -> PathBuf {
        self.launched.folder.log(component)
    }

    /// Every request that was answered, a line of JSON each, if the cluster was started with [`Options::audit`].
    pub fn audit_log(&self) -> PathBuf {
        self.launched.folder.log("audit")
    }

    /// The pid of a component, to read its CPU time and memory. (On a node: as seen from the machine.)
    pub fn pid(&self, component: &str) -> Option<u32> {
        self.launched.processes.iter().find(|process| process.name == component)?.component_pid()
    }

    /// Puts an OCI archive into the node's containerd.
    pub fn load(&self, archive: &Path) -> Result<()> {
        node::load(&self.launched.machine, &self.launched.binaries, archive)
    }

    /// Starts the node's kubelet again with these fields of its configuration changed
    /// (<https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/>); the containers run on.
    pub fn restart_kubelet(&mut self, changes: &serde_json::Value) -> Result<()> {
        node::restart_kubelet(&mut self.launched, changes)
    }

    /// Ends the cluster and says what did not go well, which dropping it cannot.
    pub async fn stop(mut self) -> Result<()> {
        // It waits for processes to end: not on a thread that others share.
        let ended = tokio::task::spawn_blocking(move || self.end()).await?;
        ended.context("failed to stop the cluster")
    }

    fn end(&mut self) -> Result<()> {
        teardown::end_processes(&self.launched.folder)?;
        self.launched.processes.clear();
        if std::thread::panicking() {
            eprintln!("the logs are in {}/logs until the next cluster starts", self.folder().display());
            return Ok(());
        }
        self.launched.folder.remove()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // After `stop` there is nothing left to do, and doing it again does no harm.
        if let Err(error) = self.end() {
            eprintln!("failed to stop the cluster in {}: {error:#}", self.folder().display());
        }
    }
}
