//! Listening sockets.

use std::os::fd::OwnedFd;

use crate::config::Config;

/// Binds every listener of the configuration for each of `workers`: `result[worker][listener]`. TCP: one SO_REUSEPORT socket a worker,
/// so that the kernel spreads connections; unix: one socket, shared. A stale unix socket (nobody listens) is replaced.
/// EADDRINUSE is tried again for a second: a process that owned an io_uring holds its ports a moment after its exit.
///
/// # Errors
/// One text for each address that cannot be bound: cause and cure.
pub fn bind(_config: &Config, _workers: usize) -> Result<Vec<Vec<OwnedFd>>, Vec<String>> {
    unimplemented!()
}
