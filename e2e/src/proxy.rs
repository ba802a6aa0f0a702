//! A proxy before the API server that ends TLS, so that a test sees each request of the operator and decides what becomes of it.
//!
//! A test names a request with a [`Rule`]; the proxy holds it, either before the API server has seen it or after it has answered but before
//! the operator knows, and the test kills the operator at exactly that point. [`Proxy::set_outage`] makes the API server disappear for a while.
//! Clients authenticate with a bearer token ([`ControlPlane::kubeconfig_via`], [`ControlPlane::kubeconfig_for_service_account`]),
//! which is passed on; client certificates end here. Watches stream through unbuffered, over HTTP/1.1 and HTTP/2.

mod request;
mod rules;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::to_bytes;
use futures::StreamExt as _;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control_plane::{ControlPlane, RequestKind, RequestTotals, free_port};

pub use rules::{Hit, Rule, Seen, When};
use rules::{Hold, Rules};

/// The largest request body that is taken: twice what the API server itself takes.
const LARGEST_BODY: usize = 6 * 1024 * 1024;

/// How the API server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outage {
    /// It is not.
    #[default]
    None,
    /// Connections are cut and new ones refused.
    Refuse,
    /// Connections are taken, nothing is answered, watches are silent. What waits goes on when the outage ends.
    Hang,
    /// Every new request is answered 503; open watches go on.
    Unavailable,
}

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: watch::Receiver<bool>,
    _stop: DropGuard,
}

struct Shared {
    upstream: SocketAddr,
    http: reqwest::Client,
    rules: Rules,
    outage: watch::Sender<Outage>,
    totals: Mutex<RequestTotals>,
}

/// The connection or stream ends without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the proxy")
    }
}

impl std::error::Error for Cut {}

impl Proxy {
    /// Starts a proxy before this control plane's API server, on a loopback port of its own. It lives on the calling runtime.
    pub async fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        crate::control_plane::install_crypto_provider();
        let authority = control_plane.authority();
        let pair = authority.serving("api-server-proxy", &["127.0.0.1", "localhost"])?;
        let acceptor = acceptor(&pair.cert_pem, &pair.key_pem)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let shared = Arc::new(Shared {
            upstream: control_plane.api_server_addr(),
            http: upstream_client(authority.cert_pem())?,
            rules: Rules::default(),
            outage: watch::Sender::new(Outage::None),
            totals: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (listening_now, listening) = watch::channel(true);
        let server = Server { address, acceptor, shared: shared.clone(), listening: listening_now, stop: stop.clone() };
        tokio::spawn(server.run(listener));
        Ok(Self { address, shared, listening, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Holds the request that this rule names. Requests count from now on.
    pub fn on(&self, rule: Rule) -> Hit {
        self.shared.rules.add(rule)
    }

    /// Makes the API server be away, or be there again. Returns when that is so.
    pub async fn set_outage(&self, outage: Outage) {
        self.shared.outage.send_replace(outage);
        let wanted = outage != Outage::Refuse;
        until(self.listening.clone(), |listening| listening == wanted).await;
    }

    /// The requests passed on so far, retries included.
    pub fn requests(&self) -> RequestTotals {
        self.shared.totals().clone()
    }
}

impl Shared {
    fn totals(&self) -> std::sync::MutexGuard<'_, RequestTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of one request.
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<reqwest::Body>, Cut> {
        if self.outage_over(Outage::Hang).await == Outage::Unavailable {
            return Ok(unavailable());
        }
        let (head, body) = request.into_parts();
        let body = to_bytes(axum::body::Body::new(body), LARGEST_BODY).await.map_err(|_| Cut)?;
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let seen = Seen { kind: request::kind(&head.method, &head.uri, &head.headers), method: head.method.clone(), path: path.clone() };
        let hold = self.rules.look(&seen, &body);
        let withheld = match hold {
            Some(hold) if hold.when() == When::Before => {
                hold.wait(seen.clone()).await.map_err(|_| Cut)?;
                None
            }
            other => other,
        };
        self.count(&seen.kind);
        let url = format!("https://{}{path}", self.upstream);
        let sent = self.http.request(head.method, url).headers(passed_on(head.headers)).body(body).send().await;
        let answer = sent.map_err(|_| Cut)?;
        self.finish(answer, seen, withheld).await
    }

    /// Withholds the answer where a rule says so, and streams it otherwise.
    async fn finish(&self, answer: reqwest::Response, seen: Seen, withheld: Option<Hold>) -> Result<Response<reqwest::Body>, Cut> {
        if let Some(hold) = withheld {
            hold.wait(seen).await.map_err(|_| Cut)?;
        }
        self.outage_over(Outage::Hang).await;
        let mut response = Response::new(());
        *response.status_mut() = answer.status();
        *response.headers_mut() = passed_on(answer.headers().clone());
        let outage = self.outage.subscribe();
        let stream = answer.bytes_stream().then(move |chunk| {
            let outage = outage.clone();
            async move {
                until(outage, |now| now != Outage::Hang).await;
                chunk
            }
        });
        Ok(response.map(|()| reqwest::Body::wrap_stream(stream)))
    }

    /// Waits until this outage is not, and says what is instead.
    async fn outage_over(&self, outage: Outage) -> Outage {
        self.outage.subscribe().wait_for(|now| *now != outage).await.map_or(Outage::None, |now| *now)
    }

    fn count(&self, kind: &RequestKind) {
        *self.totals().0.entry(kind.clone()).or_default() += 1;
    }
}

/// The accepting side.
struct Server {
    address: SocketAddr,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    listening: watch::Sender<bool>,
    stop: CancellationToken,
}

impl Server {
    async fn run(self, mut listener: TcpListener) {
        let stop = self.stop.clone();
        let work = async {
            loop {
                self.accept_until_refused(listener).await;
                self.listening.send_replace(false);
                self.wait_for(|outage| outage != Outage::Refuse).await;
                listener = self.listen_again().await;
                self.listening.send_replace(true);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Serves until connections are to be refused, then cuts them all. Also cuts them when it is dropped.
    async fn accept_until_refused(&self, listener: TcpListener) {
        let connections = CancellationToken::new();
        let _cut = connections.clone().drop_guard();
        let accept = async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(stream, self.acceptor.clone(), self.shared.clone(), connections.clone()));
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = self.wait_for(|outage| outage == Outage::Refuse) => {}
        }
    }

    async fn wait_for(&self, condition: impl Fn(Outage) -> bool) {
        until(self.shared.outage.subscribe(), condition).await;
    }

    async fn listen_again(&self) -> TcpListener {
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return listener,
                Err(error) => tracing::warn!(address = %self.address, %error, "the proxy cannot listen again yet"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until the value is so, or until nobody can change it any more: then the proxy has stopped.
async fn until<T: Copy>(mut value: watch::Receiver<T>, condition: impl Fn(T) -> bool) {
    drop(value.wait_for(|now| condition(*now)).await);
}

/// Serves one connection until either side ends it or all are cut.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>, cut: CancellationToken) {
    let serve = async {
        stream.set_nodelay(true)?;
        let stream = acceptor.accept(stream).await?;
        let service = hyper::service::service_fn(move |request| shared.clone().handle(request));
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), service).await.map_err(std::io::Error::other)
    };
    tokio::select! {
        () = cut.cancelled() => {}
        ended = serve => if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the proxy ended");
        },
    }
}

/// Without what concerns one connection only.
fn passed_on(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers
}

/// What an API server that is overloaded or still starting says.
fn unavailable() -> Response<reqwest::Body> {
    let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server is currently unable to handle the request","reason":"ServiceUnavailable","code":503}"#;
    let mut response = Response::new(reqwest::Body::from(status));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn acceptor(cert_pem: &str, key_pem: &str) -> anyhow::Result<TlsAcceptor> {
    let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes()).context("the proxy's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("the proxy's key")?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).context("the proxy's TLS")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn upstream_client(ca_pem: &str) -> anyhow::Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).context("the CA certificate")?;
    let builder = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().http2_adaptive_window(true);
    // A redirect is the client's business.
    builder.redirect(reqwest::redirect::Policy::none()).build().context("making the proxy's client")
}
