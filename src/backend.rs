//! Connecting to a backend.

mod dial;

use std::{io, rc::Rc};

use socket2::{SockRef, TcpKeepalive};

use crate::{
    config::{KeepAlive, Settings, Sources},
    http::refusal::Refusal,
    observe::os_error,
    stream::{Failure, Stream},
    sys, tls,
    upstream::{
        Backend,
        ports::{Port, Ports},
    },
    worker::Worker,
};

const TIMED_OUT: &str = "upstream timed out (110: Connection timed out) while connecting to upstream";

/// How to come to a backend.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// Where it is.
    pub backend: &'a Backend,
    /// What is sent first, before TLS.
    pub preface: &'a [u8],
    /// Over TLS: the name to send, and to verify.
    pub tls_name: Option<&'a str>,
    /// `proxy_connect_timeout`, `proxy_ssl_*`, `proxy_socket_keepalive`, `tcp_user_timeout`.
    pub settings: &'a Settings,
    /// `proxy_bind`
    pub sources: Option<&'a Sources>,
    /// Where its port is counted.
    pub ports: &'a Ports,
}

/// A connection to a backend.
#[derive(Debug)]
pub struct Connected {
    /// It.
    pub stream: Stream,
    /// Its local port; none of a unix socket.
    pub port: Option<Port>,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Failed {
    /// 502, 503 or 504 with the cause.
    pub refusal: Refusal,
    /// Whose fault it is.
    pub blame: Blame,
    /// What the host said, where it is its fault.
    error: Option<io::Error>,
}

/// Whose fault it is that there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The backend's, or that of the way to it.
    Backend,
    /// The host's: no descriptor, no memory.
    Host,
    /// The host's too, towards this backend: no port is left, or no address to come from.
    Ports,
}

/// Opens a connection within `proxy_connect_timeout`, TLS included.
///
/// # Errors
/// 502 or 504 with the cause.
pub async fn connect(worker: &Rc<Worker>, way: &Way<'_>) -> Result<Connected, Failed> {
    match worker.reactor.within(way.settings.connect_timeout, open(worker, way)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::new(504, "upstream_connect_timeout", TIMED_OUT).into()),
    }
}

async fn open(worker: &Rc<Worker>, way: &Way<'_>) -> Result<Connected, Failed> {
    let Way { backend, preface, tls_name, settings, sources, ports } = *way;
    let begin = || dial::begin(backend, sources, ports);
    let begun = begin().or_else(|failed| match &failed.error {
        Some(error) if failed.blame == Blame::Host => {
            // Which may have made room: what is only kept gives way.
            worker.lacks("connect", error, "new tunnels and requests get 503");
            begin()
        }
        _ => Err(failed),
    });
    let dial::Begun { fd, port } = begun?;
    if matches!(backend, Backend::Tcp(_)) {
        // A socket without them serves as well; a backend that vanished is then noticed by the tunnel's idle time.
        let _ = outlive_nobody(&SockRef::from(&fd), settings);
    }
    let descriptor = worker.reactor.watch(fd).map_err(Failed::connect)?;
    descriptor.connected().await.map_err(Failed::connect)?;
    let stream = Stream::new(descriptor, Rc::clone(&worker.scratch));
    stream.write_all(preface).await.map_err(|failure| preface_failed(&failure))?;
    if let Some(name) = tls_name {
        let session =
            tls::Session::client(&settings.backend_tls, name).map_err(|error| tls_failed(&Failure::Tls(error)))?;
        stream.handshake(Box::new(session), Vec::new()).await.map_err(|error| tls_failed(&error))?;
    }
    Ok(Connected { stream, port })
}

/// The options by which a backend that vanished is noticed.
fn outlive_nobody(socket: &SockRef<'_>, settings: &Settings) -> io::Result<()> {
    if settings.backend_keepalive {
        let KeepAlive { idle, interval, .. } = KeepAlive::OURS;
        let time = TcpKeepalive::new().with_time(idle.unwrap_or_default()).with_interval(interval.unwrap_or_default());
        // How many probes is said by the user timeout (tcp_keepalive_timer), which saves one setsockopt(2).
        socket.set_tcp_keepalive(&time)?;
    }
    if !settings.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(settings.user_timeout))?;
    }
    Ok(())
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, blame: Blame::Backend, error: None }
    }
}

impl Failed {
    fn connect(error: io::Error) -> Self {
        let detail = format!("connect() failed ({}) while connecting to upstream", os_error(&error));
        if sys::is_shortage(&error) {
            let refusal = Refusal::private(503, "host_shortage", detail);
            return Self { refusal, blame: Blame::Host, error: Some(error) };
        }
        Refusal::private(502, "upstream_connect", detail).into()
    }
}

fn preface_failed(failure: &Failure) -> Refusal {
    Refusal {
        status: 502,
        reason: "upstream_send",
        detail: format!("sending the PROXY protocol header to upstream failed ({failure})").into(),
    }
}

fn tls_failed(failure: &Failure) -> Refusal {
    Refusal {
        status: 502,
        reason: "upstream_tls",
        detail: format!("TLS handshake with the backend failed ({failure})").into(),
    }
}
