//! Of the directives that say where requests go, and as whose.

use std::time::Duration;

use super::*;
use crate::{
    config::{Bind, KeepIdle, ProxyPass, ProxyTarget, Redirect},
    proxy_protocol::Version,
    route::rewrite::{Condition, Step},
};

fn pass<'a>(config: &'a Config, path: &str) -> &'a ProxyPass {
    match &location(config, path).content {
        Content::Proxy(pass) => pass,
        other => panic!("no proxy but {other:?}"),
    }
}

#[test]
fn proxy_pass_replaces_the_prefix_only_with_a_uri() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1/x/; }
         location /c/ { proxy_pass http://unix:/run/s.sock:/y; }
         location /d/ { proxy_pass https://Example.com; }
         location /e/ { proxy_pass http://app/p$is_args$args; }
         location /f/ { proxy_pass http://app$request_uri; }
         location /g/ { proxy_pass http://$arg_host:80/x; }
         location ~ ^/h { proxy_pass http://127.0.0.1:80; }
         location /i/ { proxy_pass http://[::1]:8080; }",
    );
    let uri = |path: &str| pass(&config, path).uri.as_ref().map(written);
    assert_eq!((uri("/a/"), pass(&config, "/a/").prefix), (None, 0));
    assert_eq!((uri("/b/").as_deref(), pass(&config, "/b/").prefix), (Some("/x/"), 3));
    assert_eq!((uri("/c/").as_deref(), pass(&config, "/c/").prefix), (Some("/y"), 3));
    assert_eq!(uri("/e/").as_deref(), Some("/p<Known(IsArgs)><Known(Args)>"));
    assert_eq!(uri("/f/").as_deref(), Some("<Known(RequestUri)>"));
    assert_eq!(pass(&config, "/f/").prefix, 0);
    let host = |path: &str| match &pass(&config, path).target {
        ProxyTarget::Upstream(group, host) => format!("{} {host}", config.upstreams[*group].name),
        ProxyTarget::Variable(template) => written(template),
    };
    assert_eq!(host("/a/"), "127.0.0.1:1 127.0.0.1:1");
    assert_eq!(host("/c/"), "unix:/run/s.sock localhost");
    assert_eq!(host("/d/"), "example.com:443 Example.com");
    assert_eq!(host("/f/"), "app:80 app");
    assert_eq!(host("/g/"), "http://<Argument(\"host\")>:80/x");
    assert_eq!(host("/h"), "127.0.0.1:80 127.0.0.1");
    assert_eq!(host("/i/"), "[::1]:8080 [::1]:8080");
    assert!(pass(&config, "/d/").tls);
    assert!(config.upstreams.iter().all(|upstream| !upstream.declared && upstream.servers.len() == 1));
    assert_eq!(config.upstreams.len(), 6, "one group for each distinct address");
}

#[test]
fn proxy_pass_is_inherited_by_if_and_not_by_nested_locations() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1/x/; if ($args) { add_header X 1; } if ($host) { set $y 1; }
           location /a/b { } }",
    );
    assert!(matches!(location(&config, "/a/b").content, Content::NotFound));
    let outer = location(&config, "/a/");
    let Step::If { location: Some(inner), condition: Condition::Value(_), .. } = &outer.script.steps[0] else {
        panic!("an if with settings: {:?}", outer.script)
    };
    let Step::If { location: None, then, .. } = &outer.script.steps[1] else { panic!("an if without settings") };
    assert!(matches!(then.steps[..], [Step::Set(..)]));
    let inner = &config.servers[0].locations[*inner];
    let Content::Proxy(pass) = &inner.content else { panic!("inherited") };
    assert_eq!((pass.uri.as_ref().map(written).as_deref(), pass.prefix), (Some("/x/"), 3));
    assert_eq!(inner.settings.add_headers.len(), 1);
    assert_eq!(outer.settings.add_headers.len(), 0);
    assert_eq!(inner.settings.redirects.len(), 1);
}

#[test]
fn an_upstream_may_be_declared_behind_its_use() {
    let config = config(
        "server { listen 127.0.0.1:1; location / { proxy_pass http://App; } }
         upstream app { server a:1 weight=3 max_fails=0 fail_timeout=1m; server unix:/x backup max_conns=20; server b down; keepalive 16; }",
    );
    let app = &config.upstreams[0];
    assert!(app.declared && &*app.place == "nginx.conf:2:19");
    assert_eq!((app.servers[0].weight, app.servers[0].max_fails), (3, 0));
    assert_eq!(app.servers.iter().map(|server| server.max_conns).collect::<Vec<_>>(), [0, 20, 0]);
    assert_eq!(app.servers[0].fail_timeout, Duration::from_secs(60));
    assert!(app.servers[1].backup && app.servers[2].down);
    assert!(matches!(pass(&config, "/").target, ProxyTarget::Upstream(0, _)));
}

#[test]
fn connections_to_backends_are_kept_where_the_file_says_how_many() {
    let of = |inner: &str| {
        let server = "server { listen 127.0.0.1:1; location / { proxy_pass http://app; } }";
        config(&format!("upstream app {{ server 127.0.0.1:2; {inner} }} {server}")).upstreams[0].keepalive
    };
    let seconds = Duration::from_secs;
    let default = KeepIdle { connections: 16, requests: 1000, timeout: seconds(60), lifetime: seconds(3600) };
    assert_eq!((of(""), of("keepalive_timeout 5s;"), of("keepalive 0;")), (None, None, None));
    assert_eq!((of("keepalive 16;"), of("keepalive 16 local;")), (Some(default), Some(default)));
    let set = of("keepalive 16; keepalive_requests 5; keepalive_timeout 2m; keepalive_time 1d;");
    assert_eq!(set, Some(KeepIdle { requests: 5, timeout: seconds(120), lifetime: seconds(86_400), ..default }));
}

#[test]
fn source_addresses_are_inherited_and_replaced_as_a_whole() {
    let config = server(
        "proxy_bind 10.0.0.1 10.0.0.8/30 10.0.0.9 ::1;
         location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1; proxy_bind 10.0.0.7; }
         location /c/ { proxy_pass http://127.0.0.1:1; proxy_bind off; }
         location /d/ { proxy_pass http://127.0.0.1:1; proxy_bind $server_addr; }",
    );
    let bound = |path: &str| match &location(&config, path).settings.bind {
        None => "the kernel's choice".to_owned(),
        Some(Bind::Variable(template)) => written(template),
        Some(Bind::Pool(sources)) => {
            sources.addresses().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(bound("/a/"), "10.0.0.1 10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 ::1");
    assert_eq!((&*bound("/b/"), &*bound("/c/")), ("10.0.0.7", "the kernel's choice"));
    assert_eq!(bound("/d/"), "<Known(ServerAddr)>");
}

#[test]
fn redirects_default_to_the_backend_s_url_and_the_location_s_prefix() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1/x/; }
         location /c/ { proxy_pass http://127.0.0.1:1; proxy_redirect off; }
         location /d/ { proxy_pass http://127.0.0.1:1/; proxy_redirect default; proxy_redirect ~^http://x/(.*)$ /y/$1; proxy_redirect http://z/ /; }
         location /e/ { proxy_pass http://127.0.0.1:1/$args; }",
    );
    let shown = |path: &str| -> Vec<String> {
        let redirects = &location(&config, path).settings.redirects;
        let show = |redirect: &Redirect| match redirect {
            Redirect::Prefix(from, to) => format!("{} -> {}", written(from), written(to)),
            Redirect::Regex(_, to) => format!("~ -> {}", written(to)),
        };
        redirects.iter().map(show).collect()
    };
    assert_eq!(shown("/a/"), ["http://127.0.0.1:1/ -> /"]);
    assert_eq!(shown("/b/"), ["http://127.0.0.1:1/x/ -> /b/"]);
    assert_eq!(shown("/c/"), [""; 0]);
    assert_eq!(shown("/d/"), ["http://127.0.0.1:1/ -> /d/", "~ -> /y/<Capture(1)>", "http://z/ -> /"]);
    assert_eq!(shown("/e/"), [""; 0]);
}

#[test]
fn backends_are_told_who_the_client_is_where_the_file_says_so() {
    let config = server(
        "proxy_protocol on; location /a { } location /b { proxy_protocol v2; location /b/c { proxy_protocol off; } }
         location /d { proxy_protocol v1; }",
    );
    let of = |path: &str| location(&config, path).settings.proxy_protocol;
    assert_eq!(
        (of("/a"), of("/b"), of("/b/c"), of("/d")),
        (Some(Version::V1), Some(Version::V2), None, Some(Version::V1))
    );
}
