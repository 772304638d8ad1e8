//! What does a request of the operator ask for?

use http::Method;

use crate::faults::fault::Kind;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write(Target),
    List(Kind),
    Watch {
        kind: Kind,
        version: u64,
    },
    /// Reads of one object; and what the operator writes for users (Events) and to say who leads (Leases).
    Other,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// In small letters, with what is written: "patch pods", "put batchjobs/status".
    pub(super) verb: String,
    /// Empty where the path has none: a create.
    pub(super) name: String,
}

impl Call {
    pub(super) fn of(head: &http::request::Parts) -> Call {
        let segments: Vec<&str> = head.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
        // /api/v1/… or /apis/GROUP/VERSION/…
        let rest = match &segments[..] {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => return Call::Other,
        };
        let (resource, name, subresource) = match rest {
            ["namespaces", _, resource, more @ ..] | [resource, more @ ..] => {
                (*resource, more.first().copied().unwrap_or_default(), more.get(1))
            }
            [] => return Call::Other,
        };
        let Some(kind) = Kind::of_plural(resource) else { return Call::Other };
        if head.method != Method::GET {
            let subresource = subresource.map(|subresource| format!("/{subresource}")).unwrap_or_default();
            let verb = format!("{} {resource}{subresource}", head.method.as_str().to_lowercase());
            return Call::Write(Target { verb, name: name.to_owned() });
        }
        let query = head.uri.query().unwrap_or_default();
        let value = |key: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))
                .map(|(_, value)| value)
        };
        match name {
            "" if matches!(value("watch"), Some("true" | "1")) => {
                let version = value("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
                Call::Watch { kind, version }
            }
            "" => Call::List(kind),
            _ => Call::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str) -> Call {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        Call::of(&request.into_parts().0)
    }

    fn write(verb: &str, name: &str) -> Call {
        Call::Write(Target { verb: verb.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn what_the_operator_asks_is_understood() {
        assert_eq!(call("POST", "/api/v1/namespaces/ns/pods?"), write("post pods", ""));
        assert_eq!(call("PATCH", "/api/v1/namespaces/ns/pods/etl-0-1-x?"), write("patch pods", "etl-0-1-x"));
        let status = "/apis/batchjob.dev/v1alpha1/namespaces/ns/batchjobs/etl/status?";
        assert_eq!(call("PUT", status), write("put batchjobs/status", "etl"));
        assert_eq!(call("PATCH", "/apis/batch/v1/namespaces/ns/jobs/etl/status"), write("patch jobs/status", "etl"));
        assert_eq!(call("GET", "/api/v1/namespaces/ns/pods?&limit=500&labelSelector=x"), Call::List(Kind::Pods));
        let watch = "/apis/batch/v1/namespaces/ns/jobs?&watch=true&timeoutSeconds=60&resourceVersion=41";
        assert_eq!(call("GET", watch), Call::Watch { kind: Kind::Jobs, version: 41 });
        for (method, uri) in [
            ("GET", "/api/v1/namespaces/ns/pods/etl-0-1-x"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events"),
            ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x"),
            ("GET", "/version"),
        ] {
            assert_eq!(call(method, uri), Call::Other, "{method} {uri}");
        }
    }
}
