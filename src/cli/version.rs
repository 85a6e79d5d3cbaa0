//! `-v` and `-V`.

use std::env::consts::{ARCH, OS};

/// `longsplice version: longsplice/0.1.0`, nginx's line.
pub(super) fn short() -> String {
    format!("longsplice version: longsplice/{}", env!("CARGO_PKG_VERSION"))
}

/// What a bug report should have: how it was built, and what this host gives it.
pub(super) fn long() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let ring = if std::env::var_os("MONOIO_FORCE_LEGACY_DRIVER").is_some() {
        "io_uring (switched off by MONOIO_FORCE_LEGACY_DRIVER)"
    } else if monoio::utils::detect_uring() {
        "io_uring (available)"
    } else {
        "io_uring (not available: the kernel is too old, or sysctl kernel.io_uring_disabled or a seccomp filter forbids it)"
    };
    format!(
        "{}\n\
         built for {ARCH}-{OS}, {profile} profile, allocator mimalloc\n\
         TLS: rustls with aws-lc-rs, TLSv1.2 and TLSv1.3\n\
         drivers: {ring}, epoll\n\
         default file: {}",
        short(),
        super::DEFAULT_FILE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_have_nginx_first_line() {
        assert!(short().starts_with("longsplice version: longsplice/"));
        assert_eq!(long().lines().next(), Some(short().as_str()));
        assert!(long().contains("epoll") && long().contains("rustls"));
    }
}
