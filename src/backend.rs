//! Connecting to a backend.

use std::{io, rc::Rc};

use socket2::{SockAddr, SockRef, TcpKeepalive};

use crate::{
    config::{KeepAlive, Settings},
    http::refusal::Refusal,
    observe::os_error,
    stream::{Failure, Stream},
    sys, tls,
    upstream::Backend,
    worker::Worker,
};

/// The reason of a refusal because this host had no descriptor or memory: no backend is to blame.
pub const HOST_SHORTAGE: &str = "host_shortage";

const TIMED_OUT: &str = "upstream timed out (110: Connection timed out) while connecting to upstream";

/// Opens a connection within `proxy_connect_timeout`, on which `preface` is sent first; TLS included when `tls_name` (SNI and the name to verify) is given.
///
/// # Errors
/// 502 or 504 with the cause; 503 ([`HOST_SHORTAGE`]) where it is this host's.
pub async fn connect(
    worker: &Rc<Worker>,
    backend: &Backend,
    preface: &[u8],
    tls_name: Option<&str>,
    settings: &Settings,
) -> Result<Stream, Refusal> {
    let opening = open(worker, backend, preface, tls_name, settings);
    match worker.reactor.within(settings.connect_timeout, opening).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::new(504, "upstream_connect_timeout", TIMED_OUT)),
    }
}

async fn open(
    worker: &Rc<Worker>,
    backend: &Backend,
    preface: &[u8],
    tls_name: Option<&str>,
    settings: &Settings,
) -> Result<Stream, Refusal> {
    let address = match backend {
        Backend::Tcp(address) => SockAddr::from(*address),
        Backend::Unix(path) => SockAddr::unix(path).map_err(refused)?,
    };
    let begun = sys::connect(&address).or_else(|error| {
        if sys::is_shortage(&error) {
            // Which may have made room: what is only kept gives way.
            worker.lacks("connect", &error, "new tunnels and requests get 503");
            return sys::connect(&address);
        }
        Err(error)
    });
    let fd = begun.map_err(refused)?;
    if matches!(backend, Backend::Tcp(_)) {
        // A socket without them serves as well; a backend that vanished is then noticed by the tunnel's idle time.
        let _ = outlive_nobody(&SockRef::from(&fd), settings);
    }
    let descriptor = worker.reactor.watch(fd).map_err(refused)?;
    descriptor.connected().await.map_err(refused)?;
    let stream = Stream::new(descriptor, Rc::clone(&worker.scratch));
    stream.write_all(preface).await.map_err(|failure| preface_failed(&failure))?;
    if let Some(name) = tls_name {
        let session =
            tls::Session::client(&settings.backend_tls, name).map_err(|error| tls_failed(&Failure::Tls(error)))?;
        stream.handshake(Box::new(session), Vec::new()).await.map_err(|error| tls_failed(&error))?;
    }
    Ok(stream)
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

fn refused(error: io::Error) -> Refusal {
    let (status, reason) = if sys::is_shortage(&error) { (503, HOST_SHORTAGE) } else { (502, "upstream_connect") };
    let detail = format!("connect() failed ({}) while connecting to upstream", os_error(&error)).into();
    Refusal { status, reason, detail }
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
