//! Tokens that the API server knows, asked by TokenReview. Its answers are kept for a while: ten thousand nodes that come again must
//! not be ten thousand questions each time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Refusal;

/// Questions at a time.
const IN_FLIGHT: usize = 16;
/// How long a node waits for its turn, and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a yes counts.
const YES: Duration = Duration::from_secs(300);
/// How long a no counts: a token may have been looked at before its issuer was known.
const NO: Duration = Duration::from_secs(10);
/// Answers that are kept, twice: those before them are kept until there are as many new ones.
const KEPT: usize = 16_384;

type Told = (Result<String, String>, Instant);

/// Answers by the digest of the token; tokens themselves are not kept.
#[derive(Default)]
struct Known {
    new: HashMap<[u8; 32], Told>,
    old: HashMap<[u8; 32], Told>,
}

impl Known {
    fn get(&self, digest: &[u8; 32], now: Instant) -> Option<Result<String, String>> {
        let told = self.new.get(digest).or_else(|| self.old.get(digest))?;
        (now < told.1).then(|| told.0.clone())
    }

    fn put(&mut self, digest: [u8; 32], told: Told) {
        if self.new.len() >= KEPT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest, told);
    }
}

/// Asks, and remembers.
pub(super) struct Reviews {
    client: Client,
    audience: String,
    turns: Semaphore,
    known: Mutex<Known>,
}

impl Reviews {
    /// Nothing is sent.
    pub(super) fn new(client: Client, audience: String) -> Self {
        Self { client, audience, turns: Semaphore::new(IN_FLIGHT), known: Mutex::default() }
    }

    /// The name of the user whose token it is.
    pub(super) async fn subject(&self, token: &str) -> Result<String, Refusal> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(told) = self.remembered(&digest) {
            return told.map_err(Refusal::Unauthenticated);
        }
        let Ok(Ok(_turn)) = timeout(PATIENCE, self.turns.acquire()).await else {
            return Err(Refusal::Unknown("too many tokens wait for the API server".to_owned()));
        };
        // The same token may have been asked for meanwhile.
        if let Some(told) = self.remembered(&digest) {
            return told.map_err(Refusal::Unauthenticated);
        }
        let told = self.ask(token).await?;
        let until = Instant::now() + if told.is_ok() { YES } else { NO };
        self.known().put(digest, (told.clone(), until));
        told.map_err(Refusal::Unauthenticated)
    }

    async fn ask(&self, token: &str) -> Result<Result<String, String>, Refusal> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api = Api::<TokenReview>::all(self.client.clone());
        let status = match timeout(PATIENCE, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(answer)) => answer.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(Refusal::Unknown(format!("the API server does not say whose token this is: {error}"))),
            Err(_) => return Err(Refusal::Unknown("the API server does not say in time whose token this is".to_owned())),
        };
        let meant = status.audiences.iter().flatten().any(|known| *known == self.audience);
        Ok(match status.user.and_then(|user| user.username) {
            Some(name) if status.authenticated == Some(true) && meant => Ok(name),
            _ => Err(format!("the API server does not accept this token for audience {:?}", self.audience)),
        })
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Result<String, String>> {
        self.known().get(digest, Instant::now())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_ends() {
        let mut known = Known::default();
        let now = Instant::now();
        let digest = |n: usize| <[u8; 32]>::from(Sha256::digest(n.to_le_bytes()));
        for n in 0..KEPT * 3 {
            known.put(digest(n), (Ok(n.to_string()), now + YES));
        }
        assert!(known.new.len() + known.old.len() <= 2 * KEPT);
        let last = KEPT * 3 - 1;
        assert_eq!(known.get(&digest(last), now), Some(Ok(last.to_string())));
        assert_eq!(known.get(&digest(last), now + YES), None);
        assert_eq!(known.get(&digest(0), now), None);
    }
}
