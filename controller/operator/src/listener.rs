//! The socket that nodes report to: one request a connection, and no more connections at a time than memory is set aside for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at a time. Each holds some 15 KiB until what its node reports is durable, and when ten thousand nodes come up together this
/// is what the operator's memory is highest with. The others wait in the queue of the socket, some tenths of a second.
pub(crate) const CONNECTIONS: usize = 6144;
/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`). One more is tried again by its node's
/// system, a second later.
const BACKLOG: u32 = 4096;
/// For the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For all of a connection: head, body, and an answer that may have to come from the leader.
const LONGEST: Duration = Duration::from_secs(60);
/// What is under way may end within this time when the server stops.
const GRACE: Duration = Duration::from_secs(15);
/// Bytes of the head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Listens for reports, with as many open files as the system gives.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    open_many_files();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where only 1,024 files are open at first, reporting nodes would leave none for the API server. What cannot be had is done without.
fn open_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(?current, ?maximum, %error, "the limit of open files could not be raised");
    }
}

/// Serves these routes until `cancel` is cancelled, and then ends what is under way.
pub(crate) async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    serve_at_most(CONNECTIONS, listener, router, cancel).await;
}

async fn serve_at_most(connections: usize, listener: TcpListener, router: Router, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(connections));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, router.clone(), cancel.clone(), place))),
                Err(error) => {
                    // Out of descriptors, say: others may end meanwhile.
                    tracing::warn!(%error, "a connection of a node could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    drop(timeout(GRACE, places.acquire_many(all)).await);
}

async fn connection(stream: TcpStream, router: Router, cancel: CancellationToken, _place: OwnedSemaphorePermit) {
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
        Ok(Err(error)) => tracing::debug!(%error, "a connection of a node ended"),
        Err(_) => tracing::debug!("a connection of a node did not end in time and was cut"),
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
        paths: Arc<Mutex<Vec<String>>>,
        begun: Arc<Notify>,
        go_on: Arc<Notify>,
        cancel: CancellationToken,
        server: tokio::task::JoinHandle<()>,
    }

    fn serve_two() -> Served {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
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
        let server = tokio::spawn(serve_at_most(2, listener, router, cancel.clone()));
        Served { address, paths, begun, go_on, cancel, server }
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
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        ask(&mut slow, "/slow").await;
        served.begun.notified().await;
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
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        ask(&mut slow, "/slow").await;
        served.begun.notified().await;
        served.cancel.cancel();
        let go_on = Arc::clone(&served.go_on);
        let ((), text) = tokio::join!(async { go_on.notify_one() }, answer(slow));
        assert!(text.ends_with("/slow"), "{text}");
        served.server.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_cut() {
        let served = serve_two();
        let silent = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(answer(silent).await, "");
        assert!(served.paths.lock().unwrap().is_empty());
        served.cancel.cancel();
        served.server.await.unwrap();
    }
}
