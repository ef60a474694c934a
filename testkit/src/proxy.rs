//! [`FaultProxy`]: a TCP proxy whose network can be made bad at run time.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How the proxy treats its connections, those that exist and those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyMode {
    /// Bytes pass.
    Pass,
    /// Every byte arrives so much later, in both directions: an answer takes twice that. Throughput is not limited.
    Latency(Duration),
    /// Each connection is closed after so many more bytes have gone from the target to the client, counted from now (for
    /// later connections, from their start). With 0 the first byte of an answer closes it.
    CutAfter(u64),
    /// Connections are reset (RST): existing ones at once, new ones as soon as they are accepted.
    Reset,
    /// Connections are accepted, and then nothing moves in either direction. When the mode ends, what was sent
    /// meanwhile moves on, as after a network partition: a request that its sender has long abandoned may still arrive.
    BlackHole,
    /// The port is closed: new connections are refused, existing ones are reset.
    Refuse,
}

impl ProxyMode {
    fn kills(self) -> bool {
        matches!(self, Self::Reset | Self::Refuse)
    }
}

/// A mode and the number of the change that set it: setting the same mode again starts its count again.
type Setting = (u64, ProxyMode);
type Command = (ProxyMode, oneshot::Sender<io::Result<()>>);

/// A TCP proxy on a free port of 127.0.0.1 to one target. Dropping it closes the port and all connections.
///
/// It knows nothing of the protocol. Put it between a client and [`FakeKinesis::serve`](crate::FakeKinesis::serve), an
/// emulator, a function's HTTP endpoint or a queue. It uses real sockets, so leave tokio's clock running.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    mode: watch::Receiver<Setting>,
    stalled: watch::Sender<BTreeSet<usize>>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl FaultProxy {
    /// Starts a proxy to `target` in mode [`Pass`](ProxyMode::Pass). The target need not listen yet.
    ///
    /// # Errors
    /// `target` has no address, or no port can be opened.
    pub async fn start(target: impl ToSocketAddrs) -> io::Result<Self> {
        let target = tokio::net::lookup_host(target).await?.next();
        let target =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the target has no address"))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (set_mode, mode) = watch::channel((1, ProxyMode::Pass));
        let (stalled, now_stalled) = watch::channel(BTreeSet::new());
        let (commands, received) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        let run = Run {
            address,
            target,
            mode: set_mode,
            stalled: now_stalled,
            counts: Arc::clone(&counts),
            connections: JoinSet::new(),
        };
        let task = tokio::spawn(run.run(listener, received));
        Ok(Self { address, commands, mode, stalled, counts, task })
    }

    /// Where the proxy listens; it stays the same over all modes.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The mode in force.
    #[must_use]
    pub fn mode(&self) -> ProxyMode {
        self.mode.borrow().1
    }

    /// Changes the mode. When this returns, it is in force: after `Refuse` the port is closed, after `Refuse` and
    /// `Reset` no earlier connection is left.
    ///
    /// # Errors
    /// After `Refuse`: the port could not be opened again; the mode is still `Refuse`.
    pub async fn set(&self, mode: ProxyMode) -> io::Result<()> {
        let ended = || io::Error::new(io::ErrorKind::BrokenPipe, "the proxy's runtime has ended");
        let (done, answer) = oneshot::channel();
        self.commands.send((mode, done)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Nothing moves any more, in either direction, on one connection: the first that was accepted is 0. The others go on
    /// in the mode in force.
    pub fn stall(&self, connection: usize) {
        self.stalled.send_modify(|stalled| {
            stalled.insert(connection);
        });
    }

    /// Ends that: what was sent meanwhile moves on.
    pub fn resume(&self, connection: usize) {
        self.stalled.send_modify(|stalled| {
            stalled.remove(&connection);
        });
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The accepting task.
struct Run {
    address: SocketAddr,
    target: SocketAddr,
    mode: watch::Sender<Setting>,
    stalled: watch::Receiver<BTreeSet<usize>>,
    counts: Arc<Counts>,
    connections: JoinSet<()>,
}

impl Run {
    async fn run(mut self, listener: TcpListener, mut commands: mpsc::Receiver<Command>) {
        let mut listener = Some(listener);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some((mode, done)) = command else { return };
                    let _ = done.send(self.change(mode, &mut listener).await);
                }
                accepted = accept(listener.as_ref()) => match accepted {
                    Ok(client) => self.admit(client),
                    // Out of file descriptors, most likely: leave the others time to end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
            while self.connections.try_join_next().is_some() {}
        }
    }

    async fn change(&mut self, mode: ProxyMode, listener: &mut Option<TcpListener>) -> io::Result<()> {
        if mode == ProxyMode::Refuse {
            *listener = None;
        } else if listener.is_none() {
            *listener = Some(TcpListener::bind(self.address).await?);
        }
        self.mode.send_modify(|setting| *setting = (setting.0 + 1, mode));
        if mode.kills() {
            while self.connections.join_next().await.is_some() {}
        }
        Ok(())
    }

    fn admit(&mut self, client: TcpStream) {
        let number = self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let open = OpenConnection::new(Arc::clone(&self.counts));
        let target = self.target;
        let road = Road { number, mode: self.mode.subscribe(), stalled: self.stalled.clone() };
        self.connections.spawn(async move {
            connection(client, target, road).await;
            drop(open);
        });
    }
}

/// Counts a connection for as long as it lives, also when its task is aborted.
struct OpenConnection(Arc<Counts>);

impl OpenConnection {
    fn new(counts: Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// How a connection ends.
enum End {
    /// Both sides have sent everything, or the mode cut it: an orderly close (FIN).
    Closed,
    /// Reset (RST).
    Reset,
}

async fn connection(mut client: TcpStream, target: SocketAddr, road: Road) {
    let mut upstream = None;
    let end = tokio::select! {
        biased;
        () = killed(road.mode.clone()) => End::Reset,
        end = relay(&mut client, &mut upstream, target, road) => end,
    };
    if let End::Reset = end {
        for socket in [Some(client), upstream].into_iter().flatten() {
            let _ = socket.set_zero_linger();
        }
    }
}

/// Ends when the mode resets connections.
async fn killed(mut mode: watch::Receiver<Setting>) {
    let alive = mode.wait_for(|m| m.1.kills()).await.is_ok();
    if !alive {
        std::future::pending::<()>().await;
    }
}

/// What lets a connection's bytes through or not.
#[derive(Clone)]
struct Road {
    number: usize,
    mode: watch::Receiver<Setting>,
    stalled: watch::Receiver<BTreeSet<usize>>,
}

impl Road {
    /// Waits while nothing is let through, and gives the setting that does.
    async fn open(&mut self) -> Setting {
        loop {
            let free = self.stalled.wait_for(|stalled| !stalled.contains(&self.number)).await.is_ok();
            let open = self.mode.wait_for(|m| m.1 != ProxyMode::BlackHole).await.ok().map(|setting| *setting);
            let (true, Some(setting)) = (free, open) else { return std::future::pending().await };
            // It may have been stalled while the mode was waited for.
            if !self.stalled.borrow().contains(&self.number) {
                return setting;
            }
        }
    }
}

async fn relay(
    client: &mut TcpStream,
    upstream: &mut Option<TcpStream>,
    target: SocketAddr,
    mut road: Road,
) -> End {
    road.open().await;
    let Ok(socket) = TcpStream::connect(target).await else { return End::Reset };
    let _ = (client.set_nodelay(true), socket.set_nodelay(true));
    let (target_reads, target_writes) = upstream.insert(socket).split();
    let (client_reads, client_writes) = client.split();
    let there = pump(client_reads, target_writes, road.clone(), false);
    let back = pump(target_reads, client_writes, road, true);
    match tokio::try_join!(there, back) {
        Ok(_) | Err(End::Closed) => End::Closed,
        Err(End::Reset) => End::Reset,
    }
}

/// Carries one direction until its end: reading runs ahead of writing, so that latency does not limit throughput.
async fn pump(
    reads: impl AsyncRead + Unpin,
    writes: impl AsyncWrite + Unpin,
    road: Road,
    cuts: bool,
) -> Result<(), End> {
    let (chunks, queue) = mpsc::channel(256);
    tokio::try_join!(take_in(reads, chunks, road.clone()), give_out(writes, queue, road, cuts)).map(|_| ())
}

type Chunk = (Instant, Vec<u8>);

async fn take_in(
    mut reads: impl AsyncRead + Unpin,
    chunks: mpsc::Sender<Chunk>,
    mut road: Road,
) -> Result<(), End> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        road.open().await;
        let count = reads.read(&mut buffer).await.map_err(|_| End::Reset)?;
        if count == 0 {
            return Ok(());
        }
        let delay = match road.mode.borrow().1 {
            ProxyMode::Latency(delay) => delay,
            _ => Duration::ZERO,
        };
        let chunk = (Instant::now() + delay, buffer[..count].to_vec());
        chunks.send(chunk).await.map_err(|_| End::Reset)?;
    }
}

async fn give_out(
    mut writes: impl AsyncWrite + Unpin,
    mut chunks: mpsc::Receiver<Chunk>,
    mut road: Road,
    cuts: bool,
) -> Result<(), End> {
    // What may still pass, and under which setting that was counted.
    let mut left = (0, 0);
    while let Some((due, chunk)) = chunks.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let mut part = chunk.len();
        match road.open().await {
            (number, ProxyMode::CutAfter(bytes)) if cuts => {
                let allowed = if left.0 == number { left.1 } else { bytes };
                part = usize::try_from(allowed).map_or(part, |allowed| allowed.min(part));
                left = (number, allowed - part as u64);
                if left.1 == 0 {
                    writes.write_all(&chunk[..part]).await.map_err(|_| End::Reset)?;
                    return Err(End::Closed);
                }
            }
            _ => {}
        }
        writes.write_all(&chunk[..part]).await.map_err(|_| End::Reset)?;
    }
    writes.shutdown().await.map_err(|_| End::Reset)
}
