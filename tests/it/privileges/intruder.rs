//! Somebody who has taken a thread of the program over: it makes the system calls that a test asks for (ptrace(2)).

use std::{fs::File, os::unix::fs::FileExt};

use nix::{
    errno::Errno,
    libc::user_regs_struct,
    sys::{
        ptrace::{self, Options},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::util::eventually;

/// `syscall`, as it stands before the place where a thread waits in the kernel.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];
/// How far below its stack the thread's strings are laid, bytes.
const BELOW: u64 = 16 << 10;

/// A thread that was stopped while it waited. Dropped, it goes on where it was.
pub struct Intruder {
    thread: Pid,
    memory: File,
    before: user_regs_struct,
}

/// An argument of a system call.
pub enum Argument<'a> {
    Number(u64),
    Text(&'a str),
}

impl From<u64> for Argument<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Argument<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl Intruder {
    /// Stops a thread once it is in the kernel.
    pub fn in_thread(process: u32, thread: u32) -> Self {
        let mut intruder = None;
        assert!(eventually(|| {
            intruder = Some(Self::stop(process, thread)).filter(Self::is_in_a_call);
            intruder.is_some()
        }));
        intruder.expect("it is there")
    }

    fn stop(process: u32, thread: u32) -> Self {
        let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem")).expect("its memory");
        let thread = Pid::from_raw(thread.cast_signed());
        ptrace::seize(thread, Options::empty()).expect("a thread of a process of ours");
        ptrace::interrupt(thread).expect("it runs");
        wait_for(thread);
        Self { thread, memory, before: ptrace::getregs(thread).expect("its registers") }
    }

    fn is_in_a_call(&self) -> bool {
        let mut instruction = [0; 2];
        self.memory.read_exact_at(&mut instruction, self.before.rip - 2).is_ok() && instruction == INSTRUCTION
    }

    /// Makes the thread do a system call.
    pub fn call(&self, number: i64, arguments: &[Argument<'_>]) -> Result<u64, Errno> {
        let mut place = self.before.rsp - BELOW;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => *number,
                Argument::Text(text) => {
                    let bytes = [text.as_bytes(), b"\0"].concat();
                    self.memory.write_all_at(&bytes, place).expect("its stack");
                    let text = place;
                    place += bytes.len() as u64;
                    text
                }
            };
        }
        let [rdi, rsi, rdx, r10, r8, r9] = values;
        let [rax, orig_rax] = [number.cast_unsigned(), u64::MAX];
        let rip = self.before.rip - 2;
        ptrace::setregs(
            self.thread,
            user_regs_struct { rip, rax, orig_rax, rdi, rsi, rdx, r10, r8, r9, ..self.before },
        )
        .expect("its registers");
        ptrace::step(self.thread, None).expect("one instruction");
        wait_for(self.thread);
        let result = ptrace::getregs(self.thread).expect("its registers").rax.cast_signed();
        match result {
            -4095..0 => Err(Errno::from_raw(-result as i32)),
            value => Ok(value.cast_unsigned()),
        }
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        let _ = ptrace::setregs(self.thread, self.before);
        let _ = ptrace::detach(self.thread, None);
    }
}

fn wait_for(thread: Pid) {
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
}
