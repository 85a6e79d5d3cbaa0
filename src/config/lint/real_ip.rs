//! Who is believed about a client's address, and whether anybody listens.

use ipnet::IpNet;

use super::{Directive, Level, Lint, anywhere, mentions};

impl Lint<'_> {
    /// The http block.
    pub(super) fn addresses(&mut self, http: &[Directive]) {
        let headed = listen_with_proxy_protocol(http);
        self.believed(&Level::new(http), http, headed.is_none());
        let is_read = mentions(http, "proxy_protocol_") || any(http, &|found| reads_proxy_protocol(found));
        if let Some(listen) = headed.filter(|_| !is_read) {
            self.warn(
                listen.span(),
                "nothing reads what the PROXY protocol header says: the client's address is still the balancer's",
                "add `set_real_ip_from` with the balancer's address, and `real_ip_header proxy_protocol;`",
            );
        }
    }

    /// A block, and those in it. `headless`: no listener has PROXY protocol.
    fn believed(&mut self, level: &Level<'_>, block: &[Directive], headless: bool) {
        for directive in level.own("set_real_ip_from").filter(|directive| is_everybody(directive.arg(0))) {
            self.warn(
                directive.span(),
                "everybody is believed: whoever connects can take any address, past `allow`, `deny`, limits and logs",
                "name the proxies in front, or the network they are in",
            );
        }
        let asks = level.own("real_ip_header").chain(level.own("real_ip_recursive")).next();
        if let Some(asks) =
            asks.filter(|_| level.all("set_real_ip_from").is_empty() && !anywhere(block, "set_real_ip_from"))
        {
            let name = &asks.name.text;
            self.warn(
                asks.span(),
                format!("`{name}` without `set_real_ip_from` has no effect: nobody is believed"),
                "add `set_real_ip_from` with the address of the proxy in front",
            );
        }
        if let Some(directive) = level.own("real_ip_header").find(|found| headless && reads_proxy_protocol(found)) {
            self.warn(
                directive.span(),
                "no `listen` of this file has `proxy_protocol`: there is no header to read",
                "write `listen ... proxy_protocol` where the balancer connects",
            );
        }
        for inner in block.iter().filter(|child| child.is("server") || child.is("location")) {
            self.believed(&level.inner(inner.children()), inner.children(), headless);
        }
    }
}

fn reads_proxy_protocol(directive: &Directive) -> bool {
    directive.is("real_ip_header") && directive.arg(0) == "proxy_protocol"
}

fn is_everybody(text: &str) -> bool {
    text.parse::<IpNet>().is_ok_and(|net| net.prefix_len() == 0)
}

fn listen_with_proxy_protocol(http: &[Directive]) -> Option<&Directive> {
    let mut listens = http.iter().filter(|child| child.is("server")).flat_map(Directive::children);
    listens.find(|child| child.is("listen") && child.args.iter().any(|word| word.text == "proxy_protocol"))
}

fn any(block: &[Directive], wanted: &impl Fn(&Directive) -> bool) -> bool {
    block.iter().any(|directive| wanted(directive) || any(directive.children(), wanted))
}
