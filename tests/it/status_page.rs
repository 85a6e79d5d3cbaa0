//! The status page in a browser: it shows what the JSON says, live, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::util::{Backend, Proxy, Wire, beyond_nginx, browser::Browser, external};

/// A name that would run if it ever became markup.
const HOSTILE: &str = "<img src=x onerror=document.title=0>";
/// The same in a request line.
const HOSTILE_TARGET: &str = "/ws/%3Cimg%20src=x%20onerror=document.title=0%3E";

fn site(backends: [&Backend; 2]) -> Proxy {
    Proxy::config(&format!(
        "upstream app {{ server %one%; server %two%; server 127.0.0.1:1 down; }}
         limit_conn_zone $binary_remote_addr zone=addr:1m; limit_req_zone $scheme zone=rare:32k rate=1r/m;
         server {{ listen %http%;
           location / {{ proxy_pass http://app; }}
           location /counted/ {{ limit_conn addr 100; limit_req zone=rare; proxy_pass http://app; }}
           location \"/ws/{HOSTILE}\" {{ proxy_pass http://app; }}
           location = /status {{ status; status_admin on; }}
           location = /look {{ status; }} }}"
    ))
    .set("one", backends[0].address())
    .set("two", backends[1].address())
    .main("drain_timeout 1s;")
    .start()
}

/// Refused: the version of a draft.
const OLD_HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Version: 7\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Tunnels whose clients talk until they are dropped, and a client that is refused again and again.
struct Traffic {
    stop: Arc<AtomicBool>,
    talker: Option<JoinHandle<()>>,
}

impl Traffic {
    fn start(proxy: &Proxy, count: usize) -> Self {
        let mut wires: Vec<Wire> = (0..count).map(|_| proxy.connect()).collect();
        for wire in &mut wires {
            wire.websocket(HOSTILE_TARGET).echoes("hello");
        }
        let stop = Arc::<AtomicBool>::default();
        let (told, address) = (stop.clone(), proxy.http());
        let talker = thread::spawn(move || {
            let (mut busy, idle) = (wires.remove(0), wires);
            while !told.load(Ordering::Relaxed) {
                (0..50).for_each(|_| busy.echoes("a message that is neither long nor short"));
                assert_eq!(Wire::connect(address).ask(OLD_HANDSHAKE).status(), 426);
                thread::sleep(Duration::from_millis(5));
            }
            drop(idle);
        });
        Self { stop, talker: Some(talker) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.talker.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "a tunnel was lost");
    }
}

/// The JSON, asked for by the page's own means.
fn json(browser: &mut Browser) -> Value {
    browser.evaluate("fetch(location.pathname + '?json').then(answer => answer.json())")
}

/// Whether a plot's line was drawn: pixels of its colour, which text and grid do not have.
fn is_plotted(plot: &str) -> String {
    format!(
        "(() => {{ const canvas = document.querySelector('#{plot} canvas'), copy = document.createElement('canvas');
           if (!canvas.width) return false;
           Object.assign(copy, {{ width: canvas.width, height: canvas.height }});
           const pen = copy.getContext('2d', {{ willReadFrequently: true }});
           pen.drawImage(canvas, 0, 0);
           const pixels = pen.getImageData(0, 0, copy.width, copy.height - 16).data;
           for (let i = 0; i < pixels.length; i += 4) {{
             const [r, g, b, a] = pixels.slice(i, i + 4);
             if (a > 150 && Math.max(r, g, b) - Math.min(r, g, b) > 70) return true;
           }} return false; }})()"
    )
}

#[test]
fn the_page_shows_what_the_json_says_and_asks_nobody_else() {
    beyond_nginx!();
    let Some(chromium) = external("chromium") else { return };
    let (one, two) = (Backend::echo(), Backend::echo());
    let proxy = site([&one, &two]);
    let traffic = Traffic::start(&proxy, 40);
    let mut browser = Browser::start(&chromium);
    browser.watch();
    browser.open(&format!("http://{}/look", proxy.http()));
    assert!(browser.becomes("document.querySelector('#plot-tunnels output').textContent == '40'"));
    for plot in ["plot-tunnels", "plot-messages", "plot-bytes", "plot-handshakes"] {
        assert!(browser.becomes(&is_plotted(plot)), "{plot} stays empty");
    }
    assert!(browser.becomes("/[1-9].*\\/s/.test(document.querySelector('#plot-messages output').textContent)"));

    let status = json(&mut browser);
    assert_eq!(status["tunnels"]["open"], 40);
    assert_eq!(browser.text("#state"), "serving");
    assert_eq!(browser.text("#pid"), proxy.pid().to_string());
    assert_eq!(browser.evaluate("document.querySelectorAll('#workers tbody tr').length"), 2);
    let worker = &status["workers"][0]["tunnels"];
    assert_eq!(browser.text("#workers tbody tr td:nth-child(3)"), worker.to_string());
    assert_eq!(browser.evaluate("document.querySelectorAll('#upstreams .pill[data-tone=good]').length"), 2);
    assert!(browser.text("#upstreams").contains("down"));
    assert_eq!(browser.evaluate("document.querySelectorAll('#busiest-tunnels tbody tr').length"), 20);
    let busiest = status["busiest"][0]["id"].to_string();
    assert_eq!(browser.text("#busiest-tunnels tbody th"), busiest);
    assert!(browser.text("#longest-tunnels").contains(HOSTILE), "as text");
    assert_eq!(browser.evaluate("document.querySelectorAll('body img').length"), 0, "and not as markup");
    let action = "getComputedStyle(document.querySelector('td:has(button)')).display";
    assert_eq!(browser.evaluate(action), "none", "no button without status_admin");
    assert!(browser.becomes("document.querySelector('#refusals').textContent.includes('websocket_version')"));

    let origin = format!("http://{}/", proxy.http());
    let strays: Vec<_> =
        browser.requests().into_iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert!(browser.requests().len() > 3, "it asks again and again");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    drop(traffic);
}

#[test]
fn the_page_shows_zones_and_local_ports() {
    beyond_nginx!();
    let Some(chromium) = external("chromium") else { return };
    let (one, two) = (Backend::echo(), Backend::echo());
    let proxy = site([&one, &two]);
    let mut counted = proxy.connect();
    counted.websocket("/counted/");
    assert_eq!((proxy.get("/counted/").status(), proxy.get("/counted/").status()), (503, 503));
    let mut browser = Browser::start(&chromium);
    browser.watch();
    browser.open(&format!("http://{}/look", proxy.http()));
    assert!(browser.becomes("document.querySelectorAll('#zones tbody tr').length == 2"));
    let row = |browser: &mut Browser, table: &str, place: usize| -> Vec<String> {
        let cells =
            format!("[...document.querySelectorAll('#{table} tbody tr')[{place}].cells].map(c => c.textContent)");
        serde_json::from_value(browser.evaluate(&cells)).expect("texts")
    };
    // Keys, room for, places taken, passed, rejected, delayed, what a dry run would have done.
    assert_eq!(row(&mut browser, "zones", 0), ["addr", "1", "16,384", "1", "1", "0", "0", "0 / 0"]);
    assert_eq!(row(&mut browser, "zones", 1), ["rare", "1", "256", "\u{2013}", "1", "2", "0", "0 / 0"]);
    let pair = json(&mut browser)["limits"]["ports"]["pairs"][0].clone();
    let max: u64 = pair["max"].as_u64().expect("a number");
    let shown = row(&mut browser, "pairs", 0);
    assert_eq!(shown[..3], [pair["address"].as_str().expect("a text"), "any", "1"]);
    assert_eq!(shown[3].replace(',', ""), max.to_string());
    let tone = |used: u64| {
        format!(
            "(pairsTable([{{ address: 'x', used: {used}, max: 100 }}]), $('pairs').rows[1].cells[2].dataset.tone ?? '')"
        )
    };
    let tones = [79, 80, 95].map(|used| browser.evaluate(&tone(used)));
    assert_eq!(tones, ["", "warn", "bad"]);
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[test]
fn a_tunnel_is_closed_and_a_backend_drained_from_the_page() {
    beyond_nginx!();
    let Some(chromium) = external("chromium") else { return };
    let (one, two) = (Backend::echo(), Backend::echo());
    let proxy = site([&one, &two]);
    let mut wires: Vec<Wire> = (0..4).map(|_| proxy.connect()).collect();
    wires.iter_mut().for_each(|wire| wire.websocket("/ws").echoes("hello"));
    let mut browser = Browser::start(&chromium);
    browser.watch();
    browser.open(&format!("http://{}/status", proxy.http()));
    assert!(browser.becomes("document.querySelector('#plot-tunnels output').textContent == '4'"));

    browser.click("#busiest-tunnels tbody button");
    assert!(browser.becomes("document.querySelector('#ask').open"));
    browser.click("#ask-no");
    assert!(browser.becomes("!document.querySelector('#ask').open"));
    assert_eq!(json(&mut browser)["tunnels"]["open"], 4, "only asked");

    browser.click("#busiest-tunnels tbody button");
    browser.click("#ask-yes");
    assert!(
        browser.becomes("document.querySelector('#plot-tunnels output').textContent == '3'"),
        "it says {:?}",
        browser.text("#done")
    );

    browser.click("#upstreams tr.member button");
    assert!(browser.text("#ask-text").contains(&one.address().to_string()));
    browser.click("#ask-yes");
    assert!(browser.becomes("/drain/.test(document.querySelector('#upstreams tr.member').textContent)"));
    assert!(
        browser.becomes("document.querySelector('#upstreams tr.member td:nth-child(4)').textContent == '0'"),
        "its tunnels are closed"
    );
    browser.click("#upstreams tr.member button");
    browser.click("#ask-yes");
    assert!(browser.becomes("document.querySelector('#upstreams tr.member .pill').textContent == 'up'"));
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[test]
fn a_server_that_goes_leaves_its_last_figures_greyed() {
    beyond_nginx!();
    let Some(chromium) = external("chromium") else { return };
    let (one, two) = (Backend::echo(), Backend::echo());
    let proxy = site([&one, &two]);
    let mut wire = proxy.connect();
    wire.websocket("/ws").echoes("hello");
    let mut browser = Browser::start(&chromium);
    browser.open(&format!("http://{}/status", proxy.http()));
    assert!(browser.becomes("document.querySelector('#plot-tunnels output').textContent == '1'"));
    browser.click("#pause");
    assert_eq!(browser.text("#link"), "paused");
    browser.click("#pause");
    assert!(browser.becomes("document.querySelector('#link').textContent == 'live'"));
    assert!(proxy.end_by(Signal::SIGTERM).success());
    assert!(browser.becomes("document.body.matches('.stale') && !document.querySelector('#silence').hidden"));
    assert_eq!(browser.text("#link"), "no answer");
    assert!(browser.becomes("/next try in .*old/.test(document.querySelector('#silence').textContent)"));
    let hostname = "document.querySelector('#hostname').textContent != ''";
    assert!(browser.becomes(hostname), "the last figures stay");
}
