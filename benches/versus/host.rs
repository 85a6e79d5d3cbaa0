//! This machine: cores, ports, limits, and how it introduces itself.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

/// Ports for listeners: below Linux' range for outgoing connections (`ip_local_port_range`, 32768 on), so that no
/// connection of a run can be in the way of a later listener.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A loopback port nothing listens on, another one each time.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16 % 10_000;
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(step) % count;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free port between 20000 and 32000"))
}

/// The cores of a run. On a machine with one they are the same, which the report says.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub proxy: usize,
    pub load: usize,
}

impl Cores {
    /// The first two cores this process may use.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
        let proxy = cores.next().unwrap_or(0);
        Ok(Self { proxy, load: cores.next().unwrap_or(proxy) })
    }
}

/// Puts this thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Descriptors that the largest row can use. A proxy that is allowed a million prepares for them, and is slower for it.
const DESCRIPTORS: u64 = 40_000;

/// Raises the descriptor limit as far as it goes and helps, for this process and the peers; the limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = hard.min(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    Ok(limit)
}

/// A program of `PATH`, or of the directories for daemons that a user's `PATH` may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// What a reader must know of the machine: name and value.
pub fn facts(cores: Cores, descriptors: u64) -> Vec<(String, String)> {
    let pinned = match cores {
        Cores { proxy, load } if proxy == load => format!("one core only ({proxy}) for proxy and load: read with care"),
        Cores { proxy, load } => format!("proxy on core {proxy}, load on core {load}"),
    };
    let cpu = entry("/proc/cpuinfo", "model name");
    let facts = [
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("system", entry("/etc/os-release", "PRETTY_NAME=").trim_matches('"').to_string()),
        ("CPU", format!("{} x {}", online(), cpu.trim_start_matches([' ', '\t', ':']))),
        ("cores", pinned),
        ("memory", entry("/proc/meminfo", "MemTotal:").trim().to_string()),
        ("descriptors a process", descriptors.to_string()),
    ];
    facts.map(|(name, value)| (name.to_string(), value)).into()
}

/// What the kernel has allocated for its objects, bytes: sockets, inodes, epoll entries and all others.
pub fn kernel_memory() -> u64 {
    let kilobytes = entry("/proc/meminfo", "Slab:");
    kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn online() -> usize {
    fs::read_to_string("/proc/cpuinfo")
        .map_or(1, |text| text.lines().filter(|line| line.starts_with("processor")).count())
}

fn read(file: &str) -> String {
    fs::read_to_string(file).map_or_else(|_| "unknown".into(), |text| text.trim().replace('\t', " "))
}

fn entry(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").to_string()
}
