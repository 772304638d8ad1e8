//! What `docs/conformance.md` says.

use std::fmt::Write as _;

use anyhow::Result;

use crate::mapping::{Doors, Judged, JudgedFile, Row, Verdict};
use crate::ours;

/// How many cases have which verdict; a test without cases is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    n_tests: usize,
    n_cases: usize,
    n_same: usize,
    n_better: usize,
    n_not_ours: usize,
    n_later: usize,
    pub n_open: usize,
    /// Same or better, but through one door, while the other is still to come.
    pub n_one_door: usize,
}

impl Totals {
    pub fn of(file: &JudgedFile<'_>) -> Totals {
        let mut totals = Totals { n_tests: file.tests.len(), ..Totals::default() };
        for verdict in file.tests.iter().flat_map(Judged::verdicts) {
            totals.n_cases += 1;
            *match verdict {
                Verdict::Same(_) => &mut totals.n_same,
                Verdict::Better(..) => &mut totals.n_better,
                Verdict::NotOurs(_) => &mut totals.n_not_ours,
                Verdict::Later(_) => &mut totals.n_later,
                Verdict::Open(_) => &mut totals.n_open,
            } += 1;
            if let Verdict::Same(Doors::One(_, None)) | Verdict::Better(Doors::One(_, None), _) = verdict {
                totals.n_one_door += 1;
            }
        }
        totals
    }

    pub fn sum(all: impl Iterator<Item = Totals>) -> Totals {
        all.fold(Totals::default(), |sum, one| Totals {
            n_tests: sum.n_tests + one.n_tests,
            n_cases: sum.n_cases + one.n_cases,
            n_same: sum.n_same + one.n_same,
            n_better: sum.n_better + one.n_better,
            n_not_ours: sum.n_not_ours + one.n_not_ours,
            n_later: sum.n_later + one.n_later,
            n_open: sum.n_open + one.n_open,
            n_one_door: sum.n_one_door + one.n_one_door,
        })
    }

    /// "34 cases: 12 same, 3 not ours, 19 open".
    fn sentence(&self) -> String {
        let parts = [
            (self.n_same, "same"),
            (self.n_better, "better"),
            (self.n_not_ours, "not ours"),
            (self.n_later, "later"),
            (self.n_open, "open"),
        ];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        format!("{} case{}: {}", self.n_cases, if self.n_cases == 1 { "" } else { "s" }, parts.join(", "))
    }

    fn cells(&self) -> String {
        let Totals { n_tests, n_cases, n_same, n_better, n_not_ours, n_later, n_open, n_one_door } = self;
        format!("{n_tests} | {n_cases} | {n_same} | {n_better} | {n_one_door} | {n_not_ours} | {n_later} | {n_open}")
    }
}

const HEAD: &str = "\
<!-- Written by `make codegen` from tests/conformance/upstream.txt and mapping.yaml. Do not edit. -->

# Conformance: upstream's tests, and ours that stand for them

Every test that Kubernetes {version} has for Jobs, CronJobs and their ends, by name: which tests of ours ask the same, and with
which result. CI fails if one of upstream's names is missing here, or if a test that is named here does not exist. The cases
of Job's validation are in `tests/api/verdicts`.

**{totals}.**

| verdict | means |
|---|---|
| same | our tests ask the same and get the same answer |
| better | the answer differs on purpose: [differences.md](differences.md) |
| not ours | there is nothing to ask, for the reason given |
| later | another piece of work brings it |
| **open** | no test of ours asks it yet, or not all of it |

A job comes through one of two doors: as a BatchJob, or as a `batch/v1` Job that is managed by us. Where the verdict names
one of them, our tests ask it of that one so far; where it says \u{201c}only\u{201d}, that is meant to stay, for the reason given.
";

/// The whole document.
pub fn write(version: &str, files: &[JudgedFile<'_>], problems: &mut Vec<String>) -> Result<String> {
    let totals = Totals::sum(files.iter().map(Totals::of));
    let mut text = HEAD.replace("{version}", version).replace("{totals}", &totals.sentence());
    text += "\n## Totals\n\nCases are those of upstream's tables; a test without a table counts as one.\n\n";
    text +=
        "| upstream | tests | cases | same | better | of these through one door so far | not ours | later | open |\n";
    text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for file in files {
        writeln!(text, "| [{0}](#{1}) | {2} |", file.path, anchor(file.path), Totals::of(file).cells())?;
    }
    writeln!(text, "| **all** | {} |", totals.cells())?;
    for file in files {
        let source = format!("https://github.com/kubernetes/kubernetes/blob/{version}/{}", file.path);
        writeln!(text, "\n## {}\n\n{}. [Source]({source}).\n", file.path, Totals::of(file).sentence())?;
        text += "| upstream | verdict | ours |\n|---|---|---|\n";
        for judged in &file.tests {
            write_test(&mut text, judged, problems)?;
        }
        write_cases(&mut text, file)?;
    }
    Ok(text)
}

fn write_test(text: &mut String, judged: &Judged<'_>, problems: &mut Vec<String>) -> Result<()> {
    let Judged { test, row, cases } = judged;
    let name = if test.name.contains(' ') { escaped(&test.name) } else { format!("`{}`", test.name) };
    let n_others = test.cases.len() - cases.len();
    let count = match (n_others, cases.len()) {
        (0, 0) => String::new(),
        (1, 0) => " (1 case)".to_owned(),
        (n, 0) => format!(" ({n} cases)"),
        (n, _) => format!(" ({n} of {} cases)", test.cases.len()),
    };
    // Where every case has a row of its own the row of the test says nothing.
    if n_others > 0 || test.cases.is_empty() {
        writeln!(text, "| {name}{count} | {} | {} |", verdict(&row.verdict), tests(row, problems))?;
    } else {
        writeln!(text, "| {name} ({} cases) | | |", test.cases.len())?;
    }
    for (case, row) in cases {
        writeln!(
            text,
            "| \u{2003}\u{21b3} {} | {} | {} |",
            escaped(case),
            verdict(&row.verdict),
            tests(row, problems)
        )?;
    }
    Ok(())
}

/// The names of the cases that share a row, folded away.
fn write_cases(text: &mut String, file: &JudgedFile<'_>) -> Result<()> {
    let with_cases: Vec<_> = file.tests.iter().filter(|judged| judged.test.cases.len() > judged.cases.len()).collect();
    if with_cases.is_empty() {
        return Ok(());
    }
    text.push_str("\n<details><summary>The cases that have no row of their own</summary>\n");
    for Judged { test, cases, .. } in with_cases {
        writeln!(text, "\n`{}`\n", test.name)?;
        for case in test.cases.iter().filter(|case| cases.iter().all(|(other, _)| other != case)) {
            writeln!(text, "- {}", escaped(case))?;
        }
    }
    text.push_str("\n</details>\n");
    Ok(())
}

fn verdict(verdict: &Verdict) -> String {
    let through = |doors: &Doors| match doors {
        Doors::Both => String::new(),
        Doors::One(door, None) => format!(" ({door})"),
        Doors::One(door, Some(why)) => format!(" ({door} only: {why})"),
    };
    match verdict {
        Verdict::Same(doors) => format!("same{}", through(doors)),
        Verdict::Better(doors, why) => format!("better{}: {}", through(doors), why),
        Verdict::NotOurs(why) => format!("not ours: {why}"),
        Verdict::Later(why) => format!("later: {why}"),
        Verdict::Open(what) => format!("**open**: {what}"),
    }
}

fn tests(row: &Row, problems: &mut Vec<String>) -> String {
    let mut links = Vec::new();
    for reference in &row.ours {
        match ours::find(reference) {
            Ok(path) => links.push(format!("[{}](../{path})", escaped(reference))),
            Err(error) => problems.push(error.to_string()),
        }
    }
    links.join("<br>")
}

/// For a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*").replace('[', "\\[").replace('#', "\\#")
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    heading.chars().filter(|char| char.is_alphanumeric() || matches!(char, '-' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::judge;
    use crate::upstream::Upstream;

    #[test]
    fn a_case_with_a_row_of_its_own_stands_below_its_test_and_the_others_are_folded_away() {
        let upstream = "k8s.io/kubernetes v1\n\na/b_test.go\n  TestOne\n    a|b\n    c\n    d\n  should [Slow]\n";
        let mapping = "a/b_test.go:\n  TestOne:\n    cases: 3\n    open: x\n    except:\n      c:\n        better: \
                       BatchJob\n        why: because\n        ours: decide story one_pod\n  should [Slow]: { later: z }\n";
        let (upstream, mut problems) = (Upstream::parse(upstream).unwrap(), Vec::new());
        let files = judge(&upstream, mapping, &mut problems).unwrap();
        let text = write("v1", &files, &mut problems).unwrap();
        assert_eq!(problems, [""; 0]);
        assert!(text.contains("| [a/b_test.go](#ab_testgo) | 2 | 4 | 0 | 1 | 1 | 0 | 1 | 2 |"), "{text}");
        let (_, section) = text.split_once("\n## a/b_test.go\n").unwrap();
        assert_eq!(
            section,
            "\n4 cases: 1 better, 1 later, 2 open. \
             [Source](https://github.com/kubernetes/kubernetes/blob/v1/a/b_test.go).\n\n\
             | upstream | verdict | ours |\n|---|---|---|\n\
             | `TestOne` (2 of 3 cases) | **open**: x |  |\n\
             | \u{2003}\u{21b3} c | better (BatchJob): because | \
             [decide story one_pod](../crates/decide/tests/stories/one_pod.txt) |\n\
             | should \\[Slow] | later: z |  |\n\n\
             <details><summary>The cases that have no row of their own</summary>\n\n`TestOne`\n\n\
             - a\\|b\n- d\n\n</details>\n"
        );
    }
}
