//! Look-ups of a request: server by name, location by path, value by map.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use longsplice::{
    route::{
        location::{Locations, Pattern},
        map::Map,
        server_name::ServerNames,
    },
    variables::Template,
};

const COUNT: usize = 1000;

fn no_slot(_: &str) -> usize {
    0
}

/// A listener of a hoster: a thousand names, wildcards, one expression.
fn server_name(criterion: &mut Criterion) {
    let mut names = ServerNames::default();
    for server in 0..COUNT {
        for name in [format!("www{server}.example.com"), format!("*.wild{server}.example.org")] {
            names.insert(&name, server, &mut no_slot).expect("a name");
        }
    }
    names.insert(r"~^(?<user>\w+)\.users\.example\.net$", COUNT, &mut no_slot).expect("an expression");
    let mut group = criterion.benchmark_group("route/server_name");
    for (what, host) in [
        ("exact", "www999.example.com"),
        ("wildcard", "a.b.wild999.example.org"),
        ("regex", "ann.users.example.net"),
        ("none", "nobody.example"),
    ] {
        group.bench_function(what, |bencher| bencher.iter(|| names.find(black_box(host.as_bytes()))));
    }
}

/// A large server block: prefixes, exact ones, a few expressions.
fn location(criterion: &mut Criterion) {
    let mut locations = Locations::default();
    let prefix = |path: String, no_regex| Pattern::Prefix { path: path.into_bytes().into(), no_regex };
    let mut patterns = vec![prefix("/".into(), false)];
    patterns.extend((0..100).map(|number| prefix(format!("/app{number}/"), number % 2 == 0)));
    patterns.extend((0..100).map(|number| Pattern::Exact(format!("/exact{number}").into_bytes().into())));
    for source in [r"\.php$", r"\.(?:css|js|png)$", r"^/user/(\d+)/ws$"] {
        patterns.push(Pattern::Regex { source: source.into(), ignore_case: false });
    }
    for (id, pattern) in patterns.into_iter().enumerate() {
        locations.insert(id, pattern, None, false, &mut no_slot).expect("a location");
    }
    let mut group = criterion.benchmark_group("route/location");
    for (what, path) in [
        ("exact", "/exact50"),
        ("prefix without regex", "/app42/ws/room"),
        ("prefix after regex", "/app43/ws/room"),
        ("regex", "/user/12345/ws"),
    ] {
        group.bench_function(what, |bencher| bencher.iter(|| locations.find(black_box(path.as_bytes()))));
    }
}

/// A map of a thousand keys with one expression behind them.
fn map(criterion: &mut Criterion) {
    let mut map = Map::new("pool", Template::default(), false, false);
    for key in 0..COUNT {
        map.insert(&format!("tenant-{key}"), Template::text(format!("pool{key}")), &mut no_slot).expect("a key");
    }
    map.insert("~^guest-(.+)$", Template::text("guests"), &mut no_slot).expect("an expression");
    map.insert("default", Template::text("none"), &mut no_slot).expect("a default");
    let mut group = criterion.benchmark_group("route/map");
    for (what, key) in [("exact", "tenant-999"), ("regex", "guest-ann"), ("default", "nobody")] {
        group.bench_function(what, |bencher| {
            bencher.iter(|| map.find(black_box(key.as_bytes())).and_then(|found| found.value.constant()));
        });
    }
}

criterion_group!(benches, server_name, location, map);
criterion_main!(benches);
