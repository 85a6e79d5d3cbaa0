//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`.

use std::{net::ToSocketAddrs, sync::Arc};

use super::{
    super::{diagnostic::Diagnostic, values},
    Build, Directive, Level, directives,
};
use crate::{
    http::fields::is_token,
    limits::ADDRESSES_PER_NAME,
    route::{
        access::Whom,
        real_ip::{RealIp, RealIpHeader},
    },
};

impl Build<'_> {
    /// What holds at a level; none where nobody is believed.
    pub(super) fn real_ip(&mut self, level: &Level<'_>) -> Option<RealIp> {
        let header = self.real_ip_header(level);
        let recursive = self.value(level, "real_ip_recursive", &values::FLAG);
        let from = self.believed(level.all("set_real_ip_from"));
        (!from.is_empty()).then_some(RealIp { from, header, recursive })
    }

    /// Names are looked up once for each block that sets them, however many inherit it.
    fn believed(&mut self, directives: &[&Directive]) -> Arc<[Whom]> {
        let Some(first) = directives.first() else { return Arc::default() };
        let block = first.span();
        if let Some(known) = self.believed.get(&block) {
            return Arc::clone(known);
        }
        let believed: Arc<[Whom]> = directives.iter().flat_map(|directive| self.set_real_ip_from(directive)).collect();
        self.believed.insert(block, Arc::clone(&believed));
        believed
    }

    fn set_real_ip_from(&mut self, directive: &Directive) -> Vec<Whom> {
        let (text, span) = (directive.arg(0), directive.arg_span(0));
        if text == "unix:" {
            return vec![Whom::Unix];
        }
        if let Some(net) = self.net(directive) {
            return vec![Whom::Net(net)];
        }
        let found = (text, 0).to_socket_addrs().ok();
        let nets: Vec<_> =
            found.into_iter().flatten().take(ADDRESSES_PER_NAME).map(|found| Whom::Net(found.ip().into())).collect();
        if nets.is_empty() {
            let error = Diagnostic::error(span, format!("host not found in set_real_ip_from \"{text}\""));
            self.report.push(error.help(
                "an address, a network like `10.0.0.0/8` or `2001:db8::/32`, `unix:`, or the name of a host that this one can look up",
            ));
        }
        nets
    }

    fn real_ip_header(&mut self, level: &Level<'_>) -> RealIpHeader {
        let directive = level.one("real_ip_header");
        let name = directive.map_or(directives::default_of("real_ip_header"), |directive| directive.arg(0));
        match name {
            "X-Forwarded-For" => RealIpHeader::ForwardedFor,
            "proxy_protocol" => RealIpHeader::ProxyProtocol,
            name => {
                if let Some(directive) = directive.filter(|_| !is_token(name.as_bytes())) {
                    let message = format!("\"{name}\" cannot be the name of a header field");
                    self.report.push(
                        Diagnostic::error(directive.arg_span(0), message)
                            .help("`X-Real-IP`, `X-Forwarded-For`, another field, or `proxy_protocol`"),
                    );
                }
                RealIpHeader::Field(name.into())
            }
        }
    }
}
