//! A peer's processes: started, watched through `/proc`, ended by their ids.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::ClockId,
    unistd::Pid,
};

use crate::{host, peers::Site, sockets};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// A running peer and whatever it started. It ends with this value.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What the processes have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// On a core.
    pub cpu: Duration,
    /// Ready to run while something else had the core.
    pub waited: Duration,
}

impl Process {
    /// Starts a program on a site's core, its output in the site's directory, and waits until it listens on both ports.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
        site: &Site,
    ) -> Result<Self, String> {
        let dir = site.dir;
        let log = dir.join("output.log");
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let (out, err) = (output.try_clone().map_err(|error| error.to_string())?, output);
        let mut command = orphan_ends(program);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .env("HOME", dir)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        // A child inherits the core of the thread that starts it.
        let here = nix::sched::sched_getaffinity(Pid::from_raw(0)).map_err(|error| error.to_string())?;
        host::pin(site.core).map_err(|error| format!("core {}: {error}", site.core))?;
        let child = command.spawn();
        nix::sched::sched_setaffinity(Pid::from_raw(0), &here).map_err(|error| error.to_string())?;
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        let mut process = Self { child, log };
        process.wait_for(&[site.plain, site.tls])?;
        Ok(process)
    }

    fn wait_for(&mut self, ports: &[u16]) -> Result<(), String> {
        let until = Instant::now() + START_LIMIT;
        for &port in ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                self.check()?;
                if Instant::now() > until {
                    return Err(format!("did not listen within {} s{}", START_LIMIT.as_secs(), self.last_words()));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // The probing connections are over before anything is counted.
        std::thread::sleep(Duration::from_millis(50));
        self.check()
    }

    /// An error when it has ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("ended by itself ({status}){}", self.last_words())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The last line it wrote.
    fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        text.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .map_or_else(String::new, |line| format!(": {}", line.trim()))
    }

    /// Time of all its processes and threads.
    ///
    /// The process clock is the sum of what `/proc/PID/task/*/schedstat` shows first, up to this very moment, and still has
    /// the time of threads that are gone: io_uring's workers come and go. The wait is only in schedstat.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in self.tree() {
            usage.cpu += ClockId::pid_cpu_clock_id(pid).and_then(ClockId::now).map_or(Duration::ZERO, Duration::from);
            usage.waited += waited(pid);
        }
        usage
    }

    /// Private memory of all its processes, bytes: what they share among themselves is counted once, mapped files not at all.
    pub fn user_memory(&self) -> u64 {
        self.tree().iter().map(|pid| private_memory(*pid)).sum()
    }

    /// The clients connected to `port` that each epoll instance watches, by their addresses; instances without any left out.
    pub fn watched_clients(&self, port: u16) -> io::Result<Vec<Vec<SocketAddr>>> {
        let mut clients = sockets::connections_to(self.pid(), port)?;
        let mut instances = Vec::new();
        for pid in self.tree() {
            for watched in sockets::epoll_instances(pid)? {
                // A second descriptor of an instance has the same sockets: they are gone from the map.
                instances.push(watched.iter().filter_map(|inode| clients.remove(inode)).collect::<Vec<_>>());
            }
        }
        instances.retain(|clients| !clients.is_empty());
        Ok(instances)
    }

    /// It and all its descendants.
    fn tree(&self) -> Vec<Pid> {
        let parents = parents();
        let mut tree = vec![self.pid()];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Ends it: first politely.
    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Failing means that it is gone already.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let until = Instant::now() + STOP_LIMIT;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in self.tree() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program under util-linux' `setpriv`, where it is, so that a peer also ends when this process is killed.
fn orphan_ends(program: &Path) -> Command {
    match host::find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// All processes with their parents.
fn parents() -> Vec<(Pid, Pid)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // proc(5): the name in parentheses may hold anything; state and parent follow it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid), Pid::from_raw(parent)))
        })
        .collect()
}

fn waited(pid: Pid) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waits = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    });
    waits.sum()
}

fn private_memory(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (kilobytes("Pss_Anon:") + kilobytes("Pss_Shmem:")) * 1024
}

/// What a program says of its version: the first line of either output that has a digit.
pub fn version(program: &Path, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or("version unknown");
    // Envoy begins with its own path.
    Ok(line.replace(&program.display().to_string(), "").trim().to_string())
}
