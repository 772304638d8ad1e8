//! The two API servers, asked in the same way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use batchjob_sim::apiserver::{self, Answer, ApiServer, Told};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::sequence::Kind;

/// Where a watch ends: an object of this name is made last.
pub const END: &str = "the-end";
const LIMIT: Duration = Duration::from_secs(30);

/// One of the two API servers.
pub enum Side {
    Real(Client),
    InMemory(ApiServer),
}

impl Side {
    /// An empty one in memory.
    pub fn in_memory(seed: u64) -> Side {
        Side::InMemory(ApiServer::new(Arc::new(now), seed))
    }

    /// Whether there is such an object in memory.
    pub fn has(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let kind = match kind {
            Kind::Pod => apiserver::Kind::Pod,
            Kind::BatchJob => apiserver::Kind::BatchJob,
            Kind::Job => apiserver::Kind::Job,
            Kind::Lease => apiserver::Kind::Lease,
        };
        match self {
            Side::InMemory(server) => server.with_object(kind, namespace, name, |_| ()).is_some(),
            Side::Real(_) => false,
        }
    }

    pub async fn answer(&self, request: &Request<Bytes>) -> Result<(u16, Value)> {
        let (code, body) = match self {
            Side::Real(client) => {
                let (parts, body) = request.clone().into_parts();
                let answer = client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await?;
                (answer.status().as_u16(), answer.into_body().collect().await?.to_bytes())
            }
            Side::InMemory(server) => match server.serve(request) {
                Answer::Done { code, body } => (code, body),
                Answer::Watch(_) => bail!("a watch was opened"),
            },
        };
        let body = serde_json::from_slice(&body).with_context(|| format!("{code}: {body:?}"))?;
        Ok((code, body))
    }

    /// All that a watch tells from a version on until the end of the sequence.
    pub async fn history(&self, path: &str) -> Result<Vec<Value>> {
        let request = Request::get(path).body(Bytes::new())?;
        let mut events = Vec::new();
        match self {
            Side::Real(client) => {
                let answer = client.send(Request::get(path).body(Body::empty())?).await?;
                ensure!(answer.status() == 200, "{path}: {}", answer.status());
                let mut body = answer.into_body();
                let mut text = Vec::new();
                while let Some(frame) = tokio::time::timeout(LIMIT, body.frame()).await? {
                    text.extend_from_slice(&frame?.into_data().unwrap_or_default());
                    while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = text.drain(..=end).collect();
                        let event: Value = serde_json::from_slice(&line)?;
                        if event["object"]["metadata"]["name"] == END {
                            return Ok(events);
                        }
                        events.push(event);
                    }
                }
            }
            Side::InMemory(server) => {
                let Answer::Watch(mut cursor) = server.serve(&request) else { bail!("{path}: no watch") };
                while let Some(event) = cursor.try_next() {
                    ensure!(matches!(event.told, Told::Changed(_)), "{event:?}");
                    let event: Value = serde_json::from_slice(&event.line)?;
                    if event["object"]["metadata"]["name"] == END {
                        return Ok(events);
                    }
                    events.push(event);
                }
            }
        }
        bail!("{path}: the watch ended before the sequence: {events:?}")
    }
}

/// The time by the wall, as the real one takes it.
#[expect(clippy::disallowed_methods, reason = "the other side takes it from the same clock")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
