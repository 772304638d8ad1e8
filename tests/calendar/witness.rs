//! A program that answers the same questions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// One that runs, and is asked one question after the other.
pub struct Witness {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Witness {
    pub fn start(command: &mut Command) -> Result<Witness> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let questions = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Witness { child, questions, answers })
    }

    /// The answer may be fetched later: both work at the same time.
    pub fn ask(&mut self, question: &str) -> Result<()> {
        writeln!(self.questions, "{question}")?;
        Ok(self.questions.flush()?)
    }

    pub fn answer(&mut self) -> Result<Vec<i64>> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a witness has ended: {:?}", self.child.try_wait()?);
        line.split_whitespace().map(|slot| slot.parse().with_context(|| format!("{slot} is no slot"))).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
