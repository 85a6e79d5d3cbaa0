//! Descriptors that come from or go to another process.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use super::retry;

/// Most descriptors in one message (SCM_MAX_FD, unix(7), is 253).
pub const DESCRIPTORS_PER_MESSAGE: usize = 250;

/// Takes over descriptors that this process was started with, and makes them close-on-exec. To be called before the program has
/// opened anything that it keeps.
///
/// # Errors
/// EBADF: there is no such descriptor. `InvalidInput`: a standard stream, or a number that was taken before.
pub fn inherit(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let take = |number: &RawFd| {
        if *number <= libc::STDERR_FILENO || taken.contains(number) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: fcntl(2) takes any number; one that is not open is EBADF.
        retry(|| unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) as isize })?;
        taken.insert(*number);
        // SAFETY: open, as the call above has shown, and taken once; nothing of this program's own has the number, since it is
        // called before anything is opened.
        Ok(unsafe { OwnedFd::from_raw_fd(*number) })
    };
    numbers.iter().map(take).collect()
}

/// Sends a message with descriptors, at most [`DESCRIPTORS_PER_MESSAGE`], through a unix socket that keeps messages apart.
///
/// # Errors
/// sendmsg(2)'s: EPIPE when the other end has gone; EMFILE, ETOOMANYREFS.
pub fn send_descriptors(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives a message and the descriptors that came with it, close-on-exec; 0 bytes when the other end has gone.
///
/// # Errors
/// recvmsg(2)'s.
pub fn recv_descriptors(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_PER_MESSAGE]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: recvmsg(2) has just installed them, and nobody else knows their numbers.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::{AsFd, IntoRawFd},
    };

    use nix::{
        fcntl::{FcntlArg, FdFlag, fcntl},
        sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    };

    use super::*;

    #[test]
    fn what_is_no_open_descriptor_is_not_inherited() {
        let is_bad = |numbers: &[RawFd]| inherit(numbers).unwrap_err();
        assert_eq!(is_bad(&[1_000_000]).raw_os_error(), Some(libc::EBADF));
        for stream in 0..=2 {
            assert_eq!(is_bad(&[stream]).kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_inherited_descriptor_is_not_inherited_again() {
        let file = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
        let number = file.into_raw_fd();
        let taken = inherit(&[number]).unwrap();
        assert_eq!(inherit(&[number]).unwrap_err().kind(), io::ErrorKind::InvalidInput, "once only");
        let flags = fcntl(&taken[0], FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let passed = vec![writer.as_fd(); DESCRIPTORS_PER_MESSAGE];
        send_descriptors(here.as_fd(), b"take these", &passed).unwrap();
        send_descriptors(here.as_fd(), b"none", &[]).unwrap();
        drop(writer);
        let mut bytes = [0; 64];
        let (length, taken) = recv_descriptors(there.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..length], taken.len()), (&b"take these"[..], DESCRIPTORS_PER_MESSAGE));
        let last = taken.into_iter().next_back().unwrap();
        File::from(last).write_all(b"x").unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "x", "and no other copy is left open");
        assert_eq!(recv_descriptors(there.as_fd(), &mut bytes).unwrap().0, 4);
        drop(here);
        assert_eq!(recv_descriptors(there.as_fd(), &mut bytes).unwrap().0, 0);
    }
}
