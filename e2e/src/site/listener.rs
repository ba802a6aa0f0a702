//! A listener whose connections can be reset, and which can refuse to listen.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::lock;

/// Opens and closes the front door of a service.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    shut: watch::Sender<bool>,
    // Every open connection holds a child of this token.
    connections: Arc<Mutex<CancellationToken>>,
    stop: CancellationToken,
}

impl Door {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        let connections = Arc::new(Mutex::new(stop.child_token()));
        Self { shut: watch::Sender::new(false), connections, stop }
    }

    /// Refuses new connections and resets the open ones.
    pub(crate) fn shut(&self) {
        self.shut.send_replace(true);
        self.reset_all();
    }

    /// Listens again, on the same port.
    pub(crate) fn open(&self) {
        self.shut.send_replace(false);
    }

    fn reset_all(&self) {
        let old = std::mem::replace(&mut *lock(&self.connections), self.stop.child_token());
        old.cancel();
    }

    fn connection(&self) -> CancellationToken {
        lock(&self.connections).child_token()
    }
}

/// The listener of one service.
#[derive(Debug)]
pub(crate) struct SiteListener {
    inner: Option<TcpListener>,
    address: SocketAddr,
    door: Door,
}

impl SiteListener {
    pub(crate) async fn bind(port: u16, door: Door) -> io::Result<Self> {
        let inner = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = inner.local_addr()?;
        Ok(Self { inner: Some(inner), address, door })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn listening(&mut self) -> &TcpListener {
        let bound = match self.inner.take() {
            Some(bound) => bound,
            None => rebind(self.address).await,
        };
        self.inner.insert(bound)
    }
}

async fn rebind(address: SocketAddr) -> TcpListener {
    loop {
        if let Ok(bound) = TcpListener::bind(address).await {
            return bound;
        }
        // Somebody else holds the port for a moment.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Listener for SiteListener {
    type Io = SiteStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SiteStream, SocketAddr) {
        let mut shut = self.door.shut.subscribe();
        loop {
            if *shut.borrow_and_update() {
                self.inner = None;
                if shut.wait_for(|s| !*s).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            let inner = self.listening().await;
            tokio::select! {
                _ = shut.changed() => {}
                accepted = inner.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Small answers must not wait for the client's acknowledgement.
                        let _ = stream.set_nodelay(true);
                        return (SiteStream::new(stream, self.door.connection()), peer);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that the site can reset.
#[derive(Debug)]
pub(crate) struct SiteStream {
    inner: TcpStream,
    kill: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl SiteStream {
    fn new(inner: TcpStream, kill: CancellationToken) -> Self {
        let killed = Box::pin(kill.clone().cancelled_owned());
        Self { inner, kill, killed }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.killed.as_mut().poll(cx).is_ready() {
            // With a linger of zero the peer gets a reset instead of an orderly end.
            let _ = self.inner.set_zero_linger();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for SiteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for SiteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Lets a request handler reset the connection it came on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    kill: CancellationToken,
}

impl Connection {
    pub(crate) fn reset(&self) {
        self.kill.cancel();
    }
}

impl Connected<IncomingStream<'_, SiteListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, SiteListener>) -> Self {
        Self { kill: stream.io().kill.clone() }
    }
}
