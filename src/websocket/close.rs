//! Frames the proxy sends of its own: close and ping, to a client (never masked).

/// A close frame with a status code and a short reason (RFC 6455 section 5.5.1).
pub fn close_frame(_code: u16, _reason: &str) -> Vec<u8> {
    unimplemented!()
}
