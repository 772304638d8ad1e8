//! The way to the API server: whether it is there, and connections that are given up when they have died in silence.
//!
//! A server that is away refuses connections, or it says nothing; and a connection that says nothing may be dead for
//! good, whatever becomes of the server (a load balancer or a firewall has forgotten it). No request can tell that from
//! a slow answer: an admission webhook may take half a minute. So a small question of its own (`GET /version`) is asked
//! every two seconds, and at once when a request fails or waits, on a connection that is kept:
//!
//! ```text
//! answered ─────────────────────────────► it is there
//! refused, broken ──────► it is away ───► asked every second on a new connection, until that is answered
//! no answer for 1 s ────► it is away ───► the same; if then the old question is still not answered, its connection is dead
//! ```
//!
//! While it is away no request is sent: all wait here, each for as long as it may, so that an outage costs one question a
//! second and no more. When it is back, all that was sent before is given up, with its connections: each request fails, each
//! watch goes on where it was, on a new connection. A server that is only slow answers the old question too, and then nothing
//! is given up.
//!
//! A request that is refused for its token (401) makes the next one come with credentials that are read anew.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::clock::spread;

/// How often it is asked whether it is there.
const PERIOD: Duration = Duration::from_secs(2);
/// A request that waits for so long makes it be asked at once.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// Without an answer for so long it is away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked whether it is back.
const RETRY: Duration = Duration::from_secs(1);
/// How long it is waited for the answer to one such question; others are asked meanwhile.
const RETRY_PATIENCE: Duration = Duration::from_secs(5);
/// How much longer a slow server may take for an older question than for a newer one.
const GRACE: Duration = Duration::from_millis(500);
/// At most so often credentials are read anew because of an answer.
const RENEWAL: Duration = Duration::from_secs(2);

/// The way to the API server.
#[derive(Clone)]
pub struct Link {
    config: Arc<Config>,
    /// So that the operators of one cluster do not all come back in the same moment.
    spread: Duration,
    state: watch::Sender<State>,
    /// A request came to nothing, or waits.
    suspicion: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    is_away: bool,
    since: Instant,
    /// How often all that was sent has been given up.
    given_up: u64,
}

/// What was sent is given up: the connection says nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("the API server was away, and the connection is given up")]
struct GivenUp;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl Link {
    pub fn new(config: Config, identity: &str) -> Link {
        let state = State { is_away: false, since: Instant::now(), given_up: 0 };
        Link {
            config: Arc::new(config),
            spread: spread(identity, RETRY / 4),
            state: watch::Sender::new(state),
            suspicion: Arc::default(),
        }
    }

    /// A client with connections of its own.
    pub fn client(&self) -> kube::Result<Client> {
        let way =
            Arc::new(Way { link: self.clone(), current: Mutex::new(Current::new(&self.config, self.given_up())?) });
        let service = tower::service_fn(move |request| {
            let way = way.clone();
            async move { way.send(request).await }
        });
        Ok(Client::new(service, self.config.default_namespace.clone()))
    }

    /// Since when it has answered every time; None while it is away.
    pub fn there_since(&self) -> Option<Instant> {
        let state = self.state.borrow();
        (!state.is_away).then_some(state.since)
    }

    /// Never ends: asks whether the API server is there.
    pub async fn watch(self) {
        let mut client = None;
        loop {
            let mut question = match client.take() {
                Some(client) => ask(client).boxed().fuse(),
                None => self.ask_anew().boxed().fuse(),
            };
            client = match timeout(PATIENCE, &mut question).await {
                Ok(Ok(client)) => Some(client),
                Ok(Err(error)) => {
                    self.is_away(&error);
                    let client = self.until_back().await;
                    self.give_up();
                    Some(client)
                }
                Err(_) => {
                    self.is_away(&Silence::TimedOut(PATIENCE));
                    tokio::select! {
                        biased;
                        Ok(client) = &mut question => Some(client),
                        client = self.until_back() => {
                            // Whoever is only slow answers what it was asked first.
                            if !matches!(timeout(GRACE, &mut question).await, Ok(Ok(_))) {
                                self.give_up();
                            }
                            Some(client)
                        }
                    }
                }
            };
            self.is_there();
            tokio::select! {
                biased;
                () = self.suspicion.notified() => {}
                () = sleep(PERIOD) => {}
            }
        }
    }

    /// A client whose new connection was answered.
    async fn until_back(&self) -> Client {
        let mut questions = FuturesUnordered::new();
        loop {
            questions.push(timeout(RETRY_PATIENCE, self.ask_anew()));
            let next = sleep(RETRY + self.spread);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    Some(answer) = questions.next() => if let Ok(Ok(client)) = answer {
                        return client;
                    },
                    () = &mut next => break,
                }
            }
        }
    }

    async fn ask_anew(&self) -> Result<Client, Silence> {
        ask(Client::try_from(Config::clone(&self.config))?).await
    }

    fn is_away(&self, why: &Silence) {
        let is_new = self.state.send_if_modified(|state| {
            let is_new = !state.is_away;
            if is_new {
                *state = State { is_away: true, since: Instant::now(), ..*state };
            }
            is_new
        });
        if is_new {
            tracing::warn!(error = %Causes(why), "the API server does not answer: nothing is sent until it does");
        }
    }

    fn is_there(&self) {
        let mut after = None;
        self.state.send_if_modified(|state| {
            if state.is_away {
                after = Some(state.since.elapsed());
                *state = State { is_away: false, since: Instant::now(), ..*state };
            }
            after.is_some()
        });
        if let Some(after) = after {
            tracing::info!("the API server answers again, after {after:.1?}");
        }
    }

    fn give_up(&self) {
        self.state.send_modify(|state| state.given_up += 1);
    }

    fn given_up(&self) -> u64 {
        self.state.borrow().given_up
    }
}

/// Any answer will do: what it says is no matter of the connection.
async fn ask(client: Client) -> Result<Client, Silence> {
    let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
    client.send(request).await?.into_body().collect().await?;
    Ok(client)
}

/// An error with what it comes from: a client's says only that sending has failed.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// One client's way.
struct Way {
    link: Link,
    current: Mutex<Current>,
}

/// A client with its connections and its credentials.
struct Current {
    client: Client,
    made_at: Instant,
    given_up: u64,
    is_refused: bool,
}

impl Current {
    fn new(config: &Config, given_up: u64) -> kube::Result<Current> {
        let client = Client::try_from(config.clone())?;
        Ok(Current { client, made_at: Instant::now(), given_up, is_refused: false })
    }
}

impl Way {
    async fn send(&self, request: Request<Body>) -> kube::Result<Response<Cut>> {
        let mut state = self.link.state.subscribe();
        // The sender is in `self`.
        let _ = state.wait_for(|state| !state.is_away).await;
        let (client, given_up) = self.current()?;
        let mut cut: BoxFuture<'static, ()> = Box::pin(async move {
            if state.wait_for(|state| state.given_up > given_up).await.is_err() {
                // Nobody is left to give it up.
                pending::<()>().await;
            }
        });
        let answer = client.send(request);
        tokio::pin!(answer);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                () = &mut cut => return Err(kube::Error::Service(GivenUp.into())),
                () = sleep(SUSPICIOUS) => self.link.suspicion.notify_one(),
            }
        };
        match answer {
            Ok(answer) => {
                if answer.status() == StatusCode::UNAUTHORIZED {
                    self.is_refused();
                }
                Ok(answer.map(|body| Cut { body, cut }))
            }
            Err(error) => {
                self.link.suspicion.notify_one();
                Err(error)
            }
        }
    }

    /// The client for the next request.
    fn current(&self) -> kube::Result<(Client, u64)> {
        // Nothing that holds the lock can panic half-way through a change.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = self.link.given_up();
        let is_to_be_renewed = current.is_refused && current.made_at.elapsed() >= RENEWAL;
        if current.given_up < given_up || is_to_be_renewed {
            *current = Current::new(&self.link.config, given_up)?;
        }
        Ok((current.client.clone(), given_up))
    }

    fn is_refused(&self) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).is_refused = true;
    }
}

/// The body of an answer, for as long as its connection is not given up.
struct Cut {
    body: Body,
    cut: BoxFuture<'static, ()>,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<kube::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.cut.as_mut().poll(cx).map(|()| Some(Err(kube::Error::Service(GivenUp.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Long enough on a busy machine, and less than any request may take.
    const LIMIT: Duration = Duration::from_secs(25);

    /// How a server answers: connections by their number, from 0.
    type Manner = Arc<dyn Fn(u32) -> BoxFuture<'static, ()> + Send + Sync>;

    /// A server that answers everything with the number of the connection, after it has waited as its manner is.
    async fn server(manner: Manner) -> (Config, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let count = Arc::new(AtomicU32::new(0));
        let n_connections = count.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, n_connections.fetch_add(1, Ordering::SeqCst), manner.clone()));
            }
        });
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.default_retry = false;
        (config, count)
    }

    async fn serve(mut stream: TcpStream, number: u32, manner: Manner) -> std::io::Result<()> {
        let mut head = Vec::new();
        loop {
            head.push(stream.read_u8().await?);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                manner(number).await;
                let number = number.to_string();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}", number.len());
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }

    async fn ask(client: &Client) -> kube::Result<u32> {
        let request = Request::get("/anything").body(Vec::new()).map_err(kube::Error::HttpError)?;
        client.request::<u32>(request).await
    }

    #[tokio::test]
    async fn what_a_dead_connection_was_asked_is_given_up_and_a_new_one_is_taken() {
        let (silent, is_silent) = watch::channel(0);
        let manner: Manner = Arc::new(move |number| {
            let mut silent = is_silent.clone();
            async move { drop(silent.wait_for(|&silent| number >= silent).await) }.boxed()
        });
        let (config, count) = server(manner).await;
        let link = Link::new(config, "operator");
        let client = link.client().expect("a client");
        let _watch = tokio::spawn(link.clone().watch());
        let first = ask(&client).await.expect("an answer");
        while count.load(Ordering::SeqCst) < 2 {
            // Until the link has a connection of its own, too.
            tokio::task::yield_now().await;
        }
        // From now on no connection that there is says anything.
        silent.send_replace(count.load(Ordering::SeqCst));
        let given_up = timeout(LIMIT, ask(&client)).await.expect("it does not wait for ever");
        assert!(given_up.is_err_and(|error| matches!(error, kube::Error::Service(it) if it.is::<GivenUp>())));
        let next = timeout(LIMIT, ask(&client)).await.expect("in time").expect("an answer");
        assert!(next > first, "connection {next} after {first}");
        assert!(link.there_since().is_some());
    }

    #[tokio::test]
    async fn a_server_that_is_slow_is_waited_for() {
        let manner: Manner = Arc::new(|_| sleep(PATIENCE + PERIOD + GRACE).boxed());
        let (config, _) = server(manner).await;
        let link = Link::new(config, "operator");
        let client = link.client().expect("a client");
        let _watch = tokio::spawn(link.clone().watch());
        timeout(LIMIT, ask(&client)).await.expect("in time").expect("an answer");
        assert_eq!(link.given_up(), 0);
    }

    #[tokio::test]
    async fn while_nobody_listens_nothing_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let link = Link::new(Config::new(format!("http://{address}").parse().expect("an address")), "operator");
        let client = link.client().expect("a client");
        let _watch = tokio::spawn(link.clone().watch());
        let mut state = link.state.subscribe();
        drop(timeout(LIMIT, state.wait_for(|state| state.is_away)).await.expect("it notices"));
        assert!(link.there_since().is_none());
        // It waits until there is somebody.
        assert!(timeout(Duration::from_millis(500), ask(&client)).await.is_err());
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let _server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, 7, Arc::new(|_| std::future::ready(()).boxed())));
            }
        });
        let answer = timeout(LIMIT, ask(&client)).await.expect("in time").expect("an answer");
        assert_eq!(answer, 7);
    }
}
