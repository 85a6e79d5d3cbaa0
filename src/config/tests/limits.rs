//! `limit_conn`, `limit_req` and `upgrade_rate`: what they mean, and in which words they are refused.

use super::*;
use crate::config::{Level, Pace, UpgradeRate};

const ZONES: &str = "limit_conn_zone $binary_remote_addr zone=addr:1m; limit_conn_zone $host$uri zone=place:32k;
    limit_req_zone $binary_remote_addr zone=one:10m rate=2r/s; limit_req_zone \"\" zone=slow:1m rate=30r/m;";

fn in_http(http: &str, server: &str) -> Config {
    config(&format!("{ZONES} {http} server {{ listen 127.0.0.1:8080; {server} }}"))
}

fn pace(zone: usize, burst: u64, delay: u64) -> Pace {
    Pace { zone, burst, delay }
}

#[test]
fn zones_have_name_key_size_and_rate() {
    let config = in_http("", "");
    let names: Vec<_> = config.connection_zones.iter().map(|zone| (&*zone.name, &*zone.key_text, zone.bytes)).collect();
    assert_eq!(names, [("addr", "$binary_remote_addr", 1 << 20), ("place", "$host$uri", 32 << 10)]);
    assert_eq!(written(&config.connection_zones[1].key), "<Known(Host)><Known(Uri)>");
    let rates: Vec<_> = config.request_zones.iter().map(|(zone, rate)| (&*zone.name, *rate)).collect();
    assert_eq!(rates, [("one", 2_000), ("slow", 500)]);
    let rate = |text: &str| {
        let file = format!("limit_req_zone $uri rate={text} zone=z:1m; server {{ listen 127.0.0.1:1; }}");
        super::config(&file).request_zones[0].1
    };
    assert_eq!((rate("5"), rate("1r/m"), rate("1r/s")), (5_000, 16, 1_000), "as nginx, in thousandths");
}

#[test]
fn limits_are_inherited_as_a_list_and_their_like_one_by_one() {
    let config = in_http(
        "limit_conn addr 5; limit_req zone=one; limit_conn_status 429; limit_req_log_level warn;",
        "location /own { limit_conn place 2; limit_conn addr 1; limit_conn_dry_run on; limit_req_status 444; }
         location /req { limit_req zone=slow burst=3 nodelay; limit_req zone=one burst=4 delay=2; limit_conn_log_level info; }",
    );
    let settings = |path: &str| location(&config, path).settings.clone();
    let root = &config.servers[0].settings;
    assert_eq!((&root.limit_conn.limits[..], &root.limit_req.limits[..]), (&[(0, 5)][..], &[pace(0, 0, 0)][..]));
    assert_eq!((root.limit_conn.status, root.limit_conn.level, root.limit_conn.dry_run), (429, Level::Error, false));
    assert_eq!(
        (root.limit_req.status, root.limit_req.level, root.limit_req.delay_level),
        (503, Level::Warn, Level::Notice)
    );
    let own = settings("/own");
    assert_eq!(own.limit_conn.limits, [(1, 2), (0, 1)]);
    assert_eq!((own.limit_conn.status, own.limit_conn.dry_run, own.limit_req.status), (429, true, 444));
    assert_eq!(own.limit_req.limits, [pace(0, 0, 0)], "of the other directive all is inherited");
    let req = settings("/req");
    assert_eq!(req.limit_req.limits, [pace(1, 3_000, u64::MAX), pace(0, 4_000, 2_000)]);
    assert_eq!((&req.limit_conn.limits[..], req.limit_conn.level), (&[(0, 5)][..], Level::Info));
}

#[test]
fn a_zone_may_be_named_above_its_declaration() {
    let config = config("limit_conn a 1; server { listen 127.0.0.1:1; } limit_conn_zone $uri zone=a:1m;");
    assert_eq!(config.servers[0].settings.limit_conn.limits, [(0, 1)]);
}

#[test]
fn a_zone_that_nobody_uses_is_told_of() {
    let said = report(&format!(
        "{ZONES} server {{ listen 127.0.0.1:1; location / {{ limit_conn addr 1; limit_req zone=one; }} }}"
    ));
    assert!(
        said.contains("no `limit_conn` uses the zone \"place\"") && said.contains("`limit_conn place 20;`"),
        "{said}"
    );
    assert!(
        said.contains("no `limit_req` uses the zone \"slow\"") && said.contains("`limit_req zone=slow;`"),
        "{said}"
    );
    assert_eq!(said.matches("it limits nobody").count(), 2, "{said}");
}

#[test]
fn nobody_is_to_wait_for_hours() {
    let file = |limit: &str| format!("{ZONES} server {{ listen 127.0.0.1:1; limit_req zone=slow {limit}; }}");
    let burst = |limit: &str| super::config(&file(limit)).servers[0].settings.limit_req.limits[0].burst;
    assert_eq!((burst("burst=300"), burst("burst=5000"), burst("burst=5000 delay=100")), (300_000, 300_000, 400_000));
    assert_eq!(burst("burst=5000 nodelay"), 5_000_000);
    let warned = report(&file("burst=5000"));
    assert!(warned.contains("would wait 10000 s") && warned.contains("`nodelay`"), "{warned}");
    assert!(!report(&file("burst=300")).contains("would wait"));
}

#[test]
fn upgrades_have_a_rate_where_the_file_sets_one() {
    let rate = |directive: &str| in_http(directive, "").upgrade_rate;
    assert_eq!((rate(""), rate("upgrade_rate off;")), (None, None));
    assert_eq!(rate("upgrade_rate 500r/s;"), Some(UpgradeRate { rate: 500_000, burst: 500_000 }));
    assert_eq!(rate("upgrade_rate 500r/s burst=20;"), Some(UpgradeRate { rate: 500_000, burst: 20_000 }));
}

#[test]
fn what_is_wrong_is_named_with_its_cure() {
    let refused = |http: &str, server: &str, expected: &[&str]| {
        let text = errors(&format!("{ZONES} {http} server {{ listen 127.0.0.1:1; {server} }}"));
        for words in expected {
            assert!(text.contains(words), "{words} for {http} {server}, not\n{text}");
        }
    };
    let zone = |http: &str, expected: &[&str]| refused(http, "", expected);
    zone("limit_conn_zone $uri a:1m;", &["invalid parameter \"a:1m\"", "`zone=NAME:SIZE`"]);
    zone("limit_conn_zone $uri zone=a;", &["invalid zone size \"zone=a\"", "like `zone=addr:10m`"]);
    zone("limit_conn_zone $uri zone=a:big;", &["invalid zone size"]);
    zone("limit_conn_zone $uri zone=a:31k;", &["zone \"zone=a:31k\" is too small", "32k or more"]);
    zone("limit_conn_zone $uri zone=:1m;", &["the zone in \"zone=:1m\" has no name"]);
    zone("limit_conn_zone $uri;", &["invalid number of arguments"]);
    zone(
        "limit_conn_zone $uri zone=addr:1m;",
        &["\"addr\" is declared already, as a limit_conn_zone", "it is here already"],
    );
    zone("limit_conn_zone $uri zone=one:1m;", &["\"one\" is declared already, as a limit_req_zone"]);
    zone("limit_conn_zone $urii zone=a:1m;", &["unknown \"urii\" variable", "did you mean `uri`?"]);
    for rate in ["0r/s", "-1r/s", "5r/h", "r/s", "1.5r/s", "9999999999999999999r/s"] {
        zone(&format!("limit_req_zone $uri zone=a:1m rate={rate};"), &["invalid rate", "like `10r/s` or `30r/m`"]);
    }
    zone("limit_req_zone $uri zone=a:1m;", &["invalid number of arguments"]);
    zone("limit_req_zone $uri rate=1r/s rate=2r/s;", &["\"limit_req_zone\" must have \"zone\" parameter"]);
    zone("upgrade_rate fast;", &["invalid rate \"fast\""]);
    zone("upgrade_rate 5r/s burst=0;", &["invalid burst value \"burst=0\""]);
    zone("upgrade_rate 5r/s nodelay;", &["invalid parameter \"nodelay\""]);
    let limit = |server: &str, expected: &[&str]| refused("", server, expected);
    limit("limit_conn adr 1;", &["there is no limit_conn_zone \"adr\"", "did you mean `addr`?"]);
    limit("limit_conn one 1;", &["there is no limit_conn_zone \"one\"", "declare it in http"]);
    for number in ["0", "-1", "many", "4294967296"] {
        limit(&format!("limit_conn addr {number};"), &["invalid number of connections", "1 to 4294967295"]);
    }
    limit("limit_conn addr 1; limit_conn addr 2;", &["\"limit_conn\" directive is duplicate", "one limit a zone"]);
    limit("limit_req zone=two;", &["there is no limit_req_zone \"two\""]);
    limit("limit_req burst=5;", &["\"limit_req\" must have \"zone\" parameter", "limit_req zone=NAME"]);
    limit("limit_req zone=one burst=-5;", &["invalid burst value \"burst=-5\"", "1 or more"]);
    limit("limit_req zone=one burst=5 delay=0;", &["invalid delay value \"delay=0\""]);
    limit("limit_req zone=one nodealy;", &["invalid parameter \"nodealy\"", "did you mean `nodelay`?"]);
    limit("limit_req zone=one; limit_req zone=one burst=1;", &["\"limit_req\" directive is duplicate"]);
    limit("limit_req_status 399;", &["value must be between 400 and 599"]);
    limit("limit_conn_status 600;", &["value must be between 400 and 599"]);
    limit("limit_conn_status abc;", &["invalid value \"abc\" in \"limit_conn_status\" directive"]);
    limit("limit_conn_log_level crit;", &["invalid value \"crit\"", "one of info, notice, warn, error"]);
    limit("limit_req_dry_run yes;", &["limit_req_dry_run"]);
    limit("location / { if ($host) { limit_conn addr 1; } }", &["is not allowed here"]);
}
