//! One thread, its state in its type: [`Running`] (seized) or [`Stopped`].
//!
//! Transitions consume; dropping a stopped thread lets it go, untraced, with the signal it was about
//! to take. Only a stopped thread can be detached: one that is dropped while it runs is asked to stop and
//! detached later, by [`let_go_of_the_rest`]. So are threads and processes that were made by a traced one, which are
//! traced and stand still from their birth, unless somebody has found and held them before.

use super::keep;
use super::restart;
use super::sched::{Pace, Patience};
use super::stop::Event;
use super::sys::{self, Registers, Resume};
use crate::error::SysError;
use crate::target::process::Status;
use crate::target::waiting::Wait;
use nix::errno::Errno;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// New threads and forked children are traced from their first instruction; system call stops can be told from
/// traps. Not children of vfork(2): their parent stands still until they execute another program, which keeps nothing.
const OPTIONS: i32 = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD;
/// `PTRACE_O_SUSPEND_SECCOMP` (uapi/linux/ptrace.h).
const SUSPEND_SECCOMP: i32 = 1 << 21;
/// One that is waited for asleep is looked at this often.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How long threads are waited for that were given up while they ran.
const LAST_WAIT: Duration = Duration::from_secs(2);

thread_local! {
    /// Threads that this one traces and nobody holds: asked to stop and given up, or newborn.
    static LEFT: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// Nobody holds this thread from now on.
fn leave(tid: i32) {
    LEFT.with_borrow_mut(|left| {
        if !left.contains(&tid) {
            left.push(tid);
        }
    });
}

/// Somebody holds it, or it is not traced any more.
fn unleave(tid: i32) {
    LEFT.with_borrow_mut(|left| left.retain(|t| *t != tid));
}

/// What has happened to a traced thread, if anything; whom it has made is remembered, and what it waited for
/// goes on behind the stop.
fn look(tid: i32) -> Result<Option<Event>, Errno> {
    let event = insist(|| sys::poll(tid))?.map(Event::of);
    if event == Some(Event::SystemCall) && keep::is_kept(tid) {
        // On its way into its call or out of it. It was asked to stop, which this has made undone
        // (`ptrace_stop` in kernel/signal.c).
        insist(|| sys::interrupt(tid))?;
        return insist(|| sys::resume(tid, Resume::Freely, 0)).map(|()| None);
    }
    let kept = event.and_then(|_| keep::stopped(tid));
    if event.is_some_and(|e| e == Event::Interrupted || keep::is_nothing(tid, e)) {
        // An error says that it was killed.
        let _ = go_on_waiting(tid, kept);
    }
    if let Some(Event::Other(libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK)) = event {
        // An error says that it was killed, and the newborn one with it.
        let child = sys::event_message(tid).ok().and_then(|child| i32::try_from(child).ok());
        child.into_iter().for_each(leave);
    }
    Ok(event)
}

/// Whatever call the stop has ended begins anew.
fn go_on_waiting(tid: i32, kept: Option<Wait>) -> Result<(), Errno> {
    if kept.is_none() && insist(|| sys::result_register(tid))? != restart::ENDED {
        return Ok(());
    }
    let mut registers = insist(|| sys::registers(tid))?;
    if let Some(wait) = kept.filter(|_| registers.rax != restart::ENDED) {
        keep::stopped_on_the_way(tid, &registers, wait);
        return Ok(());
    }
    // An interrupt or a fault has no call's number (arch/x86/include/asm/syscall.h).
    if let Some(rax) = keep::result(tid, &registers, kept) {
        registers.rax = rax;
        insist(|| sys::set_registers(tid, &registers))?;
    }
    Ok(())
}

/// Why a thread did not stop.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It has ended; there is nothing left to trace.
    #[error("thread {0} has ended")]
    Ended(i32),
    /// It has executed another program.
    #[error("thread {0} has executed another program")]
    Executed(i32),
    /// It did not stop in time: it waits in the kernel without regard for signals.
    #[error("thread {0} does not stop")]
    TimedOut(i32),
    /// An operation failed.
    #[error(transparent)]
    System(#[from] SysError),
}

/// A stopped thread that could not be let go on. It stands where it stood, unless it was killed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotResumed {
    /// The thread.
    pub thread: Stopped,
    /// Why.
    pub error: SysError,
}

impl From<NotResumed> for SysError {
    fn from(not: NotResumed) -> Self {
        not.error
    }
}

impl From<NotResumed> for WaitError {
    fn from(not: NotResumed) -> Self {
        Self::System(not.error)
    }
}

/// Tries of a call on which it depends that a thread goes on as it was.
const TRIES: usize = 3;

/// Does what must be done, more than once if need be. `ESRCH` and `ECHILD` say that the thread is gone.
pub(super) fn insist<T>(mut act: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut result = act();
    for _ in 1..TRIES {
        if matches!(result, Ok(_) | Err(Errno::ESRCH | Errno::ECHILD)) {
            break;
        }
        result = act();
    }
    result
}

/// A traced thread that runs, or may run at any time.
#[derive(Debug)]
pub struct Running {
    tid: i32,
    armed: bool,
}

/// A traced thread that stands still until it is let go.
#[derive(Debug)]
pub struct Stopped {
    tid: i32,
    event: Event,
    armed: bool,
}

impl Running {
    /// Starts tracing a thread.
    ///
    /// # Errors
    /// `EPERM` when it may not be traced, or is a zombie; `ESRCH` when it has ended.
    pub fn seize(tid: i32) -> Result<Self, Errno> {
        sys::seize(tid, OPTIONS)?;
        Ok(Self { tid, armed: true })
    }

    /// A thread that this one traces already: from its birth, because its maker is traced, or because
    /// it was given up before it had stopped.
    #[must_use]
    pub fn traced(tid: i32) -> Self {
        unleave(tid);
        Self { tid, armed: true }
    }

    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Asks it to stop. To be followed by waiting.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn interrupt(&self) -> Result<(), SysError> {
        insist(|| sys::interrupt(self.tid)).map_err(|e| failed("interrupt", self.tid, e))
    }

    /// Looks whether it has stopped, without waiting.
    ///
    /// # Errors
    /// [`WaitError`]; the thread is gone then.
    pub fn poll(mut self) -> Result<Result<Stopped, Self>, WaitError> {
        let tid = self.tid;
        match look(tid) {
            Ok(None) => Ok(Err(self)),
            Err(Errno::ECHILD) => {
                self.armed = false;
                Err(WaitError::Ended(tid))
            }
            Err(e) => Err(failed("wait for", tid, e).into()),
            Ok(Some(event)) => {
                self.armed = false;
                match event {
                    Event::Ended => {
                        unleave(tid);
                        Err(WaitError::Ended(tid))
                    }
                    Event::Executed => {
                        // It stands still in its new program: let go before reporting.
                        drop(Stopped { tid, event: Event::Executed, armed: true });
                        Err(WaitError::Executed(tid))
                    }
                    event => Ok(Ok(Stopped { tid, event, armed: true })),
                }
            }
        }
    }

    /// Waits for it to stop.
    ///
    /// # Errors
    /// [`WaitError`]. After a time-out the thread is detached as well as possible.
    pub fn wait(self, until: Instant, pace: Pace) -> Result<Stopped, WaitError> {
        self.wait_or_keep(until, pace)?.map_err(|running| WaitError::TimedOut(running.tid))
    }

    /// Waits for it to stop; gives the thread back when it still runs at `until`.
    ///
    /// # Errors
    /// [`WaitError`]; the thread is gone then.
    pub fn wait_or_keep(
        mut self,
        until: Instant,
        pace: Pace,
    ) -> Result<Result<Stopped, Self>, WaitError> {
        let mut patience = Patience::at(pace);
        loop {
            match self.poll()? {
                Ok(stopped) => return Ok(Ok(stopped)),
                Err(running) => self = running,
            }
            if Instant::now() >= until {
                return Ok(Err(self));
            }
            patience.pause();
        }
    }

    /// Waits for it to stop, asleep until the kernel says that it has: for a thread that stops within
    /// microseconds once it gets a processor, which may be this one. Needs SIGCHLD to be blocked; gives
    /// the thread back when it still runs at `until`.
    ///
    /// # Errors
    /// [`WaitError`]; the thread is gone then.
    pub fn wait_asleep(mut self, until: Instant) -> Result<Result<Stopped, Self>, WaitError> {
        loop {
            match self.poll()? {
                Ok(stopped) => return Ok(Ok(stopped)),
                Err(running) => self = running,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(self));
            }
            // Another thread of this process may take the signal: look again soon in any case.
            sys::sleep_until_child(left.min(LOOK_EVERY));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.armed && insist(|| sys::interrupt(self.tid)).is_ok() {
            // Not waited for here: threads that stand still may depend on this being quick.
            leave(self.tid);
        }
    }
}

/// Detaches the threads that nobody holds: those given up while they ran, and newborn ones; to be called
/// when nothing stands still any more. What does not stop in time goes free when this process ends.
pub fn let_go_of_the_rest() {
    let_go_within(LAST_WAIT);
}

/// As [`let_go_of_the_rest`], in a time of the caller's. What does not stop in it can be let go of later.
pub fn let_go_within(most: Duration) {
    keep::enter();
    let until = Instant::now() + most;
    let mut patience = Patience::at(Pace::Crowded);
    loop {
        let left = LEFT.take();
        left.into_iter().filter(|tid| !let_go(*tid)).for_each(leave);
        if LEFT.with_borrow(Vec::is_empty) || Instant::now() >= until {
            return;
        }
        patience.pause();
    }
}

/// Processes that threads of this one have made since somebody holds it, and that nobody holds.
pub(super) fn newborn_processes(pid: i32) -> Vec<i32> {
    let left = LEFT.with_borrow(Vec::clone);
    let is_one = |tid: &i32| *tid != pid && Status::of(*tid).is_some_and(|s| s.tgid == *tid);
    left.into_iter().filter(is_one).collect()
}

/// Detaches a thread if it has stopped; says whether it is free or has ended.
fn let_go(tid: i32) -> bool {
    match look(tid) {
        Ok(None) => false,
        Ok(Some(Event::Ended)) | Err(_) => true,
        Ok(Some(event)) => {
            // An error says that it has ended.
            let _ = insist(|| sys::resume(tid, Resume::Untraced, event.pending()));
            true
        }
    }
}

impl Stopped {
    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Why it stopped.
    #[must_use]
    pub fn event(&self) -> Event {
        self.event
    }

    /// Whether the whole process is stopped by a signal, as with Ctrl-Z.
    #[must_use]
    pub fn in_group_stop(&self) -> bool {
        matches!(self.event, Event::GroupStop(_))
    }

    /// Its registers.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn registers(&self) -> Result<Registers, SysError> {
        sys::registers(self.tid).map_err(|e| failed("read the registers of", self.tid, e))
    }

    /// Its registers, on which it depends that it gets its own back.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn registers_surely(&self) -> Result<Registers, SysError> {
        insist(|| sys::registers(self.tid))
            .map_err(|e| failed("read the registers of", self.tid, e))
    }

    /// What the system call gave that it has just left.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn call_result(&self) -> Result<u64, SysError> {
        let registers = insist(|| sys::registers(self.tid));
        registers.map(|r| r.rax).map_err(|e| failed("read the registers of", self.tid, e))
    }

    /// Its program counter.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn program_counter(&self) -> Result<u64, SysError> {
        sys::program_counter(self.tid)
            .map_err(|e| failed("read the program counter of", self.tid, e))
    }

    /// Sets its registers.
    ///
    /// # Errors
    /// The thread was killed, or a value is not allowed.
    pub fn set_registers(&self, registers: &Registers) -> Result<(), SysError> {
        sys::set_registers(self.tid, registers)
            .map_err(|e| failed("set the registers of", self.tid, e))
    }

    /// Gives it back the registers that were its own.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn give_back_registers(&self, registers: &Registers) -> Result<(), SysError> {
        insist(|| sys::set_registers(self.tid, registers))
            .map_err(|e| failed("give back the registers of", self.tid, e))
    }

    /// Its extended processor state, as an XSAVE image.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn extended_state(&self) -> Result<Vec<u8>, SysError> {
        sys::extended_state(self.tid)
            .map_err(|e| failed("read the extended registers of", self.tid, e))
    }

    /// One of its debug registers.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn debug_register(&self, number: usize) -> Result<u64, SysError> {
        sys::debug_register(self.tid, number)
            .map_err(|e| failed("read a debug register of", self.tid, e))
    }

    /// The `si_code` of the signal it stopped with.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn signal_code(&self) -> Result<i32, SysError> {
        // What is not known to be this tool's is the program's, and may end it.
        insist(|| sys::signal_code(self.tid)).map_err(|e| failed("read the signal of", self.tid, e))
    }

    /// The signals that it blocks.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn signal_mask(&self) -> Result<u64, SysError> {
        sys::signal_mask(self.tid).map_err(|e| failed("read the signal mask of", self.tid, e))
    }

    /// Sets the signals that it blocks.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn set_signal_mask(&self, mask: u64) -> Result<(), SysError> {
        sys::set_signal_mask(self.tid, mask)
            .map_err(|e| failed("set the signal mask of", self.tid, e))
    }

    /// Gives it back the signals that it blocks by itself.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn give_back_signal_mask(&self, mask: u64) -> Result<(), SysError> {
        insist(|| sys::set_signal_mask(self.tid, mask))
            .map_err(|e| failed("give back the signal mask of", self.tid, e))
    }

    /// Clears one of its debug registers.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn clear_debug_register(&self, number: usize) -> Result<(), SysError> {
        insist(|| sys::set_debug_register(self.tid, number, 0))
            .map_err(|e| failed("clear a debug register of", self.tid, e))
    }

    /// Sets one of its debug registers.
    ///
    /// # Errors
    /// The thread was killed, or the processor's debug registers are in use.
    pub fn set_debug_register(&self, number: usize, value: u64) -> Result<(), SysError> {
        sys::set_debug_register(self.tid, number, value)
            .map_err(|e| failed("set a debug register of", self.tid, e))
    }

    /// Has seccomp suspended for it, or no longer. It counts again at once if this tool dies.
    ///
    /// # Errors
    /// The thread was killed, or the kernel does not allow it.
    pub fn suspend_seccomp(&self, suspended: bool) -> Result<(), SysError> {
        let options = OPTIONS | if suspended { SUSPEND_SECCOMP } else { 0 };
        insist(|| sys::set_options(self.tid, options))
            .map_err(|e| failed("suspend seccomp for", self.tid, e))
    }

    /// Forgets the signal that it was about to take: it was made by this tool.
    #[must_use]
    pub fn without_signal(mut self) -> Self {
        self.event = Event::Interrupted;
        self
    }

    /// Lets it go on, traced. It takes the signal that it was about to take.
    ///
    /// # Errors
    /// The thread was killed, or stands where it stood.
    pub fn resume(self, how: Resume) -> Result<Running, NotResumed> {
        let done = sys::resume(self.tid, how, self.event.pending());
        self.resumed(done)
    }

    /// As [`Self::resume`], for a thread that must not be let go of where it stands.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn resume_surely(self, how: Resume) -> Result<Running, NotResumed> {
        let done = insist(|| sys::resume(self.tid, how, self.event.pending()));
        self.resumed(done)
    }

    /// Lets it go on, to be stopped again at once: on its way out of the kernel without an instruction
    /// of its own.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn resume_interrupted(self) -> Result<Running, NotResumed> {
        // The request stays pending over the resume (ptrace(2), PTRACE_INTERRUPT).
        match insist(|| sys::interrupt(self.tid)) {
            Ok(()) => self.resume_surely(Resume::Freely),
            Err(e) => self.resumed(Err(e)),
        }
    }

    fn resumed(mut self, done: Result<(), Errno>) -> Result<Running, NotResumed> {
        match done {
            Ok(()) => {
                self.armed = false;
                Ok(Running { tid: self.tid, armed: true })
            }
            Err(e) => {
                let error = failed("let go on", self.tid, e);
                Err(NotResumed { thread: self, error })
            }
        }
    }

    /// Lets it go on, untraced.
    pub fn detach(self) {
        drop(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.armed {
            if !keep::keep(self.tid, self.event) {
                // ESRCH: it was killed meanwhile. Nothing else can happen to a stopped thread.
                let _ = insist(|| sys::resume(self.tid, Resume::Untraced, self.event.pending()));
            }
            // It may have been held before its maker told of it.
            unleave(self.tid);
        }
    }
}

fn failed(what: &str, tid: i32, errno: Errno) -> SysError {
    SysError::new(format!("{what} thread {tid}"), errno)
}
