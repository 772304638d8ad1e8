//! etcd itself, past the API server: what is stored, and what is to be stored instead.
//!
//! By the JSON gateway that etcd has beside gRPC (`/v3/…`).

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;

/// A client of the cluster's etcd.
#[derive(Clone)]
pub struct Etcd {
    config: Config,
}

/// What is stored under a key, and its revision.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    revision: String,
}

impl Etcd {
    pub fn of(kubernetes: &Kubernetes) -> Result<Etcd> {
        let mut config = Config::new(kubernetes.etcd().context("this cluster's etcd can be reached")?.parse()?);
        config.default_retry = false;
        config.read_timeout = Some(Duration::from_secs(30));
        Ok(Etcd { config })
    }

    pub async fn get(&self, key: &str) -> Result<Entry> {
        let answer = self.ask("/v3/kv/range", json!({ "key": STANDARD.encode(key) })).await?;
        let found = answer.pointer("/kvs/0").with_context(|| format!("{key} is not in etcd"))?;
        Ok(Entry {
            key: key.to_owned(),
            value: STANDARD.decode(found["value"].as_str().unwrap_or_default())?,
            revision: found["mod_revision"].as_str().context("a revision")?.to_owned(),
        })
    }

    /// Stores this instead, unless somebody has stored something since. False: somebody has.
    pub async fn replace(&self, entry: &Entry, value: &[u8]) -> Result<bool> {
        let key = STANDARD.encode(&entry.key);
        let answer = self.ask(
            "/v3/kv/txn",
            json!({
                "compare": [{ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": entry.revision }],
                "success": [{ "request_put": { "key": key, "value": STANDARD.encode(value) } }],
            }),
        );
        Ok(answer.await?["succeeded"] == true)
    }

    /// Stores it, whatever is there.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.ask("/v3/kv/put", json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) })).await?;
        Ok(())
    }

    /// Asks for something, by its path.
    pub async fn ask(&self, path: &str, body: Value) -> Result<Value> {
        let request =
            http::Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(&body)?)?;
        // On a connection of its own: an etcd that is full answers a put before it has read all of it, and what is sent on the
        // same connection after that has no answer.
        let client = Client::try_from(self.config.clone())?;
        client.request(request).await.with_context(|| format!("ask etcd: {path}"))
    }
}
