//! The cgroups of a node: made before kubelet, which wants its root to exist, and removed after everything has ended.
//!
//! A node's pods are in a cgroup of the node's own, so that its remains are known by their name. Version 1 has one tree
//! for each controller, version 2 has one tree.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const CGROUPS: &str = "/sys/fs/cgroup";

pub(crate) fn is_version_2() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

pub(crate) fn create(name: &str) -> Result<()> {
    if is_version_2() {
        // A controller reaches a cgroup only if every cgroup above hands it down.
        let handed_down = Path::new(CGROUPS).join("cgroup.subtree_control");
        for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
            // Not every kernel has every controller. kubelet names the one it misses.
            let _ = fs::write(&handed_down, format!("+{controller}"));
        }
    }
    for tree in trees()? {
        let path = tree.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

/// Removes a cgroup with all below it. The kernel takes a moment to let go of one whose processes have just ended.
pub(crate) fn remove(name: &str) -> Result<()> {
    let started = Instant::now();
    for tree in trees()? {
        let path = tree.join(name);
        while let Err(error) = remove_tree(&path) {
            if started.elapsed() > Duration::from_secs(5) {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// From the leaves up: the files in a cgroup are not removed, they go with it.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn trees() -> Result<Vec<PathBuf>> {
    if is_version_2() {
        return Ok(vec![PathBuf::from(CGROUPS)]);
    }
    let mut trees = Vec::new();
    for entry in fs::read_dir(CGROUPS).context("list the cgroup trees")? {
        let entry = entry?;
        // `cpu` may be a link to `cpu,cpuacct`. `unified`, a tree of version 2 without controllers, is one more tree:
        // runc puts containers there too.
        if entry.file_type()?.is_dir() {
            trees.push(entry.path());
        }
    }
    Ok(trees)
}
