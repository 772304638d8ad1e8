//! The API server as JSON goes: an object that no type can hold any more must not hide the others from the test.

use anyhow::Result;
use kube::Client;
use serde_json::{Value, json};

/// A kind of object in one namespace.
#[derive(Clone)]
pub struct Rest {
    client: Client,
    path: String,
}

impl Rest {
    pub fn new(client: &Client, group_version: &str, plural: &str, namespace: &str) -> Rest {
        let root = if group_version.contains('/') { "apis" } else { "api" };
        let path = format!("/{root}/{group_version}/namespaces/{namespace}/{plural}");
        Rest { client: client.clone(), path }
    }

    pub fn pods(client: &Client, namespace: &str) -> Rest {
        Rest::new(client, "v1", "pods", namespace)
    }

    pub fn of_all_pods(client: &Client) -> Rest {
        Rest { client: client.clone(), path: "/api/v1/pods".to_owned() }
    }

    pub fn of_namespaces(client: &Client) -> Rest {
        Rest { client: client.clone(), path: "/api/v1/namespaces".to_owned() }
    }

    pub async fn create(&self, object: &Value) -> kube::Result<Value> {
        self.send("POST", "", Some(object)).await
    }

    pub async fn list(&self) -> kube::Result<Vec<Value>> {
        let mut list = self.send("GET", "", None).await?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    pub async fn get(&self, name: &str) -> kube::Result<Value> {
        self.send("GET", &format!("/{name}"), None).await
    }

    /// A merge patch; `of` is the name, and `/status` after it.
    pub async fn patch(&self, of: &str, patch: &Value) -> kube::Result<Value> {
        self.send("PATCH", &format!("/{of}"), Some(patch)).await
    }

    /// Asks for its deletion, with this grace.
    pub async fn delete(&self, name: &str, grace_seconds: u32) -> kube::Result<Value> {
        self.send("DELETE", &format!("/{name}?gracePeriodSeconds={grace_seconds}"), None).await
    }

    /// Removes an object that cannot even be read: all that an administrator can do from outside of etcd, since Kubernetes 1.37
    /// (KEP-3926).
    pub async fn delete_unread(&self, name: &str) -> kube::Result<Value> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential": true,
        });
        self.send("DELETE", &format!("/{name}"), Some(&options)).await
    }

    async fn send(&self, method: &str, rest: &str, body: Option<&Value>) -> kube::Result<Value> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{rest}", self.path))
            .header("content-type", content)
            .body(body)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

/// A text in an object; empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The condition is true.
pub fn is(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|found| found["type"] == condition && found["status"] == "True")
}

/// The API server has no such object.
pub fn found<T>(answer: kube::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
