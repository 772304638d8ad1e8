//! Upstream's tests by name, as `upstream.txt` has them: files, their tests, and the cases of those.
//!
//! ```text
//! k8s.io/kubernetes v1.37.2
//!
//! pkg/controller/job/success_policy_test.go
//!   TestMatchSuccessPolicy
//!     successPolicy is null
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use batchjob_tests::kubernetes::versions;

use crate::go::{self, Test};

/// What is about Jobs, CronJobs and their ends. Of a folder all its tests are read: a new file is not overlooked.
const SOURCES: &[&str] = &[
    "test/e2e/apps/job.go",
    "test/e2e/apps/cronjob.go",
    "test/e2e/apps/ttl_after_finished.go",
    "test/integration/job",
    "test/integration/cronjob",
    "test/integration/ttlcontroller",
    "test/integration/staleness",
    "pkg/controller/job",
    "pkg/controller/job/util",
    "pkg/controller/ttlafterfinished",
    "pkg/controller/cronjob",
];

#[derive(Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Of Kubernetes: `v1.37.2`.
    pub version: String,
    pub files: Vec<File>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub tests: Vec<Test>,
}

impl Upstream {
    /// From the source of the version that the tests run on. Nothing, if it is not on this machine.
    pub fn of_source() -> Result<Option<Upstream>> {
        let version = pinned_version()?;
        let Some(root) = module_cache().map(|cache| cache.join(format!("k8s.io/kubernetes@{version}"))) else {
            return Ok(None);
        };
        if !root.is_dir() {
            return Ok(None);
        }
        let mut files = Vec::new();
        for source in SOURCES {
            for path in go_files(&root, source)? {
                let code = fs::read_to_string(root.join(&path)).with_context(|| format!("read {path}"))?;
                let tests = go::tests(&code).with_context(|| path.clone())?;
                if !tests.is_empty() {
                    files.push(File { path, tests });
                }
            }
        }
        Ok(Some(Upstream { version, files }))
    }

    pub fn parse(text: &str) -> Result<Upstream> {
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let head = lines.next().unwrap_or_default();
        let version = head.strip_prefix("k8s.io/kubernetes ").context("no version in the first line")?.to_owned();
        let mut files: Vec<File> = Vec::new();
        for line in lines {
            if let Some(case) = line.strip_prefix("    ") {
                let test = files.last_mut().and_then(|file| file.tests.last_mut());
                test.with_context(|| format!("a case of no test: {case}"))?.cases.push(case.to_owned());
            } else if let Some(name) = line.strip_prefix("  ") {
                let file = files.last_mut().with_context(|| format!("a test of no file: {name}"))?;
                file.tests.push(Test { name: name.to_owned(), cases: Vec::new() });
            } else {
                files.push(File { path: line.to_owned(), tests: Vec::new() });
            }
        }
        Ok(Upstream { version, files })
    }

    pub fn text(&self) -> String {
        let mut text = format!("k8s.io/kubernetes {}\n", self.version);
        for File { path, tests } in &self.files {
            text += &format!("\n{path}\n");
            for Test { name, cases } in tests {
                text += &format!("  {name}\n");
                cases.iter().for_each(|case| text += &format!("    {case}\n"));
            }
        }
        text
    }

    /// What `other` has and `self` has not: a line for each file, test and case.
    pub fn lacks(&self, other: &Upstream) -> Vec<String> {
        let known = self.lines();
        other.lines().into_iter().filter(|line| !known.contains(line)).collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for File { path, tests } in &self.files {
            for Test { name, cases } in tests {
                lines.push(format!("{path}: {name}"));
                lines.extend(cases.iter().map(|case| format!("{path}: {name}: {case}")));
            }
        }
        lines
    }
}

/// Of Kubernetes, as `kubernetes/modules` pins it.
pub fn pinned_version() -> Result<String> {
    let versions = versions()?;
    let kubernetes = versions.into_iter().find(|(name, _)| *name == "kubernetes");
    Ok(kubernetes.context("no version of Kubernetes is pinned")?.1)
}

/// Where Go keeps the source of modules, by its own rules.
fn module_cache() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let go_path = || folder("GOPATH").or_else(|| Some(folder("HOME")?.join("go")));
    folder("GOMODCACHE").or_else(|| Some(go_path()?.join("pkg/mod")))
}

/// The source itself if it is a file, else the tests of the folder.
fn go_files(root: &Path, source: &str) -> Result<Vec<String>> {
    let path = root.join(source);
    if path.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    if !path.is_dir() {
        bail!("there is no {source} any more: see where its tests are now");
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with("_test.go") {
            files.push(format!("{source}/{name}"));
        }
    }
    ensure!(!files.is_empty(), "there is no test in {source} any more");
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_writes_it_reads_back() {
        let text = "k8s.io/kubernetes v1.2.3\n\na.go\n  one\n    case: of one\n    another\n  two\n\nb.go\n  three\n";
        assert_eq!(Upstream::parse(text).unwrap().text(), text);
    }

    #[test]
    fn a_new_case_is_told() {
        let before = Upstream::parse("k8s.io/kubernetes v1.2.3\n\na.go\n  one\n    first\n").unwrap();
        let after = Upstream::parse("k8s.io/kubernetes v1.2.4\n\na.go\n  one\n    first\n    second\n").unwrap();
        assert_eq!(before.lacks(&after), ["a.go: one: second"]);
        assert_eq!(after.lacks(&before), [""; 0]);
    }
}
