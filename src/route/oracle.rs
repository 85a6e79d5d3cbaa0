//! nginx itself as the judge: random locations and server names, asked of a private nginx and of our tables.
//!
//! Runs where nginx is installed; with `CI` set it must be.

use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    location::{Found, LocationId, Locations, tests::pattern},
    server_name::ServerNames,
};

const NGINX: &str = "/usr/sbin/nginx";

/// A running nginx of our own, listening on unix sockets in its own directory.
struct Nginx {
    process: Child,
    directory: TempDir,
}

impl Nginx {
    /// Starts one with these `server` blocks, where `DIR` stands for the directory. None where nginx is not installed.
    fn start(servers: &str) -> Option<Self> {
        if !Path::new(NGINX).exists() {
            assert!(env::var_os("CI").is_none(), "nginx is missing: install it, CI compares with it");
            eprintln!("skipped: {NGINX} is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        let mut file = "daemon off; master_process off; pid DIR/pid; error_log DIR/error.log;\n\
            events { worker_connections 64; }\n\
            http { access_log off; merge_slashes off; keepalive_requests 1000000; server_names_hash_bucket_size 128;\n"
            .to_owned();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(file, "{kind}_temp_path DIR/{kind};").unwrap();
        }
        writeln!(file, "{servers} }}").unwrap();
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, file.replace("DIR", &path)).unwrap();
        let process = Command::new(NGINX)
            .args(["-p", &path, "-e", &format!("{path}/error.log"), "-c"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { process, directory })
    }

    fn connect(&mut self, socket: &str) -> Connection {
        let path: PathBuf = self.directory.path().join(socket);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(stream) = UnixStream::connect(&path) {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                return Connection(BufReader::new(stream));
            }
            let ended = self.process.try_wait().unwrap();
            let log = fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "nginx does not listen: {log}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    /// What nginx answers: the body of a 200, `-> LOCATION` of a 301, else the status.
    fn ask(&mut self, host: &str, path: &str) -> String {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = vec![0; field("Content-Length:").unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        match head[0].split(' ').nth(1).unwrap() {
            "200" => String::from_utf8(body).unwrap(),
            "301" => format!("-> {}", field("Location:").unwrap()),
            status => status.to_owned(),
        }
    }
}

/// Repeatable chance: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % sides
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }

    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..self.roll(most + 1)).map(|_| self.pick(pieces)).collect()
    }
}

/// `x` is the one named capture; this server makes nginx know it even where no other expression has it.
const NAMES_X: &str = "server { listen unix:DIR/unused; location ~ (?<x>z) { return 404; } }\n";

#[derive(Default)]
struct Site {
    locations: Locations,
    /// As written, what is nested in each, and which proxy.
    written: Vec<(String, bool)>,
    children: HashMap<Option<LocationId>, Vec<LocationId>>,
}

impl Site {
    fn random(dice: &mut Dice) -> Self {
        let mut site = Self::default();
        for _ in 0..=dice.roll(9) {
            let parent = Some(dice.roll(3 * site.written.len().max(1))).filter(|parent| *parent < site.written.len());
            let outer = parent.map_or("", |parent| site.written[parent].0.as_str());
            let text = Self::pattern(dice, outer.rsplit(' ').next().unwrap());
            let (id, proxied) = (site.written.len(), dice.roll(2) == 0);
            if site.locations.insert(id, pattern(&text), parent, proxied, &mut |_| 0).is_ok() {
                site.written.push((text, proxied));
                site.children.entry(parent).or_default().push(id);
            }
        }
        site
    }

    fn pattern(dice: &mut Dice, outer: &str) -> String {
        let path = |dice: &mut Dice| {
            format!("{}{}", if outer.is_empty() { "/" } else { outer }, dice.text(&["a", "b", "/", "-"], 4))
        };
        match dice.roll(20) {
            0..4 => format!("= {}", path(dice)),
            4..7 => format!("^~ {}", path(dice)),
            7..13 => {
                let source =
                    ["a$", "^/a", "b", "/b/", "^/(.)(.*)-", "-(?<x>a)?", "(b)(a)?", "/(?<x>[^/]+)$", "/a", "/a", "/b"];
                format!("{} {}", dice.pick(&["~", "~*"]), dice.pick(&source))
            }
            _ => path(dice),
        }
    }

    fn write(&self, parent: Option<LocationId>, out: &mut String) {
        for id in self.children.get(&parent).into_iter().flatten() {
            let (text, proxied) = &self.written[*id];
            let proxy = if *proxied { "proxy_pass http://127.0.0.1:9; " } else { "" };
            writeln!(out, "location {text} {{ {proxy}return 200 \"{id}:$1:$x\";").unwrap();
            self.write(Some(*id), out);
            out.push_str("}\n");
        }
    }

    fn answer(&self, path: &str) -> String {
        match self.locations.find(path.as_bytes()) {
            None => "404".to_owned(),
            Some(Found { add_slash: true, .. }) => format!("-> {path}/"),
            Some(found) => {
                let captured = found.captures.and_then(|captures| captures.into_iter().next());
                answer(found.location, captured, &found.named)
            }
        }
    }
}

fn answer(id: usize, captured: Option<Vec<u8>>, named: &[(usize, Vec<u8>)]) -> String {
    let text = |bytes: Option<&Vec<u8>>| String::from_utf8(bytes.cloned().unwrap_or_default()).unwrap();
    format!("{id}:{}:{}", text(captured.as_ref()), text(named.last().map(|(_, value)| value)))
}

#[test]
fn locations_are_chosen_as_nginx_chooses_them() {
    let mut dice = Dice(1);
    let sites: Vec<Site> = (0..400).map(|_| Site::random(&mut dice)).collect();
    let mut file = NAMES_X.to_owned();
    for (number, site) in sites.iter().enumerate() {
        writeln!(file, "server {{ listen unix:DIR/s; server_name s{number}; absolute_redirect off;").unwrap();
        site.write(None, &mut file);
        file.push_str("}\n");
    }
    let Some(mut nginx) = Nginx::start(&file) else { return };
    let mut connection = nginx.connect("s");
    for (number, site) in sites.iter().enumerate() {
        for _ in 0..60 {
            let path = format!("/{}", dice.text(&["a", "b", "/", "-"], 6));
            let expected = connection.ask(&format!("s{number}"), &path);
            let mut written = String::new();
            site.write(None, &mut written);
            assert_eq!(site.answer(&path), expected, "{path} in\n{written}");
        }
    }
}

fn server_name(dice: &mut Dice) -> String {
    let labels = |dice: &mut Dice| {
        let labels: Vec<&str> = (0..=dice.roll(3)).map(|_| dice.pick(&["a", "b", "ab"])).collect();
        labels.join(".")
    };
    match dice.roll(10) {
        0..2 => format!("*.{}", labels(dice)),
        2..4 => format!(".{}", labels(dice)),
        4..6 => format!("{}.*", labels(dice)),
        6..8 => dice
            .pick(&["~^a", "~b$", "~^(.+)\\.A\\.", "~^(?<x>[^.]+)\\.b\\.", "~a(b)?", "\"\"", "*.a*", "a..b"])
            .to_owned(),
        _ => labels(dice),
    }
}

#[test]
fn servers_are_chosen_as_nginx_chooses_them() {
    let mut dice = Dice(2);
    let mut file = NAMES_X.to_owned();
    let mut listeners = Vec::new();
    for listener in 0..60 {
        let mut names = ServerNames::default();
        writeln!(file, "server {{ listen unix:DIR/l{listener} default_server; return 200 none; }}").unwrap();
        // nginx gives a server without `server_name` the empty one.
        names.insert("", usize::MAX, &mut |_| 0).unwrap();
        for server in 0..=dice.roll(6) {
            let written: Vec<String> = (0..=dice.roll(2))
                .map(|_| server_name(&mut dice))
                .filter(|name| names.insert(name.trim_matches('"'), server, &mut |_| 0).is_ok())
                .collect();
            if !written.is_empty() {
                let written = written.join(" ");
                writeln!(
                    file,
                    "server {{ listen unix:DIR/l{listener}; server_name {written}; return 200 \"{server}:$1:$x\"; }}"
                )
                .unwrap();
            }
        }
        listeners.push(names);
    }
    let Some(mut nginx) = Nginx::start(&file) else { return };
    for (listener, names) in listeners.iter().enumerate() {
        let mut connection = nginx.connect(&format!("l{listener}"));
        for _ in 0..60 {
            let labels: Vec<&str> = (0..=dice.roll(4)).map(|_| dice.pick(&["a", "b", "ab", "c"])).collect();
            let host = labels.join(".");
            let expected = connection.ask(&host, "/");
            let ours = names.find(host.as_bytes()).map_or_else(
                || "none".to_owned(),
                |found| answer(found.server, found.captures.into_iter().next(), &found.named),
            );
            assert_eq!(ours, expected, "{host} at l{listener} in\n{file}");
        }
    }
}
