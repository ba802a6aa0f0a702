//! The tokens of [`AuthConfig`]: fetched at first use, again ahead of their end, and once for however many calls that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::auth::{AuthConfig, Client};
use crate::config::ConfigError;
use crate::error::tidy;
use crate::http::{chain, read_body};
use crate::trust::{HttpClients, Trust};

/// The largest answer of an authorization server that is read.
const LARGEST: usize = 256 * 1024;
/// How long a token is used of which the server does not say how long it is good.
const UNSAID: Duration = Duration::from_secs(300);
/// The longest that a token is used: a change of its rights must be noticed some day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long before its end a token is renewed; a fifth of its life where that is less.
const AHEAD: Duration = Duration::from_secs(60);
/// How long before its end a token is used no more: a call takes time too. A tenth of its life where that is less.
const MARGIN: Duration = Duration::from_secs(10);
/// After a renewal failed while the old token is still good.
const PAUSE: Duration = Duration::from_secs(5);

/// A token, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    /// Another one for each fetch.
    number: u64,
}

/// What an authorization server gave.
#[derive(Debug)]
pub(crate) struct Granted {
    header: HeaderValue,
    /// How long the token is good, from the moment it was asked for.
    life: Duration,
}

/// Who gives tokens.
#[async_trait]
pub(crate) trait Grants: Send + Sync {
    /// Asks for a token; the error says who answered what.
    async fn ask(&self) -> Result<Granted, String>;
}

type Fetching = Shared<BoxFuture<'static, Result<Token, String>>>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    fetching: Option<Fetching>,
    fetched: u64,
    /// Not before this is a token renewed that is still good.
    next_renewal: Option<Instant>,
}

struct Held {
    token: Token,
    renew: Instant,
    end: Instant,
}

/// Keeps the token that is good now. Clones share it.
#[derive(Clone)]
pub(crate) struct TokenSource {
    grants: Arc<dyn Grants>,
    state: Arc<Mutex<State>>,
    /// Who gives them, for people.
    pub(crate) from: String,
}

impl TokenSource {
    /// The source that a configuration names; none where it names none. Nothing is sent.
    pub(crate) fn of(config: &AuthConfig) -> Result<Option<Self>, ConfigError> {
        let Some(client) = config.client().map_err(|problems| ConfigError { problems })? else { return Ok(None) };
        let from = client.token_url.to_string();
        Ok(Some(Self::new(Arc::new(Endpoint::new(config, client)?), from)))
    }

    fn new(grants: Arc<dyn Grants>, from: String) -> Self {
        Self { grants, state: Arc::default(), from }
    }

    /// A token that is good now.
    pub(crate) async fn token(&self) -> Result<Token, String> {
        let fetching = {
            let mut state = self.state();
            let now = Instant::now();
            let good = state.held.as_ref().filter(|held| now < held.end).map(|held| (held.token.clone(), held.renew));
            if let Some((token, renew)) = good {
                if renew <= now && state.next_renewal.is_none_or(|next| next <= now) {
                    // It runs by itself; this call has what it needs.
                    drop(self.fetch(&mut state));
                }
                return Ok(token);
            }
            self.fetch(&mut state)
        };
        fetching.await
    }

    /// Takes note that a service does not accept this token. Whoever asks next gets a newer one.
    pub(crate) fn refused(&self, token: &Token) {
        let mut state = self.state();
        if state.held.as_ref().is_some_and(|held| held.token.number == token.number) {
            state.held = None;
        }
    }

    /// The fetch under way, or a new one. It is a task of its own: it goes on when the call that began it is given up.
    fn fetch(&self, state: &mut State) -> Fetching {
        if let Some(fetching) = &state.fetching {
            return fetching.clone();
        }
        let source = self.clone();
        let task = tokio::spawn(async move { source.fetched().await });
        let ended = async move { task.await.unwrap_or_else(|error| Err(format!("the fetch of a token ended: {error}"))) };
        let fetching = ended.boxed().shared();
        state.fetching = Some(fetching.clone());
        fetching
    }

    async fn fetched(self) -> Result<Token, String> {
        let asked = Instant::now();
        let granted = self.grants.ask().await;
        let mut state = self.state();
        state.fetching = None;
        match granted {
            Ok(granted) => {
                let life = granted.life.min(LONGEST);
                state.fetched += 1;
                let token = Token { header: granted.header, number: state.fetched };
                let (renew, end) = (asked + life - AHEAD.min(life / 5), asked + life - MARGIN.min(life / 10));
                state.held = Some(Held { token: token.clone(), renew, end });
                state.next_renewal = None;
                tracing::info!(from = self.from, good_for = ?life, "token fetched");
                Ok(token)
            }
            Err(why) => {
                state.next_renewal = Some(Instant::now() + PAUSE);
                tracing::warn!(from = self.from, why, still_good = state.held.is_some(), "no token");
                Err(why)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token endpoint, asked as RFC 6749 says in 4.4.
struct Endpoint {
    client: Client,
    scope: Option<String>,
    timeout: Duration,
    http: HttpClients,
}

/// What a token endpoint answers. Numbers come as text from some.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Value,
}

/// What it answers when it gives none.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl Endpoint {
    fn new(config: &AuthConfig, client: Client) -> Result<Self, ConfigError> {
        let plain = client.token_url.scheme() == "http";
        let trust = Trust { key: "auth", plain, ca_file: config.ca_file.clone(), insecure: config.insecure, stop: None };
        let timeout = Duration::from_secs(config.timeout_seconds);
        Ok(Self { client, scope: config.scope.clone(), timeout, http: HttpClients::new(trust)? })
    }

    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }

    async fn asked(&self) -> Result<Granted, String> {
        let id = secret_of(&self.client.id_file, "clientIdFile").await?;
        let secret = secret_of(&self.client.secret_file, "clientSecretFile").await?;
        let form = self.form();
        // In this grant both are form-encoded before they are joined.
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let url = &self.client.token_url;
        let http = self.http.current().await;
        let request = http.pooled.post(url.clone()).basic_auth(encoded(&id), Some(encoded(&secret))).timeout(self.timeout);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let network = |error: reqwest::Error| format!("{url}: {}", chain(&error.without_url()));
        let response = request.send().await.map_err(network)?;
        let status = response.status().as_u16();
        let body = read_body(response, LARGEST).await.map_err(network)?;
        let body = body.ok_or_else(|| format!("{url} answered more than {LARGEST} bytes"))?;
        if status != 200 {
            // A server that repeats what it was sent must not bring the secret into a log.
            let said = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.to_string()).unwrap_or_default();
            return Err(format!("{url} answered {status} {}", tidy(&said.replace(&secret, "(hidden)"))).trim_end().to_owned());
        }
        granted(&body).map_err(|why| format!("{url} answered 200 but {why}"))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.error_description {
            Some(description) => write!(f, "{}: {description}", self.error),
            None => f.write_str(&self.error),
        }
    }
}

#[async_trait]
impl Grants for Endpoint {
    async fn ask(&self) -> Result<Granted, String> {
        self.asked().await
    }
}

async fn secret_of(path: &std::path::Path, key: &str) -> Result<String, String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| format!("auth.{key} {}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("auth.{key} {}: it is empty", path.display())) } else { Ok(text.to_owned()) }
}

/// Reads the answer of a token endpoint; an error says nothing of what was in it.
fn granted(body: &[u8]) -> Result<Granted, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "without an access_token in JSON".to_owned())?;
    if let Some(kind) = answer.token_type.filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(format!("with a token of type {:?}, not Bearer", tidy(&kind)));
    }
    let life = life(&answer.expires_in)?;
    if answer.access_token.is_empty() || !answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its access_token is not a token".to_owned());
    }
    let header = HeaderValue::from_str(&format!("Bearer {}", answer.access_token));
    let mut header = header.map_err(|_| "its access_token is not a token".to_owned())?;
    header.set_sensitive(true);
    Ok(Granted { header, life })
}

fn life(expires_in: &Value) -> Result<Duration, String> {
    let seconds = match expires_in {
        Value::Null => return Ok(UNSAID),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let seconds = seconds
        .filter(|seconds| !seconds.is_nan())
        .ok_or_else(|| format!("expires_in is {}, not a number", tidy(&expires_in.to_string())))?;
    if seconds < 1.0 {
        return Err(format!("the token is good for {seconds} seconds"));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Gives tokens that live a hundred seconds, each when it is let.
    #[derive(Default)]
    struct Giver {
        asked: AtomicU64,
        fails: AtomicU64,
        holds: AtomicU64,
        go: Notify,
    }

    #[async_trait]
    impl Grants for Giver {
        async fn ask(&self) -> Result<Granted, String> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if self.holds.load(Ordering::SeqCst) > 0 {
                self.go.notified().await;
            }
            if self.fails.load(Ordering::SeqCst) > 0 {
                return Err("down".to_owned());
            }
            Ok(Granted { header: HeaderValue::from_str(&format!("Bearer {number}")).unwrap(), life: Duration::from_secs(100) })
        }
    }

    fn source() -> (Arc<Giver>, TokenSource) {
        let giver = Arc::new(Giver::default());
        (Arc::clone(&giver), TokenSource::new(giver, "https://issuer".to_owned()))
    }

    async fn text(source: &TokenSource) -> String {
        source.token().await.map_or_else(|why| why, |token| token.header.to_str().unwrap().to_owned())
    }

    /// Lets what was spawned go on until it waits.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_ahead_of_its_end_and_nobody_waits_for_it() {
        let (giver, source) = source();
        assert_eq!(text(&source).await, "Bearer 1");
        tokio::time::advance(Duration::from_secs(79)).await;
        assert_eq!(text(&source).await, "Bearer 1");
        settle().await;
        assert_eq!(giver.asked.load(Ordering::SeqCst), 1, "four fifths of its life are not over");
        tokio::time::advance(Duration::from_secs(2)).await;
        giver.holds.store(1, Ordering::SeqCst);
        assert_eq!(text(&source).await, "Bearer 1", "the old one is good while the new one is on its way");
        settle().await;
        assert_eq!(text(&source).await, "Bearer 1");
        assert_eq!(giver.asked.load(Ordering::SeqCst), 2);
        giver.go.notify_one();
        settle().await;
        assert_eq!(text(&source).await, "Bearer 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_is_tried_again_and_the_token_used_to_its_end() {
        let (giver, source) = source();
        text(&source).await;
        giver.fails.store(1, Ordering::SeqCst);
        tokio::time::advance(Duration::from_secs(81)).await;
        for _ in 0..10 {
            assert_eq!(text(&source).await, "Bearer 1");
            settle().await;
        }
        assert_eq!(giver.asked.load(Ordering::SeqCst), 2, "not with every call");
        tokio::time::advance(PAUSE).await;
        assert_eq!(text(&source).await, "Bearer 1");
        settle().await;
        assert_eq!(giver.asked.load(Ordering::SeqCst), 3);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(text(&source).await, "down", "91 s of 100 are over: it could end on the way");
        giver.fails.store(0, Ordering::SeqCst);
        assert_eq!(text(&source).await, "Bearer 5");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_takes_the_fetch_from_nobody() {
        let (giver, source) = source();
        giver.holds.store(1, Ordering::SeqCst);
        let given_up = tokio::spawn({
            let source = source.clone();
            async move { text(&source).await }
        });
        settle().await;
        given_up.abort();
        giver.go.notify_one();
        assert_eq!(text(&source).await, "Bearer 1");
        assert_eq!(giver.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_once_for_all_that_it_was_refused_to() {
        let (giver, source) = source();
        let token = source.token().await.unwrap();
        for _ in 0..3 {
            source.refused(&token);
            assert_eq!(text(&source).await, "Bearer 2");
        }
        assert_eq!(giver.asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_answer_is_read_strictly_and_never_shown() {
        let read = |body: &str| granted(body.as_bytes()).map(|granted| granted.life.as_secs());
        assert_eq!(read(r#"{"access_token":"t","expires_in":3600,"token_type":"bearer"}"#), Ok(3600));
        assert_eq!(read(r#"{"access_token":"t","expires_in":"3600"}"#), Ok(3600));
        assert_eq!(read(r#"{"access_token":"t"}"#), Ok(UNSAID.as_secs()));
        for huge in ["18446744073709551615", "1e300"] {
            assert!(read(&format!(r#"{{"access_token":"t","expires_in":{huge}}}"#)).unwrap() >= LONGEST.as_secs());
        }
        for (body, says) in [
            ("<html>tok-1</html>", "without an access_token"),
            (r#"{"id_token":"tok-1"}"#, "without an access_token"),
            (r#"{"access_token":"tok-1","expires_in":0}"#, "good for 0 seconds"),
            (r#"{"access_token":"tok-1","expires_in":-5}"#, "good for -5 seconds"),
            (r#"{"access_token":"tok-1","expires_in":"soon"}"#, "not a number"),
            (r#"{"access_token":"tok-1 \n","expires_in":60}"#, "is not a token"),
            (r#"{"access_token":"","expires_in":60}"#, "is not a token"),
            (r#"{"access_token":"tok-1","token_type":"mac"}"#, "mac"),
        ] {
            let why = read(body).unwrap_err();
            assert!(why.contains(says) && !why.contains("tok-1"), "{body}: {why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_for_a_day_at_most() {
        struct Forever(AtomicU64);
        #[async_trait]
        impl Grants for Forever {
            async fn ask(&self) -> Result<Granted, String> {
                self.0.fetch_add(1, Ordering::SeqCst);
                Ok(Granted { header: HeaderValue::from_static("Bearer x"), life: Duration::MAX })
            }
        }
        let forever = Arc::new(Forever(AtomicU64::new(0)));
        let source = TokenSource::new(forever.clone(), String::new());
        text(&source).await;
        tokio::time::advance(LONGEST).await;
        text(&source).await;
        assert_eq!(forever.0.load(Ordering::SeqCst), 2);
    }
}
