//! Ports on 127.0.0.1, found free.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ServerError;

const TRIES: u32 = 5;

/// Ports that no system hands out by itself, to outgoing connections or to those who ask for any: neither Linux (from 32768) nor macOS (from
/// 49152). So only somebody who looks for one here can come between looking and binding.
const PORTS: std::ops::Range<u16> = 15_000..30_000;

/// A port on 127.0.0.1 that is free now, and that this process was not given before. Another process may take it before it is bound, though
/// hardly; whoever uses it tries again then.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, ServerError> {
    // Each process begins at a place of its own.
    static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| AtomicUsize::new(std::process::id() as usize * 97 % PORTS.len()));
    let ports = || PORTS.clone().nth(NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len());
    std::iter::from_fn(ports).take(PORTS.len()).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).ok_or_else(|| {
        let source = std::io::ErrorKind::AddrInUse.into();
        ServerError::System { doing: "find a free port on 127.0.0.1".to_owned(), source }
    })
}

/// The port that a server is started on: the one given, or free ones, another where somebody else was quicker.
pub(crate) struct PortChoice {
    given: Option<u16>,
    tries: u32,
}

impl PortChoice {
    /// The port given, or a free one.
    pub fn new(given: Option<u16>) -> Self {
        Self { given, tries: 0 }
    }

    /// The port to try now.
    ///
    /// # Errors
    /// When there is no free one.
    pub fn choose(&mut self) -> Result<u16, ServerError> {
        self.tries += 1;
        self.given.map_or_else(free_port, Ok)
    }

    /// Whether another port may do better: this one was taken, as the end of the server's log tells.
    pub fn goes_on_after(&self, error: &ServerError) -> bool {
        // nats-server and versitygw write it small, PostgreSQL does not.
        let taken = |tail: &str| tail.contains("ddress already in use");
        matches!(error, ServerError::Ended { tail, .. } if taken(tail)) && self.given.is_none() && self.tries < TRIES
    }
}
