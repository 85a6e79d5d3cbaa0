//! Every system call that has no safe wrapper in nix or socket2, and every `unsafe`.

pub mod process;
