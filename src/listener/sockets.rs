//! The listening sockets of the process, by address: bound here or inherited, and dealt to the workers.
//!
//! The control plane keeps them as long as the process listens, and workers accept from copies: a worker may come and go, and a
//! connection that waits in a socket's queue is not lost with it.

use std::{
    collections::HashMap,
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::Listening;
use crate::{
    config::{Config, KeepAlive, ListenAddress, ListenOptions, Listener},
    limits::BIND_RETRY_MS,
    observe::os_error,
    sys,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Sockets {
    groups: HashMap<ListenAddress, Group>,
}

/// The sockets of one address. TCP: one with SO_REUSEPORT for each worker, so that the kernel spreads connections; unix, and what
/// systemd bound: one for all.
#[derive(Debug, Default)]
struct Group {
    sockets: Vec<OwnedFd>,
    /// Somebody else has made them, and may have them still.
    inherited: bool,
}

impl Sockets {
    /// Those that this process was started with.
    pub fn inheriting(sockets: Vec<(ListenAddress, OwnedFd)>) -> Self {
        let mut inherited = Self::default();
        for (address, socket) in sockets {
            inherited.add(&address, [socket]).inherited = true;
        }
        inherited
    }

    fn add(&mut self, address: &ListenAddress, sockets: impl IntoIterator<Item = OwnedFd>) -> &mut Group {
        let group = self.groups.entry(address.clone()).or_default();
        group.sockets.extend(sockets);
        group
    }

    /// Binds what a configuration names and is not there: new addresses, and sockets for more workers. A stale unix socket (nobody
    /// listens) is replaced. EADDRINUSE is tried again for a second: a process that owned an io_uring holds its ports a moment
    /// after its exit.
    ///
    /// # Errors
    /// One text for each address that cannot be bound: cause and cure. Nothing has changed then.
    pub fn bind(&mut self, config: &Config, workers: usize) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + Duration::from_millis(BIND_RETRY_MS);
        let (mut bound, mut errors) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let sockets = match self.groups.get(&listener.address) {
                Some(group) => Ok(group.more(listener, workers)),
                None => bind_for_all(listener, workers, deadline, self.has_port_of(&listener.address)),
            };
            match sockets {
                Ok(sockets) => bound.push((listener, sockets)),
                Err(error) => errors.push(explain(&listener.address, &error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (listener, sockets) in bound {
            self.add(&listener.address, sockets).configure(listener);
        }
        Ok(())
    }

    /// We listen on this port already, at another of its addresses.
    fn has_port_of(&self, address: &ListenAddress) -> bool {
        let port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        };
        port(address).is_some_and(|wanted| self.groups.keys().any(|known| port(known) == Some(wanted)))
    }

    /// Copies for a worker, `id` of `workers`: of each address its own share of sockets, which is several where there are fewer
    /// workers than there were, or one that it shares where there are more workers than sockets.
    ///
    /// # Errors
    /// No descriptor.
    pub fn of_worker(&self, id: usize, workers: usize) -> io::Result<Vec<Listening>> {
        let shares = self.groups.iter().flat_map(|(address, group)| {
            let copy = |socket: &OwnedFd| Ok(Listening { address: address.clone(), socket: socket.try_clone()? });
            group.share(id, workers).map(copy)
        });
        shares.collect()
    }

    /// Closes what a configuration does not name; the addresses. The file of a unix socket that was bound here goes too.
    pub fn retain(&mut self, config: &Config) -> Vec<ListenAddress> {
        let is_named = |address: &ListenAddress| config.listeners.iter().any(|listener| listener.address == *address);
        let gone = self.groups.extract_if(|address, _| !is_named(address));
        gone.map(|(address, group)| {
            group.unlink(&address);
            address
        })
        .collect()
    }

    /// Closes all: workers accept from their copies as long as they like, and nobody waits in a queue that is not looked at.
    pub fn close(&mut self) {
        self.groups.values_mut().for_each(|group| group.sockets.clear());
    }

    /// Removes the files of the unix sockets that were bound here: a socket that nobody listens on must not be found.
    pub fn unlink(&self) {
        self.groups.iter().for_each(|(address, group)| group.unlink(address));
    }

    /// All of them, for another process.
    pub fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        self.groups.values().flat_map(|group| &group.sockets)
    }
}

impl Group {
    /// Sockets for more workers. Where they cannot be had (the port is below 1024 and this process no longer root's) or would get
    /// nothing (the first has no SO_REUSEPORT), workers share.
    fn more(&self, listener: &Listener, workers: usize) -> Vec<OwnedFd> {
        let ListenAddress::Tcp(address) = &listener.address else { return Vec::new() };
        let spreads = self.sockets.first().is_some_and(|socket| SockRef::from(socket).reuse_port().unwrap_or(false));
        if !spreads {
            return Vec::new();
        }
        let address = SockAddr::from(*address);
        let missing = self.sockets.len()..workers;
        missing.map_while(|_| bind_tcp(&address, &listener.options).ok()).map(OwnedFd::from).collect()
    }

    /// Gives sockets that are there already what a configuration says of them. That never fails for the kinds they are of.
    fn configure(&self, listener: &Listener) {
        for socket in &self.sockets {
            let socket = SockRef::from(socket);
            let _ = socket.set_nonblocking(true);
            if matches!(listener.address, ListenAddress::Tcp(_)) {
                let _ = set_tcp_options(&socket, &listener.options);
            }
            let _ = socket.listen(listener.options.backlog);
        }
    }

    /// Fewer sockets than workers: one each, shared; else every one belongs to one worker.
    fn share(&self, id: usize, workers: usize) -> impl Iterator<Item = &OwnedFd> {
        let count = self.sockets.len();
        let (first, step) = if count < workers { (id % count.max(1), count) } else { (id, workers) };
        self.sockets.iter().skip(first).step_by(step.max(1))
    }

    fn unlink(&self, address: &ListenAddress) {
        if let (ListenAddress::Unix(path), false) = (address, self.inherited) {
            let _ = fs::remove_file(path);
        }
    }
}

/// For an address nobody in this process has.
fn bind_for_all(listener: &Listener, workers: usize, deadline: Instant, has_port: bool) -> io::Result<Vec<OwnedFd>> {
    match &listener.address {
        ListenAddress::Unix(path) => Ok(vec![bind_unix(path, &listener.options)?.into()]),
        ListenAddress::Tcp(address) => {
            // Without SO_REUSEPORT first, so that an address another process serves is an error and not a share of its clients.
            let address = SockAddr::from(*address);
            // Our own at another address of the port (`0.0.0.0:80` in place of `127.0.0.1:80`) would look like another's.
            if !has_port {
                retry_in_use(deadline, || probe(&address, &listener.options))?;
            }
            (0..workers)
                .map(|_| retry_in_use(deadline, || bind_tcp(&address, &listener.options)).map(OwnedFd::from))
                .collect()
        }
    }
}

fn retry_in_use<T>(deadline: Instant, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn probe(address: &SockAddr, options: &ListenOptions) -> io::Result<()> {
    let socket = Socket::new(address.domain(), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.domain() == Domain::IPV6 {
        socket.set_only_v6(options.ipv6only)?;
    }
    socket.bind(address)?;
    socket.listen(1)
}

fn bind_tcp(address: &SockAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.domain() == Domain::IPV6 {
        socket.set_only_v6(options.ipv6only)?;
    }
    set_tcp_options(&socket, options)?;
    socket.bind(address)?;
    if options.deferred {
        sys::defer_accept(&socket)?;
    }
    if let Some(queue) = options.fastopen {
        sys::fast_open(&socket, queue)?;
    }
    socket.listen(options.backlog)?;
    Ok(socket)
}

/// Those that accepted sockets inherit (tcp(7)).
fn set_tcp_options(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    if let Some(bytes) = options.rcvbuf {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.sndbuf {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(keepalive) = options.keepalive {
        socket.set_tcp_keepalive(&keepalive_of(keepalive))?;
    }
    if !options.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    }
    // A message must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)
}

/// As socket2 has it.
fn keepalive_of(keepalive: KeepAlive) -> TcpKeepalive {
    let mut parameters = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        parameters = parameters.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        parameters = parameters.with_interval(interval);
    }
    if let Some(count) = keepalive.count {
        parameters = parameters.with_retries(count);
    }
    parameters
}

fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    if let Err(error) = socket.bind(&address) {
        let stale = error.kind() == io::ErrorKind::AddrInUse
            && matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(error);
        }
        fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    // As nginx: who may reach the directory may connect.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

fn explain(address: &ListenAddress, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: `ss -ltnp` (or `ss -lxp`) names it",
        io::ErrorKind::AddrNotAvailable => "no interface of this host has the address: `ip addr` lists those it has",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; under SELinux the port needs the label http_port_t"
        }
        io::ErrorKind::NotFound => "the directory of the socket does not exist",
        _ => "see bind(2) and listen(2)",
    };
    format!("bind() to {address} failed ({}): {cure}", os_error(error))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        os::fd::{AsFd, AsRawFd},
    };

    use nix::sys::stat::fstat;

    use super::*;
    use crate::config::{self, LoadOptions, Source};

    fn config(listen: &[&str]) -> Config {
        let listen: String = listen.iter().map(|address| format!("listen {address};")).collect();
        let text = format!("server {{ {listen} return 204; }}");
        let file = Source::Text { name: "test".to_owned(), text };
        let options = LoadOptions { file, prefix: "/".into(), globals: None, conf_error_log: None };
        config::load(&options).config.unwrap()
    }

    /// A free port, as `listen` writes it.
    fn free() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    /// How many sockets each worker gets.
    fn shares(sockets: &Sockets, workers: usize) -> Vec<usize> {
        (0..workers).map(|id| sockets.of_worker(id, workers).unwrap().len()).collect()
    }

    #[test]
    fn every_worker_has_a_socket_and_every_socket_a_worker() {
        let config = config(&[&free()]);
        let mut sockets = Sockets::default();
        sockets.bind(&config, 4).unwrap();
        assert_eq!(sockets.all().count(), 4);
        for (workers, expected) in [(1, vec![4]), (2, vec![2, 2]), (3, vec![2, 1, 1]), (4, vec![1; 4]), (6, vec![1; 6])]
        {
            assert_eq!(shares(&sockets, workers), expected);
            let of_all = (0..workers).flat_map(|id| sockets.of_worker(id, workers).unwrap());
            let files: BTreeSet<u64> = of_all.map(|listening| fstat(&listening.socket).unwrap().st_ino).collect();
            assert_eq!(files.len(), 4, "{workers} workers");
        }
        sockets.bind(&config, 6).unwrap();
        assert_eq!(sockets.all().count(), 6, "more workers, more sockets");
    }

    #[test]
    fn an_error_changes_nothing() {
        let (mine, more) = (free(), free());
        let mut sockets = Sockets::default();
        sockets.bind(&config(&[&mine]), 2).unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let errors = sockets.bind(&config(&[&mine, &more, &taken]), 3).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with(&format!("bind() to {taken} failed (98: Address already in use)")), "{errors:?}");
        assert_eq!(sockets.all().count(), 2);
        assert!(TcpStream::connect(more.parse::<SocketAddr>().unwrap()).is_err());
    }

    #[test]
    fn what_is_inherited_is_used_and_what_waits_in_its_queue_served() {
        let one_of_systemds = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = one_of_systemds.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        let inherited = vec![(ListenAddress::Tcp(address), OwnedFd::from(one_of_systemds))];
        let mut sockets = Sockets::inheriting(inherited);
        let config = config(&[&address.to_string()]);
        sockets.bind(&config, 3).unwrap();
        assert_eq!(shares(&sockets, 3), [1, 1, 1], "one without SO_REUSEPORT is shared");
        assert_eq!(sockets.all().count(), 1);
        let share = sockets.of_worker(2, 3).unwrap().remove(0).socket;
        let (accepted, _) = sys::accept(share.as_fd()).unwrap();
        let mut byte = [0];
        std::fs::File::from(accepted).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        let flags = nix::fcntl::fcntl(&share, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(nix::fcntl::OFlag::from_bits_truncate(flags).contains(nix::fcntl::OFlag::O_NONBLOCK));
    }

    #[test]
    fn what_no_listener_names_is_closed_and_said() {
        let (stays, goes) = (free(), free());
        let mut sockets = Sockets::default();
        sockets.bind(&config(&[&stays, &goes]), 1).unwrap();
        let kept = sockets.all().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
        assert_eq!(sockets.retain(&config(&[&stays])), [ListenAddress::Tcp(goes.parse().unwrap())]);
        assert!(sockets.all().all(|socket| kept.contains(&socket.as_raw_fd())));
        assert!(TcpStream::connect(goes.parse::<SocketAddr>().unwrap()).is_err());
        assert!(TcpStream::connect(stays.parse::<SocketAddr>().unwrap()).is_ok());
    }

    #[test]
    fn only_the_files_of_own_unix_sockets_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["own.sock", "theirs.sock"].map(|name| directory.path().join(name));
        let theirs = std::os::unix::net::UnixListener::bind(&paths[1]).unwrap();
        let inherited = vec![(ListenAddress::Unix(paths[1].clone()), OwnedFd::from(theirs))];
        let mut sockets = Sockets::inheriting(inherited);
        let listen = paths.each_ref().map(|path| format!("unix:{}", path.display()));
        sockets.bind(&config(&[&listen[0], &listen[1]]), 2).unwrap();
        sockets.unlink();
        assert_eq!(paths.map(|path| path.exists()), [false, true]);
    }

    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let options = ListenOptions { user_timeout: Duration::from_secs(77), ..ListenOptions::default() };
        let listener = bind_tcp(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0))), &options).unwrap();
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(77)));
    }
}
