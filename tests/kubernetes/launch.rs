//! The start of a cluster, from an empty folder to ready: a table of contents of the other modules.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

use super::binaries::Binaries;
use super::certificates::Authority;
use super::folder::Folder;
use super::machine::Machine;
use super::process::{Lifetime, Process};
use super::steps::Steps;
use super::{Options, Size, control_plane, kubeconfig, node, prerequisites, teardown};

/// How long a component may take until it is ready, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// What runs when everything is ready.
pub(crate) struct Launched {
    pub(crate) folder: Folder,
    pub(crate) binaries: Binaries,
    pub(crate) machine: Machine,
    pub(crate) processes: Vec<Process>,
    pub(crate) server: String,
    /// Unless it is in a network of its own.
    pub(crate) etcd: Option<String>,
}

/// A start under way.
pub(crate) struct Launch<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) binaries: &'a Binaries,
    pub(crate) machine: Machine,
    pub(crate) steps: &'a Steps,
    pub(crate) etcd: Option<String>,
    lifetime: Lifetime,
    processes: Vec<Process>,
}

/// Starts a cluster and waits until it is ready. When that fails nothing is left running.
pub(crate) async fn launch(
    folder: Folder,
    binaries: Binaries,
    options: &Options,
    lifetime: Lifetime,
    steps: &Steps,
) -> Result<Launched> {
    let failed = match start(&folder, &binaries, options, lifetime, steps).await {
        Ok((launch, authority)) => {
            let Launch { machine, processes, etcd, .. } = launch;
            let server = authority.server().to_owned();
            return Ok(Launched { machine, processes, server, etcd, folder, binaries });
        }
        Err(failed) => failed,
    };
    teardown::end_processes(&folder)?;
    if lifetime == Lifetime::Ours {
        folder.remove()?;
    }
    Err(failed)
}

async fn start<'a>(
    folder: &'a Folder,
    binaries: &'a Binaries,
    options: &Options,
    lifetime: Lifetime,
    steps: &'a Steps,
) -> Result<(Launch<'a>, Authority)> {
    prerequisites::require(options.size)?;
    folder.create()?;
    let (machine, processes) = match options.size {
        Size::Api => (Machine::Host, Vec::new()),
        Size::Node => {
            let (machine, process) = Machine::create(folder, lifetime)?;
            steps.done("namespaces");
            (machine, vec![process])
        }
    };
    let mut launch = Launch { folder, binaries, machine, steps, etcd: None, lifetime, processes };

    if options.size == Size::Node {
        node::start_runtime(&mut launch)?;
    }
    let authority = control_plane::start_api(&mut launch, options).await?;
    if options.size == Size::Node {
        node::start_kubelet(&mut launch, &authority)?;
    }
    control_plane::start_controllers(&mut launch, options, &authority).await?;
    if options.size == Size::Node {
        node::until_ready(&mut launch).await?;
    }
    Ok((launch, authority))
}

impl Launch<'_> {
    /// Starts one component.
    pub(crate) fn start(&mut self, name: &str, command: Command) -> Result<()> {
        self.processes.push(Process::start(name, command, self.folder, self.lifetime)?);
        Ok(())
    }

    /// A client with the administrator's rights.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.folder.kubeconfig()).await
    }

    /// Asks until the answer is yes. Fails as soon as any component ends, or when the limit is reached, with the last
    /// lines of the log that should say why.
    pub(crate) async fn until_ready(
        &mut self,
        component: &str,
        mut is_ready: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        let mut last_error: Option<Error> = None;
        while started.elapsed() < LIMIT {
            self.processes.iter_mut().try_for_each(Process::check)?;
            // A question without an answer must not outlast the limit.
            match tokio::time::timeout(Duration::from_secs(5), is_ready()).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => last_error = None,
                Ok(Err(error)) => last_error = Some(error),
                Err(elapsed) => last_error = Some(elapsed.into()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = self.processes.iter().find(|process| process.name == component).map(Process::last_lines);
        let log = log.unwrap_or_default();
        let error = last_error.unwrap_or_else(|| Error::msg("it answers, but is not ready"));
        Err(error).with_context(|| format!("{component} was not ready after {} s\n{log}", LIMIT.as_secs()))
    }
}
