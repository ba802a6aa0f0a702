//! The operator is killed with SIGKILL, from outside, before and after everything it asks of anybody, and the fleet ends as if nothing had been.
//!
//! What happened to the nodes is read from the site's own history, never from our statuses: no node is cycled that an unkilled run does not
//! cycle, no power action is lost, and what was answered 200 stays known.

// Helpers outside of test functions may panic as well: a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod bench;
mod capmc;
mod check;
mod outside;
mod random;
mod reboot;
mod restart;
mod retries;
mod writes;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Two control planes at a time are what a small machine can carry.
async fn turn() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(2);
    TURNS.acquire().await.unwrap()
}
