//! A connection of the load, plain or TLS, never blocking.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, pki_types::ServerName};

/// A plain socket, or one with a TLS client on it.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<(TcpStream, ClientConnection)>),
}

impl Socket {
    /// A TLS client on a connection that may not be established yet.
    pub fn tls(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new((stream, session))))
    }

    pub fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.0,
        }
    }

    /// One read of the socket: the bytes it brought, 0 at the end, WouldBlock for none.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => {
                let (stream, session) = &mut **tls;
                if session.read_tls(stream)? == 0 {
                    return Ok(0);
                }
                session.process_new_packets().map_err(io::Error::other)?;
                flush(stream, session)?;
                // A read of ciphertext is far shorter than the buffer: one read takes all its plaintext.
                session.reader().read(buffer)
            }
        }
    }

    /// Sends from two pieces; how much was taken. What TLS has taken but not sent is [`Socket::is_pending`].
    pub fn send(&mut self, pieces: [&[u8]; 2]) -> io::Result<usize> {
        let slices = pieces.map(IoSlice::new);
        match self {
            Self::Plain(stream) if pieces[0].is_empty() => stream.write(pieces[1]),
            Self::Plain(stream) => stream.write_vectored(&slices),
            Self::Tls(tls) => {
                let (stream, session) = &mut **tls;
                flush(stream, session)?;
                if !session.is_handshaking() && session.wants_write() {
                    return Err(ErrorKind::WouldBlock.into());
                }
                let taken = session.writer().write_vectored(&slices)?;
                flush(stream, session)?;
                Ok(taken)
            }
        }
    }

    /// Sends what TLS still holds.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => flush(&mut tls.0, &mut tls.1),
        }
    }

    /// Records wait for room in the socket.
    pub fn is_pending(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.1.wants_write(),
        }
    }

    /// Its TLS session began with a ticket of an earlier one.
    pub fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.1.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Says goodbye where the protocol has a word for it.
    pub fn close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.1.send_close_notify();
            // The connection ends either way.
            let _ = self.flush();
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

fn flush(stream: &mut TcpStream, session: &mut ClientConnection) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
