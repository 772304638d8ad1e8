//! What must the machine have before a cluster can run, and which command installs what it lacks?
//!
//! An API-size cluster needs only util-linux, which every distribution but the smallest has. A node needs the programs
//! that Kubernetes itself expects to find on one.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Binaries, Size};

/// Something to find, and the Debian package that has it.
struct Prerequisite {
    name: &'static str,
    found: fn(&str) -> bool,
    package: &'static str,
    size: Size,
}

const PREREQUISITES: &[Prerequisite] = &[
    on_path("setpriv", "util-linux", Size::Api),
    on_path("unshare", "util-linux", Size::Node),
    on_path("nsenter", "util-linux", Size::Node),
    on_path("mount", "mount", Size::Node),
    on_path("ip", "iproute2", Size::Node),
    on_path("iptables", "iptables", Size::Node),
    on_path("conntrack", "conntrack", Size::Node),
    on_path("runc", "runc", Size::Node),
    Prerequisite {
        name: "CNI plugins",
        found: |_| cni_plugins().is_some(),
        package: "containernetworking-plugins",
        size: Size::Node,
    },
    Prerequisite {
        name: "a static busybox",
        found: |_| static_busybox().is_some(),
        package: "busybox-static",
        size: Size::Node,
    },
];

/// What only a test needs: the official client, which `docs/moving.md` shows. Nobody is kept from a cluster for lack of it.
const PYTHON_CLIENT: &str = "python3-kubernetes";

/// What only `make fuzz` needs, for libFuzzer is C++.
const CPP_COMPILER: &str = "g++";

const fn on_path(name: &'static str, package: &'static str, size: Size) -> Prerequisite {
    Prerequisite { name, found: |name| program(name).is_some(), package, size }
}

/// What is missing. Its text names each thing and the command that installs them all.
#[derive(Debug)]
struct Missing {
    names: Vec<&'static str>,
    packages: Vec<&'static str>,
}

/// Looks for what a cluster of this size needs; `None` when everything is there.
fn missing(size: Size) -> Option<Missing> {
    let mut missing = Missing { names: Vec::new(), packages: Vec::new() };
    for wanted in PREREQUISITES.iter().filter(|wanted| wanted.size <= size) {
        if !(wanted.found)(wanted.name) {
            missing.names.push(wanted.name);
            if !missing.packages.contains(&wanted.package) {
                missing.packages.push(wanted.package);
            }
        }
    }
    (!missing.names.is_empty()).then_some(missing)
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "this machine lacks {}; on Debian and Ubuntu they come with", self.names.join(", "))?;
        write!(f, "    apt-get install -y {}", self.packages.join(" "))
    }
}

/// Fails with the command to run if something is missing, or the rights that a node needs.
pub(crate) fn require(size: Size) -> Result<()> {
    if let Some(missing) = missing(size) {
        bail!("{missing}");
    }
    ensure!(size == Size::Api || is_root(), "a node needs root: its containers do");
    Ok(())
}

/// Fails unless this machine can build and run a cluster of this size; says what is missing and how to get it.
pub fn check(size: Size) -> Result<()> {
    require(size)?;
    if Binaries::are_built(size)? { Ok(()) } else { require_go() }
}

/// Installs what is missing by apt-get.
pub fn install(size: Size) -> Result<()> {
    let (missing, can_install) = (missing(size), is_root() && program("apt-get").is_some());
    if let Some(missing) = &missing
        && !can_install
    {
        bail!("{missing}");
    }
    let mut packages = missing.map(|missing| missing.packages).unwrap_or_default();
    if size == Size::Node && can_install {
        packages.extend(python_with_client().is_none().then_some(PYTHON_CLIENT));
        packages.extend(program("c++").is_none().then_some(CPP_COMPILER));
    }
    if !packages.is_empty() {
        // A fresh image has no package lists, an old one has stale ones.
        apt_get(&["update", "-qq"])?;
        apt_get(&[&["install", "-y", "-qq", "--no-install-recommends"], &*packages].concat())?;
    }
    check(size)
}

/// A Python that has the official client: the user's, or Debian's, which a user's own may hide.
fn python_with_client() -> Option<PathBuf> {
    ["python3", "/usr/bin/python3"].map(PathBuf::from).into_iter().find(|python| {
        // Not `import kubernetes`: any folder of that name will do for it, and this repository has one.
        let imported = Command::new(python).args(["-c", "from kubernetes import client"]).output();
        imported.is_ok_and(|output| output.status.success())
    })
}

/// As `python_with_client`, or an error that says where it comes from.
pub fn python() -> Result<PathBuf> {
    python_with_client().with_context(|| {
        format!("no python3 has the Kubernetes client; on Debian and Ubuntu: apt-get install -y {PYTHON_CLIENT}")
    })
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    eprintln!("apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments).status();
    ensure!(status.context("run apt-get")?.success(), "apt-get {} failed", arguments.join(" "));
    Ok(())
}

/// Go is needed only while the cache lacks a binary. From 1.21 on it fetches the toolchain that go.mod names.
pub(crate) fn require_go() -> Result<()> {
    let text = match Command::new("go").args(["env", "GOVERSION"]).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "missing".to_owned(),
    };
    ensure!(
        go_is_new_enough(&text),
        "building Kubernetes needs Go 1.21 or newer, which here is {text}: https://go.dev/dl has it, and newer \
         distributions do (apt-get install -y golang-go)"
    );
    Ok(())
}

fn go_is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= (1, 21),
        // A development build of Go has no number.
        _ => version.starts_with("devel"),
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a program on the PATH, or where administrators' programs are though a user's PATH leaves them out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// The folder of the CNI plugins: Debian's, or the one most others use.
pub(crate) fn cni_plugins() -> Option<&'static Path> {
    ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"].map(Path::new).into_iter().find(|folder| {
        ["bridge", "host-local", "loopback", "portmap"].iter().all(|plugin| folder.join(plugin).is_file())
    })
}

/// A busybox that runs in an image with nothing else in it.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.is_file())?;
    super::image::is_static(&busybox).unwrap_or(false).then_some(busybox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_a_command_to_copy() {
        let missing =
            Missing { names: vec!["runc", "CNI plugins"], packages: vec!["runc", "containernetworking-plugins"] };
        assert_eq!(
            missing.to_string(),
            "this machine lacks runc, CNI plugins; on Debian and Ubuntu they come with\n    \
             apt-get install -y runc containernetworking-plugins"
        );
    }

    #[test]
    fn go_must_be_able_to_fetch_its_toolchain() {
        assert!(go_is_new_enough("go1.26.8"));
        assert!(go_is_new_enough("go1.21"));
        assert!(go_is_new_enough("devel go1.27-abcdef"));
        assert!(!go_is_new_enough("go1.19.8"));
        assert!(!go_is_new_enough("what"));
    }
}
