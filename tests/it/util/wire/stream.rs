//! What a connection runs over.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    ops::DerefMut,
    os::unix::net::UnixStream,
    time::Duration,
};

use rustls::{ConnectionCommon, SideData, StreamOwned};

use crate::util::PATIENCE;

/// TCP, a unix socket, or TLS over TCP.
pub trait Stream: Read + Write + Send {
    fn set_timeout(&self, timeout: Duration);
    fn finish(&mut self);
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Stream for TcpStream {
    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).expect("a timeout that is not zero");
        self.set_write_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    }
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).expect("a timeout that is not zero");
    }
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// A client's side and a server's.
impl<C, D> Stream for StreamOwned<C, TcpStream>
where
    C: DerefMut<Target = ConnectionCommon<D>> + Send,
    D: SideData,
{
    fn set_timeout(&self, timeout: Duration) {
        self.sock.set_timeout(timeout);
    }
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.sock)
    }
}
