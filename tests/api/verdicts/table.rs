//! `upstream.yaml`, read: what each of its cases asks and what is to be answered.

use std::collections::BTreeSet;
use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::stage::{merged, repository};

/// What was answered, or is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Accepted,
    /// With the field, as the API server writes its path.
    Refused(String),
    /// What was to be changed could not even be created.
    NotCreated(String),
}

impl Verdict {
    fn read(row: &Value) -> Verdict {
        let field = |key: &str| row[key].as_str().map(str::to_owned);
        let refused = || field("refused").map(Verdict::Refused);
        field("not-created").map(Verdict::NotCreated).or_else(refused).unwrap_or(Verdict::Accepted)
    }

    /// Whether that is what the API server said.
    pub fn is(&self, said: &Said) -> bool {
        match (self, said) {
            (Verdict::Accepted, Said::Accepted) => true,
            (Verdict::Refused(field), Said::Refused(message))
            | (Verdict::NotCreated(field), Said::NotCreated(message)) => names(message, field),
            _ => false,
        }
    }
}

/// What the API server said, in its words.
pub enum Said {
    Accepted,
    Refused(String),
    NotCreated(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accepted => write!(f, "accepted"),
            Verdict::Refused(field) => write!(f, "refused: {field}"),
            Verdict::NotCreated(field) => write!(f, "not created: {field}"),
        }
    }
}

/// Only the beginning: what is wrong comes first, and some values are long.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Accepted => write!(f, "accepted"),
            Said::Refused(message) => write!(f, "refused: {message:.600}"),
            Said::NotCreated(message) => write!(f, "not created: {message:.600}"),
        }
    }
}

/// Whether a message is about the field itself, not about one above or below it.
fn names(message: &str, field: &str) -> bool {
    message.match_indices(field).any(|(at, field)| {
        let (before, after) = (&message[..at], &message[at + field.len()..]);
        before.ends_with([' ', '[']) && after.starts_with(": ")
    })
}

/// One case of upstream's.
pub struct Case {
    /// Upstream's test, and what it calls the case.
    pub name: String,
    /// What is created, without its kind and name.
    pub manifest: Value,
    /// What is then written into its status, if anything.
    pub status: Option<Value>,
    /// How it is then changed (a JSON merge patch), which is what is judged; without one its creation is.
    pub then: Option<Value>,
    pub job: Verdict,
    pub batch_job: Verdict,
    /// Why anything in it differs from anything else.
    whys: Vec<String>,
}

/// All of them; it fails where a word is misspelt, a case is named twice, or a difference is none or has no reason.
pub fn cases() -> Result<Vec<Case>> {
    let table: Value = serde_saphyr::from_str(&fs::read_to_string(repository("tests/api/verdicts/upstream.yaml"))?)?;
    let mut cases = Vec::new();
    for test in table["tests"].as_array().context("tests")? {
        for row in test["cases"].as_array().context("cases")? {
            let name = format!("{}: {}", test["test"].as_str().context("test")?, row["case"].as_str().context("case")?);
            cases.push(case(&name, row, &table["manifest"]).context(name)?);
        }
    }
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    ensure!(names.len() == cases.len(), "a case is there twice");
    let used: BTreeSet<&String> = cases.iter().flat_map(|case| &case.whys).collect();
    let known: BTreeSet<&String> = table["whys"].as_object().context("whys")?.keys().collect();
    ensure!(used == known, "the reasons given are {used:?} and those explained {known:?}");
    Ok(cases)
}

fn case(name: &str, row: &Value, manifest: &Value) -> Result<Case> {
    only(row, &["case", "job", "status", "then", "refused", "not-created", "upstream", "batchjob"])?;
    let job = Verdict::read(row);
    let (upstream, batch_job) = (difference(&row["upstream"], &job)?, difference(&row["batchjob"], &job)?);
    let whys = [&upstream, &batch_job].into_iter().flatten().map(|(_, why)| why.clone()).collect();
    Ok(Case {
        name: name.to_owned(),
        manifest: merged(manifest.clone(), &expanded(&row["job"])),
        status: row.get("status").cloned(),
        then: row.get("then").map(expanded),
        batch_job: batch_job.map_or_else(|| job.clone(), |(verdict, _)| verdict),
        job,
        whys,
    })
}

/// What another than the Job is to say, and why.
fn difference(other: &Value, job: &Verdict) -> Result<Option<(Verdict, String)>> {
    if other.is_null() {
        return Ok(None);
    }
    only(other, &["refused", "not-created", "why"])?;
    let verdict = Verdict::read(other);
    ensure!(verdict != *job, "{verdict} is no difference");
    Ok(Some((verdict, other["why"].as_str().context("why")?.to_owned())))
}

fn only(row: &Value, known: &[&str]) -> Result<()> {
    let unknown = row.as_object().context("an object")?.keys().find(|key| !known.contains(&key.as_str()));
    unknown.map_or(Ok(()), |key| bail!("{key} is none of {known:?}"))
}

/// `{ repeat: "1", times: 65537 }` is a text of as many; with anything but a text it is a list.
fn expanded(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match (fields.get("repeat"), fields.get("times").and_then(Value::as_u64)) {
            (Some(Value::String(text)), Some(times)) => (0..times).map(|_| text.as_str()).collect::<String>().into(),
            (Some(item), Some(times)) => (0..times).map(|_| expanded(item)).collect(),
            _ => fields.iter().map(|(field, value)| (field.clone(), expanded(value))).collect::<Map<_, _>>().into(),
        },
        Value::Array(items) => items.iter().map(expanded).collect(),
        _ => value.clone(),
    }
}
