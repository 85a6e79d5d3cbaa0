//! The program from outside: a process of its own, real sockets, real clients.
//!
//! Every [`util::Proxy`] ends by SIGTERM when its test is through, and must then exit with status 0 and without a panic
//! in its log: so each test here is also one of that.
#![allow(missing_docs)]

mod access;
mod access_log;
mod address;
mod balance;
mod bind;
mod cli;
mod clients;
mod doctor;
mod drain;
mod faults;
mod host_faults;
mod http;
mod kernels;
mod life;
mod limits;
mod logs;
mod memory;
mod metrics;
mod nginx;
mod openssl;
mod package;
mod pool;
mod privileges;
mod readiness;
mod reload;
mod seeds;
mod slow;
mod soak;
mod status;
mod status_page;
mod strict;
mod tidy;
mod tls;
mod top;
mod tuning;
mod upgrade;
mod upstream;
mod util;
mod workers;
