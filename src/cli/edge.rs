//! What both servers need of the machine: a runtime, a signal to stop at, and words about where they listen.

use super::talk;
use crate::error::Error;
use crate::listen;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Returns the runtime that connections are served on.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::usage(format!("cannot start threads: {error}")))
}

/// Returns the error for an address that cannot be listened on.
pub(super) fn cannot_listen(address: SocketAddr, error: &io::Error) -> Error {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "something listens there already; name another port with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are kept for the system; name another with --listen"
        }
        _ => "name an address of this machine with --listen, such as 127.0.0.1:8000",
    };
    Error::usage(format!("cannot listen on {address}: {error}")).with_help(help)
}

/// Returns the address that is listened on, and warns when others than this machine can reach it.
pub(super) fn announce(listener: &TcpListener, asked: SocketAddr, then: &str) -> SocketAddr {
    let at = listener.local_addr().unwrap_or(asked);
    if listen::is_open(at) {
        talk::warning(&format!(
            "{at} is open to other machines, without any password: {then}"
        ));
    }
    at
}

/// Waits until the program is told to stop.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Returns microseconds since 1970.
#[expect(
    clippy::disallowed_types,
    reason = "a recording carries its date; nothing is measured by it"
)]
pub(super) fn now_unix_us() -> Option<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().map(|since| since.as_micros() as u64)
}
