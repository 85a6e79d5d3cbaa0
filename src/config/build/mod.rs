//! The typed [`Config`], made of a checked tree. Nothing here knows how a file is written, only what it says.

mod access;
mod address;
mod bind;
mod limit;
mod listen;
mod location;
mod log;
mod main;
mod map;
mod proxy;
mod real_ip;
mod script;
mod server;
mod settings;
mod tls;
mod upstream;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use log::target as log_target;

use super::{
    Config, ErrorLog, LogBuffer, LogFormat, LogTarget, Upstream,
    diagnostic::{Diagnostic, Report, Severity, Span},
    directives,
    level::Level,
    lexer::Word,
    names::Names,
    template,
    tree::Directive,
    values::Form,
};
use crate::{
    route::access::Whom,
    tls::{BackendTls, BackendTlsOptions},
    variables::Template,
};

/// What relative paths are relative to.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Log and pid files (`-p`).
    pub prefix: PathBuf,
    /// Includes and certificates: the directory of the main file.
    pub conf_dir: PathBuf,
}

/// Builds the configuration. Where the report has errors it is of no use; none: TLS cannot be used at all.
pub fn config(
    main: &[Directive],
    http: &[Directive],
    names: Names,
    paths: Paths,
    default_log: ErrorLog,
    report: &mut Report,
) -> Option<Config> {
    let plain_backend_tls = match tls::plain_backend_tls() {
        Ok(tls) => tls,
        Err(why) => {
            report.push(Diagnostic::new(Severity::Error, why));
            return None;
        }
    };
    let mut build = Build {
        report,
        names,
        paths,
        formats: Vec::new(),
        log_buffers: HashMap::new(),
        upstreams: Vec::new(),
        declared_names: HashMap::new(),
        passed_names: HashMap::new(),
        declared: Vec::new(),
        backend_tls: Vec::new(),
        believed: HashMap::new(),
        plain_backend_tls,
        zone_names: limit::ZoneNames::default(),
        request_rates: Vec::new(),
    };
    let main = build.main(main, default_log);
    let level = Level::new(http);
    build.log_formats(&level);
    let maps = build.maps(&level);
    let (connection_zones, request_zones) = build.zones(&level);
    let upgrade_rate = build.upgrade_rate(&level);
    build.upstreams(&level);
    let (servers, mut listeners) = build.servers(&level);
    build.unused_zones();
    for listener in &mut listeners {
        listener.options.user_timeout = servers[listener.default].settings.user_timeout;
    }
    if servers.is_empty() && build.report.errors() == 0 {
        let error = Diagnostic::new(Severity::Error, "no server is configured");
        build.report.push(error.help("add a `server { listen 8080; ... }` block, or an include that has one"));
    }
    let slots = build.names.into_slots();
    Some(Config {
        main,
        listeners,
        servers,
        upstreams: build.upstreams,
        maps,
        slots,
        connection_zones,
        request_zones,
        upgrade_rate,
        bytes: build.report.bytes(),
    })
}

/// What is known while a configuration is built.
struct Build<'r> {
    report: &'r mut Report,
    names: Names,
    paths: Paths,
    formats: Vec<Arc<LogFormat>>,
    /// How each log of the file is buffered.
    log_buffers: HashMap<LogTarget, LogBuffer>,
    upstreams: Vec<Upstream>,
    /// Places of the `upstream` blocks, which are first in `upstreams`.
    declared: Vec<Span>,
    /// Where in `upstreams` a block of this name is (in lower case), and where a group that `proxy_pass` made.
    declared_names: HashMap<String, usize>,
    passed_names: HashMap<String, usize>,
    /// Each distinct set of `proxy_ssl_*` once: it is inherited by every location, and reading authorities takes time.
    backend_tls: Vec<(BackendTlsOptions, Arc<BackendTls>)>,
    /// Whom each block's `set_real_ip_from` names, by the place of the first.
    believed: HashMap<Span, Arc<[Whom]>>,
    /// For a set that cannot be used.
    plain_backend_tls: Arc<BackendTls>,
    /// Zones of `limit_conn` and `limit_req`.
    zone_names: limit::ZoneNames,
    /// Rates of the latter, by number.
    request_rates: Vec<u64>,
}

impl Build<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.report.push(Diagnostic::error(span, message));
    }

    /// An argument that is a simple value.
    fn read<T>(&mut self, directive: &Directive, index: usize, form: &Form<T>) -> Option<T> {
        let word = directive.args.get(index)?;
        let value = (form.read)(&word.text);
        if value.is_none() {
            let message = format!("invalid value \"{}\" in \"{}\" directive", word.text, directive.name.text);
            self.report.push(Diagnostic::error(word.span, message).help(form.expected));
        }
        value
    }

    /// The value of a directive with one argument: what holds at this level, else its default.
    fn value<T: Default>(&mut self, level: &Level<'_>, name: &'static str, form: &Form<T>) -> T {
        level
            .one(name)
            .and_then(|directive| self.read(directive, 0, form))
            .or_else(|| (form.read)(directives::default_of(name)))
            .unwrap_or_default()
    }

    /// An argument with variables.
    fn template(&mut self, word: &Word) -> Template {
        self.template_of(word, 0)
    }

    /// The part of an argument from byte `start` on, with variables.
    fn template_of(&mut self, word: &Word, start: usize) -> Template {
        let text = word.text.get(start..).unwrap_or_default();
        match template::compile(text, &self.names) {
            Ok(template) => template,
            Err(faults) => {
                for fault in faults {
                    let span = word.part(start + fault.at.start, start + fault.at.end);
                    self.report.push(Diagnostic::error(span, fault.message).maybe_help(fault.help));
                }
                Template::default()
            }
        }
    }

    /// Refuses a value that is a path with variables.
    fn constant_path(&mut self, directive: &Directive, index: usize) {
        if directive.arg(index).contains('$') {
            let message = format!("variables in `{}` are not supported yet", directive.name.text);
            self.report.push(Diagnostic::error(directive.arg_span(index), message).help("write the path itself"));
        }
    }

    /// A file next to the configuration, such as a certificate.
    fn conf_path(&self, text: &str) -> PathBuf {
        self.paths.conf_dir.join(text)
    }
}

/// A file below the prefix, such as a log.
fn prefix_path(text: &str, paths: &Paths) -> PathBuf {
    if Path::new(text).is_absolute() { PathBuf::from(text) } else { paths.prefix.join(text) }
}
