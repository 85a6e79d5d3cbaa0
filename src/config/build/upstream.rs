//! `upstream` blocks, and the groups that `proxy_pass` to an address makes.

use super::{
    super::{
        BackendAddress, KeepIdle, Upstream, UpstreamServer,
        diagnostic::{Diagnostic, Span, did_you_mean},
        directives::{self, Contexts},
        values,
    },
    Build, Directive, Level, address,
};
use crate::limits::KEPT_CONNECTIONS;

const PARAMETERS: [&str; 7] = ["weight=", "max_fails=", "fail_timeout=", "max_conns=", "backup", "down", "drain"];
const NOT_YET: [&str; 5] = ["slow_start=", "resolve", "service=", "route=", "id="];

impl Build<'_> {
    /// Every `upstream` block.
    pub(super) fn upstreams(&mut self, http: &Level<'_>) {
        for directive in http.own("upstream") {
            let name = directive.arg(0);
            let span = directive.arg_span(0);
            let new = self.upstreams.len();
            let known = *self.declared_names.entry(name.to_ascii_lowercase()).or_insert(new);
            if known != new {
                let error = Diagnostic::error(span, format!("duplicate upstream \"{name}\""));
                self.report.push(error.related(self.declared[known], "it is here already"));
                continue;
            }
            let servers = self.upstream_servers(directive);
            let place = self.report.place(span).into();
            let keepalive = self.keep_idle(&Level::new(directive.children()));
            self.upstreams.push(Upstream { name: name.into(), place, servers, declared: true, keepalive });
            self.declared.push(span);
        }
    }

    /// `keepalive CONNECTIONS [local]`, and what goes with it. As in nginx 1.28 nothing is kept unless it is there.
    fn keep_idle(&mut self, level: &Level<'_>) -> Option<KeepIdle> {
        let of = |name: &'static str| level.one(name);
        let requests = self.kept(of("keepalive_requests"), "keepalive_requests", &values::NUMBER);
        let timeout = self.kept(of("keepalive_timeout"), "keepalive_timeout", &values::TIME);
        let lifetime = self.kept(of("keepalive_time"), "keepalive_time", &values::TIME);
        let directive = of("keepalive")?;
        if let Some(word) = directive.args.get(1).filter(|word| word.text != "local") {
            self.error(word.span, format!("invalid parameter \"{}\"", word.text));
        }
        let connections = self.read(directive, 0, &values::NUMBER).unwrap_or_default();
        if connections > KEPT_CONNECTIONS as u64 {
            let error = Diagnostic::error(directive.arg_span(0), "so many connections are not kept");
            self.report.push(error.help(format!("at most {KEPT_CONNECTIONS}, in each worker")));
        }
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        (connections > 0).then_some(KeepIdle { connections, requests, timeout, lifetime })
    }

    /// The value of a directive of `upstream`, else its default there: some of these names mean something else in `http`.
    fn kept<T: Default>(&mut self, directive: Option<&Directive>, name: &str, form: &values::Form<T>) -> T {
        let written = directive.and_then(|directive| self.read(directive, 0, form));
        written.or_else(|| (form.read)(directives::default_in(name, Contexts::UPSTREAM))).unwrap_or_default()
    }

    fn upstream_servers(&mut self, directive: &Directive) -> Vec<UpstreamServer> {
        let written: Vec<_> = directive.children().iter().filter(|child| child.is("server")).collect();
        let servers: Vec<_> = written.iter().filter_map(|child| self.upstream_server(child)).collect();
        let name = directive.arg(0);
        if written.is_empty() {
            self.error(directive.span(), format!("no servers are inside upstream \"{name}\""));
        } else if !servers.is_empty() && servers.iter().all(|server| server.backup) {
            let error = Diagnostic::error(directive.span(), format!("no servers in upstream \"{name}\" but backups"));
            self.report.push(error.help("at least one server must not be `backup`"));
        }
        servers
    }

    fn upstream_server(&mut self, directive: &Directive) -> Option<UpstreamServer> {
        let written = directive.arg(0);
        let address = match address::backend(written, 80) {
            Ok((address, _)) => address,
            Err(why) => {
                let error = Diagnostic::error(directive.arg_span(0), format!("{why} in upstream \"{written}\""));
                let scheme = written
                    .contains("://")
                    .then_some("leave out the scheme: it is `proxy_pass` that says http or https");
                self.report.push(error.maybe_help(scheme.map(str::to_owned)));
                return None;
            }
        };
        let mut server = UpstreamServer::new(address, written);
        for index in 1..directive.args.len() {
            self.upstream_parameter(&mut server, directive, index);
        }
        Some(server)
    }

    fn upstream_parameter(&mut self, server: &mut UpstreamServer, directive: &Directive, index: usize) {
        let text = directive.arg(index);
        let number = |text: &str| values::number(text).and_then(|number| u32::try_from(number).ok());
        let good = match text.split_once('=') {
            None if text == "backup" => set(&mut server.backup, Some(true)),
            None if text == "down" => set(&mut server.down, Some(true)),
            None if text == "drain" => set(&mut server.drain, Some(true)),
            Some(("weight", value)) => set(&mut server.weight, number(value).filter(|weight| *weight > 0)),
            Some(("max_fails", value)) => set(&mut server.max_fails, number(value)),
            Some(("fail_timeout", value)) => set(&mut server.fail_timeout, values::seconds(value)),
            Some(("max_conns", value)) => set(&mut server.max_conns, number(value)),
            _ => {
                let span = directive.arg_span(index);
                let known = NOT_YET.iter().any(|name| text == *name || (name.ends_with('=') && text.starts_with(name)));
                self.report.push(if known {
                    Diagnostic::error(span, format!("the parameter \"{text}\" is not supported yet"))
                } else {
                    let help = did_you_mean(text, PARAMETERS);
                    Diagnostic::error(span, format!("invalid parameter \"{text}\"")).maybe_help(help)
                });
                return;
            }
        };
        if !good {
            self.error(directive.arg_span(index), format!("invalid parameter \"{text}\""));
        }
    }

    /// The group of a `proxy_pass` to `authority`: an `upstream` block of that name, else one made for the address.
    pub(super) fn group(&mut self, authority: &str, tls: bool, span: Span) -> Option<usize> {
        let default_port = if tls { 443 } else { 80 };
        let (address, written) = match address::backend(authority, default_port) {
            Ok(found) => found,
            Err(why) => {
                self.error(span, format!("{why} in upstream \"{authority}\""));
                return None;
            }
        };
        let (name, host) = match &address {
            BackendAddress::Ip(address) => (address.to_string(), address.ip().to_string()),
            BackendAddress::Name(host, port) => (format!("{host}:{port}"), host.to_string()),
            BackendAddress::Unix(path) => (format!("unix:{}", path.display()), String::new()),
        };
        if let Some(&index) = self.declared_names.get(&host.to_ascii_lowercase()) {
            if let Some(port) = written {
                let error = Diagnostic::error(span, format!("upstream \"{host}\" may not have port {port}"));
                self.report.push(error.help("its servers have the ports"));
            }
            return Some(index);
        }
        if let Some(&index) = self.passed_names.get(&name) {
            return Some(index);
        }
        let place = self.report.place(span).into();
        let servers = vec![UpstreamServer::new(address, &name)];
        self.passed_names.insert(name.clone(), self.upstreams.len());
        self.upstreams.push(Upstream { name: name.into(), place, servers, declared: false, keepalive: None });
        Some(self.upstreams.len() - 1)
    }
}

fn set<T>(target: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *target = value;
            true
        }
        None => false,
    }
}
