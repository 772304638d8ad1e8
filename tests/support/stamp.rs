//! What every report says: when it was made, of which code, and how long it took.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_oracle::Report;

/// A report of today and of this commit, about something that took so long; what it was is left to say.
#[expect(clippy::disallowed_methods, reason = "a report has a date")]
pub fn stamped(took: Duration) -> Result<Report> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().context("start git")?;
    ensure!(output.status.success(), "git rev-parse: {}", String::from_utf8_lossy(&output.stderr));
    let commit = String::from_utf8(output.stdout)?.trim().to_owned();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    Ok(Report { seconds: took.as_secs(), date, commit, ..Report::default() })
}
