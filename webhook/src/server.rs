//! The HTTPS server: TLS with a certificate that can be exchanged while it runs, and clients that cannot hold it up.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::certificates::Served;

/// Connections at a time. An API server needs one; there are a handful of them.
const CONNECTIONS: usize = 64;
/// For the TLS handshake, and for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(4);
/// A connection without a request is closed after this; the API server opens another when it needs one.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// The first request of a connection must have begun by then.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// What is under way may end within this time when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Requests at a time on one connection; the API server opens another for more.
const STREAMS: u32 = 16;
/// Bytes that a client may send ahead on one request, and on all of one connection.
const WINDOW: u32 = 64 * 1024;

/// Serves until `cancel` is cancelled, and then ends what is under way.
///
/// # Errors
/// When the socket cannot be used.
pub(crate) async fn serve(listener: TcpListener, router: Router, served: Arc<Served>, cancel: CancellationToken) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: others may end meanwhile.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, cancel) = (acceptor.clone(), router.clone(), cancel.clone());
        tokio::spawn(async move {
            connection(stream, acceptor, router, cancel).await;
            drop(place);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    drop(timeout(GRACE, places.acquire_many(all)).await);
    Ok(())
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, cancel: CancellationToken) {
    drop(stream.set_nodelay(true));
    let Ok(Ok(stream)) = timeout(HEAD_TIME, acceptor.accept(stream)).await else { return };
    let activity = Arc::new(Activity::new());
    let watched = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (router, turn) = (router.clone(), watched.begin());
        async move {
            let answer = router.oneshot(request.map(Body::new)).await;
            drop(turn);
            answer
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = serving.as_mut() => return log_end(ended),
        () = activity.idle() => {}
        () = cancel.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    match timeout(GRACE, serving).await {
        Ok(ended) => log_end(ended),
        Err(_) => tracing::debug!("a connection did not end in time and was cut"),
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Whether a connection is used.
struct Activity {
    begun: Instant,
    requests: AtomicUsize,
    /// Milliseconds after `begun` of the last beginning or end of a request; 0 before the first.
    last: AtomicU64,
}

/// A request under way.
struct Turn(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), requests: AtomicUsize::new(0), last: AtomicU64::new(0) }
    }

    fn begin(self: &Arc<Self>) -> Turn {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.touch();
        Turn(Arc::clone(self))
    }

    fn touch(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis.max(1), Ordering::SeqCst);
    }

    /// Ends when nothing has been asked for too long.
    async fn idle(&self) {
        loop {
            let last = self.last.load(Ordering::SeqCst);
            let until = if last == 0 { self.begun + FIRST_TIME } else { self.begun + Duration::from_millis(last) + IDLE_TIME };
            if Instant::now() < until {
                sleep_until(until).await;
            } else if self.requests.load(Ordering::SeqCst) == 0 {
                return;
            } else {
                sleep(FIRST_TIME).await;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
        self.0.touch();
    }
}
