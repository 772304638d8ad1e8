//! The way to the API server, byte by byte: it knows nothing of what it carries. It can be closed (nobody listens), frozen
//! (connections are accepted and nothing comes through, until it thaws), and it can forget connections: they stay open
//! and never say anything again, as when a firewall has dropped them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A way to one server. Dropping it breaks all connections.
pub struct Gate {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    /// How many connections there have been; their numbers count from 0.
    n_connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    entrance: Entrance,
    /// Connections with smaller numbers are broken.
    broken: u64,
    /// Connections with smaller numbers are forgotten.
    forgotten: u64,
    /// And this one.
    forgotten_too: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Entrance {
    #[default]
    Open,
    Closed,
    Frozen,
}

impl State {
    fn is_broken(&self, number: u64) -> bool {
        number < self.broken
    }

    fn flows(&self, number: u64) -> bool {
        self.entrance == Entrance::Open && number >= self.forgotten && self.forgotten_too != Some(number)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    pub async fn start(server: SocketAddr) -> Result<Gate> {
        // An address of its own: nobody else takes the port while it is closed.
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let [high, low] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let listener = TcpListener::bind((Ipv4Addr::new(127, 2, high, low), 0)).await.context("listen at a gate")?;
        let address = listener.local_addr()?;
        let (state, n_connections) = (watch::Sender::new(State::default()), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(admit(listener, server, state.subscribe(), n_connections.clone()));
        Ok(Gate { address, state, n_connections, task })
    }

    /// Nobody listens, and every connection breaks.
    pub fn close(&self) {
        let broken = self.n_connections();
        self.state.send_modify(|state| (state.entrance, state.broken) = (Entrance::Closed, broken));
    }

    /// Whoever comes is let in, and nothing comes through any more, on no connection.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.entrance = Entrance::Frozen);
    }

    /// All is as usual. What was frozen goes on.
    pub fn open(&self) {
        self.state.send_modify(|state| state.entrance = Entrance::Open);
    }

    /// No connection that there is says anything again, or is closed.
    pub fn forget(&self) {
        let forgotten = self.n_connections();
        self.state.send_modify(|state| state.forgotten = forgotten);
    }

    /// This connection says nothing again.
    pub fn forget_one(&self, number: u64) {
        self.state.send_modify(|state| state.forgotten_too = Some(number));
    }

    /// Every connection ends.
    pub fn break_all(&self) {
        let broken = self.n_connections();
        self.state.send_modify(|state| state.broken = broken);
    }

    pub fn n_connections(&self) -> u64 {
        self.n_connections.load(Ordering::SeqCst)
    }
}

async fn admit(
    listener: TcpListener,
    server: SocketAddr,
    mut state: watch::Receiver<State>,
    n_connections: Arc<AtomicU64>,
) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if state.wait_for(|state| state.entrance != Entrance::Closed).await.is_err() {
            return;
        }
        let open = match listener.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                // The kernel has not let go of it yet.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let mut closing = state.clone();
        loop {
            tokio::select! {
                biased;
                _ = closing.wait_for(|state| state.entrance == Entrance::Closed) => break,
                accepted = open.accept() => if let Ok((inside, _)) = accepted {
                    let number = n_connections.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(carry(inside, server, number, state.clone()));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// One connection, until it ends or breaks.
async fn carry(inside: TcpStream, server: SocketAddr, number: u64, mut state: watch::Receiver<State>) {
    if state.wait_for(|state| state.flows(number) || state.is_broken(number)).await.is_err() {
        return;
    }
    let Ok(outside) = TcpStream::connect(server).await else { return };
    let ((from_inside, to_inside), (from_outside, to_outside)) = (inside.into_split(), outside.into_split());
    let mut broken = state.clone();
    tokio::select! {
        biased;
        _ = broken.wait_for(|state| state.is_broken(number)) => {}
        _ = async {
            tokio::join!(
                pump(from_inside, to_outside, number, state.clone()),
                pump(from_outside, to_inside, number, state.clone()),
            )
        } => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(n) = from.read(&mut buffer).await else { return };
        // Even the end of a connection is something that comes through.
        if state.wait_for(|state| state.flows(number)).await.is_err() {
            return;
        }
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each byte with the same.
    async fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Ok(address)
    }

    async fn says(stream: &mut TcpStream, byte: u8) -> Result<u8> {
        stream.write_all(&[byte]).await?;
        Ok(stream.read_u8().await?)
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        tokio::time::timeout(Duration::from_millis(100), says(stream, 1)).await.is_err()
    }

    #[tokio::test]
    async fn what_is_frozen_thaws_and_what_is_forgotten_does_not() -> Result<()> {
        let gate = Gate::start(echo().await?).await?;
        let mut old = TcpStream::connect(gate.address).await?;
        assert_eq!(says(&mut old, 7).await?, 7);
        gate.freeze();
        assert!(is_silent(&mut old).await);
        let mut new = TcpStream::connect(gate.address).await?;
        assert!(is_silent(&mut new).await);
        gate.open();
        assert_eq!((old.read_u8().await?, new.read_u8().await?), (1, 1));
        gate.forget();
        assert!(is_silent(&mut old).await && is_silent(&mut new).await);
        let mut newer = TcpStream::connect(gate.address).await?;
        assert_eq!(says(&mut newer, 9).await?, 9);
        Ok(())
    }

    #[tokio::test]
    async fn a_closed_gate_refuses_and_opens_at_the_same_address() -> Result<()> {
        let gate = Gate::start(echo().await?).await?;
        let mut old = TcpStream::connect(gate.address).await?;
        assert_eq!(says(&mut old, 7).await?, 7);
        gate.close();
        assert!(says(&mut old, 8).await.is_err());
        let refused = async {
            while TcpStream::connect(gate.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), refused).await.context("it is closed")?;
        gate.open();
        let opened = async {
            loop {
                if let Ok(stream) = TcpStream::connect(gate.address).await {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut new = tokio::time::timeout(Duration::from_secs(10), opened).await.context("it is open")?;
        assert_eq!(says(&mut new, 9).await?, 9);
        Ok(())
    }
}
