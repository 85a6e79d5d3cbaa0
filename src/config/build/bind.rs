//! `proxy_bind`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    super::{Bind, Sources, diagnostic::Diagnostic, lexer::Word},
    Build, Level,
};
use crate::limits::SOURCE_ADDRESSES;

const FORMS: &str = "addresses of this host, a block of them like `10.0.0.0/28`, one text with variables, or `off`";

impl Build<'_> {
    /// `proxy_bind ADDRESS|BLOCK ... | off`
    pub(super) fn proxy_bind(&mut self, level: &Level<'_>) -> Option<Bind> {
        let directive = level.one("proxy_bind")?;
        if let Some(word) = directive.args.iter().find(|word| word.text == "transparent") {
            let error = Diagnostic::error(word.span, "`transparent` is not done here");
            self.report.push(error.help(
                "the kernel asks for CAP_NET_RAW or CAP_NET_ADMIN, which workers have not: tell the backend the client's address by \
                 `X-Forwarded-For` or `proxy_protocol`",
            ));
            return None;
        }
        if let [word] = directive.args.as_slice() {
            if word.text == "off" {
                return None;
            }
            let template = self.template(word);
            if template.constant().is_none() {
                return Some(Bind::Variable(template));
            }
        }
        let mut addresses = Vec::new();
        for address in directive.args.iter().flat_map(|word| self.sources(word)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > SOURCE_ADDRESSES {
            let error =
                Diagnostic::error(directive.span(), format!("{} source addresses are too many", addresses.len()));
            self.report.push(error.help(format!("at most {SOURCE_ADDRESSES}")));
        }
        Some(Bind::Pool(Arc::new(Sources::new(addresses))))
    }

    fn sources(&mut self, word: &Word) -> Vec<IpAddr> {
        let text = word.text.as_str();
        if let Ok(address) = text.parse::<IpAddr>() {
            return vec![address];
        }
        let error = match text.parse::<IpNet>() {
            Ok(block)
                if usize::from(block.max_prefix_len() - block.prefix_len()) > SOURCE_ADDRESSES.ilog2() as usize =>
            {
                let error = Diagnostic::error(word.span, format!("{text} has more than {SOURCE_ADDRESSES} addresses"));
                error.help(format!("a block of at most {SOURCE_ADDRESSES}: a longer prefix"))
            }
            Ok(block) => return every_address(block),
            Err(_) if text.parse::<SocketAddr>().is_ok() => {
                let error = Diagnostic::error(word.span, format!("no port can be given in \"{text}\""));
                error.help("one port would be one connection to each backend address: leave it out, and the kernel takes a free one")
            }
            Err(_) => Diagnostic::error(word.span, format!("invalid address \"{text}\"")).help(FORMS),
        };
        self.report.push(error);
        Vec::new()
    }
}

/// The first and the last too: a block that is routed to this host (`ip route add local 10.0.0.0/28 dev lo`) has no broadcast address.
fn every_address(block: IpNet) -> Vec<IpAddr> {
    match block {
        IpNet::V4(block) => ipnet::Ipv4AddrRange::new(block.network(), block.broadcast()).map(IpAddr::V4).collect(),
        IpNet::V6(block) => ipnet::Ipv6AddrRange::new(block.network(), block.broadcast()).map(IpAddr::V6).collect(),
    }
}
