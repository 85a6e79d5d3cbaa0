//! Programs of others that some tests run when they are there.

use std::{env, path::PathBuf, process::Command};

/// True, with a line that says so, when something is not `found` here; with CI set that is a failure.
pub fn absent(what: &str, found: bool) -> bool {
    if found {
        return false;
    }
    assert!(env::var_os("CI").is_none(), "{what} is missing, and CI must not skip a test (see .ci/run)");
    eprintln!("skipped: {what} is missing");
    true
}

/// The program's path. None, with a line that says so, when it is not installed; with CI set that is a failure.
pub fn external(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    // nginx and haproxy live where only root's PATH looks.
    let found = env::split_paths(&format!("{path}:/usr/sbin:/usr/local/sbin"))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file());
    (!absent(program, found.is_some())).then_some(found).flatten()
}

/// A python3 that has `module`; as [`external`] where there is none.
pub fn python_module(module: &str) -> Option<PathBuf> {
    let python = external("python3")?;
    let found = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .output()
        .is_ok_and(|output| output.status.success());
    (!absent(&format!("Python's {module}"), found)).then_some(python)
}
