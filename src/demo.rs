//! The program without arguments: a chat through longsplice, over ws and wss, with nothing to install and nothing to write.

mod backend;
mod certificate;
mod chat;
mod shared;

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
};

use self::certificate::Certificate;
use crate::{
    config::{self, LoadOptions, Source},
    observe::os_error,
    server,
};

const PAGE: &str = include_str!("demo/page.html");
/// The ports people expect; others are taken where these are.
const PORTS: [u16; 2] = [8080, 8443];

/// Runs the demo until Ctrl-C.
pub fn run() -> ExitCode {
    match prepare() {
        Ok(demo) => demo.run(),
        Err(error) => {
            eprintln!("longsplice: the demo cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All that is needed to start.
struct Demo {
    fronts: [Front; 2],
    backend: TcpListener,
    certificate: Certificate,
    text: String,
}

/// An address of the proxy.
#[derive(Debug, Clone, Copy)]
struct Front {
    address: SocketAddr,
    /// The port it should have been, if that was taken.
    instead_of: Option<u16>,
}

fn prepare() -> Result<Demo, String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what} ({})", os_error(&error));
    let fronts = fronts().map_err(failed("no free port on 127.0.0.1"))?;
    let (backend, address) = backend::listen().map_err(failed("no free port on 127.0.0.1"))?;
    let certificate = Certificate::make().map_err(failed("no certificate"))?;
    let text = configuration(&fronts, address, &certificate);
    Ok(Demo { fronts, backend, certificate, text })
}

impl Demo {
    fn run(self) -> ExitCode {
        let Self { fronts, backend, certificate, text } = self;
        let loaded = config::load(&load_options(&text));
        let Some(config) = loaded.config else {
            eprintln!("{}", loaded.report.render(false, false));
            return ExitCode::FAILURE;
        };
        // The backend's threads are started by the server, once the signals they must not get are blocked.
        let ready = move || {
            if let Err(error) = backend::start(backend, page(&fronts)) {
                eprintln!("longsplice: the demo's backend cannot be started ({})", os_error(&error));
            }
            // Whoever closed stdout does not want to read it.
            let _ = io::stdout().write_all(greeting(&fronts, &text).as_bytes());
        };
        // It is in memory, and once it serves the program removes no file.
        drop(certificate);
        let options = server::Options { ready: Some(Box::new(ready)), hangup_ends: true, ..server::Options::default() };
        server::serve(config, options)
    }
}

fn load_options(text: &str) -> LoadOptions {
    LoadOptions {
        file: Source::Text { name: "demo.conf".to_owned(), text: text.to_owned() },
        prefix: PathBuf::from("/"),
        globals: None,
        conf_error_log: None,
    }
}

fn fronts() -> io::Result<[Front; 2]> {
    let [http, https] = PORTS;
    let http = front(http, None)?;
    Ok([http, front(https, Some(http.address))?])
}

/// The port if nobody has it, else a free one. Without SO_REUSEPORT, so that another demo's port counts as taken.
fn front(port: u16, other: Option<SocketAddr>) -> io::Result<Front> {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    if Some(usual) != other && TcpListener::bind(usual).is_ok() {
        return Ok(Front { address: usual, instead_of: None });
    }
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    Ok(Front { address: free, instead_of: Some(port) })
}

/// What the demo runs, to be read by people: that it is so little is the point.
fn configuration(fronts: &[Front; 2], backend: SocketAddr, certificate: &Certificate) -> String {
    let [http, https] = fronts.map(|front| front.address);
    let (certificate, key) = (certificate.certificate(), certificate.key());
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        r#"error_log stderr notice;
events {{}}

http {{
    log_format demo '$remote_addr "$request" $status, $bytes_sent bytes in $request_time s, $close_reason';
    access_log /dev/stdout demo;

    upstream chat {{
        server {backend};
    }}

    server {{
        listen {http};
        listen {https} ssl;
        ssl_certificate     "{certificate}";
        ssl_certificate_key "{key}";

        proxy_set_header Host              $http_host;
        proxy_set_header X-Real-IP         $remote_addr;
        proxy_set_header X-Forwarded-For   $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;

        location / {{
            proxy_pass http://chat;
        }}

        location /ws/ {{
            proxy_pass http://chat;
            websocket_timeout 1h;
            websocket_origin same none;
        }}
    }}
}}
"#
    )
}

fn page(fronts: &[Front; 2]) -> String {
    let [http, https] = fronts.map(|front| front.address);
    PAGE.replace("{{http}}", &format!("http://{http}/")).replace("{{https}}", &format!("https://{https}/"))
}

fn greeting(fronts: &[Front; 2], text: &str) -> String {
    let [http, https] = fronts.map(|front| front.address);
    let taken: String = fronts
        .iter()
        .filter_map(|front| front.instead_of.map(|port| (port, front.address.port())))
        .map(|(port, instead)| format!("Port {port} is taken by another program: {instead} is used instead.\n\n"))
        .collect();
    let file: String =
        text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    format!(
        r"longsplice {version}, the demo: a chat behind a WebSocket proxy, on this machine only.

{taken}Open one of these in a browser, twice, and chat:
  http://{http}/
  https://{https}/
The second is wss; its certificate was made a moment ago, so the browser asks about it.

What runs is this file of nginx's language (the WebSocket needs no Upgrade lines here):

{file}
Try next:
  wscat -c ws://{http}/ws/echo
  wscat -c wss://{https}/ws/chat --no-check
  curl http://{http}/whoami
  curl -k https://{https}/whoami
  longsplice --listen 127.0.0.1:9000 --to 127.0.0.1:3000     in front of an application of yours
  longsplice -t -c /etc/nginx/nginx.conf                     what it says of your own file

Ctrl-C ends it.

",
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_said_and_another_is_used() {
        let (holder, taken) = backend::listen().unwrap();
        let other = front(taken.port(), None).unwrap();
        assert_eq!(other.instead_of, Some(taken.port()));
        assert_ne!(other.address, taken);
        drop(holder);
        assert_eq!(front(taken.port(), None).unwrap().address, taken);
        let greeting = greeting(&[other, other], "");
        assert!(greeting.contains(&format!("Port {} is taken", taken.port())));
    }

    #[test]
    fn the_addresses_stand_on_lines_of_their_own() {
        let front = Front { address: "127.0.0.1:8080".parse().unwrap(), instead_of: None };
        let tls = Front { address: "127.0.0.1:8443".parse().unwrap(), instead_of: None };
        let greeting = greeting(&[front, tls], "events {}\n");
        for line in ["  http://127.0.0.1:8080/", "  https://127.0.0.1:8443/", "    events {}"] {
            assert!(greeting.lines().any(|found| found == line), "{greeting}");
        }
        assert!(!greeting.contains("is taken"));
        assert!(!page(&[front, tls]).contains("{{"));
    }

    #[test]
    fn the_file_of_the_demo_has_nothing_to_criticise() {
        let front = Front { address: "127.0.0.1:8080".parse().unwrap(), instead_of: None };
        let tls = Front { address: "127.0.0.1:8443".parse().unwrap(), instead_of: None };
        let certificate = Certificate::make().unwrap();
        let text = configuration(&[front, tls], "127.0.0.1:3000".parse().unwrap(), &certificate);
        let loaded = config::load(&load_options(&text));
        let findings = loaded.report.render(false, false);
        assert!(loaded.config.is_some() && findings.is_empty(), "{findings}");
    }

    #[test]
    fn the_page_brings_everything_it_needs() {
        for id in ["state", "name", "text", "send", "log", "echo-text", "echo-send", "echo-log"] {
            assert!(PAGE.contains(&format!("id=\"{id}\"")), "{id}");
        }
        assert!(!PAGE.contains("src=") && !PAGE.contains("@import"), "nothing from elsewhere");
    }
}
