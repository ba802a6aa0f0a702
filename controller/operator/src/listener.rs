//! The socket that nodes report to: one request a connection, and no more connections at a time than memory is set aside for.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use bos_engine::telemetry::Telemetry;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at a time. Each holds some 15 KiB until what its node reports is durable, and when ten thousand nodes come up together this
/// is what the operator's memory is highest with. The others wait in the queue of the socket, some tenths of a second.
pub(crate) const CONNECTIONS: usize = 6144;
/// Open files that are left for everything else: the API server and services, above all.
const OTHER_FILES: u64 = 512;
/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`). One more is tried again by its node's
/// system, a second later.
const BACKLOG: u32 = 4096;
/// For the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For all of a connection: head, body, and an answer that may have to come from the leader.
const LONGEST: Duration = Duration::from_secs(60);
/// When no connection ended for so long, nodes are not heard.
const FULL: Duration = Duration::from_secs(1);
/// What keeps nodes from being heard is logged at most this often.
const SELDOM: Duration = Duration::from_secs(10);
/// What is under way may end within this time when the server stops.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Bytes of the head of a request; a token has up to half of that.
const MAX_HEAD: usize = 32 * 1024;

/// A socket, and how many connections it may have at a time.
pub(crate) struct Listener {
    socket: TcpListener,
    connections: usize,
}

impl Listener {
    /// Listens for reports, with as many open files as the system gives.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let connections = connections(open_many_files());
        if connections < CONNECTIONS {
            tracing::warn!(
                connections,
                "few open files are allowed, so fewer nodes than {CONNECTIONS} can report at the same time; raise the limit (ulimit -n) of the container runtime"
            );
        }
        Ok(Self { socket: socket.listen(BACKLOG)?, connections })
    }

    pub(crate) fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves these routes until `cancel` is cancelled, and then ends what is under way.
    pub(crate) async fn serve(self, router: Router, telemetry: Arc<Telemetry>, cancel: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.connections));
        let mut unheard = Unheard { telemetry, told: None };
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                accepted = self.accept(&places, &mut unheard) => accepted,
            };
            tokio::spawn(connection(stream, peer, router.clone(), cancel.clone(), place));
        }
        drop(self.socket);
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        drop(timeout(GRACE, places.acquire_many(all)).await);
    }

    /// The next connection, once there is a place for it.
    async fn accept(&self, places: &Arc<Semaphore>, unheard: &mut Unheard) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let place = match timeout(FULL, Arc::clone(places).acquire_owned()).await {
                Ok(Ok(place)) => place,
                // It is never closed.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => {
                    unheard.tell(&format!("{} connections are open and none ends", self.connections));
                    continue;
                }
            };
            match self.socket.accept().await {
                Ok((stream, peer)) => return (stream, peer, place),
                // It was gone again before its turn.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    // Out of descriptors, say: others may end meanwhile.
                    unheard.tell(&format!("a connection could not be accepted: {error}"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// How many connections leave enough of the files that may be open.
fn connections(files: Option<u64>) -> usize {
    let left = files.and_then(|files| usize::try_from(files.saturating_sub(OTHER_FILES)).ok());
    left.map_or(CONNECTIONS, |left| left.clamp(1, CONNECTIONS))
}

/// Raises the limit of open files as far as it can be; returns what it is now, None without any.
fn open_many_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            current
        }
    }
}

/// Nodes that cannot report: their silence proves nothing meanwhile (rule 8).
struct Unheard {
    telemetry: Arc<Telemetry>,
    told: Option<Instant>,
}

impl Unheard {
    fn tell(&mut self, why: &str) {
        self.telemetry.reports_put_off.fetch_add(1, Ordering::Relaxed);
        if self.told.is_none_or(|told| told.elapsed() >= SELDOM) {
            self.told = Some(Instant::now());
            tracing::warn!(why, "nodes cannot report; nobody is taken for silent meanwhile");
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, cancel: CancellationToken, _place: OwnedSemaphorePermit) {
    let mut http = Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false).max_buf_size(MAX_HEAD);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = timeout(LONGEST, serving.as_mut()) => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            timeout(GRACE, serving).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection of a node ended"),
        Err(_) => tracing::debug!(%peer, "a connection of a node did not end in time and was cut"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::extract::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    /// Serves at two places paths that it notes; `/slow` waits until it is told to go on.
    struct Served {
        address: SocketAddr,
        telemetry: Arc<Telemetry>,
        paths: Arc<Mutex<Vec<String>>>,
        begun: Arc<Notify>,
        go_on: Arc<Notify>,
        cancel: CancellationToken,
        server: tokio::task::JoinHandle<()>,
    }

    impl Served {
        /// A connection whose request is under way.
        async fn ask_slowly(&self) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            ask(&mut stream, "/slow").await;
            self.begun.notified().await;
            stream
        }
    }

    fn serve_two() -> Served {
        let listener = Listener { connections: 2, ..Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap() };
        let address = listener.local_addr().unwrap();
        let telemetry = Telemetry::shared();
        let (paths, begun, go_on) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let noted = (Arc::clone(&paths), Arc::clone(&begun), Arc::clone(&go_on));
        let router = Router::new().fallback(move |request: Request| {
            let (paths, begun, go_on) = noted.clone();
            async move {
                let path = request.uri().path().to_owned();
                paths.lock().unwrap().push(path.clone());
                if path == "/slow" {
                    begun.notify_one();
                    go_on.notified().await;
                }
                path
            }
        });
        let cancel = CancellationToken::new();
        let server = tokio::spawn(listener.serve(router, Arc::clone(&telemetry), cancel.clone()));
        Served { address, telemetry, paths, begun, go_on, cancel, server }
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bos\r\n\r\n").as_bytes()).await.unwrap();
    }

    /// All that comes until the server closes the connection.
    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_connection_has_one_request_and_waits_for_a_place() {
        let served = serve_two();
        let slow = served.ask_slowly().await;
        // It takes the other place and says nothing yet, so the third has to wait for one of the two.
        let mut silent = TcpStream::connect(served.address).await.unwrap();
        let mut third = TcpStream::connect(served.address).await.unwrap();
        ask(&mut third, "/third").await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        ask(&mut silent, "/silent").await;
        for (stream, path) in [(silent, "/silent"), (third, "/third")] {
            let text = answer(stream).await;
            assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("connection: close") && text.ends_with(path), "{text}");
        }
        assert_eq!(*served.paths.lock().unwrap(), ["/slow", "/silent", "/third"]);
        served.go_on.notify_one();
        assert!(answer(slow).await.ends_with("/slow"));
        served.cancel.cancel();
        served.server.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_when_the_server_ends() {
        let served = serve_two();
        let slow = served.ask_slowly().await;
        served.cancel.cancel();
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        served.go_on.notify_one();
        let text = answer(slow).await;
        assert!(text.ends_with("/slow"), "{text}");
        served.server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_cut() {
        let served = serve_two();
        let (begun, silent) = (Instant::now(), TcpStream::connect(served.address).await.unwrap());
        assert_eq!(answer(silent).await, "");
        assert!(begun.elapsed() >= HEAD_TIME && begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        assert!(served.paths.lock().unwrap().is_empty());
        served.cancel.cancel();
        served.server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_places_are_taken_silence_proves_nothing() {
        let served = serve_two();
        let put_off = || served.telemetry.reports_put_off.load(Ordering::Relaxed);
        let mut slow = Vec::new();
        for _ in 0..2 {
            slow.push(served.ask_slowly().await);
        }
        assert_eq!(put_off(), 0);
        while put_off() < 3 {
            sleep(FULL / 2).await;
        }
        for stream in slow {
            served.go_on.notify_one();
            assert!(answer(stream).await.ends_with("/slow"));
        }
        served.cancel.cancel();
    }

    #[test]
    fn files_are_left_for_everything_else() {
        let of = |files| connections(Some(files));
        assert_eq!((of(1_048_576), of(4096), of(1024), of(100)), (CONNECTIONS, 3584, 512, 1));
        assert_eq!(connections(None), CONNECTIONS);
    }
}
