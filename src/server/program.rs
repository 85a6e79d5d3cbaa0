//! The program's file and arguments, to be started once more.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::{
    fcntl::OFlag,
    unistd::{AccessFlags, access, dup, pipe2},
};

use super::inherited::{READY, SOCKETS};

/// What must not reach another process: it was said to this one (sd_listen_fds(3), sd_watchdog_enabled(3)).
const OURS: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How this program was started.
#[derive(Debug, Clone)]
pub struct Program {
    /// Absolute.
    file: PathBuf,
    /// Its own name first.
    arguments: Vec<OsString>,
}

/// A process that runs the program.
#[derive(Debug)]
pub(super) struct Started {
    pub child: Child,
    /// What it says of its start; it ends with the process.
    pub pipe: File,
}

impl Program {
    /// The one that was started with these arguments, its own name first. The path is kept as it was given: behind it, or behind
    /// a symbolic link in it, there may be another version tomorrow, while /proc/self/exe stays with the old one ("(deleted)").
    ///
    /// # Errors
    /// The directory it was started in has gone.
    pub fn started_as(arguments: Vec<OsString>) -> io::Result<Self> {
        let name = Path::new(arguments.first().map_or(OsStr::new(""), OsString::as_os_str));
        let file = if name.components().count() > 1 { name.to_owned() } else { in_path(name, env::var_os("PATH"))? };
        Ok(Self { file: std::path::absolute(file)?, arguments })
    }

    /// Its file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Starts it with listening sockets. The copies that are not close-on-exec exist only here, in a
    /// process that starts no others.
    ///
    /// # Errors
    /// No such file, no permission, no process, no descriptor.
    pub(super) fn start(&self, sockets: &[OwnedFd]) -> io::Result<Started> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let inheritable = |fd: &OwnedFd| dup(fd.as_fd());
        let sockets = sockets.iter().map(inheritable).collect::<Result<Vec<_>, _>>()?;
        let ready = inheritable(&write)?;
        let numbers: Vec<String> = sockets.iter().map(|socket| socket.as_raw_fd().to_string()).collect();
        let mut command = Command::new(&self.file);
        if let Some((name, arguments)) = self.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        OURS.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.env_remove(SOCKETS).env(READY, ready.as_raw_fd().to_string());
        if !numbers.is_empty() {
            command.env(SOCKETS, numbers.join(";"));
        }
        Ok(Started { child: command.spawn()?, pipe: File::from(read) })
    }
}

/// Where a shell found a name without a slash; the file that runs, where that cannot be told.
fn in_path(name: &Path, path: Option<OsString>) -> io::Result<PathBuf> {
    let path = path.unwrap_or_default();
    let mut files = env::split_paths(&path).map(|directory| directory.join(name));
    let found = files.find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok());
    found.map_or_else(env::current_exe, Ok)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use super::*;

    fn shell(script: &str) -> Program {
        Program { file: "/bin/sh".into(), arguments: ["sh", "-c", script].map(OsString::from).into() }
    }

    #[test]
    fn the_path_is_the_one_it_was_started_by() {
        let started_as = |name: &str| Program::started_as(vec![name.into()]).unwrap().file;
        assert_eq!(started_as("/usr/local/bin/x"), Path::new("/usr/local/bin/x"));
        assert_eq!(started_as("bin/x"), env::current_dir().unwrap().join("bin/x"));
        assert_eq!(started_as("sh").file_name(), Some(OsStr::new("sh")));
        assert!(started_as("sh").is_absolute());
        assert_eq!(started_as("no-such-program-anywhere"), env::current_exe().unwrap());
    }

    #[test]
    fn a_started_program_has_the_sockets_and_the_pipe() {
        let sockets = [(); 2].map(|()| OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
        let script = "(env; ls /proc/self/fd) > /dev/fd/$LONGSPLICE_READY";
        let Started { mut child, mut pipe } = shell(script).start(&sockets).unwrap();
        let mut said = String::new();
        pipe.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        let list = said.lines().find_map(|line| line.strip_prefix("LONGSPLICE_SOCKETS=")).unwrap();
        assert_eq!(list.split(';').count(), 2, "{said}");
        assert!(list.split(';').all(|number| said.lines().any(|line| line == number)), "{said}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_at_once() {
        let program = Program { file: "/nonexistent/longsplice".into(), arguments: vec!["longsplice".into()] };
        assert_eq!(program.start(&[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
