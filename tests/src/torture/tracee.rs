//! A process that is stopped as a whole (`SIGSTOP`) and untraced, so that another tracer, as the update,
//! may take it from there; taken on by instructions, and let go in the end.
//!
//! Single steps do not end the group stop that the process is in: when the tracer lets go, the kernel puts the
//! thread back into it (ptrace(2), "Attaching and detaching") before it executes anything more.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// More output than any program has.
const MOST_OUTPUT: usize = 1 << 20;
/// Looks at a process that ends soon before it is looked at less often.
const QUICK_LOOKS: u32 = 2000;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Killed(Signal),
    /// Not within its time.
    Hung,
    /// While dsu-apply let it run on, which has thus learned how: this process's child or not, the
    /// tracer is told, once.
    Elsewhere,
}

/// What a process has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// Its standard output.
    pub said: Vec<u8>,
}

/// A child process, stopped. Killed when dropped.
#[derive(Debug)]
pub struct Tracee {
    pub(super) pid: Pid,
    /// The same pipe for a process and those that are made from it: one at a time may run.
    pub(super) output: Rc<File>,
    pub(super) said: Vec<u8>,
    pub(super) end: Option<End>,
}

impl Tracee {
    /// Starts `program` and waits until it has stopped itself.
    pub fn start(program: &Path) -> Result<Tracee> {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Waited for by this type alone: `Child` does not know the stops.
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let output = child.stdout.take().context("the output is piped")?;
        let output = Rc::new(File::from(OwnedFd::from(output)));
        let mut tracee = Tracee { pid, output, said: Vec::new(), end: None };
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(tracee),
            other => {
                tracee.note(other);
                bail!("{} did not stop at its start: {other:?}", program.display())
            }
        }
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Takes it on by so many instructions at most; gives how many it has executed. It may have ended.
    pub fn step(&mut self, instructions: u64) -> Result<u64> {
        self.look()?;
        if instructions == 0 || self.end.is_some() {
            return Ok(0);
        }
        self.seize(ptrace::Options::PTRACE_O_EXITKILL)?;
        if self.end.is_some() {
            return Ok(0);
        }
        let (done, signal) = self.step_traced(instructions)?;
        if self.end.is_none() {
            ptrace::detach(self.pid, signal).context("detach")?;
        }
        Ok(done)
    }

    /// The same while it is traced; gives also the signal that it is about to take.
    pub(super) fn step_traced(&mut self, instructions: u64) -> Result<(u64, Option<Signal>)> {
        let mut signal = None;
        let mut done = 0;
        while done < instructions && self.end.is_none() {
            ptrace::step(self.pid, signal.take()).context("step")?;
            match waitpid(self.pid, None)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => done += 1,
                // About to be taken: the next step ends at the first instruction of its handler.
                WaitStatus::Stopped(_, other) => signal = Some(other),
                status => self.note(status),
            }
        }
        Ok((done, signal))
    }

    /// Begins to trace it, unless the update has killed it.
    pub(super) fn seize(&mut self, options: ptrace::Options) -> Result<()> {
        match ptrace::seize(self.pid, options) {
            // Also what a zombie is answered.
            Err(Errno::ESRCH | Errno::EPERM) => {
                self.look()?;
                ensure!(self.end.is_some(), "pid {} may not be traced", self.pid);
                return Ok(());
            }
            result => result.context("seize")?,
        }
        let status = waitpid(self.pid, None)?;
        self.note(status);
        let stopped = matches!(status, WaitStatus::PtraceEvent(_, Signal::SIGSTOP, _));
        ensure!(stopped || self.end.is_some(), "expected a stopped process: {status:?}");
        Ok(())
    }

    /// Says whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// What it has written until now.
    pub fn said(&mut self) -> Result<&[u8]> {
        self.read()?;
        Ok(&self.said)
    }

    /// Looks whether it has ended. Once its id may belong to somebody else, nothing more is done to it.
    fn look(&mut self) -> Result<()> {
        if self.end.is_none() {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => self.end = Some(End::Elsewhere),
                status => self.note(status?),
            }
        }
        Ok(())
    }

    /// Lets it go and waits for its end.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        let until = Instant::now() + limit;
        self.look()?;
        if self.end.is_none() {
            kill(self.pid, Signal::SIGCONT).context("continue")?;
        }
        let mut looks = 0;
        while self.end.is_none() && Instant::now() < until {
            self.read()?;
            self.look()?;
            looks += 1;
            match looks > QUICK_LOOKS {
                true => std::thread::sleep(Duration::from_millis(1)),
                false => std::thread::yield_now(),
            }
        }
        self.read()?;
        let end = self.end.unwrap_or(End::Hung);
        Ok(Finished { end, said: std::mem::take(&mut self.said) })
    }

    /// Reads what is there.
    fn read(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                return Ok(());
            }
            let count = (&*self.output).read(&mut bytes)?;
            ensure!(self.said.len() + count <= MOST_OUTPUT, "pid {} writes on and on", self.pid);
            self.said.extend_from_slice(&bytes[..count]);
            if count == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn note(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(_, code) => self.end = Some(End::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => self.end = Some(End::Killed(signal)),
            _ => {}
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.look().is_ok() && self.end.is_none() {
            // A child that was not waited for keeps its id.
            let _ = kill(self.pid, Signal::SIGKILL);
            while waitpid(self.pid, None)
                .is_ok_and(|s| !matches!(s, WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
            {
            }
        }
    }
}
