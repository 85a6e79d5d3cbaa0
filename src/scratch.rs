//! The buffers of a worker that every connection of it borrows for the length of a call, and no longer.

use crate::{limits::SCRATCH_BYTES, tls::Outgoing};

/// One set a worker. Nothing in it survives the call that filled it.
#[derive(Debug)]
pub struct Scratch {
    /// What is received lands here; TLS is decrypted in place.
    pub plain: Box<[u8]>,
    /// TLS records on their way out.
    pub cipher: Outgoing,
    /// What TLS itself has to say to the sender (a key update, an alert).
    pub reply: Outgoing,
}

impl Default for Scratch {
    fn default() -> Self {
        let plain = vec![0; SCRATCH_BYTES].into_boxed_slice();
        Self { plain, cipher: Outgoing::default(), reply: Outgoing::default() }
    }
}
