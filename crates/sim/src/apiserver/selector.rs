//! Label selectors: which objects a list or a watch is about.

use serde_json::Value;

use super::refusal::Refusal;

/// All of its requirements must be met.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug)]
enum Requirement {
    Exists(String),
    Missing(String),
    Equals(String, String),
    Differs(String, String),
}

impl Selector {
    /// `a`, `!a`, `a=b`, `a==b` and `a!=b`, with commas in between; not `in` and `notin`.
    pub fn parse(text: &str) -> Result<Selector, Refusal> {
        let mut requirements = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let owned = |text: &str| text.trim().to_owned();
            let requirement = if let Some((key, value)) = part.split_once("!=") {
                Requirement::Differs(owned(key), owned(value))
            } else if let Some((key, value)) = part.split_once('=') {
                Requirement::Equals(owned(key), owned(value.trim_start_matches('=')))
            } else if let Some(key) = part.strip_prefix('!') {
                Requirement::Missing(owned(key))
            } else if part.contains([' ', '(', ')']) {
                return Err(Refusal::bad_request(format!("the API server in memory knows no selector {part:?}")));
            } else {
                Requirement::Exists(owned(part))
            };
            requirements.push(requirement);
        }
        Ok(Selector(requirements))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
            Requirement::Equals(key, value) => label(key) == Some(value),
            Requirement::Differs(key, value) => label(key) != Some(value),
        })
    }
}
