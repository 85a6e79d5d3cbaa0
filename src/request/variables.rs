//! The value of every variable, in nginx's formats (ngx_http_variables.c, ngx_http_upstream.c, ngx_http_proxy_module.c).

use std::{
    fmt::Arguments,
    io::Write,
    mem,
    net::IpAddr,
    process,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jiff::Timestamp;

use super::{Address, Attempt, Request};
use crate::{
    config::TunnelEvent,
    http::{fields::Fields, head::Version},
    limits::VARIABLE_DEPTH,
    route::rewrite::Rewritable,
    variables::{Known, NGINX_VERSION, Scope, Variable, hostname, local_zone},
    zone::Limited,
};

impl Scope for Request {
    fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        match variable {
            Variable::Known(known) => self.known(*known, out),
            Variable::RequestField(name) => field(&self.head.fields, name, out),
            Variable::SentField(name) => field(&self.sent_fields, name, out),
            Variable::UpstreamField(name) => field(&self.upstream_fields, name, out),
            Variable::Argument(name) => text(argument(&self.args, name.as_bytes()), out),
            Variable::Cookie(name) => text(cookie(&self.head.fields, name.as_bytes()), out),
            Variable::ProxyProtocolTlv(tlv) => {
                self.client.proxied.as_ref().is_some_and(|proxied| proxied.append_tlv(*tlv, out))
            }
            Variable::Capture(number) => {
                let index = usize::from(*number).checked_sub(1);
                text(index.and_then(|index| self.captures.get(index)), out)
            }
            Variable::Slot(slot) => text(self.slots.get(*slot).and_then(Option::as_ref), out),
            Variable::Map(number) => self.map(*number, out),
        }
    }
}

impl Request {
    /// True for a variable whose value was percent-decoded: it is encoded again where it becomes part of a request target.
    pub(crate) fn is_decoded(&self, variable: &Variable) -> bool {
        match variable {
            Variable::Known(Known::Uri | Known::DocumentUri) => true,
            Variable::Capture(_) => self.captures_decoded,
            Variable::Slot(slot) => self.decoded_slots.contains(slot),
            _ => false,
        }
    }

    fn known(&mut self, known: Known, out: &mut Vec<u8>) -> bool {
        match known {
            Known::Host => put(self.host(), out),
            Known::ServerName => put(self.server().name.as_bytes(), out),
            Known::RequestMethod => text(some(self.head.method.as_bytes()), out),
            Known::RequestUri => text(some(&self.head.origin_form()).filter(|_| !self.head.target.is_empty()), out),
            Known::Request => text(some(&self.line), out),
            Known::Uri | Known::DocumentUri => text(some(&self.uri), out),
            Known::Args | Known::QueryString => text(some(&self.args), out),
            Known::IsArgs => put(if self.args.is_empty() { b"" } else { b"?" }, out),
            Known::ServerProtocol => text(self.protocol(), out),
            Known::Scheme => put(self.scheme().as_bytes(), out),
            Known::Https => put(if self.client.tls.is_some() { b"on" } else { b"" }, out),
            Known::RemoteUser => text(remote_user(&self.head.fields), out),
            Known::ContentLength => field(&self.head.fields, "content-length", out),
            Known::ContentType => field(&self.head.fields, "content-type", out),
            Known::ProxyAddXForwardedFor => self.forwarded_for(out),
            Known::ProxyHost => text(some(self.proxy_host.as_bytes()), out),
            Known::ProxyPort => text(some(self.proxy_port.as_bytes()), out),
            Known::RequestId => self.request_id(out),
            Known::RequestTime => seconds(self.started.elapsed(), out),
            Known::RequestLength => print(format_args!("{}", self.received), out),
            Known::BytesReceived => print(format_args!("{}", self.received + self.tunnelled.from_client), out),
            Known::RequestCompletion => put(if self.completed { b"OK" } else { b"" }, out),
            Known::Status => print(format_args!("{:03}", self.shown_status()), out),
            Known::BytesSent => print(format_args!("{}", self.bytes_sent + self.tunnelled.from_upstream), out),
            Known::BodyBytesSent => print(format_args!("{}", self.body_bytes_sent + self.tunnelled.from_upstream), out),
            Known::CloseReason => text(self.close_reason, out),
            Known::LimitConnStatus => text(self.limit_conn_status.map(Limited::word), out),
            Known::LimitReqStatus => text(self.limit_req_status.map(Limited::word), out),
            Known::TunnelEvent => text(self.event.map(TunnelEvent::name), out),
            Known::FramesReceived => print(format_args!("{}", self.tunnelled.frames_from_client), out),
            Known::FramesSent => print(format_args!("{}", self.tunnelled.frames_from_upstream), out),
            Known::Pipe => put(if self.pipelined { b"p" } else { b"." }, out),
            _ => {
                self.connection(known, out)
                    || self.proxied(known, out)
                    || self.upstream(known, out)
                    || process_wide(known, out)
            }
        }
    }

    /// What the PROXY protocol header says.
    fn proxied(&self, known: Known, out: &mut Vec<u8>) -> bool {
        self.client.proxied.as_ref().is_some_and(|proxied| match known {
            Known::ProxyProtocolAddr => print(format_args!("{}", proxied.source.ip()), out),
            Known::ProxyProtocolPort => port(proxied.source.port(), out),
            Known::ProxyProtocolServerAddr => print(format_args!("{}", proxied.destination.ip()), out),
            Known::ProxyProtocolServerPort => port(proxied.destination.port(), out),
            _ => false,
        })
    }

    fn connection(&self, known: Known, out: &mut Vec<u8>) -> bool {
        let client = &*self.client;
        match known {
            Known::RemoteAddr => self.remote().text(out),
            Known::RemotePort => self.remote().port_text(out),
            Known::BinaryRemoteAddr => self.remote().binary(out),
            Known::RealipRemoteAddr => client.remote.text(out),
            Known::RealipRemotePort => client.remote.port_text(out),
            Known::ServerAddr => client.local.text(out),
            Known::ServerPort => client.local.port_text(out),
            Known::Connection => print(format_args!("{}", client.serial), out),
            Known::ConnectionRequests => print(format_args!("{}", self.ordinal), out),
            Known::ConnectionTime => seconds(client.accepted.elapsed(), out),
            _ => client.tls.as_ref().is_some_and(|tls| match known {
                Known::SslProtocol => text(some(tls.protocol.as_bytes()), out),
                Known::SslCipher => text(some(tls.cipher.as_bytes()), out),
                Known::SslCurve => text(some(tls.curve.as_bytes()), out),
                Known::SslServerName => text(tls.server_name.as_deref(), out),
                Known::SslSessionReused => put(if tls.resumed { b"r" } else { b"." }, out),
                _ => false,
            }),
        }
    }

    /// One value for each backend tried, as nginx lists them: `127.0.0.1:3000, 127.0.0.1:3001`.
    fn upstream(&self, known: Known, out: &mut Vec<u8>) -> bool {
        let one: fn(&Attempt, &mut Vec<u8>) -> bool = match known {
            Known::UpstreamAddr => |attempt, out| put(attempt.address.as_bytes(), out),
            Known::UpstreamStatus => |attempt, out| match attempt.status {
                0 => put(b"-", out),
                status => print(format_args!("{status}"), out),
            },
            Known::UpstreamConnectTime => |attempt, out| seconds_or_dash(attempt.connect_time, out),
            Known::UpstreamHeaderTime => |attempt, out| seconds_or_dash(attempt.header_time, out),
            Known::UpstreamResponseTime => |attempt, out| seconds_or_dash(attempt.response_time, out),
            Known::UpstreamResponseLength => |attempt, out| print(format_args!("{}", attempt.body_bytes), out),
            Known::UpstreamBytesSent => {
                |attempt, out| print(format_args!("{}", attempt.bytes_sent + attempt.tunnelled.from_client), out)
            }
            Known::UpstreamBytesReceived => {
                |attempt, out| print(format_args!("{}", attempt.bytes_received + attempt.tunnelled.from_upstream), out)
            }
            _ => return false,
        };
        for (index, attempt) in self.attempts.iter().enumerate() {
            // An attempt without address stands between two groups, as where an `error_page` led to the second.
            let between = index > 0 && attempt.address.is_empty();
            match self.attempts.get(index.wrapping_sub(1)) {
                _ if between => out.extend_from_slice(b" : "),
                Some(before) if !before.address.is_empty() => out.extend_from_slice(b", "),
                _ => {}
            }
            if !between {
                one(attempt, out);
            }
        }
        !self.attempts.is_empty()
    }

    fn protocol(&self) -> Option<&'static str> {
        let version = match self.head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        (!self.head.method.is_empty()).then_some(version)
    }

    fn forwarded_for(&self, out: &mut Vec<u8>) -> bool {
        if field(&self.head.fields, "x-forwarded-for", out) {
            out.extend_from_slice(b", ");
        }
        self.remote().text(out)
    }

    /// What the client got; before it got anything, what an error page will say.
    fn shown_status(&self) -> u16 {
        if self.status != 0 { self.status } else { self.error_status.unwrap_or(0) }
    }

    fn request_id(&mut self, out: &mut Vec<u8>) -> bool {
        if self.id.is_none() {
            let mut id = [0; 16];
            self.id = aws_lc_rs::rand::fill(&mut id).is_ok().then_some(id);
        }
        let Some(id) = self.id else { return false };
        print(format_args!("{:032x}", u128::from_be_bytes(id)), out)
    }

    /// A map's value, computed once for each request unless the map is `volatile`. Within its own value a map is empty.
    fn map(&mut self, number: usize, out: &mut Vec<u8>) -> bool {
        if let Some(Some(value)) = self.mapped.get(number) {
            return put(value, out);
        }
        let config = Arc::clone(&self.config);
        let Some(map) = config.maps.get(number) else { return false };
        if self.depth >= VARIABLE_DEPTH {
            return false;
        }
        self.depth += 1;
        self.remember(number, Some(Vec::new()));
        let key = map.source.expand(self);
        let mut value = Vec::new();
        if let Some(found) = map.find(&key) {
            for (slot, capture) in found.named {
                self.set_slot(slot, capture);
            }
            // The captures are those of the map's own expression only while its value is expanded. In nginx they stay,
            // so that a `$1` behind the map is a piece of another text.
            let outer = found.captures.map(|captures| mem::replace(&mut self.captures, captures));
            found.value.expand_into(self, &mut value);
            if let Some(outer) = outer {
                self.captures = outer;
            }
        }
        self.depth -= 1;
        put(&value, out);
        self.remember(number, (!map.volatile).then_some(value));
        true
    }

    fn remember(&mut self, number: usize, value: Option<Vec<u8>>) {
        if let Some(mapped) = self.mapped.get_mut(number) {
            *mapped = value;
        }
    }
}

/// The same for every request of the moment.
fn process_wide(known: Known, out: &mut Vec<u8>) -> bool {
    match known {
        Known::Msec => seconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), out),
        Known::TimeLocal => local_time("%d/%b/%Y:%H:%M:%S %z", out),
        Known::TimeIso8601 => local_time("%Y-%m-%dT%H:%M:%S%:z", out),
        Known::Hostname => put(hostname().as_bytes(), out),
        Known::Pid => print(format_args!("{}", process::id()), out),
        Known::NginxVersion => put(NGINX_VERSION.as_bytes(), out),
        _ => false,
    }
}

fn local_time(format: &str, out: &mut Vec<u8>) -> bool {
    print(format_args!("{}", Timestamp::now().to_zoned(local_zone()).strftime(format)), out)
}

impl Address {
    /// `$remote_addr`: the address without its port; of a unix socket `unix:` and its path, if it has one.
    fn text(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Address::Tcp(address) => print(format_args!("{}", address.ip()), out),
            Address::Unix(path) => print(format_args!("unix:{}", path.strip_prefix("unix:").unwrap_or(path)), out),
        }
    }

    /// The port; nothing for a unix socket.
    fn port_text(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Address::Tcp(address) => port(address.port(), out),
            Address::Unix(_) => true,
        }
    }

    /// `$binary_remote_addr`: 4 or 16 bytes; of a unix socket its text.
    fn binary(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Address::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => put(&ip.octets(), out),
                IpAddr::V6(ip) => put(&ip.octets(), out),
            },
            Address::Unix(_) => self.text(out),
        }
    }
}

/// As nginx: port 0, where none is known, is nothing.
fn port(port: u16, out: &mut Vec<u8>) -> bool {
    port == 0 || print(format_args!("{port}"), out)
}

fn put(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    true
}

fn text(value: Option<impl AsRef<[u8]>>, out: &mut Vec<u8>) -> bool {
    value.is_some_and(|value| put(value.as_ref(), out))
}

/// Where nginx makes no difference between empty and missing.
fn some(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

fn print(value: Arguments<'_>, out: &mut Vec<u8>) -> bool {
    // Writing to a Vec cannot fail; a Display of ours or std's does not either.
    out.write_fmt(value).is_ok()
}

/// Seconds with milliseconds: `0.042`.
fn seconds(time: Duration, out: &mut Vec<u8>) -> bool {
    print(format_args!("{}.{:03}", time.as_secs(), time.subsec_millis()), out)
}

fn seconds_or_dash(time: Option<Duration>, out: &mut Vec<u8>) -> bool {
    match time {
        Some(time) => seconds(time, out),
        None => put(b"-", out),
    }
}

/// All lines of a field as one value. `name` has dashes where the variable has underscores: an underscore in the
/// field's own name (`underscores_in_headers on`) is the same, as in nginx.
fn field(fields: &Fields, name: &str, out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
    let mut found = false;
    for (_, value) in fields.iter().filter(|(sent, _)| same_name(sent, name.as_bytes())) {
        if found {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
        found = true;
    }
    found
}

fn same_name(sent: &[u8], name: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    sent.len() == name.len() && sent.iter().map(folded).eq(name.iter().map(folded))
}

/// The value of the first argument `name=value`, in any case of the name, as sent.
fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|byte| *byte == b'&').find_map(|pair| {
        let (found, value) = split_once(pair, b'=')?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The value of the first cookie of this name, in any case.
fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.all("cookie").flat_map(|line| line.split(|byte| *byte == b';')).find_map(|pair| {
        let (found, value) = split_once(pair.trim_ascii_start(), b'=')?;
        found.trim_ascii_end().eq_ignore_ascii_case(name).then_some(value.trim_ascii_start())
    })
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The user name of Basic credentials (RFC 7617). Padding may be missing, as nginx has it; a name with a control
/// character is none, since `proxy_set_header X-User $remote_user` would write it into a field.
fn remote_user(fields: &Fields) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let (scheme, credentials) = split_once(fields.get("authorization")?, b' ')?;
    let decoded = LENIENT.decode(credentials.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"basic"))?;
    let (user, _) = split_once(&decoded, b':')?;
    user.iter().all(|byte| !byte.is_ascii_control()).then(|| user.to_vec())
}

#[cfg(test)]
mod tests;
