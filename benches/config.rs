//! Reading a configuration of a thousand servers: what a start and a reload wait for.

use std::{fmt::Write, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use longsplice::config::{self, LoadOptions, Source};

const SERVERS: usize = 1000;

fn file() -> String {
    let mut text = String::from("map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n");
    for number in 0..SERVERS {
        let _ = write!(
            text,
            r#"
upstream app{number} {{ server 127.0.0.1:3000 weight=2; server 127.0.0.1:3001; server 127.0.0.1:3002 backup; }}
server {{
    listen 127.0.0.1:8080;
    server_name app{number}.example.com *.app{number}.example.com;
    location / {{ return 404; }}
    location ~ ^/room/(\d+)$ {{ return 301 /ws/$1; }}
    location /ws/ {{
        proxy_pass http://app{number};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_read_timeout 1h;
    }}
}}
"#
        );
    }
    text
}

fn load(criterion: &mut Criterion) {
    let text = file();
    let options = LoadOptions {
        file: Source::Text { name: "bench".into(), text: text.clone() },
        prefix: "/tmp".into(),
        globals: None,
        conf_error_log: None,
    };
    let loaded = config::load(&options);
    assert!(loaded.config.is_some(), "{}", loaded.report.render(false, false));

    let mut group = criterion.benchmark_group("config");
    group.sample_size(10).throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("load 1,000 servers", |bencher| bencher.iter(|| config::load(black_box(&options))));
}

criterion_group!(benches, load);
criterion_main!(benches);
