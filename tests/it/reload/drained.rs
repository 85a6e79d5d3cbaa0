//! Tunnels whose way is not in the file any more.

use std::{thread, time::Duration};

use super::{crowd::all_echo, reload};
use crate::util::{Backend, Proxy, Wire, beyond_nginx, frames};

#[test]
fn tunnels_of_routes_that_have_gone_are_drained_where_the_file_says_so() {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    let text = |first: &str, second: &str| {
        let location = |path: &str, group: &str| format!("location {path} {{ proxy_pass http://{group}; }}");
        format!(
            "upstream one {{ server %one%; server %other%; }} upstream other {{ server %other%; }}
             server {{ listen %http%; {} {} }}",
            location("/first", first),
            location("/second", second)
        )
    };
    for drains in [true, false] {
        let main = if drains { "drain_on_reload on; drain_timeout 1s; drain_close_code 1012;" } else { "" };
        let mut proxy = Proxy::config(&text("one", "one"))
            .main(&format!("{main} worker_processes 3;"))
            .set("one", one.address())
            .set("other", other.address())
            .start();
        let [mut stay, mut go] = ["/first", "/second"].map(|target| proxy.tunnels(target, 8));
        // Fewer workers at the same time: tunnels that change their worker are asked as well.
        proxy.rewrite(&format!("{main} worker_processes 1;"), &text("one", "other"));
        reload(&mut proxy, 2);
        all_echo(&mut stay, "what has not changed stays");
        if drains {
            for client in &mut go {
                assert_eq!(client.closed_with(), Some(1012));
            }
            proxy.logged(&["(drain)"]);
            all_echo(&mut stay, "and goes on");
        } else {
            thread::sleep(Duration::from_millis(500));
            all_echo(&mut go, "nobody is asked to go");
        }
        go.into_iter().for_each(Wire::reset);
    }
}

#[test]
fn tunnels_to_a_backend_that_is_let_go_are_drained() {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    for word in ["drain", "down"] {
        let text = |word: &str| {
            format!(
                "upstream app {{ server %one% {word}; server %other%; }}
                 server {{ listen %http%; location / {{ proxy_pass http://app; }} }}"
            )
        };
        let main = "drain_timeout 1s; worker_processes 2;";
        let mut proxy =
            Proxy::config(&text("")).main(main).set("one", one.address()).set("other", other.address()).start();
        let mut clients = proxy.tunnels("/", 8);
        proxy.rewrite(main, &text(word));
        reload(&mut proxy, 2);
        // Behind the window everybody who goes has got a close frame. Round robin gave each backend every second tunnel.
        thread::sleep(Duration::from_millis(1500));
        for client in &mut clients {
            client.send(frames::client(frames::TEXT, "still there?"));
        }
        let (closed, open): (Vec<_>, Vec<_>) =
            clients.into_iter().map(|mut client| client.frame().0).partition(|opcode| *opcode == frames::CLOSE);
        assert_eq!((closed.len(), open.len()), (4, 4), "{word}");
    }
}
