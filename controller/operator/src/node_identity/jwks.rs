//! Tokens that an issuer signs, SPIRE or another one, checked with the keys that it publishes (JWKS).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bos_services::Document;
use bytes::Bytes;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Refusal, Settings, ring_keys, shown};

/// How old keys may be before they are read again beside the work.
const FRESH: Duration = Duration::from_secs(300);
/// How old they may become while their issuer does not answer. Then nobody knows which of them it took back.
const OLDEST: Duration = Duration::from_secs(6 * 3600);
/// Between two reads, whatever tokens ask for.
const PAUSE: Duration = Duration::from_secs(10);
/// For the answer of the issuer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The clocks of issuer and operator may differ by as much, in seconds.
const LEEWAY: u64 = 60;
/// Keys of an issuer; the rest is not looked at.
const MAX_KEYS: usize = 64;

/// Where keys are published.
#[async_trait]
pub(super) trait Published: Send + Sync {
    /// The set of keys, as JSON.
    async fn read(&self) -> Result<Bytes, String>;
}

#[async_trait]
impl Published for Document {
    async fn read(&self) -> Result<Bytes, String> {
        Self::read(self).await
    }
}

/// A key of the issuer.
struct Key {
    id: Option<String>,
    /// Where the issuer says it, the only algorithm it signs by with this key.
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

/// What the issuer published.
struct Keys {
    keys: Vec<Key>,
    read: Instant,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    tried: Option<Instant>,
    /// Why the last read failed.
    failed: Option<String>,
}

/// Whose tokens are good, and the keys to tell.
pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    published: Box<dyn Published>,
    validation: Validation,
    state: Mutex<State>,
    /// One read at a time; whoever waits for it has the same.
    reading: tokio::sync::Mutex<()>,
}

/// What is read of a token, beside what is checked.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Jwks {
    /// Nothing is sent.
    ///
    /// # Errors
    /// When the address or the file of authorities cannot be used.
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let url = settings.jwks_url.as_deref().unwrap_or_default();
        Ok(Self::of(settings, Box::new(Document::new("reportJwksUrl", url, settings.jwks_ca_file.clone(), TIMEOUT)?)))
    }

    pub(super) fn of(settings: &Settings, published: Box<dyn Published>) -> Self {
        ring_keys::install();
        let mut validation = Validation { leeway: LEEWAY, validate_nbf: true, ..Validation::default() };
        validation.set_issuer(&settings.issuers);
        validation.set_audience(&[&settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self(Arc::new(Inner { published, validation, state: Mutex::default(), reading: tokio::sync::Mutex::default() }))
    }

    /// The subject of a token that this issuer signed for us, and that is good now.
    pub(super) async fn subject(&self, token: &str) -> Result<String, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Unauthenticated("this is not a signed token (JWT)".to_owned()))?;
        let id = header.kid.as_deref();
        let mut keys = self.keys().await?;
        if !keys.keys.iter().any(|key| key.may_have_signed(id, header.alg)) {
            // A new key of the issuer, or none at all.
            keys = self.0.read_again().await?;
        }
        let candidates = keys.keys.iter().filter(|key| key.may_have_signed(id, header.alg));
        let mut why = format!("the issuer of nodes' tokens lists no key {} for {:?}", shown(id.unwrap_or_default()), header.alg);
        // The key says which algorithms are possible; a token cannot choose another kind than its key is of.
        let validation = Validation { algorithms: vec![header.alg], ..self.0.validation.clone() };
        for candidate in candidates {
            match decode::<Claims>(token, &candidate.key, &validation) {
                Ok(token) => return Ok(token.claims.sub),
                Err(error) => why = self.0.explained(error.kind()),
            }
        }
        Err(Refusal::Unauthenticated(why))
    }

    /// The keys as they were read last; for the first time, or after too long, only once they are read.
    async fn keys(&self) -> Result<Arc<Keys>, Refusal> {
        let known = self.0.state().keys.clone();
        match known.map(|keys| (keys.read.elapsed(), keys)) {
            Some((age, keys)) if age < FRESH => Ok(keys),
            Some((age, keys)) if age < OLDEST => {
                let inner = Arc::clone(&self.0);
                if inner.reading.try_lock().is_ok() {
                    tokio::spawn(async move { drop(inner.read_again().await) });
                }
                Ok(keys)
            }
            _ => self.0.read_again().await,
        }
    }
}

impl Key {
    /// A key that the library or ring does not know is left out: others of the set are good all the same.
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithm: jwk.common.key_algorithm, key })
    }

    fn may_have_signed(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        id.is_none_or(|id| self.id.as_deref() == Some(id))
            && self.algorithm.as_ref().is_none_or(|only| *only == KeyAlgorithm::from(algorithm))
            && self.key.family() == algorithm.family()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the keys, unless that was tried a moment ago; then that answer counts.
    async fn read_again(&self) -> Result<Arc<Keys>, Refusal> {
        let _alone = self.reading.lock().await;
        {
            let state = self.state();
            if state.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
                return match (&state.failed, &state.keys) {
                    (None, Some(keys)) => Ok(Arc::clone(keys)),
                    (why, _) => Err(unavailable(why.as_deref().unwrap_or_default())),
                };
            }
        }
        let read = self.published.read().await.and_then(|body| keys_of(&body));
        let mut state = self.state();
        let now = Instant::now();
        state.tried = Some(now);
        match read {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the keys of the issuer of nodes' tokens are read");
                let keys = Arc::new(Keys { keys, read: now });
                state.keys = Some(Arc::clone(&keys));
                state.failed = None;
                Ok(keys)
            }
            Err(why) => {
                tracing::warn!(why, "the keys of the issuer of nodes' tokens cannot be read");
                state.failed = Some(why.clone());
                Err(unavailable(&why))
            }
        }
    }

    fn explained(&self, error: &ErrorKind) -> String {
        let expected = |values: &Option<std::collections::HashSet<String>>| {
            values.iter().flatten().map(|value| shown(value)).collect::<Vec<_>>().join(" or ")
        };
        match error {
            ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
            ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
            ErrorKind::InvalidAudience => format!("the token is not for audience {}", expected(&self.validation.aud)),
            ErrorKind::InvalidIssuer => format!("the token is not of issuer {}", expected(&self.validation.iss)),
            ErrorKind::InvalidSignature => "the signature of the token is wrong".to_owned(),
            ErrorKind::MissingRequiredClaim(claim) => format!("the token does not say {claim}"),
            _ => "the token cannot be read".to_owned(),
        }
    }
}

fn unavailable(why: &str) -> Refusal {
    Refusal::Unknown(format!("the keys of the issuer of nodes' tokens cannot be read: {why}"))
}

fn keys_of(body: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body).map_err(|error| format!("it does not answer with keys (JWKS): {error}"))?;
    let keys: Vec<Key> = set.keys.iter().filter_map(Key::read).take(MAX_KEYS).collect();
    if keys.is_empty() { Err(format!("of the {} keys that it lists none can be used", set.keys.len())) } else { Ok(keys) }
}
