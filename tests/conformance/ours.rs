//! Is there such a test of ours, and in which file?
//!
//! | named in the mapping | where it is |
//! |---|---|
//! | `decide story one_pod` | `crates/decide/tests/stories/one_pod.txt` |
//! | `decide job::scale::tests::a_name` | `crates/decide/src/job/scale.rs`, or below `crates/decide/tests` |
//! | `crd case a work queue` | a `- case:` of `crates/crd/tests/admission.yaml`, which `api admit` sends |
//! | `api life::a_name` | `tests/api/life.rs`; the same for `cluster` and every other folder of `tests/` |

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The file of a test, from the root of the repository.
pub fn find(reference: &str) -> Result<String> {
    let (ring, name) = reference.split_once(' ').with_context(|| format!("{reference}: write RING NAME"))?;
    if let Some(story) = name.strip_prefix("story ") {
        let path = format!("crates/{ring}/tests/stories/{story}.txt");
        ensure!(repository().join(&path).is_file(), "{reference}: there is no {path}");
        return Ok(path);
    }
    if let Some(case) = name.strip_prefix("case ") {
        let path = format!("crates/{ring}/tests/admission.yaml");
        let cases = fs::read_to_string(repository().join(&path)).with_context(|| format!("read {path}"))?;
        let line = format!("- case: {case}");
        ensure!(cases.lines().any(|it| it.trim() == line), "{reference}: {path} has no such case");
        return Ok(path);
    }
    let mut modules: Vec<&str> = name.split("::").collect();
    let function = modules.pop().unwrap_or_default();
    modules.retain(|module| *module != "tests");
    let module = if modules.is_empty() { "main".to_owned() } else { modules.join("/") };
    let crates = [format!("crates/{ring}/src"), format!("crates/{ring}/tests")];
    let candidates = crates.into_iter().chain([format!("tests/{ring}/tests"), format!("tests/{ring}")]);
    let mut found = None;
    for folder in candidates {
        for path in [format!("{folder}/{module}.rs"), format!("{folder}/{module}/tests.rs")] {
            let Ok(code) = fs::read_to_string(repository().join(&path)) else { continue };
            if has_test(&code, function) {
                return Ok(path);
            }
            found = Some(path);
        }
    }
    let path = found.with_context(|| format!("{reference}: there is no such file"))?;
    anyhow::bail!("{reference}: {path} has no such test")
}

/// A function with an attribute that makes it a test, and none that keeps it from running; or one that is made a test for
/// both doors.
fn has_test(code: &str, function: &str) -> bool {
    if code.lines().any(|line| line == format!("both_doors!({function});")) {
        return true;
    }
    let mut attributes: Vec<&str> = Vec::new();
    for line in code.lines().map(str::trim) {
        let words = line.split_once("fn ").map(|(_, rest)| rest);
        if line.starts_with("#[") {
            attributes.push(line);
        } else if words.is_some_and(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with('('))) {
            let is_test = |attribute: &&str| {
                let path = attribute.trim_start_matches("#[").split(['(', ']']).next().unwrap_or_default();
                path.rsplit("::").next() == Some("test")
            };
            let is_ignored = attributes.iter().any(|attribute| attribute.starts_with("#[ignore"));
            return attributes.iter().any(is_test) && !is_ignored;
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_a_function_with_that_attribute_and_runs() {
        let code = "#[test]\n/// Why.\nfn plain() {}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn long() {}\n\
                    fn helper() {}\n#[test]\n#[ignore]\nfn ignored() {}\n#[cfg(test)]\nfn testing() {}\n\
                    both_doors!(twice);\nasync fn twice(stage: &Both) {}\n";
        let has = |name| has_test(code, name);
        assert_eq!(["plain", "long", "twice"].map(has), [true; 3]);
        assert_eq!(["helper", "ignored", "testing", "absent", "plai"].map(has), [false; 5]);
    }

    #[test]
    fn every_form_of_a_name_is_found_and_others_are_not() {
        for (reference, path) in [
            ("decide story one_pod", "crates/decide/tests/stories/one_pod.txt"),
            ("decide stories::stories", "crates/decide/tests/stories.rs"),
            ("conformance ours::tests::every_form_of_a_name_is_found_and_others_are_not", "tests/conformance/ours.rs"),
            ("crd case only a template", "crates/crd/tests/admission.yaml"),
        ] {
            assert_eq!(find(reference).unwrap(), path);
        }
        for (reference, error) in [
            ("decide story none", "decide story none: there is no crates/decide/tests/stories/none.txt"),
            ("crd case none", "crd case none: crates/crd/tests/admission.yaml has no such case"),
            ("api none::none", "api none::none: there is no such file"),
            ("conformance ours::has_test", "conformance ours::has_test: tests/conformance/ours.rs has no such test"),
        ] {
            assert_eq!(find(reference).unwrap_err().to_string(), error);
        }
    }
}
