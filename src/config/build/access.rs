//! `allow` and `deny`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{super::diagnostic::Diagnostic, Build, Directive, Level};
use crate::route::access::{Rule, Whom};

impl Build<'_> {
    /// The rules of a level: both directives make one list, whose order counts.
    pub(super) fn access(&mut self, level: &Level<'_>) -> Vec<Rule> {
        let directives = level.all_of(&["allow", "deny"]);
        let rules: Vec<_> = directives.iter().filter_map(|directive| self.rule(directive)).collect();
        if let Some(last) = directives.last().filter(|_| !rules.is_empty() && rules.iter().all(|rule| rule.allow)) {
            let warning = Diagnostic::warning(last.span(), "`allow` without `deny` keeps nobody out");
            self.report.push(warning.help("add `deny all;` behind it"));
        }
        rules
    }

    fn rule(&mut self, directive: &Directive) -> Option<Rule> {
        let (text, span) = (directive.arg(0), directive.arg_span(0));
        let whom = match text {
            "all" => Whom::All,
            "unix:" => Whom::Unix,
            _ => match self.net(directive) {
                Some(net) => Whom::Net(net),
                None => {
                    let error = Diagnostic::error(span, format!("invalid parameter \"{text}\""));
                    self.report.push(error.help("an address, a network like `10.0.0.0/8` or `2001:db8::/32`, `unix:` or `all`; names are not looked up"));
                    return None;
                }
            },
        };
        Some(Rule { allow: directive.is("allow"), whom })
    }

    /// An argument that is an address or a network.
    pub(super) fn net(&mut self, directive: &Directive) -> Option<IpNet> {
        let (text, span) = (directive.arg(0), directive.arg_span(0));
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
        if net.trunc() != net {
            let message = format!("low address bits of {text} are meaningless");
            self.report.push(Diagnostic::warning(span, message).help(format!("write {}", net.trunc())));
        }
        Some(net.trunc())
    }
}
