//! HTTP/1.x heads and bodies: bytes in, value or refusal out. Nothing here does I/O.

pub mod body;
pub(crate) mod date;
pub mod fields;
pub mod head;
pub mod host;
pub(crate) mod path;
pub mod refusal;
