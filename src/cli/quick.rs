//! `--listen ADDR --to ADDR`: the file that nobody had to write.

use std::{fmt::Write, net::SocketAddr, path::Path};

/// What the command line says instead of a file.
#[derive(Debug, Default)]
pub(super) struct Quick<'a> {
    /// `--listen`
    pub listen: &'a [String],
    /// `--to`
    pub to: &'a [String],
    /// `--tls-cert` and `--tls-key`
    pub tls: Option<(&'a Path, &'a Path)>,
    /// `--idle-timeout`
    pub idle_timeout: Option<&'a str>,
}

/// The text in nginx's language. It is loaded as a file would be, and `-T` prints it: a start for one's own.
///
/// # Errors
/// The first argument that cannot be used: what is wrong with it and how it should look.
pub(super) fn configuration(quick: &Quick<'_>) -> Result<String, String> {
    let ssl = if quick.tls.is_some() { " ssl" } else { "" };
    let mut listens = String::new();
    for address in quick.listen {
        let _ = writeln!(listens, "        listen {}{ssl};", listen_address(address)?);
    }
    if let Some((certificate, key)) = quick.tls {
        let _ = writeln!(listens, "        ssl_certificate {};", quoted("--tls-cert", certificate)?);
        let _ = writeln!(listens, "        ssl_certificate_key {};", quoted("--tls-key", key)?);
    }
    let (upstream, target) = backends(quick.to)?;
    let timeout = match quick.idle_timeout {
        Some(time) => format!("            websocket_timeout {};\n", duration(time)?),
        None => String::new(),
    };
    Ok(format!(
        "error_log stderr notice;\n\
         events {{}}\n\
         \n\
         http {{\n\
         {INDENT}access_log /dev/stdout;\n\
         \n\
         {upstream}\
         {INDENT}server {{\n\
         {listens}\
         \n\
         {INDENT}    location / {{\n\
         {INDENT}        proxy_pass {target};\n\
         {INDENT}        proxy_set_header Host $http_host;\n\
         {INDENT}        proxy_set_header X-Real-IP $remote_addr;\n\
         {INDENT}        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         {INDENT}        proxy_set_header X-Forwarded-Proto $scheme;\n\
         {timeout}\
         {INDENT}    }}\n\
         {INDENT}}}\n\
         }}\n"
    ))
}

const INDENT: &str = "    ";

/// A port, `ADDRESS:PORT` or `unix:PATH`, as `listen` takes it.
fn listen_address(text: &str) -> Result<String, String> {
    let wrong =
        |what: &str| Err(format!("--listen {text}: {what}; say 8080, 127.0.0.1:8080, [::]:8080 or unix:/run/x.sock"));
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path("--listen", path);
    }
    let (host, port) = match text.rsplit_once(':') {
        None if text.parse::<u16>().is_ok() => ("", text),
        None => return wrong("there is no port"),
        Some(parts) => parts,
    };
    if port.parse::<u16>().is_err() || port == "0" {
        return wrong(&format!("\"{port}\" is no port"));
    }
    match host {
        "" => Ok(port.to_owned()),
        "*" => Ok(format!("*:{port}")),
        "localhost" => Ok(format!("127.0.0.1:{port}")),
        _ if text.parse::<SocketAddr>().is_ok() => Ok(text.to_owned()),
        _ if host.contains(':') && !host.starts_with('[') => wrong("an IPv6 address stands in brackets"),
        _ => wrong(&format!("\"{host}\" is no address of an interface")),
    }
}

/// A backend of `--to`.
#[derive(Debug, PartialEq, Eq)]
struct Backend {
    tls: bool,
    address: String,
}

/// The `upstream` block, if several backends need one, and what `proxy_pass` names.
fn backends(to: &[String]) -> Result<(String, String), String> {
    let backends = to.iter().map(|text| backend(text)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = backends.first() else { return Err("--to: there is no backend".to_owned()) };
    if backends.iter().any(|backend| backend.tls != first.tls) {
        return Err("--to: either all backends speak TLS (https://, wss://) or none".to_owned());
    }
    let scheme = if first.tls { "https" } else { "http" };
    if backends.len() == 1 {
        return Ok((String::new(), format!("{scheme}://{}", first.address)));
    }
    let servers: String = backends.iter().map(|backend| format!("        server {};\n", backend.address)).collect();
    Ok((format!("    upstream backend {{\n{servers}    }}\n\n"), format!("{scheme}://backend")))
}

fn backend(text: &str) -> Result<Backend, String> {
    let wrong = |what: &str| {
        Err(format!("--to {text}: {what}; say 127.0.0.1:3000, 3000, name:3000, https://name or unix:/run/x.sock"))
    };
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let (tls, default_port) = match scheme {
        None => (false, None),
        Some("http" | "ws") => (false, Some("80")),
        Some("https" | "wss") => (true, Some("443")),
        Some(other) => return wrong(&format!("\"{other}://\" is not known")),
    };
    if let Some(path) = rest.strip_prefix("unix:") {
        return Ok(Backend { tls, address: unix_path("--to", path)? });
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return wrong("a path needs a file (`proxy_pass` in a `location`)");
    }
    if rest.parse::<u16>().is_ok_and(|port| port > 0) && scheme.is_none() {
        return Ok(Backend { tls, address: format!("127.0.0.1:{rest}") });
    }
    let bare_ipv6 = rest.starts_with('[') && rest.ends_with(']');
    let (host, port) = match rest.rsplit_once(':').filter(|_| !bare_ipv6).or(default_port.map(|port| (rest, port))) {
        Some(parts) => parts,
        None => return wrong("there is no port"),
    };
    if port.parse::<u16>().map_or(true, |port| port == 0) {
        return wrong(&format!("\"{port}\" is no port"));
    }
    let address = format!("{host}:{port}");
    if address.parse::<SocketAddr>().is_ok() || is_host_name(host) {
        Ok(Backend { tls, address })
    } else if host.contains(':') {
        wrong("an IPv6 address stands in brackets")
    } else {
        wrong(&format!("\"{host}\" is no host name"))
    }
}

fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

/// A path that stands unquoted in `listen` and `proxy_pass`, where a colon would end it.
fn unix_path(option: &str, path: &str) -> Result<String, String> {
    let special = |char: char| char.is_whitespace() || char.is_control() || "\"'\\{};$:#".contains(char);
    if !path.starts_with('/') {
        return Err(format!("{option} unix:{path}: the path of a unix socket begins with `/`"));
    }
    match path.chars().find(|char| special(*char)) {
        Some(char) => Err(format!("{option} unix:{path}: {char:?} cannot stand in the path of a unix socket here")),
        None => Ok(format!("unix:{path}")),
    }
}

/// A path as a quoted word. Relative ones are relative to where the program is started, as everywhere on a command line.
fn quoted(option: &str, path: &Path) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| format!("{option}: {error}"))?;
    let text = absolute.to_str().filter(|text| !text.contains(|char: char| char == '$' || char.is_control()));
    let text = text
        .ok_or_else(|| format!("{option} {}: `$`, control and non-UTF-8 characters cannot be used", path.display()))?;
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// nginx's times, as far as its file will judge them: digits and units.
fn duration(text: &str) -> Result<&str, String> {
    let known = ["ms", "s", "m", "h", "d", "w", "M", "y", ""];
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (_, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, next) = behind.split_at(letters);
        if digits == 0 || !known.contains(&unit) {
            break;
        }
        rest = next;
    }
    if text.is_empty() || !rest.is_empty() {
        return Err(format!("--idle-timeout {text}: this is no time; say 90s, 10m, 1h or 1h30m"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(listen: &[&str], to: &[&str]) -> Result<String, String> {
        let [listen, to] = [listen, to].map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        configuration(&Quick { listen: &listen, to: &to, ..Quick::default() })
    }

    #[test]
    fn the_whole_text() {
        let listen = ["0.0.0.0:8443".to_owned(), "unix:/run/l.sock".to_owned()];
        let to = ["127.0.0.1:3000".to_owned(), "3001".to_owned()];
        let tls = Some((Path::new("/a b/\"x\".crt"), Path::new("/k.key")));
        let text = configuration(&Quick { listen: &listen, to: &to, tls, idle_timeout: Some("1h30m") }).unwrap();
        let expected = r#"error_log stderr notice;
events {}

http {
    access_log /dev/stdout;

    upstream backend {
        server 127.0.0.1:3000;
        server 127.0.0.1:3001;
    }

    server {
        listen 0.0.0.0:8443 ssl;
        listen unix:/run/l.sock ssl;
        ssl_certificate "/a b/\"x\".crt";
        ssl_certificate_key "/k.key";

        location / {
            proxy_pass http://backend;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            websocket_timeout 1h30m;
        }
    }
}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn listen_addresses() {
        for (given, expected) in [
            ("8080", "8080"),
            (":8080", "8080"),
            ("*:80", "*:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::]:80", "[::]:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(listen_address(given).as_deref(), Ok(expected));
        }
        for (given, reason) in [
            ("", "there is no port"),
            ("127.0.0.1", "there is no port"),
            ("127.0.0.1:0", "\"0\" is no port"),
            ("127.0.0.1:65536", "\"65536\" is no port"),
            ("127.0.0.1:http", "\"http\" is no port"),
            ("::1:8080", "an IPv6 address stands in brackets"),
            ("example.com:80", "\"example.com\" is no address of an interface"),
            ("unix:a.sock", "begins with `/`"),
            ("unix:/a;b", "';' cannot stand"),
        ] {
            let error = listen_address(given).unwrap_err();
            assert!(error.starts_with("--listen ") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn backend_addresses() {
        for (given, tls, expected) in [
            ("127.0.0.1:3000", false, "127.0.0.1:3000"),
            ("3000", false, "127.0.0.1:3000"),
            ("[::1]:3000", false, "[::1]:3000"),
            ("app_1:3000", false, "app_1:3000"),
            ("http://app", false, "app:80"),
            ("ws://app:81/", false, "app:81"),
            ("https://app.example", true, "app.example:443"),
            ("wss://[::1]", true, "[::1]:443"),
            ("unix:/run/b.sock", false, "unix:/run/b.sock"),
        ] {
            assert_eq!(backend(given), Ok(Backend { tls, address: expected.to_owned() }));
        }
        for (given, reason) in [
            ("app", "there is no port"),
            ("", "there is no port"),
            ("app:0", "\"0\" is no port"),
            ("ftp://app", "\"ftp://\" is not known"),
            ("http://app/path", "a path needs a file"),
            ("::1:3000", "an IPv6 address stands in brackets"),
            ("a b:80", "\"a b\" is no host name"),
            (":3000", "\"\" is no host name"),
        ] {
            let error = backend(given).unwrap_err();
            assert!(error.starts_with("--to ") && error.contains(reason), "{given}: {error}");
        }
    }

    #[test]
    fn backends_with_and_without_tls_do_not_mix() {
        assert!(text(&["80"], &["https://a", "http://b"]).unwrap_err().contains("either all backends"));
        assert!(text(&["80"], &["https://a"]).unwrap().contains("proxy_pass https://a:443;"));
        assert!(text(&["80"], &[]).is_err());
    }

    #[test]
    fn idle_timeouts() {
        for good in ["90", "90s", "1h30m", "500ms"] {
            assert_eq!(duration(good), Ok(good));
        }
        for bad in ["", "h", "1x", "1h;", "-1s", "1 h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_with_a_variable_is_refused() {
        assert!(quoted("--tls-cert", Path::new("/a/$x")).is_err());
        assert!(quoted("--tls-cert", Path::new("/a\nb")).is_err());
    }

    proptest! {
        #[test]
        fn no_argument_can_add_a_directive(listen: String, to: String, time: String) {
            let quick = Quick { listen: &[listen], to: &[to], tls: None, idle_timeout: Some(&time) };
            if let Ok(text) = configuration(&quick) {
                prop_assert_eq!(text.matches(';').count(), 9);
                prop_assert_eq!(text.matches('{').count(), 4);
            }
        }
    }
}
