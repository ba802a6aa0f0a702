//! Loopback ports for servers that cannot be handed an open socket.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below the range from which the kernel takes ports for outgoing connections, so that nothing can sit on a server's port
/// while the server is away for an outage test.
const RANGE: std::ops::Range<u16> = 18_000..30_000;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port that is free now and that this process has not handed out before.
///
/// Another process may still take it before it is used; whoever starts a server on it should try another one then.
pub fn free_port() -> std::io::Result<u16> {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let length = u128::from(RANGE.end - RANGE.start);
    // Start somewhere at random: two test processes at once then seldom meet.
    let first = uuid::Uuid::new_v4().as_u128() % length;
    for step in 0..length {
        let offset = u16::try_from((first + step) % length).unwrap_or_default();
        let port = RANGE.start + offset;
        if !handed_out.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            handed_out.insert(port);
            return Ok(port);
        }
    }
    Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "no free loopback port"))
}
