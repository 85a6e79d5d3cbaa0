//! `allow` and `deny`: who may come at all (`ngx_http_access_module`).

use std::net::IpAddr;

use ipnet::IpNet;

/// One `allow` or `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// `allow`, not `deny`.
    pub allow: bool,
    /// For whom.
    pub whom: Whom,
}

/// What a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// `all`
    All,
    /// `unix:`
    Unix,
    /// An address, or a network.
    Net(IpNet),
}

/// The first rule that names the client decides; a client that none names may pass. `client`: none of a unix socket.
pub fn permits(rules: &[Rule], client: Option<IpAddr>) -> bool {
    let client = client.map(|client| as_ruled(rules, client));
    rules.iter().find(|rule| rule.whom.is(client)).is_none_or(|rule| rule.allow)
}

/// As nginx, an IPv4 client at an IPv6 socket (`::ffff:192.0.2.1`) is one of IPv4 wherever a rule could name it so.
fn as_ruled(rules: &[Rule], client: IpAddr) -> IpAddr {
    let names_ipv4 = |rule: &Rule| matches!(rule.whom, Whom::All | Whom::Net(IpNet::V4(_)));
    if rules.iter().any(names_ipv4) { client.to_canonical() } else { client }
}

impl Whom {
    /// True when it names this client; none of a unix socket.
    pub(super) fn is(self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Self::All, _) | (Self::Unix, None) => true,
            (Self::Net(net), Some(client)) => net.contains(&client),
            (Self::Unix, Some(_)) | (Self::Net(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let rule = |line: &str| {
            let (verb, whom) = line.trim().split_once(' ').unwrap();
            let whom = match whom {
                "all" => Whom::All,
                "unix:" => Whom::Unix,
                net => Whom::Net(net.parse().unwrap()),
            };
            Rule { allow: verb == "allow", whom }
        };
        text.split_terminator(';').map(rule).collect()
    }

    fn permitted(text: &str, client: &str) -> bool {
        permits(&rules(text), client.parse().ok())
    }

    #[test]
    fn the_first_rule_that_names_the_client_decides() {
        let text = "deny 192.0.2.1/32; allow 192.0.2.0/24; allow 2001:db8::/32; deny all;";
        assert!(!permitted(text, "192.0.2.1"));
        assert!(permitted(text, "192.0.2.2"));
        assert!(permitted(text, "2001:db8::1"));
        assert!(!permitted(text, "2001:db9::1"));
        assert!(!permitted(text, "unix"), "`all` is those of unix sockets too");
    }

    #[test]
    fn whom_no_rule_names_may_pass() {
        assert!(permitted("", "192.0.2.1"));
        assert!(permitted("deny 10.0.0.0/8;", "192.0.2.1"));
        assert!(permitted("deny 0.0.0.0/0; deny ::/0;", "unix"));
        assert!(!permitted("deny unix:;", "unix"));
        assert!(permitted("deny unix:;", "192.0.2.1"));
    }

    #[test]
    fn ipv4_clients_at_an_ipv6_socket_are_ipv4() {
        assert!(!permitted("deny 192.0.2.0/24;", "::ffff:192.0.2.1"));
        assert!(permitted("deny 192.0.2.0/24; deny ::/0;", "::ffff:198.51.100.1"), "it is none of IPv6");
        assert!(!permitted("deny ::ffff:0:0/96;", "::ffff:192.0.2.1"), "unless only IPv6 is named");
    }
}
