//! The work of an upgrade besides its system calls: parse, judge, route, rewrite. Time, and allocations.

mod allocations;

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use longsplice::{
    config::{self, Config, Content, LoadOptions, ProxyPass, Source},
    forward,
    http::head::{HeadLimits, Parsed, RequestHead, parse_request, parse_response},
    request::{
        Address, ClientConnection, Request,
        routing::{Routed, route},
    },
    websocket::handshake::{Protocols, judge_answer, judge_request},
};

const BROWSER: &[u8] = b"GET /ws/chat?room=1 HTTP/1.1\r\n\
    Host: chat.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Origin: https://chat.example.com\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Sec-Fetch-Mode: websocket\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    Upgrade: websocket\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const FILE: &str = r#"
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
upstream backend { server 127.0.0.1:3000; }
server {
    listen 127.0.0.1:8080;
    server_name chat.example.com;
    location / { return 404; }
    location /ws/ {
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
}
"#;

const LIMITS: HeadLimits =
    HeadLimits { line_bytes: 8192, head_bytes: 32_768, fields: 100, underscores: false, merge_slashes: true };

fn config() -> Arc<Config> {
    let file = Source::Text { name: "bench".into(), text: FILE.into() };
    let loaded = config::load(&LoadOptions { file, prefix: "/tmp".into(), globals: None, conf_error_log: None });
    Arc::new(loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, false))))
}

fn client() -> Arc<ClientConnection> {
    let address = |port| Address::Tcp(SocketAddr::from(([192, 0, 2, 1], port)));
    Arc::new(ClientConnection {
        serial: 1,
        remote: address(50_000),
        local: address(8080),
        proxied: None,
        tls: None,
        accepted: Instant::now(),
    })
}

fn head() -> RequestHead {
    match parse_request(BROWSER, &LIMITS) {
        Ok(Parsed::Complete(head, _)) => head,
        other => panic!("{other:?}"),
    }
}

/// The request with its server and location chosen, and where that location passes it to.
fn routed(config: &Arc<Config>, client: &Arc<ClientConnection>, head: RequestHead) -> (Request, usize) {
    let mut request = Request::new(config.clone(), client.clone(), 1, 0, head, b"".as_slice(), client.accepted);
    request.choose_server(&config.listeners[0]);
    match route(&mut request) {
        Routed::Content(location) => (request, location),
        other => panic!("{other:?}"),
    }
}

fn pass(config: &Config, location: usize) -> &ProxyPass {
    match &config.servers[0].locations[location].content {
        Content::Proxy(pass) => pass,
        other => panic!("{other:?}"),
    }
}

fn handshake(criterion: &mut Criterion) {
    let (config, client) = (config(), client());
    let websocket = Protocols::Only(vec!["websocket".into()]);
    let head = head();
    let upgrade = judge_request(&head, &websocket).ok().flatten().expect("an upgrade");
    let mut group = criterion.benchmark_group("handshake");
    group.measurement_time(Duration::from_secs(3));

    measure(&mut group, "parse request", || parse_request(black_box(BROWSER), &LIMITS));
    measure(&mut group, "parse half a request", || parse_request(black_box(&BROWSER[..BROWSER.len() / 2]), &LIMITS));
    measure(&mut group, "judge request", || judge_request(black_box(&head), &websocket));
    print("choose server and location", allocations::of(|| routed(&config, &client, head.clone())));
    group.bench_function("choose server and location", |bencher| {
        bencher.iter_batched(|| head.clone(), |head| routed(&config, &client, head), BatchSize::SmallInput);
    });
    let (mut request, location) = routed(&config, &client, head.clone());
    let pass = pass(&config, location);
    measure(&mut group, "rewrite for the backend", || {
        forward::request_head(black_box(&mut request), pass, Some(&upgrade), false)
    });
    measure(&mut group, "parse and judge answer", || match parse_response(black_box(ANSWER), 16_384) {
        Ok(Parsed::Complete(answer, _)) => judge_answer(&answer, Some(&upgrade)),
        other => panic!("{other:?}"),
    });
    measure(&mut group, "all of a request", || {
        let Ok(Parsed::Complete(head, _)) = parse_request(black_box(BROWSER), &LIMITS) else { panic!("not parsed") };
        let upgrade = judge_request(&head, &websocket).ok().flatten();
        let (mut request, location) = routed(&config, &client, head);
        forward::request_head(&mut request, self::pass(&config, location), upgrade.as_ref(), false)
    });
}

/// Time and allocations of one call.
fn measure<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut call: impl FnMut() -> T) {
    print(name, allocations::of(&mut call));
    group.bench_function(name, |bencher| bencher.iter(&mut call));
}

fn print(name: &str, allocated: allocations::Allocated) {
    println!("handshake/{name}: {allocated} a head");
}

criterion_group!(benches, handshake);
criterion_main!(benches);
