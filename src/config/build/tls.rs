//! `ssl_*` and `proxy_ssl_*`: what they say, handed to `tls`, and its complaints brought back to their places.

use std::{path::PathBuf, sync::Arc};

use super::{
    super::{
        diagnostic::{Diagnostic, Span},
        values,
    },
    Build, Directive, Level,
};
use crate::tls::{BackendTls, BackendTlsOptions, ServerTls, ServerTlsOptions, TlsConfigError};

/// Sessions in a megabyte of cache, as nginx's documentation has it.
const SESSIONS_PER_MEGABYTE: u64 = 4_000;
/// Sessions of `builtin` without a size: OpenSSL's default.
const BUILTIN_SESSIONS: u64 = 20_480;

/// What a server block says about TLS, and where.
pub struct TlsDraft {
    /// For [`ServerTls::build`].
    pub options: ServerTlsOptions,
    /// Places to point at, by directive and index.
    places: Vec<(&'static str, Vec<Span>)>,
}

impl Build<'_> {
    /// Reads `ssl_*` of a server.
    pub(super) fn tls_options(&mut self, level: &Level<'_>) -> TlsDraft {
        let (tls12, tls13) = self.versions(level, "ssl_protocols");
        level.all("ssl_conf_command").iter().for_each(|directive| self.conf_command(directive));
        let options = ServerTlsOptions {
            certificates: self.certificates(level),
            tls12,
            tls13,
            ciphers: level.one("ssl_ciphers").map_or("", |directive| directive.arg(0)).into(),
            prefer_server_ciphers: self.value(level, "ssl_prefer_server_ciphers", &values::FLAG),
            session_cache: self.session_cache(level),
            session_timeout: self.value(level, "ssl_session_timeout", &values::SECONDS),
            tickets: self.value(level, "ssl_session_tickets", &values::FLAG),
            ticket_keys: self.ticket_keys(level),
            watch: self.value(level, "ssl_certificate_watch", &values::FLAG),
            reject: self.value(level, "ssl_reject_handshake", &values::FLAG),
        };
        let names = [
            "ssl_certificate",
            "ssl_certificate_key",
            "ssl_protocols",
            "ssl_ciphers",
            "ssl_session_cache",
            "ssl_session_ticket_key",
        ];
        let places =
            names.map(|name| (name, level.all(name).iter().map(|directive| directive.arg_span(0)).collect())).into();
        TlsDraft { options, places }
    }

    /// Certificates and keys are paired by their order.
    fn certificates(&mut self, level: &Level<'_>) -> Vec<(PathBuf, PathBuf)> {
        let (certificates, keys) = (level.all("ssl_certificate"), level.all("ssl_certificate_key"));
        certificates.iter().chain(keys).for_each(|directive| self.constant_path(directive, 0));
        for certificate in certificates.iter().skip(keys.len()) {
            let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", certificate.arg(0));
            self.error(certificate.span(), message);
        }
        for key in keys.iter().skip(certificates.len()).filter(|_| !certificates.is_empty()) {
            self.error(key.span(), format!("no \"ssl_certificate\" is defined for key \"{}\"", key.arg(0)));
        }
        certificates
            .iter()
            .zip(keys)
            .map(|(certificate, key)| (self.conf_path(certificate.arg(0)), self.conf_path(key.arg(0))))
            .collect()
    }

    fn ticket_keys(&mut self, level: &Level<'_>) -> Vec<PathBuf> {
        let files = level.all("ssl_session_ticket_key");
        files.iter().for_each(|directive| self.constant_path(directive, 0));
        files.iter().map(|directive| self.conf_path(directive.arg(0))).collect()
    }

    /// Whether TLS 1.2 and 1.3 are offered.
    fn versions(&mut self, level: &Level<'_>, name: &'static str) -> (bool, bool) {
        let Some(directive) = level.one(name) else { return (true, true) };
        let (mut tls12, mut tls13) = (false, false);
        for word in &directive.args {
            match word.text.as_str() {
                "TLSv1.2" => tls12 = true,
                "TLSv1.3" => tls13 = true,
                old @ ("SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1") => {
                    let warning =
                        Diagnostic::warning(word.span, format!("{old} is not offered: it is broken (RFC 8996)"));
                    self.report.push(warning.help(format!("write `{name} TLSv1.2 TLSv1.3;`")));
                }
                other => {
                    let error = Diagnostic::error(word.span, format!("invalid value \"{other}\""));
                    self.report.push(error.help("TLSv1.2 or TLSv1.3"));
                }
            }
        }
        if !tls12 && !tls13 {
            let error = Diagnostic::error(directive.span(), "no version of TLS is left");
            self.report.push(error.help(format!("write `{name} TLSv1.2 TLSv1.3;`")));
            // The report has it: the TLS library need not say it once more.
            return (true, true);
        }
        (tls12, tls13)
    }

    /// The number of sessions to keep.
    fn session_cache(&mut self, level: &Level<'_>) -> usize {
        let Some(directive) = level.one("ssl_session_cache") else { return 0 };
        let mut sessions = 0;
        for word in &directive.args {
            let parsed = match word.text.split_once(':') {
                None if matches!(word.text.as_str(), "off" | "none") => Some(0),
                None if word.text == "builtin" => Some(BUILTIN_SESSIONS),
                Some(("builtin", number)) => values::number(number),
                Some(("shared", zone)) => {
                    zone.split_once(':').filter(|(name, _)| !name.is_empty()).and_then(|(_, size)| {
                        values::size(size).map(|bytes| (bytes.saturating_mul(SESSIONS_PER_MEGABYTE)) >> 20)
                    })
                }
                _ => None,
            };
            match parsed {
                Some(more) => sessions = more.max(sessions),
                None => {
                    let error = Diagnostic::error(word.span, format!("invalid session cache \"{}\"", word.text));
                    self.report.push(error.help("`shared:NAME:10m`, `builtin`, `none` or `off`"));
                }
            }
        }
        usize::try_from(sessions).unwrap_or(usize::MAX)
    }

    fn conf_command(&mut self, directive: &Directive) {
        let span = directive.span();
        self.report.push(if directive.arg(0) == "Options" && directive.arg(1).eq_ignore_ascii_case("ktls") {
            Diagnostic::note(span, "`ssl_conf_command Options KTLS` has no effect yet: records are made in user space")
        } else {
            Diagnostic::error(span, "there is no OpenSSL here that could take this command")
                .help("say it with `ssl_protocols` or `ssl_ciphers`, or remove it")
        });
    }

    /// Reads the certificates and makes the server side. `span`: the `listen ... ssl` that needs it.
    pub(super) fn server_tls(&mut self, draft: &TlsDraft, span: Span) -> Option<Arc<ServerTls>> {
        match ServerTls::build(&draft.options) {
            Ok((tls, notes)) => {
                for note in notes {
                    let place = draft.place("ssl_certificate", 0).unwrap_or(span);
                    self.report.push(Diagnostic::note(place, note));
                }
                Some(Arc::new(tls))
            }
            Err(errors) => {
                for TlsConfigError { directive, index, message } in errors {
                    self.error(draft.place(directive, index).unwrap_or(span), message);
                }
                None
            }
        }
    }

    /// The backend side for a level, made once for each set of options.
    pub(super) fn backend_tls_of(&mut self, level: &Level<'_>) -> Arc<BackendTls> {
        let options = self.backend_options(level);
        if let Some((_, tls)) = self.backend_tls.iter().find(|(known, _)| *known == options) {
            return Arc::clone(tls);
        }
        let built = BackendTls::build(&options).map_err(|errors| {
            for TlsConfigError { directive, message, .. } in errors {
                let place = level.one(directive).map(|directive| directive.arg_span(0));
                self.report.push(match place {
                    Some(span) => Diagnostic::error(span, message),
                    None => Diagnostic::new(super::super::diagnostic::Severity::Error, message),
                });
            }
        });
        // With an error in the report nothing will start, so that any will do.
        let tls = built.map_or_else(|()| Arc::clone(&self.plain_backend_tls), Arc::new);
        self.backend_tls.push((options, Arc::clone(&tls)));
        tls
    }

    fn backend_options(&mut self, level: &Level<'_>) -> BackendTlsOptions {
        let (tls12, tls13) = self.versions(level, "proxy_ssl_protocols");
        let paths = ["proxy_ssl_trusted_certificate", "proxy_ssl_certificate", "proxy_ssl_certificate_key"];
        let [trusted, certificate, key] = paths.map(|name| {
            level.one(name).filter(|directive| !directive.arg(0).is_empty()).map(|directive| {
                self.constant_path(directive, 0);
                self.conf_path(directive.arg(0))
            })
        });
        if certificate.is_some()
            && key.is_none()
            && let Some(directive) = level.one("proxy_ssl_certificate")
        {
            let message =
                format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{}\"", directive.arg(0));
            self.error(directive.span(), message);
        }
        BackendTlsOptions {
            verify: self.value(level, "proxy_ssl_verify", &values::FLAG),
            trusted,
            send_server_name: self.value(level, "proxy_ssl_server_name", &values::FLAG),
            certificate: certificate.zip(key),
            tls12,
            tls13,
        }
    }
}

/// What holds where nothing of `proxy_ssl_*` is set.
///
/// # Errors
/// The TLS library cannot be used at all.
pub fn plain_backend_tls() -> Result<Arc<BackendTls>, String> {
    let options = BackendTlsOptions { tls12: true, tls13: true, ..BackendTlsOptions::default() };
    let message =
        |errors: Vec<TlsConfigError>| errors.into_iter().next().map_or_else(String::new, |error| error.message);
    BackendTls::build(&options).map(Arc::new).map_err(message)
}

impl TlsDraft {
    fn place(&self, directive: &str, index: usize) -> Option<Span> {
        let (_, spans) = self.places.iter().find(|(name, _)| *name == directive)?;
        spans.get(index).or(spans.first()).copied()
    }
}
