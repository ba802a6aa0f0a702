//! Time as an argument: instants on the engine's clock.
//!
//! The engine's clock starts at the wall-clock time of its start and advances with the monotonic clock, so a step of the wall
//! clock neither shortens nor stretches a deadline (design rule 4). Durable records hold ages, never instants, for the same reason.

use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant, in milliseconds since the Unix epoch, on the engine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The beginning of its second: creation times of objects are no finer.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0.div_euclid(1000) * 1000)
    }

    /// The end of its second: after all objects that were created in it.
    #[must_use]
    pub const fn end_of_second(self) -> Self {
        Self(self.whole_seconds().0.saturating_add(999))
    }

    /// How long after `earlier` this instant is; zero when it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant for people and for Kubernetes objects, in whole seconds.
    #[must_use]
    pub fn wall(self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.0.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// `14:03`, in UTC, for messages.
    #[must_use]
    pub fn clock(self) -> String {
        let minutes = self.0.div_euclid(60_000).rem_euclid(24 * 60);
        format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        Self(at.as_millisecond())
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// `45s`, `6m12s` or `3h05m00s`, as kubectl writes durations.
#[must_use]
pub fn duration_text(span: Duration) -> String {
    let (hours, minutes, seconds) = (span.as_secs() / 3600, span.as_secs() / 60 % 60, span.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}

/// `90 s`, `20 min` or `3 h`, for messages.
#[must_use]
pub fn span_text(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
