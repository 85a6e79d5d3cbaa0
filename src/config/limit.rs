//! `limit_conn`, `limit_req` and `upgrade_rate`.

use super::Level;
use crate::variables::Template;

/// One request: rates, bursts and excess are in thousandths of one, as in nginx.
pub const ONE_REQUEST: u64 = 1_000;

/// `limit_conn_zone`, and what `limit_req_zone` has in common with it.
#[derive(Debug, Clone)]
pub struct Zone {
    /// `zone=NAME:`
    pub name: Box<str>,
    /// The key,
    pub key: Template,
    /// as written.
    pub key_text: Box<str>,
    /// `:SIZE`, bytes.
    pub bytes: usize,
}

/// `limit_conn` and its like.
#[derive(Debug, Clone)]
pub struct LimitConn {
    /// Each `limit_conn`: the number of its zone, and how many of a key there may be.
    pub limits: Vec<(usize, u32)>,
    /// `limit_conn_status` (503)
    pub status: u16,
    /// `limit_conn_log_level` (error)
    pub level: Level,
    /// `limit_conn_dry_run`
    pub dry_run: bool,
}

/// `limit_req` and its like.
#[derive(Debug, Clone)]
pub struct LimitReq {
    /// Each `limit_req`.
    pub limits: Vec<Pace>,
    /// `limit_req_status` (503)
    pub status: u16,
    /// `limit_req_log_level` (error), of refusals
    pub level: Level,
    /// and, one lower, of delays.
    pub delay_level: Level,
    /// `limit_req_dry_run`
    pub dry_run: bool,
}

/// One `limit_req`. Thousandths of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The number of its zone.
    pub zone: usize,
    /// `burst=`, as far as nobody waits longer than [`crate::limits::REQUEST_DELAY_SECS`].
    pub burst: u64,
    /// `delay=`; `nodelay`: all of it.
    pub delay: u64,
}

/// `upgrade_rate`, of each worker. Thousandths of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeRate {
    /// Per second.
    pub rate: u64,
    /// `burst=`
    pub burst: u64,
}
