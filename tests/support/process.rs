//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The time that all threads of a process have had a core, which the kernel counts in hundredths of a second.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(") ").context("read stat")?.1.split(' ').collect();
    Ok(Duration::from_millis(10 * (fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)))
}

/// How it was started: the program and its arguments.
pub fn command(pid: u32) -> Result<Vec<String>> {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    Ok(command.split_terminator('\0').map(str::to_owned).collect())
}

/// The memory that a process has, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most memory that a process has had, in bytes.
pub fn peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, what: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(what)).with_context(|| format!("read {what}"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1).with_context(|| format!("{what} has a number"))?.parse()?;
    Ok(kibibytes * 1024)
}
