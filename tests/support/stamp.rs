//! When a report was made, and of which code.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Today, as 2026-11-25, and the commit.
#[expect(clippy::disallowed_methods, reason = "a report has a date")]
pub fn date_and_commit() -> Result<(String, String)> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().context("start git")?;
    ensure!(output.status.success(), "git rev-parse: {}", String::from_utf8_lossy(&output.stderr));
    let commit = String::from_utf8(output.stdout)?.trim().to_owned();
    Ok((jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(), commit))
}
