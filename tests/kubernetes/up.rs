//! The one cluster that stays when its starter is gone: `make up`, `make demo`, and a person's own experiments.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::binaries::Binaries;
use super::folder::{self, Folder};
use super::launch::launch;
use super::machine::Machine;
use super::process::Lifetime;
use super::steps::Steps;
use super::{Options, Size, node, prerequisites, teardown};

/// Starts the cluster, unless it runs, and says what it does.
pub async fn up(size: Size) -> Result<()> {
    prerequisites::require(size)?;
    let binaries = Binaries::build(size)?;
    let _lock = folder::lock_up()?;
    let folder = Folder::for_up()?;
    if is_running(&folder)? {
        let running = std::fs::read_to_string(folder.join("size"))?;
        ensure!(running == name(size), "a cluster of size {running} is up: `down` ends it");
        eprintln!("it is up already");
        return Ok(());
    }
    clear(&folder)?;

    let steps = Steps::printed();
    let launched = launch(folder.clone(), binaries, &Options::from(size), Lifetime::Detached, &steps).await?;
    folder.write("size", name(size))?;
    steps.finished(&format!("in all: {}", launched.server));
    Ok(())
}

/// Ends the cluster and removes what it and dead tests left.
pub fn down() -> Result<()> {
    let _lock = folder::lock_up()?;
    let steps = Steps::printed();
    clear(&Folder::for_up()?)?;
    steps.done("down");
    Ok(())
}

/// The kubeconfig of the running cluster.
pub fn kubeconfig() -> Result<PathBuf> {
    Ok(running()?.kubeconfig())
}

/// Puts an OCI archive into the running cluster's node.
pub fn load(archive: &Path) -> Result<()> {
    let machine = Machine::of(&running()?.record().read()?);
    if matches!(machine, Machine::Host) {
        bail!("the cluster that is up has no node: `up --size node` starts one");
    }
    node::load(&machine, &Binaries::find()?, archive)
}

fn running() -> Result<Folder> {
    let folder = Folder::for_up()?;
    ensure!(is_running(&folder)?, "no cluster is up: `up` starts one");
    Ok(folder)
}

/// Runs with all its parts: a cluster that lost one is no cluster, but something to clear away.
fn is_running(folder: &Folder) -> Result<bool> {
    let recorded = folder.record().read()?;
    let complete = folder.join("size").exists();
    Ok(complete && !recorded.processes.is_empty() && recorded.processes.iter().all(|(_, identity)| identity.is_alive()))
}

fn clear(folder: &Folder) -> Result<()> {
    teardown::sweep()?;
    if folder.exists() {
        teardown::end_processes(folder).context("end the former cluster")?;
        folder.remove()?;
    }
    Ok(())
}

fn name(size: Size) -> &'static str {
    match size {
        Size::Api => "api",
        Size::Node => "node",
    }
}
