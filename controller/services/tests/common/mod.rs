//! Servers for the tests: an axum router, or a socket that misbehaves, each on a free port of the loopback interface.
// Every test file uses its own part of this module.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bos_core::xname::Xname;
use bos_services::config::{Secret, ServicesConfig};
use bos_services::{CallObserver, CallOutcome, Clients, NoObserver, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server that ends with the test.
pub struct Server {
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a router.
pub async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { url, task }
}

/// Gives every connection to `talk`.
pub async fn serve_raw<F>(talk: impl Fn(TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream));
        }
    });
    Server { url, task }
}

/// Reads a request up to its body, answers these bytes and closes.
pub async fn answer_raw(mut stream: TcpStream, answer: &'static [u8]) {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer).await.unwrap();
    stream.write_all(answer).await.unwrap();
}

/// An address where nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

type Script = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

/// Keeps what arrives and answers by a function.
#[derive(Clone)]
pub struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Script,
}

impl Recorder {
    /// A recorder and its server.
    pub async fn start(script: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> (Self, Server) {
        let recorder = Self { seen: Arc::default(), script: Arc::new(script) };
        let server = serve(Router::new().fallback(record).with_state(recorder.clone())).await;
        (recorder, server)
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request that arrived.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }
}

async fn record(State(recorder): State<Recorder>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let answer = (recorder.script)(&seen);
    recorder.seen.lock().unwrap().push(seen);
    answer
}

/// An answer with a status, a media type and a body.
pub fn answer(status: u16, media_type: &'static str, body: impl Into<String>) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", media_type)], body.into()).into_response()
}

/// A good answer in JSON.
pub fn json(body: impl Into<String>) -> Response {
    answer(200, "application/json", body)
}

/// A refusal as the services write it.
pub fn problem(status: u16, detail: &str) -> Response {
    answer(status, "application/problem+json", format!(r#"{{"type":"about:blank","title":"t","detail":"{detail}","status":{status}}}"#))
}

/// A configuration in which every service is at this address.
pub fn config(url: &str) -> ServicesConfig {
    let mut config = ServicesConfig::default();
    for service in [&mut config.hsm, &mut config.pcs, &mut config.capmc, &mut config.bss, &mut config.cfs, &mut config.ims] {
        service.base_url = Some(url.to_owned());
    }
    config.s3.endpoint = url.to_owned();
    config.s3.access_key = "access".to_owned();
    config.s3.secret_key = Secret::new("secret");
    config
}

/// Clients of which every service is at this address.
pub fn clients(url: &str) -> Clients {
    Clients::new(&config(url), Arc::new(NoObserver)).unwrap()
}

/// As [`clients`], waiting only a moment for answers.
pub fn hasty_clients(url: &str) -> Clients {
    let clients = clients(url);
    for service in Service::ALL {
        clients.timeouts.set(service, Duration::from_millis(200));
    }
    clients
}

/// Names of nodes in one cabinet.
pub fn nodes(count: usize) -> Vec<Xname> {
    (0..count).map(|n| Xname::parse(&format!("x1000c0s{n}b0n0")).unwrap()).collect()
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<(Service, &'static str, CallOutcome)>>);

impl CallObserver for Told {
    fn observed(&self, service: Service, call: &'static str, outcome: CallOutcome, _: Duration) {
        self.0.lock().unwrap().push((service, call, outcome));
    }
}
