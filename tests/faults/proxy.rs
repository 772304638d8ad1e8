//! The proxy between the operator and the API server: it numbers what the operator writes and is told, and lets the faults
//! of a plan happen. Without faults it changes nothing.
//!
//! The operator speaks plain HTTP/1.1 to it on loopback; it speaks to the API server as the administrator. Each operator
//! of a plan has a port of its own, so that it is known who writes; all share the numbers.

mod request;
mod state;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::fault::{Fault, Kind, WriteFault};
use request::{Call, Target};
use state::{Answered, State};
pub use state::{Told, Written};

/// How much later an answer comes that is late.
const LATE: Duration = Duration::from_secs(1);

type Stream = UnsyncBoxBody<Bytes, Broken>;

/// The connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks, as the plan says")]
struct Broken;

/// The way to the API server for the operators of one plan. Dropping it ends it.
pub struct Proxy {
    core: Arc<Core>,
    /// Where each operator finds it.
    pub addresses: Vec<SocketAddr>,
    _listeners: JoinSet<()>,
}

struct Core {
    api_server: kube::Client,
    state: Mutex<State>,
    seats: Vec<Seat>,
    /// Something was noted: a write, an event, a fault that has begun or ended.
    changed: tokio::sync::watch::Sender<()>,
}

/// One operator's place.
struct Seat {
    pid: Mutex<Option<Pid>>,
    /// Its connections end when this changes.
    connections: tokio::sync::watch::Sender<u64>,
    gate: tokio::sync::watch::Sender<Gate>,
}

/// Whether anything of an operator comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Nothing does, and nobody says so. What was on its way is lost.
    Hole,
    /// The same; but its writes come after all, when it is opened.
    Slow,
}

impl Proxy {
    pub async fn start(api_server: kube::Client, faults: &[Fault], n_operators: usize) -> Result<Proxy> {
        let seat = |_| Seat {
            pid: Mutex::new(None),
            connections: tokio::sync::watch::Sender::new(0),
            gate: tokio::sync::watch::Sender::new(Gate::Open),
        };
        let core = Arc::new(Core {
            api_server,
            state: Mutex::new(State::new(faults)),
            seats: (0..n_operators).map(seat).collect(),
            changed: tokio::sync::watch::Sender::new(()),
        });
        let (mut addresses, mut listeners) = (Vec::new(), JoinSet::new());
        for seat in 0..n_operators {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the operator")?;
            addresses.push(listener.local_addr()?);
            listeners.spawn(accept(core.clone(), listener, seat));
        }
        Ok(Proxy { core, addresses, _listeners: listeners })
    }

    /// From now on the operator in that seat is this process.
    pub fn seat(&self, seat: usize, pid: u32) {
        *unpoisoned(&self.core.seats[seat].pid) = i32::try_from(pid).ok().and_then(Pid::from_raw);
    }

    /// Opens or shuts the way of that operator, and of no other. When it is opened the connections break on which nothing
    /// was heard.
    pub fn set_gate(&self, seat: usize, gate: Gate) {
        if gate == Gate::Open {
            self.core.cut(seat);
        }
        self.core.seats[seat].gate.send_replace(gate);
    }

    /// Changes with everything that is noted.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.core.changed.subscribe()
    }

    /// The seats whose operators it has killed since it was last asked: they are to be started anew.
    pub fn take_killed(&self) -> Vec<usize> {
        std::mem::take(&mut self.core.state().killed)
    }

    /// Every write that has come, in order.
    pub fn writes(&self) -> Vec<Written> {
        self.core.state().writes.clone()
    }

    pub fn n_writes(&self) -> usize {
        self.core.state().writes.len()
    }

    /// Every event that has come, in order.
    pub fn told(&self) -> Vec<Told> {
        self.core.state().told.clone()
    }

    /// The faults that have not begun.
    pub fn not_begun(&self) -> Vec<Fault> {
        self.core.state().not_begun()
    }

    /// Whether the operator in that seat lives, as far as the proxy is concerned: it has not killed it.
    pub fn spares(&self, seat: usize) -> bool {
        unpoisoned(&self.core.seats[seat].pid).is_some()
    }

    /// Whether a fault has begun and is not over.
    pub fn is_going(&self) -> bool {
        let mut state = self.core.state();
        state.look_at_the_clock();
        state.is_going()
    }

    /// When the last fault was over; None if none is.
    pub fn faults_ended_at(&self) -> Option<Instant> {
        self.core.state().ended_at()
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(&self.state)
    }

    fn tell(&self) {
        self.changed.send_replace(());
    }

    fn pid(&self, seat: usize) -> Option<u32> {
        let pid = *unpoisoned(&self.seats[seat].pid);
        pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
    }

    /// Kills the operator, and answers when it is dead: what it would do with what comes next it cannot.
    async fn kill(&self, seat: usize) {
        let pid = unpoisoned(&self.seats[seat].pid).take();
        if let Some(pid) = pid {
            // It is a child of this process that nobody has waited for yet: the pid is still its own.
            let _ = kill_process(pid, Signal::KILL);
            let ended = move || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = tokio::task::spawn_blocking(ended).await;
            self.state().killed.push(seat);
        }
        self.cut(seat);
        self.tell();
    }

    fn gate(&self, seat: usize) -> Gate {
        *self.seats[seat].gate.borrow()
    }

    /// Waits until something of that operator comes through.
    async fn until_open(&self, seat: usize) {
        let mut gate = self.seats[seat].gate.subscribe();
        // The sender is of `self`.
        let _ = gate.wait_for(|&gate| gate == Gate::Open).await;
    }

    /// Breaks all connections of a seat.
    fn cut(&self, seat: usize) {
        self.seats[seat].connections.send_modify(|n| *n += 1);
    }

    fn cut_all(&self) {
        (0..self.seats.len()).for_each(|seat| self.cut(seat));
    }

    /// Sends a request on, and waits for the head of the answer.
    async fn send(&self, head: http::request::Parts, body: Bytes) -> Result<Response<Body>> {
        let mut request = Request::builder().method(head.method).uri(head.uri);
        for (name, value) in &head.headers {
            let is_of_connection =
                [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
            // Compressed, nothing could be read of it.
            if !is_of_connection && name != header::ACCEPT_ENCODING {
                request = request.header(name, value);
            }
        }
        Ok(self.api_server.send(request.body(Body::from(body.to_vec()))?).await?)
    }

    /// The same, with the whole answer.
    async fn exchange(&self, head: http::request::Parts, body: Bytes) -> Result<Response<Bytes>> {
        let (head, body) = self.send(head, body).await?.into_parts();
        Ok(Response::from_parts(head, body.collect_bytes().await?))
    }
}

async fn accept(core: Arc<Core>, listener: TcpListener, seat: usize) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(core.clone(), stream, seat));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(core: Arc<Core>, stream: TcpStream, seat: usize) {
    let mut breaks = core.seats[seat].connections.subscribe();
    let service = service_fn(|request| serve(core.clone(), seat, request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Either end may break it off.
        _ = connection => {}
        _ = breaks.changed() => {}
    }
}

async fn serve(core: Arc<Core>, seat: usize, request: Request<Incoming>) -> Result<Response<Stream>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let call = Call::of(&head);
    if let Call::Write(target) = call {
        // The connection may break meanwhile, as it does when the operator is killed; what has begun goes on.
        return tokio::spawn(write(core, seat, target, head, body)).await.map_err(|_| Broken)?;
    }
    core.until_open(seat).await;
    let answer = match call {
        Call::List(kind) => list(&core, kind, head, body).await,
        Call::Watch { kind, version } => watch::watch(core.clone(), seat, kind, version, head, body).await,
        Call::Write(_) | Call::Other => match core.send(head, body).await {
            Ok(answer) => Ok(answer.map(|body| body.map_err(|_| Broken).boxed_unsync())),
            Err(error) => Ok(unreachable(&error)),
        },
    };
    core.until_open(seat).await;
    answer
}

async fn write(
    core: Arc<Core>,
    seat: usize,
    target: Target,
    head: http::request::Parts,
    body: Bytes,
) -> Result<Response<Stream>, Broken> {
    let is_create = head.method == http::Method::POST;
    let pid = core.pid(seat);
    let (n, fault) = core.state().number_write(seat, pid, target);
    core.tell();
    let over = |core: &Core, answered| {
        core.state().answered(n, answered);
        core.tell();
    };
    match core.gate(seat) {
        Gate::Open => {}
        Gate::Hole => {
            core.until_open(seat).await;
            return Err(Broken);
        }
        Gate::Slow => {
            core.state().kept_back(n);
            core.until_open(seat).await;
            let answer = core.exchange(head, body).await;
            // Whoever comes so late is not asked whether it leads: it did when it was sent.
            over(&core, Answered { version: None, ..answered(&answer) });
            return Err(Broken);
        }
    }
    let refusal = match fault {
        Some(WriteFault::KillBefore) => {
            core.kill(seat).await;
            over(&core, Answered::default());
            return Err(Broken);
        }
        Some(WriteFault::Conflict) if is_create => Some((StatusCode::CONFLICT, "AlreadyExists")),
        Some(WriteFault::Conflict) => Some((StatusCode::CONFLICT, "Conflict")),
        Some(WriteFault::Busy) => Some((StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
        Some(WriteFault::Error) => Some((StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        _ => None,
    };
    if let Some((code, reason)) = refusal {
        over(&core, Answered::default());
        return Ok(refuse(code, reason));
    }
    let answer = core.exchange(head, body).await;
    let answered = answered(&answer);
    match fault {
        Some(WriteFault::KillAfter) => {
            core.kill(seat).await;
            over(&core, answered);
            return Err(Broken);
        }
        Some(WriteFault::Swallow) => {
            over(&core, answered);
            return Err(Broken);
        }
        Some(WriteFault::Timeout) => {
            over(&core, answered);
            return Ok(refuse(StatusCode::GATEWAY_TIMEOUT, "Timeout"));
        }
        Some(WriteFault::Late) => sleep(LATE).await,
        _ => {}
    }
    over(&core, answered);
    core.until_open(seat).await;
    match answer {
        Ok(answer) => Ok(answer.map(whole)),
        Err(error) => Ok(unreachable(&error)),
    }
}

fn answered(answer: &Result<Response<Bytes>>) -> Answered {
    let Ok(answer) = answer else { return Answered::default() };
    let object = || serde_json::from_slice(answer.body()).ok();
    let version = if answer.status().is_success() { object().as_ref().and_then(state::version) } else { None };
    Answered { code: Some(answer.status().as_u16()), version }
}

async fn list(core: &Core, kind: Kind, head: http::request::Parts, body: Bytes) -> Result<Response<Stream>, Broken> {
    let old = core.state().old_list(kind);
    if let Some(old) = old {
        core.tell();
        return Ok(answer(StatusCode::OK, &old));
    }
    let answer = core.exchange(head, body).await;
    core.state().heard_of(answered(&answer).version.unwrap_or_default());
    match answer {
        Ok(answer) => Ok(answer.map(whole)),
        Err(error) => Ok(unreachable(&error)),
    }
}

fn whole(body: Bytes) -> Stream {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn answer(code: StatusCode, body: &Value) -> Response<Stream> {
    let mut response = Response::new(whole(Bytes::from(body.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// As the API server says it.
fn refuse(code: StatusCode, reason: &str) -> Response<Stream> {
    let mut response = answer(code, &status(code, reason));
    if code == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}

fn status(code: StatusCode, reason: &str) -> Value {
    let details = if code == StatusCode::TOO_MANY_REQUESTS { json!({ "retryAfterSeconds": 1 }) } else { json!({}) };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": format!("{reason}, as the plan says"), "details": details,
    })
}

fn unreachable(error: &anyhow::Error) -> Response<Stream> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 502,
        "reason": "BadGateway", "message": format!("{error:#}"),
    });
    answer(StatusCode::BAD_GATEWAY, &status)
}

/// Waits until then; for ever if there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whoever panicked while holding it leaves nothing half done behind.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
