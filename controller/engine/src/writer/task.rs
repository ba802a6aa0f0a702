//! The writer's task: keeps the wanted number of writes in flight and puts the rest off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::Taken;
use super::send::{Sent, send};
use super::{Shared, WriteAck, WriteOutcome, WriterConfig};
use crate::clients::Backoff;
use crate::figures::Write;

/// Holds everything back while the server is away or busy, and lets one write at a time find out
/// when it is back.
struct Throttle {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Throttle {
    fn new() -> Self {
        Self { backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)), until: None }
    }

    fn limit(&self, now: Instant, most: usize) -> usize {
        match self.until {
            Some(until) if until > now => 0,
            _ if self.backoff.failures() > 0 => 1,
            _ => most,
        }
    }

    fn failed(&mut self, now: Instant, asked: Option<Duration>) {
        // Those that left together fail together and count once.
        if self.until.is_none_or(|until| until <= now) {
            let pause = self.backoff.next_pause().max(asked.unwrap_or_default());
            tracing::warn!(?pause, "the API server takes no status writes; holding them back");
            self.until = Some(now + pause);
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.until = None;
    }
}

pub(super) async fn run(client: Client, config: WriterConfig, shared: Arc<Shared>, tx: mpsc::Sender<WriteAck>, cancel: CancellationToken) {
    let mut flying: JoinSet<(Taken, Sent)> = JoinSet::new();
    let mut throttle = Throttle::new();
    loop {
        let wake = fill(&client, config, &shared, &mut flying, &throttle);
        let timer = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tx.closed() => return,
            Some(landed) = flying.join_next() => {
                let (taken, sent) = match landed {
                    Ok(landed) => landed,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return,
                    },
                };
                if let Some(ack) = land(&shared, &mut throttle, taken, sent) {
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        sent = tx.send(ack) => if sent.is_err() { return },
                    }
                }
            }
            () = shared.changed.notified() => {}
            () = timer => {}
        }
    }
}

/// Sends as many writes as may leave. Returns when there is something to do next, unless a landing
/// or a new write comes first.
fn fill(
    client: &Client,
    config: WriterConfig,
    shared: &Shared,
    flying: &mut JoinSet<(Taken, Sent)>,
    throttle: &Throttle,
) -> Option<Instant> {
    let now = Instant::now();
    let limit = throttle.limit(now, config.in_flight);
    let gives_way = shared.giving_way.load(Ordering::Relaxed) > 0;
    let mut queue = shared.queue();
    while flying.len() < limit && !(gives_way && flying.len() >= config.giving_way && !queue.is_urgent(now)) {
        let Some(taken) = queue.take(now) else { return queue.next_due() };
        let (client, figures) = (client.clone(), shared.figures.clone());
        flying.spawn(async move {
            let begun = Instant::now();
            let sent = send(&client, config.call_timeout, &taken.job).await;
            figures.took(begun.elapsed());
            (taken, sent)
        });
    }
    if limit == 0 { throttle.until } else { None }
}

/// Books the end of a write; the answer for the caller, where there is one.
fn land(shared: &Shared, throttle: &mut Throttle, taken: Taken, sent: Sent) -> Option<WriteAck> {
    let now = Instant::now();
    let kind = taken.job.key.kind.as_str();
    let count = |outcome| shared.figures.count(kind, outcome);
    let outcome = match sent {
        Sent::Again { retry_after, server, uncertain } => {
            count(Write::Retried);
            if server {
                throttle.failed(now, retry_after);
            }
            if shared.queue().retry(taken, uncertain, retry_after, now) {
                count(Write::Coalesced);
            }
            return None;
        }
        Sent::Settled(outcome) => outcome,
    };
    throttle.succeeded();
    let job = taken.job;
    let reached = match &outcome {
        WriteOutcome::Written { resource_version, .. } => {
            count(Write::Written);
            Some(resource_version.as_str())
        }
        WriteOutcome::Conflict { .. } => {
            count(Write::Conflict);
            None
        }
        WriteOutcome::Gone => {
            count(Write::Gone);
            None
        }
        WriteOutcome::Refused { message } => {
            count(Write::Refused);
            tracing::error!(object = %job.key, target = ?job.target, text = message, "write refused");
            None
        }
    };
    shared.queue().finished(&job, reached, now);
    Some(WriteAck { key: job.key, uid: job.uid, target: job.target, version: job.version, outcome })
}
