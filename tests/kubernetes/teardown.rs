//! The end of a cluster, whatever state it is in.
//!
//! Everything that was started is in the record before it can do anything, so this works from another process, after a
//! crash and half-way through a start. What ends by itself with a node's namespaces is told in [`super::machine`].

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cgroup;
use super::folder::{self, Folder};
use super::machine;

/// Ends every recorded process, waits for what goes with the last of them, then removes the recorded cgroups.
pub(crate) fn end_processes(folder: &Folder) -> Result<()> {
    let recorded = folder.record().read()?;
    let started = Instant::now();
    loop {
        let alive: Vec<_> = recorded.processes.iter().filter(|(_, identity)| identity.is_alive()).collect();
        if alive.is_empty() {
            break;
        }
        let names: Vec<&str> = alive.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(started.elapsed() < Duration::from_secs(20), "{} will not end", names.join(", "));
        alive.iter().for_each(|(_, identity)| identity.kill());
        sleep(Duration::from_millis(20));
    }
    // The kernel takes a network of its own apart some time after its last process: minutes after, if connections were
    // open. Whichever of us comes first, the card goes.
    for card in recorded.cards.iter().filter(|card| card.exists()) {
        let removed = machine::remove(card);
        if card.exists() {
            removed.context("the link to the node will not go")?;
        }
    }
    recorded.cgroups.iter().try_for_each(|name| cgroup::remove(name))
}

/// Removes what tests left behind that could not: their processes are gone or must go, and their folders.
pub fn sweep() -> Result<()> {
    let _creating = folder::lock_all()?;
    for folder in Folder::of_tests()? {
        // Whoever holds it lives, and so does the cluster.
        if folder.lock_file()?.try_lock().is_ok() {
            end_processes(&folder)?;
            folder.remove()?;
        }
    }
    Ok(())
}
