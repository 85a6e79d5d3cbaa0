//! Headless Chromium, driven over its DevTools protocol.

use std::{net::TcpStream, path::Path, process::Command, thread, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, eventually, process::Running};

/// A browser with one page.
pub struct Browser {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    serial: u64,
    /// What it told without being asked.
    events: Vec<Value>,
    // Last: the socket closes, then the process ends, then its profile goes.
    _running: Quiet,
    _profile: TempDir,
}

/// Chromium ends by a signal with whatever status it likes.
struct Quiet(Option<Running>);

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.kill();
        }
    }
}

impl Browser {
    pub fn start(chromium: &Path) -> Self {
        let profile = TempDir::with_prefix("longsplice-chromium-").expect("a directory");
        let running = Running::spawn(
            Command::new(chromium)
                .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
                .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
                .args(["--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .arg("about:blank"),
        );
        let mut endpoint = None;
        let running = Quiet(Some(running));
        let said = || running.0.as_ref().map(Running::said).unwrap_or_default();
        let ready = eventually(|| {
            endpoint =
                said().split_once("DevTools listening on ").and_then(|(_, rest)| Some(rest.lines().next()?.to_owned()));
            endpoint.is_some()
        });
        assert!(ready, "chromium did not start:\n{}", said());
        let endpoint = endpoint.expect("found");
        let address = endpoint.trim_start_matches("ws://").split('/').next().expect("an address");
        let stream = TcpStream::connect(address).expect("DevTools");
        stream.set_read_timeout(Some(PATIENCE * 2)).expect("a timeout");
        let (socket, _) = tungstenite::client(endpoint.as_str(), stream).expect("DevTools' handshake");
        let mut browser =
            Self { socket, session: None, serial: 0, events: Vec::new(), _running: running, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let session = browser.call("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.serial += 1;
        let mut request = json!({"id": self.serial, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).expect("DevTools");
        loop {
            let Message::Text(text) = self.socket.read().expect("DevTools") else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"].is_null() {
                self.events.push(answer);
            } else if answer["id"] == self.serial {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        assert!(
            self.becomes("document.readyState == 'complete' && location.href != 'about:blank'"),
            "{url} did not load"
        );
    }

    /// From here on it tells of every request and of every complaint.
    pub fn watch(&mut self) {
        for domain in ["Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// What the console shows: exceptions, refused content, messages.
    pub fn complaints(&self) -> Vec<&Value> {
        let complaint =
            |method: &str| matches!(method, "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded");
        self.events.iter().filter(|event| event["method"].as_str().is_some_and(complaint)).collect()
    }

    /// The URLs of all requests.
    pub fn requests(&self) -> Vec<&str> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    /// The value of a JavaScript expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self
            .call("Runtime.evaluate", &json!({"expression": expression, "awaitPromise": true, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until a JavaScript condition holds.
    pub fn becomes(&mut self, condition: &str) -> bool {
        eventually(|| {
            let holds = self.evaluate(&format!("Boolean({condition})")) == true;
            if !holds {
                thread::sleep(Duration::from_millis(40));
            }
            holds
        })
    }

    /// What stands in the element.
    pub fn text(&mut self, selector: &str) -> String {
        self.evaluate(&format!("document.querySelector('{selector}')?.textContent ?? '(none)'"))
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Types into the element as a keyboard does.
    pub fn type_into(&mut self, selector: &str, text: &str) {
        assert_eq!(self.evaluate(&format!("document.querySelector('{selector}').focus(), true")), true);
        self.call("Input.insertText", &json!({"text": text}));
    }

    pub fn click(&mut self, selector: &str) {
        assert_eq!(self.evaluate(&format!("document.querySelector('{selector}').click(), true")), true);
    }
}
