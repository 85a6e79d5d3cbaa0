//! What a process is given by the one that starts it: listening sockets, by systemd or by the process that it is to replace.

use std::{
    env,
    fs::File,
    io::{self, Write},
    mem::ManuallyDrop,
    os::fd::{AsFd, OwnedFd, RawFd},
    process,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockRef, Type};

use crate::{config::ListenAddress, observe::os_error, sys};

/// The environment variable with the numbers of the listening sockets a process inherits from the one it replaces: `5;6;7`.
pub(super) const SOCKETS: &str = "LONGSPLICE_SOCKETS";
/// The one with the number of the pipe by which it says that it is ready.
pub(super) const READY: &str = "LONGSPLICE_READY";
/// First descriptor that systemd passes (sd_listen_fds(3)).
const LISTEN_FDS_START: RawFd = 3;

/// What this process was started with.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Listening sockets and their addresses.
    pub sockets: Vec<(ListenAddress, OwnedFd)>,
    /// The process that this one is to replace.
    pub predecessor: Option<Predecessor>,
}

impl Inherited {
    /// To be called once, before the program has opened anything that it keeps.
    ///
    /// # Errors
    /// An environment variable that names what is no listening socket.
    pub(super) fn take() -> Result<Self, String> {
        let variable = |name: &str| env::var(name).ok();
        let mut sockets = match variable(SOCKETS) {
            Some(list) => listening(SOCKETS, &list, &list.split(';').map(str::parse).collect::<Result<_, _>>())?,
            None => Vec::new(),
        };
        let is_for_us = variable("LISTEN_PID").is_some_and(|pid| pid == process::id().to_string());
        if let Some(count) = variable("LISTEN_FDS").filter(|_| is_for_us) {
            let numbers = count.parse::<u16>().map(|count| (LISTEN_FDS_START..).take(count.into()).collect());
            sockets.extend(listening("LISTEN_FDS", &count, &numbers)?);
        }
        let predecessor = match variable(READY) {
            Some(number) => {
                let numbers = number.parse().map(|number| vec![number]);
                let pipe = inherit(READY, &number, &numbers)?.pop();
                pipe.map(|pipe| Predecessor { pipe: ManuallyDrop::new(pipe.into()) })
            }
            None => None,
        };
        Ok(Self { sockets, predecessor })
    }
}

type Numbers = Result<Vec<RawFd>, std::num::ParseIntError>;

fn inherit(variable: &str, value: &str, numbers: &Numbers) -> Result<Vec<OwnedFd>, String> {
    let taken = match numbers {
        Ok(numbers) => sys::inherit(numbers).map_err(|error| os_error(&error)),
        Err(error) => Err(error.to_string()),
    };
    taken.map_err(|error| {
        format!(
            "the environment has {variable}={}, which names no descriptors of this process ({error}); it is set by whoever passes \
             sockets on: unset it",
            value.escape_default()
        )
    })
}

fn listening(variable: &str, value: &str, numbers: &Numbers) -> Result<Vec<(ListenAddress, OwnedFd)>, String> {
    let sockets = inherit(variable, value, numbers)?.into_iter().map(|socket| {
        let address = address(&socket).map_err(|error| {
            format!(
                "{variable}={} passes a descriptor that is no listening TCP or unix socket ({}); in a systemd socket unit that is \
                 ListenStream= with Accept=no",
                value.escape_default(),
                os_error(&error)
            )
        })?;
        Ok((address, socket))
    });
    sockets.collect()
}

/// Where a socket listens.
fn address(socket: &OwnedFd) -> io::Result<ListenAddress> {
    let socket = SockRef::from(socket);
    if !socket.is_listener()? || socket.r#type()? != Type::STREAM {
        return Err(io::Error::other("it does not listen"));
    }
    let address = socket.local_addr()?;
    let tcp = address.as_socket().map(ListenAddress::Tcp);
    let unix = || address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()));
    tcp.or_else(unix).ok_or_else(|| io::Error::other("neither TCP nor a path"))
}

/// The process that this one is to replace, at the other end of a pipe. Its launcher takes the pipe's end for the end of this process:
/// so nothing closes it but that.
#[derive(Debug)]
pub(super) struct Predecessor {
    pipe: ManuallyDrop<File>,
}

impl Predecessor {
    /// Says that this process accepts connections.
    pub(super) fn ready(&mut self) {
        self.say("ready");
    }

    /// Says why it will not.
    pub(super) fn failed(&mut self, errors: &[String]) {
        self.say(&format!("failed {}", errors.join("; ").replace('\n', " ")));
    }

    fn say(&mut self, line: &str) {
        // Whoever does not listen any more has ended, and this process goes on alone.
        let _ = writeln!(&*self.pipe, "{line}");
    }

    /// Closes the pipe: in a process that is not the one to replace the other.
    pub(super) fn close(self) {
        drop(ManuallyDrop::into_inner(self.pipe));
    }

    /// True until the other process has let go of this one: it quits, or has ended. Waits a moment for that: whoever has just told it
    /// to quit may be faster than it is.
    pub(super) fn holds_on(&self, patience: Duration) -> bool {
        let mut pipe = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        let polled = poll(&mut pipe, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX));
        // A pipe that nobody reads has POLLERR (poll(2)).
        polled.is_ok() && !pipe[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn a_listening_socket_says_where() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = ListenAddress::Tcp(tcp.local_addr().unwrap());
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        assert_eq!(address(&tcp.into()).unwrap(), expected);
        assert!(address(&client.into()).is_err());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(address(&unix.into()).unwrap(), ListenAddress::Unix(path));
        assert!(address(&File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn a_variable_that_names_no_descriptor_is_told_with_its_value() {
        let error = |list: &str| {
            let numbers = list.split(';').map(str::parse).collect();
            listening(SOCKETS, list, &numbers).unwrap_err()
        };
        for list in ["", "x", "1000000", "-1", "2", "3;x"] {
            assert!(error(list).contains(&format!("LONGSPLICE_SOCKETS={list}, which names no")), "{}", error(list));
        }
    }

    #[test]
    fn a_predecessor_is_told_and_noticed_when_it_lets_go() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut predecessor = Predecessor { pipe: ManuallyDrop::new(OwnedFd::from(writer).into()) };
        assert!(predecessor.holds_on(Duration::ZERO));
        predecessor.failed(&["no\nport".to_owned(), "no user".to_owned()]);
        let mut said = [0; 64];
        let length = reader.read(&mut said).unwrap();
        assert_eq!(&said[..length], b"failed no port; no user\n");
        drop(reader);
        assert!(!predecessor.holds_on(Duration::from_secs(5)));
        predecessor.ready();
        predecessor.close();
    }
}
