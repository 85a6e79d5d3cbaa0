//! Stream sockets.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::retry;

/// Accepts one connection, non-blocking and close-on-exec from its first moment (accept4(2)).
///
/// # Errors
/// `WouldBlock` when none waits; accept(2)'s own, which include errors of the connection itself (ECONNABORTED).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    let fd = listener.as_raw_fd();
    // SAFETY: try_init hands out storage of the size it says; accept4 writes at most that much and the length it wrote.
    // The descriptor it returns is new and owned by nobody else.
    unsafe {
        SockAddr::try_init(|storage, length| {
            let accepted =
                retry(|| libc::accept4(fd, storage.cast(), length, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as isize)?;
            Ok(OwnedFd::from_raw_fd(accepted as i32))
        })
    }
}

/// A socket for [`connect`], with TCP_NODELAY where it is one of TCP.
///
/// # Errors
/// socket(2)'s: no descriptor.
pub fn stream_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// Begins a connection; the socket is writable once it stands or has failed (connect(2), EINPROGRESS).
///
/// # Errors
/// connect(2)'s: no local port, refused at once on a unix socket.
pub fn connect(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// Receives what is there, up to the buffer's length; 0 is the peer's FIN (recv(2)).
///
/// # Errors
/// `WouldBlock` when nothing is there; ECONNRESET and the like.
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live, writable slice.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) })
}

/// Sends as much as the socket takes now (send(2), no SIGPIPE).
///
/// # Errors
/// `WouldBlock` when it takes nothing; EPIPE, ECONNRESET and the like.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    send_flags(fd, bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
}

/// As [`send`], saying that more follows at once, so that a short head does not leave as a segment of its own (MSG_MORE).
///
/// # Errors
/// As [`send`].
pub fn send_more(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    send_flags(fd, bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE)
}

fn send_flags(fd: BorrowedFd<'_>, bytes: &[u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live slice.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Sends FIN: nothing more will be sent (shutdown(2), SHUT_WR).
///
/// # Errors
/// ENOTCONN when the peer is gone already.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(std::net::Shutdown::Write)
}

/// Makes the coming close send RST and drop what is unsent (socket(7), SO_LINGER of zero).
pub fn reset_on_close(fd: &impl AsFd) {
    // A socket that cannot take the option is closed with FIN instead: nothing to do about it.
    let _ = SockRef::from(&fd.as_fd()).set_linger(Some(Duration::ZERO));
}

/// A listener hands a connection out only once its first bytes are there (tcp(7), TCP_DEFER_ACCEPT).
///
/// # Errors
/// setsockopt(2)'s.
pub fn defer_accept(listener: &impl AsFd) -> io::Result<()> {
    // Seconds the kernel waits for the first byte at most; nginx's figure. Our own deadline is client_header_timeout.
    set_tcp_option(listener, libc::TCP_DEFER_ACCEPT, 1)
}

/// A listener takes data in the SYN, for up to `queue` connections not yet established (tcp(7), TCP_FASTOPEN).
///
/// # Errors
/// setsockopt(2)'s.
pub fn fast_open(listener: &impl AsFd, queue: i32) -> io::Result<()> {
    set_tcp_option(listener, libc::TCP_FASTOPEN, queue)
}

/// Receives a copy of what lies `offset` bytes ahead, and leaves it there (MSG_PEEK and SO_PEEK_OFF, socket(7)).
///
/// # Errors
/// `WouldBlock`: nothing has come that far. `Unsupported`: TCP has SO_PEEK_OFF since Linux 6.9.
pub fn peek(fd: BorrowedFd<'_>, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
    let offset = i32::try_from(offset).map_err(|_| io::ErrorKind::Unsupported)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)?;
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the pointer and length are those of a live, writable slice.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Bytes that can be received now (SIOCINQ, tcp(7)).
///
/// # Errors
/// ioctl(2)'s.
pub fn available(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD, which SIOCINQ is another name of, writes one int.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) as isize })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn set_tcp_option(socket: &impl AsFd, option: i32, value: i32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, option, value)
}

fn set_option(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and length are those of a live i32, which is what these options take.
    retry(|| unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) as isize })?;
    Ok(())
}
