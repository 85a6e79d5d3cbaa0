//! What an idle tunnel holds in memory.

use std::time::Duration;

use super::Run;
use crate::{
    host,
    load::{Target, Tls},
    metric::Metric,
    process::Process,
};

/// Tunnels opened before memory is read first, so that what a proxy allocates once is not counted as tunnels'.
const WARM_TUNNELS: usize = 500;
/// Tunnels without a proxy that show what the load's own sockets take from the kernel.
const REFERENCE_TUNNELS: usize = 2000;
/// Tunnels of an idle row besides those it is about.
pub const OTHER_TUNNELS: usize = 2 * WARM_TUNNELS + REFERENCE_TUNNELS;
/// How long a proxy has to give back what it only needed for handshakes: read in the middle of that, the figure means nothing.
const SETTLE: Duration = Duration::from_secs(3);

/// What is used, bytes.
struct Memory {
    /// By the proxy.
    user: u64,
    /// By the whole kernel.
    kernel: u64,
}

impl Run<'_> {
    /// The proxy's share of the kernel's memory is what a tunnel through it takes more than one without it: both have the
    /// load's two sockets.
    pub(super) fn idle(&mut self, tunnels: usize, tls: Tls) -> Result<(), String> {
        self.load.aim(Target { address: self.backend, tls: None });
        self.open_used(WARM_TUNNELS.min(tunnels))?;
        let reference = REFERENCE_TUNNELS.min(tunnels);
        let [_, load_only] = self.growth(reference)?;
        if self.process.is_none() {
            self.put(Metric::KernelMemory, load_only);
            return Ok(());
        }
        self.load.aim(Target { address: self.proxy, tls });
        self.open_used(WARM_TUNNELS.min(tunnels))?;
        let [user, kernel] = self.growth(tunnels)?;
        self.put(Metric::UserMemory, user);
        self.put(Metric::KernelMemory, kernel - load_only);
        Ok(())
    }

    /// What so many more tunnels take, bytes each: of the proxy, and of the kernel.
    fn growth(&mut self, tunnels: usize) -> Result<[f64; 2], String> {
        let before = self.memory()?;
        self.open_used(tunnels)?;
        let after = self.memory()?;
        let pairs = [(before.user, after.user), (before.kernel, after.kernel)];
        Ok(pairs.map(|(before, after)| (after as f64 - before as f64) / tunnels as f64))
    }

    /// Opens tunnels that carry one message each way.
    fn open_used(&mut self, count: usize) -> Result<(), String> {
        let first = self.load.tunnels();
        self.open(count)?;
        self.use_once(first..first + count)
    }

    /// Memory once the proxy has settled.
    fn memory(&mut self) -> Result<Memory, String> {
        self.rest(self.bench.settle(SETTLE))?;
        Ok(Memory { user: self.process.as_ref().map_or(0, Process::user_memory), kernel: host::kernel_memory() })
    }
}
