//! Which client connections each epoll instance of a process watches, read from `/proc`.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::unistd::Pid;

/// Socket numbers (inodes) of each epoll instance of a process.
pub fn epoll_instances(pid: Pid) -> io::Result<Vec<Vec<u64>>> {
    let mut instances = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let is_epoll = fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]");
        if is_epoll {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display()))?;
            instances.push(info.lines().filter_map(watched).collect());
        }
    }
    Ok(instances)
}

/// proc(5): `tfd: 9 events: 19 data: 9 pos:0 ino:5d2a sdev:8`, the inode in hexadecimal (Linux 4.3 and later).
fn watched(line: &str) -> Option<u64> {
    let inode = line.strip_prefix("tfd:")?.split_whitespace().find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(inode, 16).ok()
}

/// The established connections to a port in the namespace of a process: socket number and the other side's address.
pub fn connections_to(pid: Pid, port: u16) -> io::Result<HashMap<u64, SocketAddr>> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    Ok(table.lines().skip(1).filter_map(|line| connection(line, port)).collect())
}

/// proc(5): number, local and remote address in hexadecimal, state (01: established), six more columns, inode.
fn connection(line: &str, port: u16) -> Option<(u64, SocketAddr)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, "01", _, _, _, _, _, inode, ..] = columns[..] else { return None };
    (address(local)?.port() == port).then_some(())?;
    Some((inode.parse().ok()?, address(remote)?))
}

/// The kernel prints an address as the number that its four bytes are in this machine's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddr::new(IpAddr::V4(ip), u16::from_str_radix(port, 16).ok()?))
}
