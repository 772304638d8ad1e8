//! The way between one life of an operator and the API server: requests and answers take their time, and some come to
//! harm; events come late, in the wrong order, or not at all.
//!
//! What has left the process is no longer its own: a request that was sent is applied though the operator dies
//! meanwhile.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use kube::client::Body;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::apiserver::connection::{AnswerBody, response, whole};
use crate::apiserver::{Answer, ApiServer, CALLER, Cursor, Kind, Refusal, Told, WatchEvent};
use crate::fault::{Rates, RequestFault, up_to};
use crate::random::Random;

/// What the weather is like between operators and the API server.
pub struct Weather {
    pub seed: u64,
    pub rates: Rates,
    /// The n-th request of all lives, of those that are counted, comes to that harm.
    pub script: Vec<(u64, RequestFault)>,
    /// From then on nothing goes wrong.
    pub fair_from: Instant,
    n_requests: AtomicU64,
    n_connections: AtomicU64,
    n_faults: AtomicU64,
}

impl Weather {
    pub fn new(seed: u64, rates: Rates, script: Vec<(u64, RequestFault)>, fair_from: Instant) -> Weather {
        let zero = AtomicU64::default;
        Weather { seed, rates, script, fair_from, n_requests: zero(), n_connections: zero(), n_faults: zero() }
    }

    /// How many requests have been counted so far.
    pub fn n_requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed)
    }

    pub fn n_faults(&self) -> u64 {
        self.n_faults.load(Ordering::Relaxed)
    }

    fn is_fair(&self) -> bool {
        Instant::now() >= self.fair_from
    }

    fn struck(&self) {
        self.n_faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// One life of an operator, from its start to its death.
pub struct Life {
    pub identity: String,
    is_dead: AtomicBool,
    /// Told when a fault wants it dead.
    news: Arc<Notify>,
    /// Its writes, watches and reads aside: its events too, its Lease not.
    pub n_writes: AtomicU64,
    /// Until when the watches of a kind are not told anything: it was given an old list. Of the Lease: until when it is out of
    /// reach.
    held: Mutex<[Option<Instant>; Kind::ALL.len()]>,
}

impl Life {
    pub fn new(identity: String, news: Arc<Notify>) -> Arc<Life> {
        Arc::new(Life {
            identity,
            is_dead: AtomicBool::new(false),
            news,
            n_writes: AtomicU64::new(0),
            held: Mutex::default(),
        })
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// No request is sent from now on.
    pub fn end(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    pub fn hold(&self, kind: Kind, until: Instant) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize] = Some(until);
    }

    fn held_until(&self, kind: Kind) -> Option<Instant> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize];
        held.filter(|&until| until > Instant::now())
    }
}

/// What a request is, as far as faults are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Watch,
    List(Kind),
    Get,
    /// Nothing depends on it: not counted.
    Event,
    Lease,
    Write,
}

impl Class {
    fn of(request: &Request<Bytes>) -> Class {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let is_read = request.method() == Method::GET;
        if path.contains("/leases") {
            return Class::Lease;
        }
        if path.starts_with("/apis/events.k8s.io/") {
            return Class::Event;
        }
        if !is_read {
            return Class::Write;
        }
        if query.contains("watch=true") {
            return Class::Watch;
        }
        let lists = [Kind::Pod, Kind::BatchJob, Kind::Job, Kind::BatchCronJob];
        match lists.into_iter().find(|kind| path.ends_with(kind.plural())) {
            Some(kind) => Class::List(kind),
            None => Class::Get,
        }
    }
}

/// The connections of one life.
#[derive(Clone)]
pub struct Wire {
    pub server: ApiServer,
    pub life: Arc<Life>,
    pub weather: Arc<Weather>,
}

impl Wire {
    pub fn client(&self, namespace: &str) -> kube::Client {
        let wire = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let wire = wire.clone();
            async move {
                let mut request = whole(request).await?;
                if let Ok(identity) = HeaderValue::from_str(&wire.life.identity) {
                    request.headers_mut().insert(CALLER, identity);
                }
                wire.send(request).await
            }
        });
        kube::Client::new(service, namespace)
    }

    async fn send(&self, request: Request<Bytes>) -> kube::Result<Response<AnswerBody>> {
        self.while_alive().await;
        let class = Class::of(&request);
        if matches!(class, Class::Write | Class::Event) {
            self.life.n_writes.fetch_add(1, Ordering::Relaxed);
        }
        if class == Class::Watch {
            return self.watch(request).await;
        }
        let n = match class {
            Class::Event | Class::Lease => self.weather.n_connections.fetch_add(1, Ordering::Relaxed) | 1 << 40,
            _ => self.weather.n_requests.fetch_add(1, Ordering::Relaxed) + 1,
        };
        if class == Class::Lease && self.life.held_until(Kind::Lease).is_some() {
            self.weather.struck();
            return Err(broken());
        }
        let mut random = Random::of(&[self.weather.seed, 1, n]);
        let fault = self.fault(n, class, &mut random);
        if fault.is_some() {
            self.weather.struck();
        }
        let (there, back) = match random.below(8) {
            // The other jobs of the operator get their turn, and no time passes.
            0..4 => (Duration::ZERO, Duration::ZERO),
            4..7 => (up_to(&mut random, 3), up_to(&mut random, 3)),
            _ => (up_to(&mut random, 40), up_to(&mut random, 40)),
        };
        let request = self.aged(request, class, &mut random);
        match fault {
            None => self.exchange(request, there, back).await,
            Some(RequestFault::AnsweredLate) => {
                let back = Duration::from_secs(1 + random.below(4));
                self.exchange(request, there, back).await
            }
            Some(RequestFault::KillBefore) => self.die().await,
            Some(RequestFault::KillAfter) => {
                let _ = self.server.serve(&request);
                self.die().await
            }
            Some(RequestFault::KillThenApply) => {
                self.apply_later(request, up_to(&mut random, 20_000));
                self.die().await
            }
            Some(RequestFault::Lost) => Err(broken()),
            Some(RequestFault::Unanswered) => {
                let _ = self.server.serve(&request);
                Err(broken())
            }
            Some(RequestFault::AppliedLate) => {
                self.apply_later(request, Duration::from_secs(5) + up_to(&mut random, 40_000));
                if random.in_100(50) {
                    return Err(broken());
                }
                // The operator gives it up when its time is over.
                std::future::pending().await
            }
            Some(RequestFault::Timeout) => {
                let _ = self.server.serve(&request);
                let text = "Timeout: request did not complete within the allotted timeout";
                Ok(refused(&Refusal::new(504, "Timeout", text)))
            }
            Some(RequestFault::Conflict) => {
                let text = "Operation cannot be fulfilled: the object has been modified";
                Ok(refused(&Refusal::new(409, "Conflict", text)))
            }
            Some(RequestFault::Busy) => Ok(refused(&Refusal::too_many_requests(1))),
            Some(RequestFault::Error) => {
                Ok(refused(&Refusal::new(500, "InternalError", "etcdserver: request timed out")))
            }
        }
    }

    fn fault(&self, n: u64, class: Class, random: &mut Random) -> Option<RequestFault> {
        if let Some((_, fault)) = self.weather.script.iter().find(|(nth, _)| *nth == n) {
            return Some(*fault);
        }
        if self.weather.rates.requests.is_empty() || self.weather.is_fair() {
            return None;
        }
        let fault = self.weather.rates.of_request(random)?;
        // A read and a create do not conflict.
        (fault != RequestFault::Conflict || class == Class::Write).then_some(fault)
    }

    /// A list, as it was a while ago.
    fn aged(&self, mut request: Request<Bytes>, class: Class, random: &mut Random) -> Request<Bytes> {
        let Class::List(kind) = class else { return request };
        let rate = self.weather.rates.old_lists;
        if rate == 0 || self.weather.is_fair() || random.below(1000) >= rate {
            return request;
        }
        let revision = self.server.revision().saturating_sub(1 + random.below(12)).max(self.server.compacted()).max(1);
        let aged = format!("{}&continue={revision}%2F", request.uri());
        if let Ok(uri) = aged.parse() {
            *request.uri_mut() = uri;
            self.life.hold(kind, Instant::now() + up_to(random, 10_000));
            self.weather.struck();
        }
        request
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        there: Duration,
        back: Duration,
    ) -> kube::Result<Response<AnswerBody>> {
        if there.is_zero() && back.is_zero() {
            tokio::task::yield_now().await;
            self.while_alive().await;
            return Ok(response(self.server.serve(&request)));
        }
        let (sender, receiver) = oneshot::channel();
        let server = self.server.clone();
        tokio::spawn(async move {
            sleep(there).await;
            let answer = server.serve(&request);
            sleep(back).await;
            // Whoever waited may have died.
            let _ = sender.send(answer);
        });
        match receiver.await {
            Ok(answer) => {
                self.while_alive().await;
                Ok(response(answer))
            }
            Err(_) => Err(broken()),
        }
    }

    fn apply_later(&self, request: Request<Bytes>, delay: Duration) {
        let server = self.server.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = server.serve(&request);
        });
    }

    async fn die(&self) -> ! {
        self.life.end();
        std::future::pending().await
    }

    async fn while_alive(&self) {
        if self.life.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    async fn watch(&self, request: Request<Bytes>) -> kube::Result<Response<AnswerBody>> {
        tokio::task::yield_now().await;
        self.while_alive().await;
        match self.server.serve(&request) {
            Answer::Watch(cursor) => {
                let n = self.weather.n_connections.fetch_add(1, Ordering::Relaxed);
                let lines = Channel::new(self.clone(), cursor, n).lines();
                let body = StreamBody::new(lines.map(|line| Ok::<_, Infallible>(http_body::Frame::data(line))));
                Ok(Response::new(body.boxed_unsync()))
            }
            answer => Ok(response(answer)),
        }
    }
}

/// The connection broke.
fn broken() -> kube::Error {
    kube::Error::Service(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}

fn refused(refusal: &Refusal) -> Response<AnswerBody> {
    response(Answer::Done { code: refusal.code, body: refusal.body() })
}

/// What one watch is told.
struct Channel {
    wire: Wire,
    cursor: Cursor,
    random: Random,
    waiting: VecDeque<WatchEvent>,
    ends_at: Instant,
    is_over: bool,
    /// So many events are told whatever happens: they were told in the wrong order, and what has the later version must
    /// not be the last that is told.
    owed: usize,
}

impl Channel {
    fn new(wire: Wire, cursor: Cursor, n: u64) -> Channel {
        let random = Random::of(&[wire.weather.seed, 2, n]);
        let ends_at = Instant::now() + cursor.timeout.unwrap_or(Duration::from_secs(1800));
        Channel { wire, cursor, random, waiting: VecDeque::new(), ends_at, is_over: false, owed: 0 }
    }

    fn lines(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut channel| async move {
            let line = channel.next().await?;
            Some((line, channel))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.wire.while_alive().await;
            if self.is_over {
                return None;
            }
            if let Some(until) = self.wire.life.held_until(self.cursor.kind()) {
                sleep_until(until).await;
                continue;
            }
            while let Some(event) = self.cursor.try_next() {
                self.waiting.push_back(event);
            }
            if self.waiting.is_empty() {
                let is_over = tokio::select! {
                    biased;
                    () = self.cursor.changed() => false,
                    () = sleep_until(self.ends_at) => true,
                };
                if is_over {
                    self.is_over = true;
                    return self.cursor.allow_bookmarks.then(|| self.cursor.bookmark().line);
                }
                self.travel().await;
                continue;
            }
            if let Some(line) = self.tell().await {
                return Some(line);
            }
        }
    }

    /// What happens on the way takes a moment, in which more may happen.
    async fn travel(&mut self) {
        match self.random.below(8) {
            0..5 => {}
            5..7 => sleep(up_to(&mut self.random, 3)).await,
            _ => sleep(up_to(&mut self.random, 60)).await,
        }
    }

    /// The next event, unless it comes to harm.
    async fn tell(&mut self) -> Option<Bytes> {
        let weather = self.wire.weather.clone();
        let rates = &weather.rates;
        if self.owed > 0 {
            self.owed -= 1;
        } else if !weather.is_fair() {
            if self.happens(rates.held) {
                weather.struck();
                sleep(up_to(&mut self.random, 10_000)).await;
            }
            if self.waiting.len() > 1 && self.happens(rates.dropped) && self.is_followed() {
                weather.struck();
                self.waiting.pop_front();
            }
            if self.waiting.len() > 1 && self.happens(rates.swapped) && !self.is_followed() {
                weather.struck();
                self.waiting.swap(0, 1);
                self.owed = 1;
            } else if self.happens(rates.cut) {
                weather.struck();
                self.is_over = true;
                // In the middle of a line, or before it.
                let half = |event: &WatchEvent| event.line.slice(..event.line.len() / 2);
                return self.random.in_100(50).then(|| self.waiting.front().map(half)).flatten();
            }
            if self.owed == 0 && self.happens(rates.gone) {
                weather.struck();
                self.is_over = true;
                return Some(Bytes::from_static(GONE));
            }
        }
        let event = self.waiting.pop_front()?;
        self.is_over = event.told == Told::Expired;
        Some(event.line)
    }

    fn happens(&mut self, rate: u64) -> bool {
        rate > 0 && self.random.below(1000) < rate
    }

    /// Whether the first event is followed by another one about an object of the same name.
    fn is_followed(&self) -> bool {
        let mut names = self.waiting.iter().map(name);
        let first = names.next();
        names.any(|name| Some(name) == first)
    }
}

const GONE: &[u8] =
    b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
\"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n";

fn name(event: &WatchEvent) -> String {
    let told: serde_json::Value = serde_json::from_slice(&event.line).unwrap_or_default();
    told["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
