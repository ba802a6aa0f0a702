//! Reads of set-up are tried again at once when a service stumbles: one bad replica behind a balancer must not send a set-up of
//! many reads back to its beginning each time.

use std::time::Duration;

use bos_services::{S3Error, S3ErrorKind, ServiceError};
use tokio::time::Instant;

/// Tries of one read.
const TRIES: u32 = 4;

/// After an answer that took longer than this the service is not stumbling, it is away.
const QUICK: Duration = Duration::from_secs(2);

/// Before the second try; then longer each time.
const PAUSE: Duration = Duration::from_millis(100);

/// An error after which another try may help.
pub(crate) trait Passing {
    /// Whether the service is at fault, not the request.
    fn may_pass(&self) -> bool;
}

impl Passing for ServiceError {
    fn may_pass(&self) -> bool {
        self.is_transient()
    }
}

impl Passing for S3Error {
    fn may_pass(&self) -> bool {
        self.kind == S3ErrorKind::Unavailable
    }
}

/// The first answer that is no stumble, or the last error.
///
/// # Errors
/// That of the last try.
pub(crate) async fn again<T, E: Passing, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        let begun = Instant::now();
        match call().await {
            Err(error) if error.may_pass() && begun.elapsed() < QUICK => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 3;
    }
    call().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Stumble(bool);

    impl Passing for Stumble {
        fn may_pass(&self) -> bool {
            self.0
        }
    }

    async fn tries(fails: u32, passing: bool, takes: Duration) -> (bool, u32) {
        let calls = AtomicU32::new(0);
        let call = || async {
            tokio::time::sleep(takes).await;
            if calls.fetch_add(1, Ordering::Relaxed) < fails { Err(Stumble(passing)) } else { Ok(()) }
        };
        let answered = again(call).await.is_ok();
        (answered, calls.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stumble_is_tried_again_and_nothing_else_is() {
        assert_eq!(tries(0, true, Duration::ZERO).await, (true, 1));
        assert_eq!(tries(3, true, Duration::ZERO).await, (true, 4));
        assert_eq!(tries(9, true, Duration::ZERO).await, (false, 4));
        assert_eq!(tries(9, false, Duration::ZERO).await, (false, 1), "it refused");
        assert_eq!(tries(9, true, QUICK).await, (false, 1), "it is away");
    }
}
