//! What a run showed: the rows of the page about reliability are made from these.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a run showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of the file: "laws".
    pub name: String,
    /// What users are promised, in one sentence.
    pub promise: String,
    /// How it was tested, in one sentence.
    pub how: String,
    /// What repeats it.
    pub command: String,
    /// How much of it: "plans", "seeds", "lives", "events".
    pub counts: BTreeMap<String, u64>,
    pub seconds: u64,
    /// The laws that were broken, how often. What is measured for comparison alone, such as another controller, is in
    /// `details`.
    pub violations: u64,
    /// The day, as 2026-11-25.
    pub date: String,
    /// Of the code that was tested.
    pub commit: String,
    /// What else there is to tell, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Report {
    /// How much of it, as `counts` has it.
    pub fn count<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
        counts.into_iter().map(|(what, n)| (what.to_owned(), n)).collect()
    }

    /// Writes NAME.json.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    pub fn read(path: &Path) -> Result<Report> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() -> Result<()> {
        let report = Report {
            name: format!("report-{}", std::process::id()),
            counts: BTreeMap::from([("lives".to_owned(), 7)]),
            details: vec!["slow".to_owned()],
            ..Report::default()
        };
        let path = report.write(&std::env::temp_dir())?;
        let read = Report::read(&path);
        fs::remove_file(path)?;
        assert_eq!(read?, report);
        Ok(())
    }
}
