//! Bringing blind threads to where they may be, while all others stand still.
//!
//! Takes the stopped process; judges all its threads. One whose own program counter alone is in the way is
//! stepped to a site, or out of the function; or it runs to a breakpoint on a site near by, which is a
//! guess but costs one turn on the processor, where each step costs one. One with a blind frame deeper on
//! its stack runs to where that frame goes on, and then is stepped too; or to that frame's caller,
//! where no site can follow. All of that is bounded, and given up when nothing moves any more: a thread
//! that waits for what another one holds must not keep that one standing. Gives those that are still in
//! the way.

use super::blind::BlindRanges;
use super::judge::{BlindThread, Judge};
use super::{Checkpoint, InTheWay};
use crate::address::{PAGE, ProcAddr};
use crate::error::{ApplyError, SysError};
use crate::ptrace::borrow::Ground;
use crate::ptrace::gate::Suspend;
use crate::ptrace::onward::{self, Runner, may_trap};
use crate::ptrace::process::StoppedProcess;
use crate::ptrace::sched::{Beside, Pace, Undisturbed};
use crate::ptrace::stepping::{self, End, LONGEST_INSTRUCTION, Note};
use crate::ptrace::thread::{Stopped, WaitError};
use crate::ptrace::trapnet::{self, TrapNet};
use crate::record::NOTE_AT;
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long blind threads may run on at once: this much ...
const ONWARD: Duration = Duration::from_millis(1);
/// ... and this much for each of them.
const ONWARD_EACH: Duration = Duration::from_micros(50);
/// How long one thread may be stepped.
const STEPPING: Duration = Duration::from_millis(10);
/// How long all of it may take in one attempt.
const MOST: Duration = Duration::from_millis(30);

/// Judges all threads and moves blind ones, as long as that brings some of them out.
pub(super) fn the_way(
    checkpoint: &mut Checkpoint<'_>,
    process: &mut StoppedProcess,
) -> Result<InTheWay, ApplyError> {
    if checkpoint.blind.is_empty() {
        return Ok(Vec::new());
    }
    let maps = Rc::new(Maps::of(checkpoint.pid)?);
    let mut clearing = Clearing {
        judge: Judge {
            memory: checkpoint.memory,
            blind: checkpoint.blind,
            unwinder: &mut checkpoint.unwinder,
            buffer: Vec::new(),
            traps: true,
            pending: Default::default(),
        },
        even_stopped: checkpoint.even_stopped,
        note: checkpoint.record.map(|record| MaskNote { memory: checkpoint.memory, record }),
        ground: Ground {
            memory: checkpoint.memory,
            maps: Rc::clone(&maps),
            footholds: checkpoint.footholds,
            suspend: Suspend::Mildly,
        },
        maps,
        moved: BTreeSet::new(),
        second: BTreeSet::new(),
        until: Instant::now(),
    };
    let blind = clearing.run(process)?;
    checkpoint.search.pending = clearing.pending(process);
    Ok(blind)
}

struct Clearing<'a> {
    /// See [`Checkpoint::even_stopped`].
    even_stopped: bool,
    judge: Judge<'a>,
    /// Where a thread's signal mask is noted.
    note: Option<MaskNote<'a>>,
    /// For remote calls.
    ground: Ground<'a>,
    maps: Rc<Maps>,
    /// Threads that ran since they were stopped.
    moved: BTreeSet<i32>,
    /// Threads that could be stepped, and for which the first way was in vain.
    second: BTreeSet<i32>,
    until: Instant,
}

impl Clearing<'_> {
    fn run(&mut self, process: &mut StoppedProcess) -> Result<InTheWay, ApplyError> {
        let mut blind = Vec::new();
        for thread in &process.threads {
            blind.extend(self.judge.verdict(thread, &self.maps)?);
        }
        if blind.is_empty() {
            return Ok(blind);
        }
        let stepping = if blind.iter().any(|b| b.step) { STEPPING } else { Duration::ZERO };
        self.until = Instant::now() + (bound(process.threads.len()) * 4 + stepping).min(MOST);
        {
            let _relaxed = process.relaxed();
            let _undisturbed = Undisturbed::begin();
            self.judge.traps = may_trap(process.pid) || self.clear_net(process)?;
            if !self.judge.traps {
                blind.iter_mut().for_each(BlindThread::forgo_traps);
            }
            let net = self.net(process, &blind)?;
            self.moved.extend(net.as_ref().map(|net| net.thread));
            let moved = self.move_all(process, blind);
            match net {
                // A child that was forked before that lives.
                Some(_) if matches!(moved, Err(ApplyError::Died(_))) => {
                    trapnet::clear_children(process.pid, &self.ground);
                }
                Some(net) => self.moved.extend(net.take_down(process, &self.ground)?),
                None => {}
            }
            blind = moved?;
        }
        if blind.is_empty() && !self.moved.is_empty() {
            blind = self.judge_again(process)?;
        }
        Ok(blind)
    }

    /// Takes away what stood under the traps of another update, which a child may have been forked under.
    fn clear_net(&mut self, process: &mut StoppedProcess) -> Result<bool, ApplyError> {
        if process.in_group_stop() {
            return Ok(false);
        }
        let cleared = TrapNet::clear(process, &self.ground)?;
        self.moved.extend(cleared);
        Ok(cleared.is_some())
    }

    /// What catches the traps of threads that are moved, should this tool die.
    fn net(
        &self,
        process: &mut StoppedProcess,
        blind: &InTheWay,
    ) -> Result<Option<TrapNet>, ApplyError> {
        let moves = self.even_stopped || !process.in_group_stop();
        let traps = moves && blind.iter().any(|thread| thread.step || !thread.goals.is_empty());
        if traps { Ok(TrapNet::put_up(process, &self.ground)?) } else { Ok(None) }
    }

    fn move_all(
        &mut self,
        process: &mut StoppedProcess,
        mut blind: InTheWay,
    ) -> Result<InTheWay, ApplyError> {
        let mut first = true;
        // Which of the two ways comes first depends on what a turn on the processor costs.
        while !blind.is_empty()
            && (self.even_stopped || !process.in_group_stop())
            && Instant::now() < self.until
        {
            let before = blind.len();
            // One that waits may wait for what another blind thread holds: only worth a try once
            // others have come out.
            let (mut still, go): (Vec<_>, Vec<_>) =
                blind.into_iter().partition(|thread| first && thread.waiting);
            let crowded = process.pace == Pace::Crowded;
            let (step, run): (Vec<_>, Vec<_>) = go
                .into_iter()
                .partition(|thread| thread.step && self.second.contains(&thread.tid) == crowded);
            let ran = self.let_run(process, run, &mut still)?;
            let stepped = self.step_all(process, &step, &mut still)?;
            blind = still;
            first = false;
            if blind.len() == before && !ran && !stepped {
                break;
            }
        }
        Ok(blind)
    }

    /// Lets threads run to their goals; adds those that are blind afterwards to `still`, and says whether
    /// any of them came to a goal, or is to be tried in another way.
    fn let_run(
        &mut self,
        process: &mut StoppedProcess,
        run: InTheWay,
        still: &mut InTheWay,
    ) -> Result<bool, ApplyError> {
        self.moved.extend(run.iter().map(|thread| thread.tid));
        let steppable: BTreeSet<i32> = run.iter().filter(|t| t.step).map(|t| t.tid).collect();
        let runners = run.into_iter().filter_map(|thread| {
            Some(Runner { thread: process.take(thread.tid)?, goals: thread.goals })
        });
        let runners: Vec<_> = runners.collect();
        let bound = bound(runners.len());
        let mut moved = false;
        for ran in onward::run(runners, bound, process.pace)? {
            let tid = ran.thread.tid();
            moved |= ran.there || steppable.contains(&tid) && self.second.insert(tid);
            still.extend(self.judge.verdict(&ran.thread, &self.maps)?);
            process.put(ran.thread);
        }
        Ok(moved)
    }

    /// Steps threads, one after the other; as [`Clearing::let_run`].
    fn step_all(
        &mut self,
        process: &mut StoppedProcess,
        threads: &[BlindThread],
        still: &mut InTheWay,
    ) -> Result<bool, ApplyError> {
        let mut moved = false;
        for blind in threads {
            if Instant::now() >= self.until {
                still.push(blind.clone());
                continue;
            }
            let Some(thread) = process.take(blind.tid) else { continue };
            self.moved.insert(blind.tid);
            let (thread, end) = match self.step(process, thread) {
                Ok(stepped) => stepped,
                Err(WaitError::Executed(tid)) => return Err(WaitError::Executed(tid).into()),
                // It has ended, by itself or with the whole process.
                Err(_) => continue,
            };
            moved |= end == End::There || self.second.insert(blind.tid);
            still.extend(self.judge.verdict(&thread, &self.maps)?);
            process.put(thread);
        }
        Ok(moved)
    }

    fn step(&self, process: &StoppedProcess, thread: Stopped) -> Result<(Stopped, End), WaitError> {
        let _beside =
            (process.pace == Pace::Calm).then(|| Beside::thread(process.pid, thread.tid()));
        let mut code =
            Code { memory: self.judge.memory, page: ProcAddr(u64::MAX), bytes: Vec::new() };
        let blind: &BlindRanges = self.judge.blind;
        let there = |pc| blind.counter(pc).blind().is_none();
        let until = self.until.min(Instant::now() + STEPPING);
        let note = self.note.as_ref().map(|note| -> &dyn Note { note });
        stepping::step(thread, |pc| code.at(pc), there, until, note)
    }

    /// Those that ran may have mapped and unmapped stacks, and made threads: the verdict that counts is
    /// one on mappings and threads that no longer change.
    fn judge_again(&mut self, process: &mut StoppedProcess) -> Result<InTheWay, ApplyError> {
        let known = process.threads.len();
        process.adopt_new()?;
        self.maps = Rc::new(Maps::of(process.pid)?);
        let mut blind = Vec::new();
        for (index, thread) in process.threads.iter().enumerate() {
            if index >= known || self.moved.contains(&thread.tid()) {
                blind.extend(self.judge.verdict(thread, &self.maps)?);
            }
        }
        Ok(blind)
    }

    /// Frames that wait at sites, by function.
    fn pending(&self, process: &StoppedProcess) -> std::collections::BTreeMap<u32, usize> {
        let mut sum = std::collections::BTreeMap::new();
        let found = process.threads.iter().filter_map(|t| self.judge.pending.get(&t.tid()));
        for function in found.flatten() {
            *sum.entry(*function).or_default() += 1;
        }
        sum
    }
}

/// In the record, while a thread is stepped.
struct MaskNote<'a> {
    memory: &'a ProcessMemory,
    record: ProcAddr,
}

impl Note for MaskNote<'_> {
    fn write(&self, tid: i32, mask: u64) -> Result<(), SysError> {
        let words = [&tid.to_le_bytes()[..], &mask.to_le_bytes()].concat();
        self.memory.write(self.record.offset(NOTE_AT), &words)
    }

    fn clear(&self) -> Result<(), SysError> {
        self.memory.write_back(self.record.offset(NOTE_AT), &[0; 4])
    }
}

/// How long so many threads may run on at once.
fn bound(threads: usize) -> Duration {
    ONWARD + ONWARD_EACH * u32::try_from(threads).unwrap_or(u32::MAX)
}

/// Code of the process, a page at a time: stepping looks at each instruction.
struct Code<'a, M> {
    memory: &'a M,
    page: ProcAddr,
    bytes: Vec<u8>,
}

impl<M: ReadMemory> Code<'_, M> {
    /// The bytes from `pc` on; zeroes where there are none.
    fn at(&mut self, pc: u64) -> [u8; LONGEST_INSTRUCTION] {
        let page = ProcAddr(pc).page();
        if page != self.page {
            self.page = page;
            // The next page may not be there, and then nothing in this one runs on into it.
            let whole = |len: u64| self.memory.read_vec(page, usize::try_from(len).unwrap_or(0));
            let longer = PAGE + LONGEST_INSTRUCTION as u64;
            self.bytes = whole(longer).or_else(|_| whole(PAGE)).unwrap_or_default();
        }
        let mut out = [0; LONGEST_INSTRUCTION];
        let start = usize::try_from(pc - page.0).unwrap_or(usize::MAX);
        let found = self.bytes.get(start..).unwrap_or_default();
        for (to, from) in out.iter_mut().zip(found) {
            *to = *from;
        }
        out
    }
}
