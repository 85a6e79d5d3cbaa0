//! The files of `tuning/`, judged by the programs that they are for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::util::{external, process::finish, proxy::executable, python_module};

fn tuning(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(tuning(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_guide_names_every_file() {
    let guide = text("README.md");
    let files = fs::read_dir(tuning("")).expect("a directory").flatten().filter(|entry| entry.path().is_file());
    for entry in files {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name == "README.md" || guide.contains(&format!("]({name})")), "README.md has no link to {name}");
    }
}

#[test]
fn keepalived_takes_its_file() {
    let Some(keepalived) = external("keepalived") else { return };
    finish(Command::new(keepalived).arg("-t").arg("-f").arg(tuning("keepalived.conf"))).expect_code(0);
}

#[test]
fn the_firewalld_service_is_well_formed_and_has_the_ports() {
    let Some(xmllint) = external("xmllint") else { return };
    let ports = "//service/port[@protocol='tcp']/@port";
    finish(Command::new(xmllint).args(["--xpath", ports]).arg(tuning("firewalld-longsplice.xml")))
        .expect_code(0)
        .expect(&["port=\"80\"", "port=\"443\""]);
}

/// The values that a sysctl file sets: lines that are no comments.
fn set_by(file: &str) -> Vec<(String, String)> {
    let lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.split_once(" = ")).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn sysctl_takes_its_files_in_a_network_of_our_own() {
    let (Some(sysctl), Some(unshare)) = (external("sysctl"), external("unshare")) else { return };
    if !geteuid().is_root() {
        eprintln!("skipped: only root makes network namespaces");
        return;
    }
    for name in ["90-longsplice.conf", "91-longsplice-dr.conf"] {
        let values = set_by(&text(name));
        // What is not of the network namespace would change this host.
        assert!(!values.is_empty() && values.iter().all(|(key, _)| key.starts_with("net.")), "{name}: {values:?}");
        let keys = values.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(" ");
        let script = format!("{0} -q -p {1} && {0} {keys}", sysctl.display(), tuning(name).display());
        let finished = finish(Command::new(&unshare).args(["--net", "sh", "-c", &script]));
        let said = finished.expect_code(0).stdout.replace('\t', " ");
        for (key, value) in values {
            assert!(said.contains(&format!("{key} = {value}\n")), "{name}: {key} = {value} did not take:\n{said}");
        }
    }
}

#[test]
fn kubernetes_api_takes_its_file() {
    let Some(python) = python_module("kubernetes_validate") else { return };
    let file = tuning("kubernetes.yaml");
    finish(Command::new(python).args(["-m", "kubernetes_validate", "-k", "1.32", "--strict"]).arg(file))
        .expect_code(0)
        .expect(&["configmap/longsplice", "daemonset/longsplice"]);
}

/// The text below `nginx.conf: |`, its indentation taken away.
fn file_of_config_map() -> String {
    let yaml = text("kubernetes.yaml");
    let (_, rest) = yaml.split_once("  nginx.conf: |\n").expect("nginx.conf in the ConfigMap");
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.strip_prefix("    ").unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_file_in_the_config_map_is_a_good_one() {
    let dir = TempDir::with_prefix("longsplice-").expect("a directory");
    let path = dir.path().join("nginx.conf");
    // The cluster's names and directories are not here.
    let here = file_of_config_map()
        .replace("app.default.svc.cluster.local", "127.0.0.1")
        .replace("/run/longsplice", &dir.path().display().to_string());
    fs::write(&path, here).expect("a file");
    finish(Command::new(executable()).arg("-t").arg("-c").arg(&path)).expect_code(0).expect(&["test is successful"]);
}

#[test]
fn the_kubelet_waits_longer_than_the_drain() {
    let yaml = text("kubernetes.yaml");
    // A line of the file, not a comment that speaks of it.
    let seconds = |name: &str| -> u64 {
        let line = yaml.lines().find_map(|line| line.trim_start().strip_prefix(name));
        let number = line.map(|rest| rest.trim_matches([':', ' ', 's', ';']));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {yaml}"))
    };
    let drain = seconds("drain_delay") + seconds("worker_shutdown_timeout");
    assert!(drain < seconds("terminationGracePeriodSeconds"), "the kubelet kills before the drain is over");
}
