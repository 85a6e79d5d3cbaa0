//! What works, and will surprise: each finding names the line, what will happen and the better line.

mod real_ip;

use super::{
    diagnostic::{Diagnostic, Report, Severity, Span, did_you_mean},
    level::Level,
    tree::Directive,
    values,
};

/// A `keepalive_timeout` this long was meant for tunnels: no browser keeps an idle HTTP connection so long.
const LONG_KEEPALIVE_SECS: u64 = 300;

/// Findings about a file by itself.
pub fn file(http: &[Directive], report: &mut Report) {
    let level = Level::new(http);
    let mut lint = Lint { report, checks_origin: mentions(http, "$http_origin") };
    for map in level.own("map") {
        lint.close_map(map);
    }
    lint.addresses(http);
    let serves = level.own("server").next().is_some();
    if serves && level.all("access_log").is_empty() && !anywhere(http, "access_log") {
        let note = "no `access_log` is set: none is written (nginx would write logs/access.log)";
        lint.report.push(Diagnostic::new(Severity::Note, note));
    }
    for server in level.own("server") {
        lint.block(&level.inner(server.children()), server);
        let named = server.children().iter().filter(|child| child.is("location")).map(|location| location.arg(0));
        lint.named_fallbacks(server, &named.filter(|name| name.starts_with('@')).collect::<Vec<_>>());
    }
}

struct Lint<'r> {
    report: &'r mut Report,
    /// The file looks at Origin by other means.
    checks_origin: bool,
}

impl Lint<'_> {
    /// A server or location, and what is in it.
    fn block(&mut self, level: &Level<'_>, block: &Directive) {
        self.keepalive_of_tunnels(level, block);
        let named = |name: &'static str| block.children().iter().find(|child| child.is(name));
        if let Some(proxy_pass) = named("proxy_pass") {
            self.proxied(level, block, proxy_pass);
        }
        if let Some(eyes) = ["status", "metrics", "stub_status"].into_iter().find_map(named) {
            self.seen_by_all(level, eyes);
        }
        for child in block.children().iter().filter(|child| child.is("location")) {
            self.block(&level.inner(child.children()), child);
        }
    }

    fn proxied(&mut self, level: &Level<'_>, location: &Directive, proxy_pass: &Directive) {
        let fields = level.all("proxy_set_header");
        let field = |name: &str| fields.iter().find(|field| field.arg(0).eq_ignore_ascii_case(name)).copied();
        let websocket = field("Upgrade").is_some() || has_websocket_directive(location);
        if field("Host").is_none() {
            self.warn(
                proxy_pass.span(),
                "no Host is set: the backend sees the name in `proxy_pass`, not the one the client used",
                "add `proxy_set_header Host $host;`",
            );
        }
        if let Some(real_ip) = field("X-Real-IP").filter(|_| field("X-Forwarded-For").is_none()) {
            self.warn(
                real_ip.span(),
                "X-Real-IP without X-Forwarded-For: most frameworks read the latter, and take the client's own where none is set",
                "add `proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`",
            );
        }
        if let Some(connection) = field("Connection").filter(|field| field.arg(1).eq_ignore_ascii_case("upgrade")) {
            self.warn(
                connection.span(),
                "a constant `Connection: upgrade` goes out with plain requests too in nginx; here it goes out with upgrades only",
                "remove the line, or use a map: `proxy_set_header Connection $connection_upgrade;`",
            );
        }
        self.backend(level, proxy_pass);
        if websocket {
            self.websocket(level, location);
        }
    }

    /// Addresses of clients and of backends are nobody else's business.
    fn seen_by_all(&mut self, level: &Level<'_>, eyes: &Directive) {
        let is_local = |listen: &&Directive| {
            ["127.", "localhost", "[::1]", "unix:"].iter().any(|local| listen.arg(0).starts_with(local))
        };
        let listens = level.all("listen");
        let local = !listens.is_empty() && listens.iter().all(is_local);
        if !local && level.all_of(&["allow", "deny"]).is_empty() {
            self.warn(
                eyes.span(),
                format!("`{}` is shown to whoever asks", eyes.name.text),
                "add `allow 127.0.0.1; deny all;` with the addresses that may see it, or listen on a local address",
            );
        }
    }

    fn backend(&mut self, level: &Level<'_>, proxy_pass: &Directive) {
        let url = proxy_pass.arg(0);
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let path_only = ["$request_uri", "$uri", "$document_uri"].iter().any(|path| {
            authority.split_once('$').is_some_and(|(host, rest)| {
                !host.is_empty() && path.strip_prefix('$').is_some_and(|path| rest.starts_with(path))
            })
        });
        if authority.contains('$') && !path_only && level.one("resolver").is_none() {
            self.warn(
                proxy_pass.span(),
                "a variable in `proxy_pass` without `resolver`: nginx answers 502 unless it expands to an address or an upstream",
                "name every backend in an `upstream`, or add a `resolver`",
            );
        }
        let verified = level.one("proxy_ssl_verify").is_some_and(|flag| values::flag(flag.arg(0)) == Some(true));
        if url.starts_with("https://") && !verified {
            self.warn(
                proxy_pass.span(),
                "the backend's certificate is not verified: whoever is between can read and change everything",
                "add `proxy_ssl_verify on;` and `proxy_ssl_server_name on;`",
            );
        }
    }

    fn websocket(&mut self, level: &Level<'_>, location: &Directive) {
        if level.one("websocket_timeout").or(level.one("proxy_read_timeout")).is_none() {
            self.warn(
                location.span(),
                "no timeout is set for this WebSocket: an idle one ends after 1h here, and after 60s in nginx",
                "add `proxy_read_timeout 3600s;`, which both understand, or `websocket_timeout 1h;`",
            );
        }
        if level.one("websocket_origin").is_none() && !self.checks_origin {
            self.warn(
                location.span(),
                "Origin is not checked: any web page can open this WebSocket with its visitor's cookies",
                "add `websocket_origin same;`, or the names of your sites",
            );
        }
        let path = location.arg(0);
        if location.args.len() == 1 && path.starts_with('/') && !path.ends_with('/') {
            self.warn(
                location.arg_span(0),
                format!("`location {path}` also takes {path}foo and {path}-admin"),
                format!("write `location = {path}`, or `location {path}/` for what is below it"),
            );
        }
    }

    /// `try_files` and `error_page` to a named location that is not there.
    fn named_fallbacks(&mut self, block: &Directive, known: &[&str]) {
        for directive in block.children() {
            if directive.is("try_files") || directive.is("error_page") {
                let last = directive.args.last().filter(|word| word.text.starts_with('@') && !word.text.contains('$'));
                if let Some(word) = last.filter(|word| !known.contains(&word.text.as_str())) {
                    let name = &word.text;
                    let message = format!("there is no `location {name}` in this server: who gets here gets 500");
                    let help = did_you_mean(name, known.iter().copied());
                    self.report.push(Diagnostic::warning(word.span, message).maybe_help(help));
                }
            }
            self.named_fallbacks(directive, known);
        }
    }

    /// `keepalive_timeout 3600s` next to WebSocket directives.
    fn keepalive_of_tunnels(&mut self, level: &Level<'_>, block: &Directive) {
        let Some(directive) = level.own("keepalive_timeout").next() else { return };
        let long = values::time(directive.arg(0)).is_some_and(|time| time.as_secs() >= LONG_KEEPALIVE_SECS);
        if long && (block.is("location") || proxies(block)) {
            self.warn(
                directive.span(),
                "`keepalive_timeout` is how long a connection waits for its next request: tunnels do not follow it",
                format!(
                    "for tunnels: `websocket_timeout {};`; for requests the default of 75s is good",
                    directive.arg(0)
                ),
            );
        }
    }

    /// `map $http_upgrade $x { '' close; }`
    fn close_map(&mut self, map: &Directive) {
        if !map.arg(0).eq_ignore_ascii_case("$http_upgrade") {
            return;
        }
        for line in map.children().iter().filter(|line| line.name.text.is_empty() && line.arg(0) == "close") {
            self.warn(
                line.span(),
                "`'' close` closes the backend's connection after every plain request: upstream `keepalive` can never work with it",
                "write `'' \"\";`",
            );
        }
    }

    fn warn(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.report.push(Diagnostic::warning(span, message).help(help));
    }
}

fn proxies(block: &Directive) -> bool {
    anywhere(block.children(), "proxy_pass")
}

fn has_websocket_directive(location: &Directive) -> bool {
    location.children().iter().any(|child| child.name.text.starts_with("websocket_") || child.is("upgrade_protocols"))
}

fn anywhere(directives: &[Directive], name: &str) -> bool {
    directives.iter().any(|directive| directive.is(name) || anywhere(directive.children(), name))
}

fn mentions(directives: &[Directive], variable: &str) -> bool {
    directives.iter().any(|directive| {
        directive.args.iter().any(|word| word.text.to_ascii_lowercase().contains(variable))
            || mentions(directive.children(), variable)
    })
}
