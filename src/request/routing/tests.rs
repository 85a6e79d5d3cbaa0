use super::*;
use crate::{
    config::{Location, Pace, Settings},
    request::tests::{config, head, location, request, server, settings},
    route::{
        access::{Rule, Whom},
        location::Pattern,
        rewrite::{
            Flag, Script, Step,
            tests::{give, matches, regex, rewrite, set, template, when},
        },
    },
    zone::Limited,
};

/// A server block under construction.
struct Site(Server);

impl Site {
    fn new() -> Self {
        Self(server("x.example"))
    }

    /// `location TEXT { STEPS proxy_pass ...; }`
    fn location(self, text: &str, steps: Vec<Step>) -> Self {
        self.with(text, Location { script: Script { steps }, ..location(text) })
    }

    fn with(mut self, text: &str, location: Location) -> Self {
        let pattern = match text.split_once(' ') {
            Some(("=", path)) => Pattern::Exact(path.as_bytes().into()),
            Some((_, source)) => Pattern::Regex { source: source.into(), ignore_case: false },
            None if text.starts_with('@') => Pattern::Named(text.into()),
            None => Pattern::Prefix { path: text.as_bytes().into(), no_regex: false },
        };
        self.0.routes.insert(self.0.locations.len(), pattern, None, true, &mut |_| 0).unwrap();
        self.0.locations.push(location);
        self
    }

    /// A location made by an `if` block: found by no path.
    fn block(mut self, location: Location) -> Self {
        self.0.locations.push(location);
        self
    }

    fn script(mut self, steps: Vec<Step>) -> Self {
        self.0.script = Script { steps };
        self
    }

    fn error_page(mut self, statuses: &[u16], status: Option<u16>, target: Fallback) -> Self {
        let page = ErrorPage { statuses: statuses.to_vec(), status, target };
        let settings = || Arc::new(Settings { error_pages: vec![page.clone()], ..settings() });
        self.0.settings = settings();
        self.0.locations.iter_mut().for_each(|location| location.settings = settings());
        self
    }

    fn request(self, target: &str) -> Request {
        request(config(vec![self.0], Vec::new()), head(target, &[("Host", "chat.example:8080")]))
    }

    fn route(self, target: &str) -> Routed {
        route(&mut self.request(target))
    }
}

fn uri(text: &str) -> Fallback {
    Fallback::Uri(template(text))
}

fn internal(text: &str) -> Location {
    Location { internal: true, ..location(text) }
}

fn answer(body: &str) -> Routed {
    Routed::Answer { status: 200, body: body.as_bytes().to_vec() }
}

fn moved(status: u16, location: &str) -> Routed {
    Routed::Redirect { status, location: location.as_bytes().to_vec() }
}

#[test]
fn the_longest_location_is_the_requests_own() {
    let mut request = Site::new().location("/", vec![]).location("/ws/", vec![]).request("/ws/a");
    assert_eq!(route(&mut request), Routed::Content(1));
    assert_eq!(request.location, Some(1));
}

#[test]
fn no_location_is_not_found() {
    assert_eq!(Site::new().location("/ws", vec![]).route("/"), Routed::Refuse(404));
}

#[test]
fn the_servers_script_runs_once_and_before_a_location_is_searched() {
    let site = Site::new().script(vec![set(1, "$s1+"), rewrite("^/old", "/new", Flag::Last)]);
    let mut request = site
        .location("/new", vec![rewrite("^/new", "/last", Flag::Last)])
        .location("/last", vec![give(200, Some("$s1"))])
        .request("/old");
    assert_eq!(route(&mut request), answer("+"));
    assert_eq!(request.redirects, 1);
    assert!(request.uri_changed && request.prefix_matched);
}

#[test]
fn a_server_may_answer_before_any_location() {
    let site = Site::new().script(vec![give(301, Some("https://$host$uri"))]).location("/", vec![]);
    assert_eq!(site.route("/a"), moved(301, "https://chat.example/a"));
}

#[test]
fn a_rewrite_with_break_stays_in_its_location() {
    let mut request = Site::new()
        .location("/a", vec![rewrite("^/a(.*)", "/b$1", Flag::Break)])
        .location("/b", vec![])
        .request("/a/1?x=1");
    assert_eq!(route(&mut request), Routed::Content(0));
    assert_eq!((request.uri.as_slice(), request.args.as_slice()), (b"/b/1".as_slice(), b"x=1".as_slice()));
    assert!(request.uri_changed && !request.prefix_matched);
}

#[test]
fn locations_that_rewrite_to_each_other_end_after_ten_turns() {
    let mut request = Site::new()
        .location("/a", vec![rewrite("^", "/b", Flag::Last)])
        .location("/b", vec![rewrite("^", "/a", Flag::Last)])
        .request("/a");
    assert_eq!(route(&mut request), Routed::Refuse(500));
    assert_eq!(request.redirects, INTERNAL_REDIRECTS + 1);
}

#[test]
fn a_missing_slash_is_redirected_to_the_port_the_client_came_to() {
    let site = || Site::new().location("/ws/", vec![]).location("/b%c/", vec![]);
    assert_eq!(site().route("/ws?a=1"), moved(301, "http://chat.example:8080/ws/?a=1"));
    assert_eq!(site().route("/b%c"), moved(301, "http://chat.example:8080/b%25c/"));
}

#[test]
fn a_redirect_without_host_names_the_server_or_its_address() {
    let site = Site::new().location("/", vec![give(302, Some("/b"))]);
    let mut request = request(config(vec![site.0], Vec::new()), head("/a", &[]));
    assert_eq!(route(&mut request), moved(302, "http://198.51.100.2:8080/b"));
}

#[test]
fn an_if_block_with_settings_replaces_the_location_also_for_its_own_return() {
    let site = |steps| {
        let block = when(matches("$uri", "^/a", false), steps, Some(1));
        Site::new().location("/", vec![block]).block(location("if"))
    };
    assert_eq!(site(vec![]).route("/a"), Routed::Content(1));
    assert_eq!(site(vec![]).route("/b"), Routed::Content(0));
    let mut request = site(vec![give(403, None)]).request("/a");
    assert_eq!(route(&mut request), Routed::Refuse(403));
    assert_eq!(request.location, Some(1));
}

#[test]
fn captures_of_the_location_reach_its_script() {
    let site = Site::new().location("~ ^/r/(?<room>\\w+)/(.)", vec![give(200, Some("$1 $2 $s0"))]);
    assert_eq!(site.route("/r/blue/7"), answer("blue 7 blue"));
}

#[test]
fn internal_locations_open_to_rewrites_and_error_pages_only() {
    let site = || Site::new().with("/in", internal("/in"));
    assert_eq!(site().route("/in"), Routed::Refuse(404));
    let rewriting = site().location("/out", vec![rewrite("^", "/in", Flag::Last)]);
    assert_eq!(rewriting.route("/out"), Routed::Content(0));
    let mut request = site().error_page(&[502], None, uri("/in")).request("/x");
    assert_eq!(redirect_error(&mut request, 502), Some(Routed::Content(0)));
}

#[test]
fn try_files_falls_back_to_a_name_a_path_or_a_status() {
    let site = |target| {
        Site::new()
            .with("/", Location { content: Content::Fallback(target), ..location("/") })
            .location("@back", vec![give(200, Some("$uri?$args"))])
            .location("/index", vec![give(200, Some("$uri?$args"))])
    };
    assert_eq!(site(Fallback::Named("@back".into())).route("/a?x=1"), answer("/a?x=1"));
    assert_eq!(site(uri("/index")).route("/a?x=1"), answer("/index?"));
    assert_eq!(site(uri("/index?$args&q=$uri")).route("/a?x=1"), answer("/index?x=1&q=/a"));
    assert_eq!(site(Fallback::Status(404)).route("/a"), Routed::Refuse(404));
    assert_eq!(site(Fallback::Named("@none".into())).route("/a"), Routed::Refuse(500));
    assert_eq!(site(uri("/again")).route("/a"), Routed::Refuse(500));
}

#[test]
fn nothing_is_served_from_files() {
    let site = Site::new().with("/", Location { content: Content::NotFound, ..location("/") });
    assert_eq!(site.route("/"), Routed::Refuse(404));
}

#[test]
fn an_error_page_keeps_replaces_or_gives_up_the_status() {
    for (status, expected, shown) in [(None, 502, Some(502)), (Some(418), 418, Some(418)), (Some(0), 200, None)] {
        let site = Site::new().location("/error", vec![give(200, Some("$uri?$args"))]).location("/proxied", vec![]);
        let mut request = site.error_page(&[502, 504], status, uri("/error?from=$uri")).request("/a?x=1");
        assert!(error_page(&request, 500).is_none());
        let routed = redirect_error(&mut request, 502);
        assert_eq!(routed, Some(Routed::Answer { status: expected, body: b"/error?from=/a".to_vec() }));
        assert_eq!(request.error_status, shown);
    }
}

#[test]
fn there_is_no_error_page_of_an_error_page() {
    let site = Site::new().location("/error", vec![give(502, None)]).error_page(&[502], None, uri("/error"));
    let mut request = site.request("/a");
    assert_eq!(redirect_error(&mut request, 502), Some(Routed::Refuse(502)));
    assert_eq!(redirect_error(&mut request, 502), None);
}

#[test]
fn an_error_page_at_another_site_is_a_redirect() {
    for (status, expected) in [(None, 302), (Some(301), 301), (Some(0), 302), (Some(200), 302)] {
        let mut request = Site::new().error_page(&[403], status, uri("https://x.example/no?$uri")).request("/a b");
        assert_eq!(redirect_error(&mut request, 403), Some(moved(expected, "https://x.example/no?/a%20b")));
        assert_eq!(request.error_status, None);
    }
}

#[test]
fn an_error_page_is_asked_with_get_and_a_named_one_as_it_came() {
    for (method, target, expected) in [
        ("POST", uri("/error"), "GET"),
        ("HEAD", uri("/error"), "HEAD"),
        ("POST", Fallback::Named("@error".into()), "POST"),
        ("POST", uri("@error"), "POST"),
    ] {
        let site = Site::new().location("/error", vec![]).location("@error", vec![]).error_page(&[500], None, target);
        let mut request = site.request("/a");
        request.head.method = method.into();
        assert!(matches!(redirect_error(&mut request, 500), Some(Routed::Content(_))));
        assert_eq!(&*request.head.method, expected);
    }
}

#[test]
fn nginxs_own_statuses_are_400_to_the_client() {
    let site = Site::new().location("/error", vec![give(200, None)]).error_page(&[497], None, uri("/error"));
    let mut request = site.request("/");
    assert_eq!(redirect_error(&mut request, 497), Some(Routed::Answer { status: 400, body: Vec::new() }));
}

#[test]
fn error_pages_that_chase_each_other_end() {
    let site = Site::new().with("/", Location { content: Content::Fallback(uri("/")), ..location("/") });
    let mut request = site.error_page(&[500], None, uri("/")).request("/");
    assert_eq!(route(&mut request), Routed::Refuse(500));
    assert_eq!(redirect_error(&mut request, 500), Some(Routed::Refuse(500)));
    assert_eq!(redirect_error(&mut request, 500), None);
}

#[test]
fn a_redirecting_expression_sees_the_path_as_it_stands() {
    let site = Site::new().location(
        "/",
        vec![Step::Rewrite { regex: regex("^/(.*)$"), replacement: template("https://y/$1"), flag: Flag::Permanent }],
    );
    assert_eq!(site.route("/a?b=1"), moved(301, "https://y/a?b=1"));
}

#[test]
fn who_is_denied_is_so_behind_rewrites_and_before_the_content() {
    let rule = |allow| Rule { allow, whom: Whom::All };
    let denied = |text: &str, steps| {
        let settings = Settings { access: vec![rule(false)], ..settings() };
        Location { settings: Arc::new(settings), script: Script { steps }, ..location(text) }
    };
    let site = || Site::new().with("/deny", denied("/deny", Vec::new())).location("/open", Vec::new());
    assert_eq!(route(&mut site().request("/deny")), Routed::Forbidden);
    assert_eq!(route(&mut site().request("/open")), Routed::Content(1));
    // `return` answers before anybody is kept out, as in nginx.
    let site = Site::new().with("/deny", denied("/deny", vec![give(204, None)]));
    assert_eq!(route(&mut site.request("/deny")), Routed::Answer { status: 204, body: Vec::new() });
    // An error page is a request of its own.
    let page = ErrorPage { statuses: vec![403], status: None, target: Fallback::Uri(template("/open")) };
    let denied = Settings { access: vec![rule(false)], error_pages: vec![page], ..settings() };
    let denied = Location { settings: Arc::new(denied), ..location("/deny") };
    let mut request = Site::new().with("/deny", denied).location("/open", Vec::new()).request("/deny");
    assert_eq!(route(&mut request), Routed::Forbidden);
    assert_eq!(redirect_error(&mut request, 403), Some(Routed::Content(1)));
}

#[test]
fn limits_come_before_access_rules_and_once_a_request() {
    let limited = |text: &str| {
        let mut settings = Settings {
            access: vec![Rule { allow: false, whom: Whom::All }],
            error_pages: vec![ErrorPage { statuses: vec![403], status: None, target: uri("/page") }],
            ..settings()
        };
        settings.limit_conn.limits = vec![(0, 1)];
        settings.limit_req.limits = vec![Pace { zone: 0, burst: 0, delay: 0 }];
        Location { settings: Arc::new(settings), ..location(text) }
    };
    let site = Site::new().with("/", limited("/")).with("/page", limited("/page"));
    let mut request = site.request("/a");
    assert_eq!(route(&mut request), Routed::Limited(0));
    assert_eq!(access(&mut request, 0), Routed::Forbidden);
    (request.limit_conn_status, request.limit_req_status) = (Some(Limited::Passed), None);
    assert_eq!(route(&mut request), Routed::Limited(0), "one of the two has not judged it");
    request.limit_req_status = Some(Limited::Rejected);
    assert_eq!(
        redirect_error(&mut request, 403),
        Some(Routed::Forbidden),
        "whatever they said, on the page they do not ask again"
    );
    assert_eq!(request.error_status, None);
}
