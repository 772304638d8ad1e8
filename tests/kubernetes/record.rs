//! Which processes did we start, and is that pid still the process we mean?
//!
//! A pid alone names nothing: it is given to another process some time after the first has ended. A pid, its start time
//! and the boot it happened in name one process for ever, so that a record may be as old as it likes and `down` still
//! ends nothing of anybody else's.
//!
//! ```text
//! boot 2f1c0f6e-…
//! process etcd 4711 188230
//! cgroup batchjob-4711-188230
//! card bj0 17
//! ```

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, told apart from every other of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Identity> {
        Some(Identity { pid, started: stat(pid)?.started })
    }

    /// It runs. A zombie does not: it has ended, and only its parent can remove it.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_zombie)
    }

    /// Ends it at once. The pidfd is opened before the start time is compared, so the pid cannot change hands between.
    pub(crate) fn kill(self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if self.is_alive() {
            // It fails only when the process has just ended by itself, or is not ours to end; `down` sees who is left.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

/// The only child of a process, such as the one that `unshare --fork` made.
pub(crate) fn child_of(parent: u32) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?;
    let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
}

struct Stat {
    is_zombie: bool,
    parent: u32,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/<pid>/stat` (proc(5)): the command stands in brackets and may itself hold brackets and blanks, so the
/// fields are counted from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The file that says what to end.
pub(crate) struct Record {
    path: PathBuf,
}

/// What a record says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) processes: Vec<(String, Identity)>,
    pub(crate) cgroups: Vec<String>,
    pub(crate) cards: Vec<Card>,
}

/// A network card: its name may be given again, its index is not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Card {
    name: String,
    index: String,
}

impl Card {
    /// The card that has this name now.
    pub(crate) fn named(name: &str) -> Option<Card> {
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
        Some(Card { name: name.to_owned(), index: index.trim().to_owned() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn exists(&self) -> bool {
        Card::named(&self.name).as_ref() == Some(self)
    }
}

impl Record {
    pub(crate) fn at(path: PathBuf) -> Record {
        Record { path }
    }

    /// Notes a process that was just started.
    pub(crate) fn add_process(&self, name: &str, pid: u32) -> Result<()> {
        let Some(identity) = Identity::of(pid) else {
            return Ok(());
        };
        self.append(&format!("process {name} {} {}", identity.pid, identity.started))
    }

    /// Finds a name that no other cgroup has, and notes it before the cgroup is made.
    pub(crate) fn add_cgroup(&self) -> Result<String> {
        let recorded = self.read()?;
        let (_, first) = recorded.processes.first().context("a cgroup is named after a process")?;
        let name = format!("batchjob-{}-{}", first.pid, first.started);
        self.append(&format!("cgroup {name}"))?;
        Ok(name)
    }

    /// Notes the machine's end of the link to a node.
    pub(crate) fn add_card(&self, name: &str) -> Result<()> {
        let card = Card::named(name).with_context(|| format!("find network card {name}"))?;
        self.append(&format!("card {} {}", card.name, card.index))
    }

    /// What was started and not yet ended; nothing if this machine has been started anew since.
    pub(crate) fn read(&self) -> Result<Recorded> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(parse(&text, &boot()?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Recorded::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", self.path.display())),
        }
    }

    fn append(&self, line: &str) -> Result<()> {
        let boot = if self.path.exists() { String::new() } else { format!("boot {}\n", boot()?) };
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{boot}{line}\n").as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }
}

fn boot() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the id of this boot")?;
    Ok(id.trim().to_owned())
}

fn parse(text: &str, this_boot: &str) -> Recorded {
    let mut recorded = Recorded::default();
    let mut boot = None;
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["boot", id] => boot = Some(id),
            ["process", name, pid, started] => {
                // A line that a crash cut short says nothing; the others stand.
                if let (Ok(pid), Ok(started)) = (pid.parse(), started.parse()) {
                    recorded.processes.push((name.to_owned(), Identity { pid, started }));
                }
            }
            ["cgroup", name] => recorded.cgroups.push(name.to_owned()),
            ["card", name, index] => {
                recorded.cards.push(Card { name: name.to_owned(), index: index.to_owned() });
            }
            _ => {}
        }
    }
    if boot == Some(this_boot) { recorded } else { Recorded::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_command_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "4711 (a) b (c) S 12 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 188230 10 10";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.is_zombie, stat.parent, stat.started), (false, 12, 188_230));
    }

    #[test]
    fn a_record_of_another_boot_names_nothing() {
        let text = "boot one\nprocess etcd 4711 188230\ncgroup batchjob-1\nprocess kubel";
        let recorded = parse(text, "one");
        assert_eq!(recorded.processes, [("etcd".to_owned(), Identity { pid: 4711, started: 188_230 })]);
        assert_eq!(recorded.cgroups, ["batchjob-1"]);
        assert_eq!(parse(text, "two"), Recorded::default());
    }

    #[test]
    fn a_pid_that_changed_hands_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let former = Identity { started: identity.started - 1, ..identity };
        former.kill();
        assert!(identity.is_alive() && !former.is_alive());
        identity.kill();
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
