//! One watch of the operator: its events one by one, told, held back or dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::state::{After, Fate};
use super::{Broken, Core, Stream, refuse, status, unreachable, until};
use crate::faults::fault::Kind;

/// An event that was dropped and whose object has no other one for so long is told of by a list.
const MISSED: Duration = Duration::from_secs(1);

type Line = Result<Frame<Bytes>, Broken>;

pub(super) async fn watch(
    core: Arc<Core>,
    seat: usize,
    kind: Kind,
    version: u64,
    head: http::request::Parts,
    body: Bytes,
) -> Result<Response<Stream>, Broken> {
    if core.state().refuses_watch(kind) {
        return Ok(refuse(StatusCode::GONE, "Expired"));
    }
    let (lines, to_operator) = mpsc::channel(64);
    let quiet_until = core.state().quiet_until(kind, version);
    let told = if quiet_until.is_some() {
        // The answer's head goes out at once: the watch is open, and says nothing.
        tokio::spawn(async move {
            until(quiet_until).await;
            core.state().look_at_the_clock();
            core.tell();
            if let Ok(answer) = core.send(head, body).await {
                Watch::new(core, seat, kind, lines).pass_on(answer.into_body()).await;
            }
        });
        StatusCode::OK
    } else {
        let answer = match core.send(head, body).await {
            Ok(answer) => answer,
            Err(error) => return Ok(unreachable(&error)),
        };
        let code = answer.status();
        if code != StatusCode::OK {
            return Ok(answer.map(|body| body.map_err(|_| Broken).boxed_unsync()));
        }
        tokio::spawn(Watch::new(core, seat, kind, lines).pass_on(answer.into_body()));
        code
    };
    let lines = stream::unfold(to_operator, async |mut lines| lines.recv().await.map(|line| (line, lines)));
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    *response.status_mut() = told;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Watch {
    core: Arc<Core>,
    seat: usize,
    kind: Kind,
    lines: mpsc::Sender<Line>,
    held: Vec<Bytes>,
    /// The object whose event was dropped, and until when another one of it may come.
    missed: Option<(String, Instant)>,
}

enum Next {
    Go,
    End,
}

impl Watch {
    fn new(core: Arc<Core>, seat: usize, kind: Kind, lines: mpsc::Sender<Line>) -> Watch {
        Watch { core, seat, kind, lines, held: Vec::new(), missed: None }
    }

    async fn pass_on(mut self, mut body: Body) {
        let mut rest: Vec<u8> = Vec::new();
        let mut changes = self.core.changed.subscribe();
        loop {
            let held_until = self.core.state().held_until(self.kind);
            if held_until.is_none() && !self.held.is_empty() && !self.let_go().await {
                return;
            }
            let missed_at = self.missed.as_ref().map(|(_, at)| *at);
            tokio::select! {
                frame = body.frame() => {
                    let Some(Ok(frame)) = frame else { break };
                    let Ok(data) = frame.into_data() else { continue };
                    rest.extend_from_slice(&data);
                    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = rest.drain(..=end).collect();
                        if let Next::End = self.line(Bytes::from(line)).await {
                            return;
                        }
                    }
                }
                () = until(held_until) => self.core.state().look_at_the_clock(),
                () = until(missed_at) => {
                    self.core.state().dropped_is_known();
                    self.core.tell();
                    self.gone().await;
                    return;
                }
                // Another watch may have ended what holds this one back.
                _ = changes.changed(), if !self.held.is_empty() => {}
                () = self.lines.closed() => return,
            }
        }
        self.let_go().await;
    }

    async fn line(&mut self, line: Bytes) -> Next {
        let Ok(event) = serde_json::from_slice::<Value>(&line) else {
            return self.send(line).await;
        };
        let change = event["type"].as_str().unwrap_or_default();
        if !matches!(change, "ADDED" | "MODIFIED" | "DELETED") {
            // A bookmark says that all before it was told.
            return self.hold_or_send(line).await;
        }
        let (fate, after) = {
            let mut state = self.core.state();
            let (place, is_new) = state.number_event(self.kind, change, &event["object"]);
            if is_new { (state.fate(place), state.after(place)) } else { (Fate::Pass, After::Nothing) }
        };
        self.core.tell();
        let uid = event["object"]["metadata"]["uid"].as_str().unwrap_or_default();
        if fate == Fate::Drop {
            self.missed = Some((uid.to_owned(), Instant::now() + MISSED));
        } else {
            if self.missed.take_if(|(missed, _)| *missed == uid).is_some() {
                self.core.state().dropped_is_known();
                self.core.tell();
            }
            if let Next::End = self.hold_or_send(line).await {
                return Next::End;
            }
        }
        match after {
            After::Nothing => return Next::Go,
            After::Gone => self.gone().await,
            After::Cut => self.core.cut_all(),
            After::Kill => self.core.kill(self.seat).await,
        }
        Next::End
    }

    async fn hold_or_send(&mut self, line: Bytes) -> Next {
        if self.core.state().held_until(self.kind).is_some() {
            self.held.push(line);
            return Next::Go;
        }
        if !self.let_go().await {
            return Next::End;
        }
        self.send(line).await
    }

    /// Tells what was held back; false if nobody listens.
    async fn let_go(&mut self) -> bool {
        for line in std::mem::take(&mut self.held) {
            if let Next::End = self.send(line).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, line: Bytes) -> Next {
        tokio::select! {
            () = self.core.until_open(self.seat) => {}
            // Whoever listened has gone.
            () = self.lines.closed() => return Next::End,
        }
        match self.lines.send(Ok(Frame::data(line))).await {
            Ok(()) => Next::Go,
            Err(_) => Next::End,
        }
    }

    /// The API server no longer has what came next.
    async fn gone(&self) {
        let event = json!({ "type": "ERROR", "object": status(StatusCode::GONE, "Expired") });
        let _ = self.send(Bytes::from(format!("{event}\n"))).await;
    }
}
