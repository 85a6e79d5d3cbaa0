//! `pid`: where the number of the running process is, and `-s`, which sends it a signal.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::user::Identity;
use crate::{limits::PID_FILE_BYTES, observe::os_error};

/// The pid file of this process; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the number of this process. `owner`: who will remove it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(path: &Path, owner: Option<&Identity>) -> Result<Self, String> {
        let failed = |error: io::Error| format!("open() \"{}\" failed ({})", path.display(), os_error(&error));
        let mut file = File::create(path).map_err(failed)?;
        writeln!(file, "{}", Pid::this()).map_err(failed)?;
        if let Some(owner) = owner {
            nix::unistd::fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(|errno| failed(errno.into()))?;
        }
        Ok(Self { path: path.to_owned() })
    }
}

/// Looks for another instance with this pid file.
///
/// # Errors
/// There is one: with the same ports it would get in the way of this one, with others it would lose its pid file. The same for a
/// running nginx whose file is being tried.
pub(super) fn check_not_running(path: &Path) -> Result<(), String> {
    match read(path) {
        Ok(pid) if pid != Pid::this() && is_ours(pid) => Err(format!(
            "longsplice is running already: process {pid} in \"{}\"; end it with `-s quit`, or set another `pid`",
            path.display()
        )),
        Ok(pid) if runs(pid, b"nginx\n") => Err(format!(
            "\"{}\" is the pid file of a running nginx, process {pid}: set another `pid`, or end that one first",
            path.display()
        )),
        _ => Ok(()),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        [&self.path, &old(&self.path)].into_iter().for_each(|path| {
            // Another instance may have written its own over it.
            if names(path, Pid::this()) && fs::remove_file(path).is_err() {
                // It may not be removed; an empty one says as well that nothing runs.
                let _ = File::create(path);
            }
        });
    }
}

/// The pid file of a process that is being replaced; nginx's name.
fn old(path: &Path) -> PathBuf {
    let mut old = path.as_os_str().to_owned();
    old.push(".oldbin");
    old.into()
}

/// Makes room for the pid file of the process that is to replace `of`.
pub(super) fn set_aside(path: &Path, of: Pid) {
    if names(path, of) {
        // Where that may not be, the new process writes over it, and so does `restore`.
        let _ = fs::rename(path, old(path));
    }
}

/// Puts it back: the new process has ended.
pub(super) fn restore(path: &Path, of: Pid) {
    let is_back = names(&old(path), of) && fs::rename(old(path), path).is_ok();
    if !is_back && !names(path, of) {
        let _ = fs::write(path, format!("{of}\n"));
    }
}

/// Removes what a process that has ended has left, which it could perhaps only empty. `is_its_own`: no other process has the pid file.
pub(super) fn forget(path: &Path, of: Pid, is_its_own: bool) {
    let is_empty = |path: &Path| fs::metadata(path).is_ok_and(|file| file.len() == 0);
    if names(path, of) || is_its_own && is_empty(path) {
        let _ = fs::remove_file(path);
    }
    if names(&old(path), of) || is_empty(&old(path)) {
        let _ = fs::remove_file(old(path));
    }
}

fn names(path: &Path, pid: Pid) -> bool {
    read(path).is_ok_and(|named| named == pid)
}

/// Sends a signal to the process that a pid file names, and says which that is.
///
/// # Errors
/// nginx's words, and what is behind them: no file, no number, no such process, another program, not allowed.
pub(crate) fn signal(path: &Path, signal: Signal) -> Result<Pid, String> {
    let pid = read(path)?;
    match kill(pid, None) {
        Ok(()) => {}
        Err(Errno::ESRCH) => {
            let error = failed(pid, signal, Errno::ESRCH);
            return Err(format!("{error}; the pid file \"{}\" is stale: longsplice is not running", path.display()));
        }
        Err(errno) => return Err(failed(pid, signal, errno)),
    }
    if !is_ours(pid) {
        return Err(format!(
            "process {pid} in \"{}\" is another program; the pid file is stale: longsplice is not running",
            path.display()
        ));
    }
    send(pid, signal)?;
    Ok(pid)
}

/// Sends a signal to a process.
///
/// # Errors
/// nginx's words: it has ended, or is somebody else's.
pub(crate) fn send(pid: Pid, signal: Signal) -> Result<(), String> {
    kill(pid, signal).map_err(|errno| failed(pid, signal, errno))
}

fn failed(pid: Pid, signal: Signal, errno: Errno) -> String {
    let cure = if errno == Errno::EPERM { "; ask as root, or as the user it runs as" } else { "" };
    format!("kill({pid}, {}) failed ({}: {}){cure}", signal as i32, errno as i32, errno.desc())
}

fn read(path: &Path) -> Result<Pid, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(PID_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("open() \"{}\" failed ({})", path.display(), os_error(&error)))?;
    let number = text.trim_end();
    let pid = number.parse::<i32>().ok().filter(|pid| *pid > 0);
    pid.map(Pid::from_raw).ok_or_else(|| match number {
        "" => format!("invalid PID number \"\" in \"{}\": longsplice is not running", path.display()),
        _ => format!("invalid PID number \"{}\" in \"{}\"", number.escape_default(), path.display()),
    })
}

/// True when a process exists and runs a program of this one's name, or of another version's (`longsplice-1.2`).
fn is_ours(pid: Pid) -> bool {
    fs::read("/proc/self/comm").is_ok_and(|name| runs(pid, &name))
        || fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(b"longsplice"))
}

/// True when a process exists and runs a program of this name (`comm`, proc(5), is readable for everybody).
fn runs(pid: Pid, name: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|theirs| theirs == name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn file(directory: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = directory.path().join("x.pid");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn nginx_words_for_a_file_that_is_missing_or_has_no_number() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            signal(Path::new("/nonexistent/x.pid"), Signal::SIGTERM).unwrap_err(),
            "open() \"/nonexistent/x.pid\" failed (2: No such file or directory)"
        );
        for text in ["abc", "-1", "0", "12x", "99999999999999"] {
            let path = file(&directory, text);
            let expected = format!("invalid PID number \"{text}\" in \"{}\"", path.display());
            assert_eq!(signal(&path, Signal::SIGTERM).unwrap_err(), expected);
        }
        let path = file(&directory, "");
        assert!(signal(&path, Signal::SIGTERM).unwrap_err().ends_with("longsplice is not running"));
    }

    #[test]
    fn a_stale_file_is_called_stale_and_no_stranger_is_signalled() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, "4194305");
        let error = signal(&path, Signal::SIGTERM).unwrap_err();
        assert!(error.starts_with("kill(4194305, 15) failed (3: No such process); the pid file"), "{error}");
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let path = file(&directory, &stranger.id().to_string());
        assert!(signal(&path, Signal::SIGTERM).unwrap_err().contains("is another program"));
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn the_file_lives_as_long_as_the_process_serves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let pid_file = PidFile::write(&path, None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(pid_file);
        assert!(!path.exists());
        let pid_file = PidFile::write(&path, None).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(pid_file);
        assert!(path.exists(), "another instance's file stays");
    }
}
