//! What a request asks for: its path and query in parts.

use http::{Method, Uri};

use super::kind::Kind;
use super::refusal::Refusal;
use super::selector::Selector;

/// The path of a request.
#[derive(Debug)]
pub(super) struct Route<'a> {
    pub kind: Kind,
    /// None: of all namespaces.
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub part: Part,
}

/// Which side of an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Status,
    Binding,
    Eviction,
}

impl<'a> Route<'a> {
    pub fn of(uri: &'a Uri, method: &Method) -> Result<Route<'a>, Refusal> {
        Route::read(uri.path())
            .ok_or_else(|| Refusal::new(404, "NotFound", "the server could not find the requested resource"))
            .and_then(|route| match (route.part, method) {
                (Part::Binding | Part::Eviction, &Method::POST) => Ok(route),
                (Part::Binding | Part::Eviction, _) => Err(not_allowed()),
                _ => Ok(route),
            })
    }

    fn read(path: &'a str) -> Option<Route<'a>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let (namespace, plural) = match parts.next()? {
            "namespaces" => (Some(parts.next()?), parts.next()?),
            plural => (None, plural),
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural && kind.group() == group)?;
        if kind.api_version().rsplit('/').next() != Some(version) {
            return None;
        }
        let name = parts.next();
        let part = match (parts.next(), kind) {
            (None, _) => Part::Whole,
            (Some("status"), kind) if kind.has_status() => Part::Status,
            (Some("binding"), Kind::Pod) => Part::Binding,
            (Some("eviction"), Kind::Pod) => Part::Eviction,
            _ => return None,
        };
        let is_known = parts.next().is_none() && (name.is_none() || namespace.is_some());
        is_known.then_some(Route { kind, namespace, name, part })
    }
}

pub(super) fn not_allowed() -> Refusal {
    Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

/// The query of a request; what is not named here has no effect.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub is_watch: bool,
    pub selector: Selector,
    pub limit: usize,
    pub continue_token: String,
    /// 0 if there is none.
    pub resource_version: u64,
    pub timeout_seconds: Option<u32>,
    pub allow_bookmarks: bool,
    pub is_dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
}

impl Query {
    pub fn of(uri: &Uri) -> Result<Query, Refusal> {
        let mut query = Query::default();
        let Some(text) = uri.query() else { return Ok(query) };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "watch" => query.is_watch = is_true(&value),
                "labelSelector" => query.selector = Selector::parse(&value)?,
                "limit" => query.limit = number(&name, &value)?,
                "continue" => query.continue_token = value.into_owned(),
                "resourceVersion" if value.is_empty() => {}
                "resourceVersion" => query.resource_version = number(&name, &value)?,
                "timeoutSeconds" => query.timeout_seconds = Some(number(&name, &value)?),
                "allowWatchBookmarks" => query.allow_bookmarks = is_true(&value),
                "dryRun" => query.is_dry_run = true,
                "gracePeriodSeconds" => query.grace_period_seconds = Some(number(&name, &value)?),
                "propagationPolicy" => query.propagation_policy = Some(value.into_owned()),
                "fieldSelector" | "sendInitialEvents" | "resourceVersionMatch" => {
                    return Err(Refusal::bad_request(format!("the API server in memory knows no {name}")));
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

fn is_true(text: &str) -> bool {
    matches!(text, "1" | "true")
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::bad_request(format!("{name}: {text:?} is no number")))
}
