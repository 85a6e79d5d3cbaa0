//! A connection that two threads write to, each a whole frame at a time.

use std::{
    io::{self, Read, Write},
    mem,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

/// The reading thread answers pings while another sends lines: a frame must not begin inside another one.
/// What is written is kept until `flush`, which tungstenite calls behind whole frames, and sent under a lock.
#[derive(Debug)]
pub(super) struct Shared {
    stream: TcpStream,
    unsent: Vec<u8>,
    turn: Arc<Mutex<()>>,
}

impl Shared {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: Vec::new(), turn: Arc::default() }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, unsent: Vec::new(), turn: Arc::clone(&self.turn) })
    }

    pub(super) fn shutdown(&self) {
        // It is gone already, then.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let unsent = mem::take(&mut self.unsent);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.write_all(&unsent)
    }
}
