//! How `-s upgrade` learns what became of it: the process that was signalled knows by whom (signalfd(2), `ssi_pid`), and sends its
//! answer to an abstract unix socket (unix(7)) with that number in its name. Whoever sent the signal with kill(1) has none.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred},
    unistd::Pid,
};

use super::launcher::{MESSAGE_BYTES, News};

fn name(asker: Pid) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("longsplice-upgrade-{asker}"))
}

/// Tells a process that asked.
pub(super) fn give(asker: Option<Pid>, news: &News) {
    let Some(asker) = asker else { return };
    let given = name(asker).and_then(|name| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(news.text().as_bytes(), &name)
    });
    // ECONNREFUSED: it was kill(1), which does not listen. All is in the log too.
    drop(given);
}

/// Where this process waits for an answer.
#[derive(Debug)]
pub(crate) struct Answers {
    socket: UnixDatagram,
}

impl Answers {
    /// To be called before the signal is sent.
    ///
    /// # Errors
    /// Somebody has the name.
    pub(crate) fn expect() -> io::Result<Self> {
        let socket = UnixDatagram::bind_addr(&name(Pid::this())?)?;
        setsockopt(&socket, PassCred, &true)?;
        Ok(Self { socket })
    }

    /// The number of the process that serves now beside `from`, or why there is none; nothing when `limit` has passed. What others
    /// say is not listened to: anybody may write to an abstract socket, and the kernel says who did (SCM_CREDENTIALS).
    pub(crate) fn wait(&self, from: Pid, limit: Duration) -> Option<Result<Pid, String>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).ok()?;
            match self.receive() {
                Ok((sender, text)) if sender == Some(from) => match News::parse(&text) {
                    Some(News::Ready(pid)) => return Some(Ok(pid)),
                    Some(News::Failed(reason) | News::Ended(reason)) => return Some(Err(reason)),
                    None => {}
                },
                Ok(_) => {}
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn receive(&self) -> nix::Result<(Option<Pid>, String)> {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut space = cmsg_space!(UnixCredentials);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let sender = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmCredentials(credentials) => Some(Pid::from_raw(credentials.pid())),
            _ => None,
        });
        let length = message.bytes;
        Ok((sender, String::from_utf8_lossy(&bytes[..length]).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_process_that_was_asked_is_taken_and_no_other() {
        let (this, nobody) = (Pid::this(), Pid::from_raw(4_194_305));
        give(Some(this), &News::Ready(nobody));
        let answers = Answers::expect().unwrap();
        give(Some(this), &News::Failed("no such file".to_owned()));
        assert_eq!(answers.wait(nobody, Duration::from_millis(20)), None);
        give(None, &News::Ready(nobody));
        give(Some(this), &News::Failed("no such file".to_owned()));
        assert_eq!(answers.wait(this, Duration::from_secs(5)), Some(Err("no such file".to_owned())));
        give(Some(this), &News::Ready(nobody));
        assert_eq!(answers.wait(this, Duration::from_secs(5)), Some(Ok(nobody)));
        assert_eq!(answers.wait(this, Duration::from_millis(20)), None);
    }
}
