//! Of rewrites, conditions, and what takes the place of an answer.

use super::*;
use crate::{
    config::Fallback,
    route::rewrite::{Condition, Flag, Step},
};

#[test]
fn rewrites_keep_their_order_and_flags() {
    let config = server(
        "set $a b; set $args x=1; rewrite ^/(.*)$ /new/$1 last; rewrite ^ https://x/ permanent; rewrite ^ $scheme://y/;
         rewrite ^ /z; break; if ($a !~* ^b$) { return 403 \"no $a\"; } return 301 /x;",
    );
    let steps = &config.servers[0].script.steps;
    let flags: Vec<_> = steps
        .iter()
        .filter_map(|step| if let Step::Rewrite { flag, .. } = step { Some(*flag) } else { None })
        .collect();
    assert_eq!(flags, [Flag::Last, Flag::Permanent, Flag::Redirect, Flag::None]);
    assert!(matches!(steps[1], Step::SetArgs(_)));
    assert!(matches!(steps[6], Step::Break));
    assert!(matches!(&steps[7], Step::If { condition: Condition::Match { negated: true, .. }, location: None, .. }));
    assert!(matches!(&steps[8], Step::Return(answer) if answer.status == 301));
}

#[test]
fn conditions_may_have_spaces_within_their_parentheses() {
    for condition in ["($host = x)", "( $host = x )", "($host = \"x\")", "($host = 'x' )", "(${host} = x)"] {
        let config = server(&format!("if {condition} {{ return 403; }}"));
        let Step::If { condition: Condition::Equal { left, right, negated: false }, .. } =
            &config.servers[0].script.steps[0]
        else {
            panic!("{condition}")
        };
        assert_eq!((written(left).as_str(), written(right).as_str()), ("<Known(Host)>", "x"), "{condition}");
    }
    let config = server("if ($host = \"\") { return 403; }");
    assert!(
        matches!(&config.servers[0].script.steps[0], Step::If { condition: Condition::Equal { right, .. }, .. } if right.parts.is_empty())
    );
}

#[test]
fn error_pages_and_fallbacks_know_their_targets() {
    let config = server(
        "error_page 404 /404.html; error_page 500 502 =200 @down; error_page 403 = https://x/;
         location / { try_files $uri $uri/ @app; } location /s { try_files $uri =503; } location /u { try_files $uri /index.html?a; }
         location @app { return 200; } location @down { return 200; }",
    );
    let pages = &location(&config, "/").settings.error_pages;
    assert_eq!(pages[0].statuses, [404]);
    assert!(matches!(&pages[0].target, Fallback::Uri(uri) if written(uri) == "/404.html"));
    assert_eq!((pages[1].statuses.as_slice(), pages[1].status), ([500, 502].as_slice(), Some(200)));
    assert!(matches!(&pages[1].target, Fallback::Named(name) if &**name == "down"));
    assert_eq!(pages[2].status, Some(0));
    let fallback = |path: &str| match &location(&config, path).content {
        Content::Fallback(fallback) => fallback.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(fallback("/x"), Fallback::Named(name) if &*name == "app"));
    assert!(config.servers[0].routes.named("app").is_some());
    assert!(matches!(fallback("/s"), Fallback::Status(503)));
    assert!(matches!(fallback("/u"), Fallback::Uri(_)));
}

#[test]
fn try_files_of_a_server_is_for_what_no_location_takes() {
    let config = server("try_files $uri @app; location /x { return 204; } location @app { return 200; }");
    assert!(matches!(&location(&config, "/any").content, Content::Fallback(Fallback::Named(_))));
    assert!(matches!(&location(&config, "/x").content, Content::NotFound));
}
