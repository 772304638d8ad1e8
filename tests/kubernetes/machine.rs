//! Where do the components run: on this machine as it is, or in namespaces of their own?
//!
//! A node changes its machine deeply: mounts, network cards, iptables rules, kernel settings, containers that belong to
//! nobody. So a node gets mounts, processes and a network of its own. `init.sh` is process 1 in there; when it ends,
//! for whatever reason, the kernel ends every process of the namespaces, and with the last one the mounts, the bridge,
//! the rules and the link are gone. There is nothing to undo and nothing to forget.
//!
//! Only two things stay outside: the state folder and the cgroups (see [`super::cgroup`]).
//!
//! The node's network has no way out. Pods reach each other, the API server and the machine's end of the link, and
//! everything else is unreachable at once: an image that was not loaded fails within a second instead of a minute.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::address::Link;
use super::binaries::cache_root;
use super::folder::Folder;
use super::process::{Lifetime, Process, search_path};
use super::record::{Card, Recorded, child_of};

/// What process 1 does: prepare the mounts, then wait.
const INIT: &str = include_str!("machine/init.sh");
/// The names in the record.
const KEEPER: &str = "namespaces";
const FIRST: &str = "init";

#[derive(Clone)]
pub(crate) enum Machine {
    /// This machine.
    Host,
    /// Namespaces of their own, and the link to them.
    Own { init: u32, link: Link },
}

impl Machine {
    /// Makes the namespaces and the link.
    pub(crate) fn create(folder: &Folder, lifetime: Lifetime) -> Result<(Machine, Process)> {
        require_visible(folder)?;
        let script = folder.write("config/init.sh", INIT)?;
        for name in ["var/lib", "var/log"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--propagation", "private", "--mount-proc"]);
        command.args(["--fork", "--kill-child=SIGKILL", "sh"]).arg(script).arg(folder.path());
        let (mut process, output) = Process::start_piped(KEEPER, command, folder, lifetime)?;

        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line != "ready\n" {
            process.check()?;
            bail!("failed to prepare the namespaces:\n{}", process.last_lines());
        }
        let init = child_of(process.pid()).context("find process 1 of the namespaces")?;
        folder.record().add_process(FIRST, init)?;
        let link = connect(init)?;
        folder.record().add_card(&link.card())?;
        let machine = Machine::Own { init, link };
        Ok((machine, process))
    }

    /// The machine of a running cluster.
    pub(crate) fn of(recorded: &Recorded) -> Machine {
        match recorded.processes.iter().find(|(name, _)| name == FIRST) {
            // The number of the link matters only while a cluster starts.
            Some((_, identity)) => Machine::Own { init: identity.pid, link: Link::new(0) },
            None => Machine::Host,
        }
    }

    /// Where the machine's users reach the components.
    pub(crate) fn address(&self) -> Ipv4Addr {
        match self {
            Machine::Host => Ipv4Addr::LOCALHOST,
            Machine::Own { link, .. } => link.node(),
        }
    }

    /// A command that will run in there.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        match self {
            Machine::Host => Command::new(program.as_ref()),
            Machine::Own { init, .. } => {
                let mut command = Command::new("nsenter");
                command.arg("--target").arg(init.to_string()).args(["--mount", "--pid", "--net", "--"]);
                command.arg(program.as_ref()).env("PATH", search_path());
                command
            }
        }
    }
}

/// The node has its own `/run`, `/var/lib` and `/var/log`: what lies there on the machine it cannot see.
fn require_visible(folder: &Folder) -> Result<()> {
    for path in [folder.path().to_owned(), cache_root()?] {
        for hidden in ["/run", "/var/run", "/var/lib", "/var/log"] {
            ensure!(
                !path.starts_with(hidden),
                "{} is below {hidden}, of which a node has its own: set BATCHJOB_STATE and BATCHJOB_CACHE to other folders",
                path.display()
            );
        }
    }
    Ok(())
}

/// Makes a pair of network cards between the machine and the namespaces, the first that is free.
fn connect(init: u32) -> Result<Link> {
    for number in 0..=u8::MAX {
        let link = Link::new(number);
        // Two that start at the same time may try the same number: the kernel gives the name to one of them.
        let made = ip(&format!("link add {} type veth peer name eth0 netns {init}", link.card()));
        if made.is_err() && Path::new("/sys/class/net").join(link.card()).exists() {
            continue;
        }
        made?;
        ip(&format!("addr add {}/30 dev {}", link.machine(), link.card()))?;
        ip(&format!("link set {} up", link.card()))?;
        let inside = Machine::Own { init, link };
        for arguments in [format!("addr add {}/30 dev eth0", link.node()), "link set eth0 up".to_owned()] {
            run(inside.command("ip").args(arguments.split(' ')))?;
        }
        return Ok(link);
    }
    bail!("this machine has 256 nodes already");
}

/// Takes the machine's end of a link away, and with it the other end.
pub(crate) fn remove(card: &Card) -> Result<()> {
    ip(&format!("link del {}", card.name()))
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").env("PATH", search_path()).args(arguments.split(' ')))
}

/// Runs a command to its end; its errors are part of ours.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The same, for its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} failed ({}): {}",
        command,
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
