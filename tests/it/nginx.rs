//! The same file, the same requests, nginx beside us: what is answered, and what the backend is asked, must be the same.

use crate::util::{Backend, Program, Proxy, Response, external};

/// What a client and a backend see that nginx's documentation promises.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    location: Option<String>,
    added: Vec<String>,
    body: String,
}

impl Seen {
    fn of(response: &Response) -> Self {
        // Error pages are each program's own; what a `return` or a mirroring backend says is not.
        let page = response.text();
        let body = if page.contains("<html") { "(page)".to_owned() } else { forwarded(&page) };
        Self {
            status: response.status(),
            location: response.get("location").map(str::to_owned),
            added: response
                .head
                .fields
                .iter()
                .filter(|(name, _)| name.starts_with("X-"))
                .map(|(n, v)| format!("{n}: {v}"))
                .collect(),
            body,
        }
    }
}

/// The parts of a mirrored request head that both programs must make alike: its line, and the fields the file sets.
fn forwarded(head: &str) -> String {
    let mut lines: Vec<&str> =
        head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    if let Some(fields) = lines.get_mut(1..) {
        fields.sort_unstable();
    }
    lines.join("\n")
}

/// Runs `text` with both programs and compares the answers to every one of `requests` ("TARGET" or a whole request).
pub fn compare(text: &str, requests: &[&str]) {
    if external("nginx").is_none() {
        return;
    }
    let backend = Backend::mirror();
    let start = |program: Program| Proxy::config(text).by(program).set("backend", backend.address()).start();
    let (ours, theirs) = (start(crate::util::proxy::under_test()), start(Program::Nginx));
    let mut wrong = Vec::new();
    for request in requests {
        let ask = |proxy: &Proxy| {
            let bytes = if request.contains("HTTP/1") {
                (*request).to_owned()
            } else {
                format!("GET {request} HTTP/1.1\r\nHost: site.example\r\n\r\n")
            };
            let mut seen = Seen::of(&proxy.connect().ask(bytes));
            let port = proxy.http().port().to_string();
            for text in [Some(&mut seen.body), seen.location.as_mut()].into_iter().flatten() {
                *text = text.replace(&port, "PORT");
            }
            seen
        };
        let (nginx, longsplice) = (ask(&theirs), ask(&ours));
        if nginx != longsplice {
            wrong.push(format!("{request}\n  nginx:      {nginx:?}\n  longsplice: {longsplice:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
}

#[test]
fn proxy_pass_with_and_without_uri_asks_for_the_same() {
    compare(
        r"server { listen %http%;
            location /plain/ { proxy_pass http://%backend%; }
            location /slash/ { proxy_pass http://%backend%/; }
            location /deep/ { proxy_pass http://%backend%/a/b/; }
            location /join { proxy_pass http://%backend%/x; }
            location = /exact { proxy_pass http://%backend%/other?fixed=1; }
            location ~ ^/regex/(.*)$ { proxy_pass http://%backend%; }
            location ~ ^/capture/(?<rest>.*)$ { proxy_pass http://%backend%/c/$rest$is_args$args; }
            location /uri/ { proxy_pass http://%backend%$request_uri; }
            location ^~ /rewritten/ { rewrite ^/rewritten/(.*)$ /new/$1 break; proxy_pass http://%backend%; }
            location /rewritten_uri/ { rewrite ^/rewritten_uri/(.*)$ /new/$1 break; proxy_pass http://%backend%/ignored/; }
        }",
        &[
            "/plain/",
            "/plain/a%20b",
            "/plain/a/../b",
            "/plain//double",
            "/plain/%2F",
            "/plain/x?y=%41&z",
            "/plain/./a",
            "/slash/",
            "/slash/a%20b?c",
            "/slash/a/../b",
            "/slash/%C3%A9",
            "/slash/a+b;c=d,e",
            "/slash/%3Fq",
            "/slash/%25",
            "/slash/a%0Ab",
            "/deep/c",
            "/deep/",
            "/deep/c/../d",
            "/join",
            "/joined",
            "/join/a",
            "/exact",
            "/exact?q=2",
            "/regex/a%20b?c",
            "/regex/",
            "/capture/a/b?c=d",
            "/uri/a%20b/../c?d",
            "/rewritten/a%20b?c=d",
            "/rewritten/x",
            "/rewritten_uri/a?b",
            "/%70lain/escaped",
            "/nowhere",
        ],
    );
}

#[test]
fn the_same_location_is_chosen() {
    compare(
        r#"server { listen %http%;
            location / { return 200 "root"; }
            location = / { return 200 "exact root"; }
            location /a { return 200 "prefix a"; }
            location /a/b/ { return 200 "prefix a b"; }
            location ^~ /static/ { return 200 "no regex below"; }
            location ~ \.PHP$ { return 200 "case matters"; }
            location ~* \.(gif|jpg)$ { return 200 "picture $1"; }
            location ~ ^/a/(?<id>\d+)$ { return 200 "number $id"; }
            location /nested/ {
                location /nested/in/ { return 200 "nested"; }
                location ~ \.txt$ { return 200 "nested text"; }
                return 200 "outer";
            }
            location = /exact { return 200 "exact"; }
            location ~ "^/q{2}$" { return 200 "quoted"; }
        }"#,
        &[
            "/",
            "/?a",
            "/a",
            "/ab",
            "/a/",
            "/a/b",
            "/a/b/",
            "/a/b/c",
            "/a/12",
            "/a/x12",
            "/static/x.gif",
            "/x.gif",
            "/X.JPG",
            "/x.php",
            "/x.PHP",
            "/nested/",
            "/nested/in/",
            "/nested/in/x.txt",
            "/nested/x.txt",
            "/nested/x.gif",
            "/exact",
            "/exact/",
            "/qq",
            "/q",
            "//a//b//c",
            "/a/../static/x",
            "/%61/b/",
            "/x%2Egif",
        ],
    );
}

#[test]
fn names_choose_the_same_server() {
    compare(
        r#"server { listen %http% default_server; server_name _; return 200 "default"; }
           server { listen %http%; server_name one.example www.one.example; return 200 "one $server_name"; }
           server { listen %http%; server_name *.two.example; return 200 "two $host"; }
           server { listen %http%; server_name three.*; return 200 "three"; }
           server { listen %http%; server_name .four.example; return 200 "four"; }
           server { listen %http%; server_name ~^(?<sub>[a-z]+)\.five\.example$; return 200 "five $sub"; }
           server { listen %http%; server_name a.two.example; return 200 "exact before wildcard"; }
           server { listen %http%; server_name ""; return 200 "no name"; }"#,
        &[
            "GET / HTTP/1.1\r\nHost: one.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ONE.example:8080\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: one.example.\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: www.one.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.two.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: b.c.two.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: two.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: three.org\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: four.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x.four.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: abc.five.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 123.five.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: unknown\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn rewrites_conditions_and_returns_do_the_same() {
    compare(
        r#"server { listen %http%; server_name site.example;
            set $kind none;
            if ($arg_kind) { set $kind $arg_kind; }
            rewrite ^/old/(.*)$ /new/$1 last;
            rewrite ^/moved/(.*)$ /there/$1 permanent;
            rewrite ^/away$ http://other.example/x redirect;
            rewrite ^/loop$ /loop? last;
            location /new/ { return 200 "new $uri $args $kind"; }
            location /there/ { return 200 "there"; }
            location /ret/301 { return 301 /target; }
            location /ret/302 { return 302 https://other.example$request_uri; }
            location /ret/307 { return 307 $scheme://$host/x; }
            location /ret/url { return http://other.example/; }
            location /ret/404 { return 404; }
            location /ret/text { return 403 "no $remote_addr"; }
            location /ret/empty { return 204; }
            location /if/ {
                set $v 0;
                if ($request_method = POST) { return 405; }
                if ($http_x_mode ~* ^(fast|slow)$) { set $v $1; }
                if ($args !~ skip) { set $v "${v}+"; }
                if ($arg_stop != "") { return 200 "stopped $v"; }
                return 200 "value $v";
            }
            location /if_proxy/ {
                if ($arg_b) { rewrite ^/if_proxy/(.*)$ /b/$1 break; }
                proxy_pass http://%backend%;
            }
            location /args/ { rewrite ^/args/(\w+)$ /new/$1?added=1 last; }
            location /noargs/ { rewrite ^/noargs/(\w+)$ /new/$1?only=1? last; }
            location /chain/ { rewrite ^/chain/(.)(.*)$ /chain2/$2/$1; rewrite ^/chain2/(.*)$ /new/$1 last; }
            location /break/ { rewrite ^/break/(.*)$ /new/$1 break; return 200 "broken $uri"; }
            location /escape/ { rewrite ^/escape/(.*)$ /to/$1 permanent; }
            location /vars { return 200 "$request_method $scheme $host $server_name $uri $args $is_args $query_string $document_uri $server_protocol $request_uri $arg_a $cookie_c $http_x_y"; }
        }"#,
        &[
            "/old/a?b=c",
            "/old/a%20b",
            "/moved/a?b",
            "/away",
            "/away?x=1",
            "/ret/301",
            "/ret/302?a",
            "/ret/307",
            "/ret/url",
            "/ret/404",
            "/ret/text",
            "/ret/empty",
            "/if/",
            "/if/?skip",
            "/if/?stop=1",
            "/if_proxy/x",
            "/if_proxy/x?b=1",
            "/args/w?x=1",
            "/noargs/w?x=1",
            "/chain/abc",
            "/break/x",
            "/escape/a%20b",
            "/escape/%C3%A9",
            "/new/x?kind=y",
            "/loop",
            "/vars?a=1&b=%20",
            "POST /if/ HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n",
            "GET /if/ HTTP/1.1\r\nHost: site.example\r\nX-Mode: FAST\r\n\r\n",
            "GET /vars?A=2 HTTP/1.1\r\nHost: Site.Example:99\r\nCookie: b=0; c=d; e=f\r\nX-Y: z\r\n\r\n",
            "GET /ret/301 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ],
    );
}

#[test]
fn error_pages_and_try_files_lead_to_the_same() {
    compare(
        r#"server { listen %http%;
            error_page 404 /missing;
            error_page 403 =200 /calm;
            error_page 502 504 @down;
            error_page 410 http://other.example/gone;
            location = /missing { return 200 "missing page for $request_uri"; }
            location = /calm { return 200 "calm"; }
            location @down { return 503 "down"; }
            location /404 { return 404; }
            location /403 { return 403; }
            location /410 { return 410; }
            location /dead { proxy_pass http://127.0.0.1:1; }
            location /own { error_page 404 = @own; return 404; }
            location @own { return 201 "own"; }
            location /intercept { proxy_intercept_errors on; error_page 500 404 /calm; proxy_pass http://%backend%; }
            location /try { root %dir%; try_files $uri @tried; }
            location @tried { proxy_pass http://%backend%; }
            location /try404 { root %dir%; try_files $uri =404; }
            location /tryuri { root %dir%; try_files $uri /calm?x=1; }
            location /private { internal; return 200 "never seen from outside"; }
        }"#,
        &[
            "/404",
            "/403",
            "/410",
            "/dead",
            "/own",
            "/intercept",
            "/try/a?b=c",
            "/try404/x",
            "/tryuri/x",
            "/private",
            "/missing",
            "/404?a=b",
            "GET /intercept HTTP/1.1\r\nHost: x\r\nX-Answer: 500 Oops\r\n\r\n",
            "GET /try/x HTTP/1.1\r\nHost: x\r\nX-Answer: 500 Oops\r\n\r\n",
        ],
    );
}

#[test]
fn fields_set_added_and_hidden_are_the_same() {
    compare(
        r#"
        proxy_set_header X-Outer outer;
        add_header X-Http http;
        server { listen %http%; server_name site.example;
            location /inherit { proxy_pass http://%backend%; }
            location /own { proxy_set_header X-Inner inner; proxy_set_header Host $host; proxy_pass http://%backend%; }
            location /remove { proxy_set_header X-Client ""; proxy_set_header Accept ""; proxy_pass http://%backend%; }
            location /vars {
                proxy_set_header Host $http_host;
                proxy_set_header X-Real-IP $remote_addr;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_set_header X-Proxy-Host $proxy_host;
                proxy_set_header X-Uri $uri;
                proxy_set_header X-None $http_nothing;
                proxy_set_header X-Two "a $host b";
                proxy_pass http://%backend%;
            }
            location /add { add_header X-Added $uri; add_header X-Always $status always; proxy_pass http://%backend%; }
            location /add404 { add_header X-Added no; add_header X-Always yes always; return 404; }
            location /hide { proxy_hide_header X-Body-Length; proxy_pass http://%backend%; }
            location /method { proxy_method PUT; proxy_pass http://%backend%; }
        }"#,
        &[
            "/inherit",
            "/own",
            "/remove",
            "/vars",
            "/add",
            "/add404",
            "/hide",
            "/method",
            "GET /remove HTTP/1.1\r\nHost: site.example\r\nX-Client: 1\r\nAccept: */*\r\nX-Kept: 2\r\n\r\n",
            "GET /vars HTTP/1.1\r\nHost: Site.Example:81\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\r\n",
            "GET /inherit HTTP/1.1\r\nHost: site.example\r\nX-A: 1\r\nX-A: 2\r\nUser-Agent: u\r\nAccept: */*\r\n\r\n",
            "POST /own HTTP/1.1\r\nHost: site.example\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
        ],
    );
}

#[test]
fn maps_give_the_same_values() {
    compare(
        r#"
        map $http_upgrade $connection_upgrade { default upgrade; '' close; }
        map $host $site { hostnames; default other; one.example 1; *.two.example 2; three.* 3; .four.example 4; }
        map $uri $kind { ~^/(?<first>\w)/ "first $first"; ~*\.GIF$ picture; ~(\d+)$ "number $1"; default $host; }
        map $arg_a $chained { x $kind; "" empty; default "<$arg_a>"; }
        server { listen %http%; return 200 "$connection_upgrade|$site|$kind|$chained"; }"#,
        &[
            "/",
            "/a/b",
            "/x.gif",
            "/abc123",
            "/a/?a=x",
            "/b?a=y",
            "/b?a=",
            "GET / HTTP/1.1\r\nHost: one.example\r\nUpgrade: foo\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.b.two.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: three.net\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: four.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x.four.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ONE.EXAMPLE\r\n\r\n",
        ],
    );
}

#[test]
fn proxy_redirect_rewrites_the_same_locations() {
    if external("nginx").is_none() {
        return;
    }
    let answers = Backend::http(|head, _| {
        let location = head.get("x-say").unwrap_or_default();
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let text = r"server { listen %http%; server_name site.example;
        location /default/ { proxy_pass http://%backend%/inner/; }
        location /off/ { proxy_pass http://%backend%/inner/; proxy_redirect off; }
        location /own/ { proxy_pass http://%backend%/; proxy_redirect http://in.example/ https://out.example/; proxy_redirect ~^http://(\w+)\.lan/(.*)$ /$1/$2; }
        location /vars/ { proxy_pass http://%backend%/; proxy_redirect http://$proxy_host/ $scheme://$host/vars/; }
    }";
    let start = |program| Proxy::config(text).by(program).set("backend", answers.address()).start();
    let (ours, theirs) = (start(crate::util::proxy::under_test()), start(Program::Nginx));
    let backend = format!("http://{}", answers.address());
    let says = [
        format!("{backend}/inner/a"),
        format!("{backend}/other"),
        "/inner/b".to_owned(),
        "http://in.example/x?y".to_owned(),
        "http://box.lan/p/q".to_owned(),
        "relative".to_owned(),
        format!("{backend}/"),
        "https://else.example/".to_owned(),
    ];
    let mut wrong = Vec::new();
    for target in ["/default/", "/off/", "/own/", "/vars/"] {
        for say in &says {
            let request = format!("GET {target} HTTP/1.1\r\nHost: site.example\r\nX-Say: {say}\r\n\r\n");
            let location = |proxy: &Proxy| {
                let port = proxy.http().port().to_string();
                proxy.connect().ask(&request).get("location").map(|location| location.replace(&port, "PORT"))
            };
            let (nginx, longsplice) = (location(&theirs), location(&ours));
            if nginx != longsplice {
                wrong.push(format!("{target} when the backend says {say}: nginx {nginx:?}, longsplice {longsplice:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What both programs write to an access log about the same requests and the same tunnel. Times are all alike here, and heads
/// differ by a few bytes, so only what must be equal is asked for.
#[test]
fn the_access_log_says_the_same() {
    const FORMAT: &str = "log_format all '$request|$status|$request_length|$body_bytes_sent|$upstream_status|$upstream_response_length|$content_length|$request_completion|'
        'r=$request_time|c=$upstream_connect_time|h=$upstream_header_time|u=$upstream_response_time|$pipe|$connection_requests';";
    if external("nginx").is_none() {
        return;
    }
    let backend = Backend::echo();
    let text = format!(
        "{FORMAT} server {{ listen %http%; access_log %dir%/all.log all; location / {{ proxy_pass http://%backend%; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; }}
         location /own {{ return 200 own; }} location /204 {{ return 204; }} location /dead {{ proxy_pass http://127.0.0.1:1; }} }}"
    );
    let lines = |program: Program| {
        let proxy =
            Proxy::config(&text).main("worker_processes 1;").by(program).set("backend", backend.address()).start();
        for request in [
            "GET /get?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "GET /own HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /204 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /dead HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ] {
            proxy.connect().ask(request);
        }
        proxy.connect().send("HEAD /own HTTP/1.1\r\nHost: x\r\n\r\n").response_to_head();
        let mut tunnel = proxy.tunnel("/tunnel");
        tunnel.echoes("hello");
        drop(tunnel);
        proxy.written("all.log", &["/tunnel"]);
        let log = std::fs::read_to_string(proxy.dir().join("all.log")).expect("the log");
        let time = regex::Regex::new(r"=\d+\.\d{3}").expect("a pattern");
        let mut lines: Vec<String> = log.lines().map(|line| time.replace_all(line, "=T").into_owned()).collect();
        for line in
            lines.iter_mut().filter(|line| line.contains("/dead") || line.contains("/get") || line.contains("/length"))
        {
            // An error page, and the mirror image of a head that is not quite the same.
            let fields: Vec<&str> =
                line.split('|').enumerate().filter(|(at, _)| !matches!(at, 3 | 5)).map(|(_, field)| field).collect();
            *line = fields.join("|");
        }
        lines
    };
    assert_eq!(lines(crate::util::proxy::under_test()), lines(Program::Nginx), "ours, nginx's");
}
