//! More workers, and fewer.

use std::{sync::Arc, thread, time::Duration};

use super::{
    answering,
    crowd::{Stream, all_echo},
    reload, start,
};
use crate::util::{Backend, Driver, Proxy, beyond_nginx, checksum, eventually, frames, on_both_drivers, pattern};

on_both_drivers![workers_come_and_go_and_no_tunnel_is_lost];

fn workers(count: usize) -> String {
    format!("worker_processes {count};")
}

/// Threads of the process that are workers.
fn worker_threads(proxy: &Proxy) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the process lives").flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.starts_with("worker")).count()
}

fn workers_come_and_go_and_no_tunnel_is_lost(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = |version: usize| answering(&format!("v{version}"));
    let mut proxy = Proxy::config(&text(1)).main(&workers(1)).set("backend", backend.address()).on(driver).start();
    let mut live = proxy.tunnels("/", 300);
    let stream = Stream::start(proxy.http());
    for (number, count) in [(2, 4), (3, 2), (4, 1), (5, 4), (6, 3)] {
        proxy.rewrite(&workers(count), &text(number));
        reload(&mut proxy, number);
        assert!(eventually(|| worker_threads(&proxy) == count), "{} workers, not {count}", worker_threads(&proxy));
        all_echo(&mut live, &format!("with {count}"));
        live.extend(proxy.tunnels("/", 50));
        assert_eq!(proxy.get("/version").text(), format!("v{number}"));
    }
    stream.end();
    all_echo(&mut live, "at last");
    let log = proxy.log();
    for reason in ["shutdown", "internal_error", "client_reset", "upstream_reset"] {
        assert!(!log.contains(&format!("({reason})")), "{reason}:\n{log}");
    }
}

#[test]
fn bulk_in_flight_changes_its_worker_whole() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("v1"), &backend);
    let mut clients = proxy.tunnels("/", 4);
    let payload = pattern(8 << 20, 9);
    let frame = Arc::new(frames::client(frames::BINARY, &payload));
    let senders: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut writer, frame) = (client.writer(), Arc::clone(&frame));
            thread::spawn(move || writer.try_send(&*frame).expect("a tunnel that lives"))
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    for (number, count) in [(2, 1), (3, 4), (4, 1), (5, 2)] {
        proxy.rewrite(&workers(count), &answering("v"));
        reload(&mut proxy, number);
    }
    for client in &mut clients {
        let (opcode, echo) = client.frame();
        assert_eq!((opcode, checksum(&echo)), (frames::BINARY, checksum(&payload)));
    }
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
}
