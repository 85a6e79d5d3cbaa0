//! Asking a status location: one HTTP/1.0 request and its answer, over TCP, TLS or a unix socket.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::place::{Address, Place};
use crate::{
    limits::{STATUS_ANSWER_BYTES, STATUS_ANSWER_MS},
    observe::os_error,
    tls::{BackendTls, BackendTlsOptions},
};

const PATIENCE: Duration = Duration::from_millis(STATUS_ANSWER_MS);
/// Fields of an answer's head: a proxy in front may add its own.
const FIELDS: usize = 64;

/// A place that is asked again and again.
pub(super) struct Source {
    place: Place,
    /// With `https`; it keeps the sessions that the next connection resumes.
    tls: Option<Arc<ClientConfig>>,
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Source {
    /// `insecure`: whatever certificate is shown will do.
    ///
    /// # Errors
    /// TLS without authorities to verify by.
    pub fn new(place: Place, insecure: bool) -> Result<Self, String> {
        let options = BackendTlsOptions {
            verify: !insecure,
            trusted: None,
            send_server_name: true,
            certificate: None,
            tls12: true,
            tls13: true,
        };
        let built = place.tls.then(|| BackendTls::build(&options)).transpose();
        let tls = built.map_err(|_| {
            "this system has no bundle of certificate authorities; --insecure does without verification".to_owned()
        })?;
        Ok(Self { place, tls: tls.map(|tls| tls.config()) })
    }

    /// The JSON, as it was sent.
    ///
    /// # Errors
    /// Cause and, where there is one, cure.
    pub fn get(&self) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = self.connect().map_err(|error| self.cannot("connect", &error))?;
        let answer = self.ask(&mut connection, deadline).map_err(|error| self.cannot("be read", &error))?;
        self.judge(answer)
    }

    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        match &self.place.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                self.secured(stream)
            }
            Address::Tcp(host, port) => {
                let stream = connect_any(host, *port)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                self.secured(stream)
            }
        }
    }

    fn secured(&self, stream: impl Read + Write + 'static) -> io::Result<Box<dyn Connection>> {
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = self.place.host.rsplit_once(':').map_or(self.place.host.as_str(), |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }

    /// Sends the request, and reads to the end of the answer: HTTP/1.0 has no chunks.
    fn ask(&self, connection: &mut dyn Connection, deadline: Instant) -> io::Result<Vec<u8>> {
        let Place { path, host, .. } = &self.place;
        let version = env!("CARGO_PKG_VERSION");
        let request = format!(
            "GET {path}?json HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nUser-Agent: longsplice-top/{version}\r\n\r\n"
        );
        connection.write_all(request.as_bytes())?;
        connection.flush()?;
        let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
        while !is_whole(&answer) {
            let length = match connection.read(&mut piece) {
                // A peer that leaves without close_notify: whether everything came is seen by the length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..length]);
            if answer.len() > STATUS_ANSWER_BYTES {
                return Err(io::Error::other(format!("more than {STATUS_ANSWER_BYTES} bytes came")));
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(answer)
    }

    fn judge(&self, mut answer: Vec<u8>) -> Result<Vec<u8>, String> {
        let place = &self.place;
        let Some(head) = Head::read(&answer) else {
            return Err(format!("{place}: what answers there does not speak HTTP"));
        };
        let complaint = match head.status {
            200 if head.length.is_some_and(|length| answer.len() - head.size < length) => "the answer was cut off",
            200 => {
                answer.drain(..head.size);
                return Ok(answer);
            }
            403 => "403: this address may not read the status; `allow` and `deny` of the location say who may",
            404 => "404: there is no status location; `status;` in a `location` makes one",
            400 => "400: the server takes no such request; is it https:// there?",
            300..400 => "it redirects elsewhere; say the URL it redirects to",
            status => return Err(format!("{place}: it answers {status} {}", head.reason)),
        };
        Err(format!("{place}: {complaint}"))
    }

    fn cannot(&self, what: &str, error: &io::Error) -> String {
        let cause = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {} s", PATIENCE.as_secs()),
            _ => os_error(error),
        };
        let cure = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "; is longsplice running there? `longsplice top URL` or `-c FILE` name another place"
            }
            _ if cause.contains("certificate") => "; --insecure takes any",
            _ if cause.contains("InvalidContentType") => "; does it speak http:// there?",
            _ => "",
        };
        match what {
            "connect" => format!("cannot connect to {} ({cause}){cure}", self.place),
            _ => format!("{}: {cause}{cure}", self.place),
        }
    }
}

/// The first address of a name that takes a connection.
fn connect_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What matters of an answer's head.
struct Head {
    status: u16,
    reason: String,
    /// `Content-Length`
    length: Option<usize>,
    /// Its own, bytes.
    size: usize,
}

impl Head {
    fn read(answer: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(size) = head.parse(answer).ok()? else { return None };
        let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
        Some(Self { status: head.code?, reason: head.reason.unwrap_or_default().to_owned(), length, size })
    }
}

/// Whether nothing more will come, although the connection is still open.
fn is_whole(answer: &[u8]) -> bool {
    Head::read(answer).is_some_and(|head| head.length.is_some_and(|length| answer.len() - head.size >= length))
}
