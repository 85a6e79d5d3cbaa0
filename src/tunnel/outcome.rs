//! How a tunnel ended.

use std::fmt;

/// Why a tunnel was closed: one of these for every tunnel, in the log and in the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client closed first (FIN, or close_notify over TLS).
    ClientClosed,
    /// The backend closed first.
    UpstreamClosed,
    /// The client's TCP connection ended without close_notify: what came last may be missing.
    ClientTruncated,
    /// The backend's TCP connection ended without close_notify.
    UpstreamTruncated,
    /// The client sent RST, or its connection failed.
    ClientReset,
    /// The backend sent RST, or its connection failed.
    UpstreamReset,
    /// The client's connection timed out: what was sent to it went unacknowledged, or keep-alive probes unanswered.
    ClientLost,
    /// The backend's connection timed out.
    UpstreamLost,
    /// Nothing came from either side for the tunnel's idle time.
    IdleTimeout,
    /// The client's first frame breaks RFC 6455.
    ProtocolError,
    /// A TLS record that cannot be decrypted, or a fatal alert.
    TlsError,
    /// The tunnel had lived as long as it may.
    MaxLifetime,
    /// The program, a worker or the backend is taken out of service.
    Drain,
    /// Somebody asked for it.
    ClosedByAdmin,
    /// The program is stopping.
    Shutdown,
    /// The kernel had no memory for a call that this tunnel needed.
    HostShortage,
    /// A defect of ours in this tunnel; the others live on.
    InternalError,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 17] = [
        Self::ClientClosed,
        Self::UpstreamClosed,
        Self::ClientTruncated,
        Self::UpstreamTruncated,
        Self::ClientReset,
        Self::UpstreamReset,
        Self::ClientLost,
        Self::UpstreamLost,
        Self::IdleTimeout,
        Self::ProtocolError,
        Self::TlsError,
        Self::MaxLifetime,
        Self::Drain,
        Self::ClosedByAdmin,
        Self::Shutdown,
        Self::HostShortage,
        Self::InternalError,
    ];

    /// Its label in logs and counters.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ClientTruncated => "client_truncated",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::IdleTimeout => "idle_timeout",
            Self::ProtocolError => "protocol_error",
            Self::TlsError => "tls_error",
            Self::MaxLifetime => "max_lifetime",
            Self::Drain => "drain",
            Self::ClosedByAdmin => "closed_by_admin",
            Self::Shutdown => "shutdown",
            Self::HostShortage => "host_shortage",
            Self::InternalError => "internal_error",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// The end of a tunnel: why, and what went through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: Reason,
    /// Bytes from the client to the backend, without TLS.
    pub from_client: u64,
    /// Bytes from the backend to the client, without TLS.
    pub from_upstream: u64,
    /// Frames from the client, as far as they could be followed; none where the tunnel is no websocket.
    pub frames_from_client: u32,
    /// Frames from the backend.
    pub frames_from_upstream: u32,
}
