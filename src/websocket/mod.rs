//! RFC 6455: the handshake's rules and the frames' boundaries. Nothing here does I/O.

pub mod close;
pub mod frames;
pub mod handshake;
