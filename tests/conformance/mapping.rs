//! Which test of ours stands for which of upstream's, and how far: `mapping.yaml`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::go::Test;
use crate::upstream::{File, Upstream};

/// What is said about a test, or about one of its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub verdict: Verdict,
    /// As they are named in `mapping.yaml`: `api life::every_index_is_done_once`.
    pub ours: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same(Doors),
    /// Not the same, on purpose. Why that is better.
    Better(Doors, String),
    /// Why there is nothing to test, or what stands in its place.
    NotOurs(String),
    /// Which piece of work brings it.
    Later(String),
    /// What is to be written.
    Open(String),
}

/// Through which a job comes in our tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doors {
    Both,
    /// One of them, and why the other has no such thing. Without a reason the other is still to come.
    One(&'static str, Option<String>),
}

/// A test of upstream with what is said about it, and about those of its cases that have a row of their own.
#[derive(Debug)]
pub struct Judged<'a> {
    pub test: &'a Test,
    pub row: Row,
    pub cases: Vec<(&'a str, Row)>,
}

#[derive(Debug)]
pub struct JudgedFile<'a> {
    pub path: &'a str,
    pub tests: Vec<Judged<'a>>,
}

impl Judged<'_> {
    /// Every case with its verdict; a test without cases counts as one.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let n_others = self.test.cases.len().max(1) - self.cases.len();
        std::iter::repeat_n(&self.row.verdict, n_others).chain(self.cases.iter().map(|(_, row)| &row.verdict))
    }
}

/// Says of each test of upstream what the mapping says. What is missing, unknown or malformed is a problem.
pub fn judge<'a>(upstream: &'a Upstream, mapping: &str, problems: &mut Vec<String>) -> Result<Vec<JudgedFile<'a>>> {
    let Value::Object(mut mapping) = serde_saphyr::from_str(mapping)? else { bail!("the mapping is no map") };
    // Reasons that rows share, by anchors.
    mapping.remove("shared");
    let mut files = Vec::new();
    for File { path, tests } in &upstream.files {
        let mut rows = match mapping.remove(path) {
            Some(Value::Object(rows)) => rows,
            _ => Map::new(),
        };
        let mut judged = Vec::new();
        for test in tests {
            match rows.remove(&test.name).context("has no row").and_then(|row| judge_test(test, row)) {
                Ok(test) => judged.push(test),
                Err(error) => problems.push(format!("{path}: {}: {error:#}", test.name)),
            }
        }
        problems.extend(rows.keys().map(|name| format!("{path}: {name}: upstream has no such test")));
        files.push(JudgedFile { path, tests: judged });
    }
    problems.extend(mapping.keys().map(|path| format!("{path}: upstream has no such file")));
    Ok(files)
}

fn judge_test(test: &Test, row: Value) -> Result<Judged<'_>> {
    let Value::Object(mut row) = row else { bail!("the row is no map") };
    let n_cases = row.remove("cases").unwrap_or(Value::from(0));
    let n_upstream = test.cases.len();
    ensure!(n_cases == n_upstream, "upstream has {n_upstream} cases: see whether the row holds for all, then write so");
    let exceptions = row.remove("except").unwrap_or(Value::Object(Map::new()));
    let Value::Object(mut exceptions) = exceptions else { bail!("except is no map") };
    let mut cases = Vec::new();
    for case in &test.cases {
        if let Some(row) = exceptions.remove(case) {
            let Value::Object(row) = row else { bail!("{case}: the row is no map") };
            cases.push((case.as_str(), read(row).with_context(|| case.clone())?));
        }
    }
    if let Some(case) = exceptions.keys().next() {
        bail!("upstream has no case {case}");
    }
    Ok(Judged { test, row: read(row)?, cases })
}

fn read(mut row: Map<String, Value>) -> Result<Row> {
    let ours = match row.remove("ours").unwrap_or(Value::Array(Vec::new())) {
        Value::Array(tests) => tests.into_iter().map(text).collect::<Result<Vec<_>>>()?,
        other => vec![text(other)?],
    };
    let mut words: BTreeMap<String, String> =
        row.into_iter().map(|(word, value)| Ok((word, text(value)?))).collect::<Result<_>>()?;
    let only = words.remove("only");
    let (same, better) = (words.remove("same"), words.remove("better"));
    let verdict = match (same, better, words.pop_first()) {
        (Some(same), None, None) => Verdict::Same(doors(&same, only)?),
        (None, Some(better), Some((word, why))) if word == "why" => Verdict::Better(doors(&better, only)?, why),
        (None, None, Some((word, why))) if only.is_none() => match word.as_str() {
            "not ours" => Verdict::NotOurs(why),
            "later" => Verdict::Later(why),
            "open" => Verdict::Open(why),
            _ => bail!("{word} is no verdict"),
        },
        _ => bail!("one of same, better (with why), not ours, later and open"),
    };
    ensure!(words.is_empty(), "too much: {words:?}");
    let needs_tests = matches!(verdict, Verdict::Same(_) | Verdict::Better(..));
    ensure!(!needs_tests || !ours.is_empty(), "no test of ours shows it");
    Ok(Row { verdict, ours })
}

fn doors(text: &str, only: Option<String>) -> Result<Doors> {
    Ok(match text {
        "both" if only.is_none() => Doors::Both,
        "BatchJob" => Doors::One("BatchJob", only),
        "Job" => Doors::One("Job", only),
        _ => bail!("{text}: the doors are both, BatchJob or Job"),
    })
}

fn text(value: Value) -> Result<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        other => bail!("{other} is no text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = "k8s.io/kubernetes v1\n\na.go\n  one\n  two\n    first\n    second\n";

    fn problems(mapping: &str) -> Vec<String> {
        let mut problems = Vec::new();
        judge(&Upstream::parse(UPSTREAM).unwrap(), mapping, &mut problems).unwrap();
        problems
    }

    #[test]
    fn a_case_may_have_a_row_of_its_own() {
        let upstream = Upstream::parse(UPSTREAM).unwrap();
        let mapping = "a.go:\n  one: { same: both, ours: api a::b }\n  two:\n    cases: 2\n    open: c\n    \
                       except: { second: { better: BatchJob, why: d, only: e, ours: [f, g] } }\n";
        let mut problems = Vec::new();
        let files = judge(&upstream, mapping, &mut problems).unwrap();
        assert_eq!(problems, [""; 0]);
        let [one, two] = &files[0].tests[..] else { panic!("{files:#?}") };
        assert_eq!(one.row, Row { verdict: Verdict::Same(Doors::Both), ours: vec!["api a::b".to_owned()] });
        let better = Verdict::Better(Doors::One("BatchJob", Some("e".to_owned())), "d".to_owned());
        assert_eq!(two.verdicts().collect::<Vec<_>>(), [&Verdict::Open("c".to_owned()), &better]);
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        for (mapping, problem) in [
            ("a.go:\n  two: { cases: 2, open: x }", "a.go: one: has no row"),
            (
                "a.go: { one: { open: x }, two: { cases: 2, open: x }, three: {} }",
                "a.go: three: upstream has no such test",
            ),
            ("a.go: { one: { open: x }, two: { cases: 2, open: x } }\nb.go: {}", "b.go: upstream has no such file"),
            (
                "a.go: { one: { open: x }, two: { open: x } }",
                "a.go: two: upstream has 2 cases: see whether the row holds for all, then write so",
            ),
            (
                "a.go: { one: { open: x }, two: { cases: 2, open: x, except: { third: { open: x } } } }",
                "a.go: two: upstream has no case third",
            ),
            ("a.go: { one: { same: both }, two: { cases: 2, open: x } }", "a.go: one: no test of ours shows it"),
            ("a.go: { one: { not ours: '' }, two: { cases: 2, open: x } }", "a.go: one: \"\" is no text"),
            (
                "a.go: { one: { better: both, ours: x }, two: { cases: 2, open: x } }",
                "a.go: one: one of same, better (with why), not ours, later and open",
            ),
        ] {
            assert_eq!(problems(mapping), [problem], "{mapping}");
        }
    }
}
