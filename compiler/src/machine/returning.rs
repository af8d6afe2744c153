//! Calls that never come back although no declaration says so: what the callee makes of the numbers that
//! it is given leads to no `ret`.
//!
//! Compilers lay out anything behind `fail(0), __builtin_unreachable()`: in the graph the call falls into
//! code of another path, and what is claimed of both paths is claimed of none. So a callee is followed
//! with the constants in its registers: branches on them have one way, calls of functions that do not
//! come back have none. What is not understood may return.
//!
//! Takes an image; gives graphs without the edges behind such calls.

use super::calls::{self, Callee, callee};
use super::flow::{Block, BlockId, End, Flow};
use crate::code::Step;
use crate::image::{FunctionId, Image};
use iced_x86::{
    ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many calls deep callees are followed.
const DEPTH: u8 = 4;
/// Blocks of the largest callee that is followed.
const MOST_BLOCKS: usize = 400;
/// rbx, rbp, r12 to r15 (psABI 3.2.1).
const SAVED: [usize; 6] = [3, 5, 12, 13, 14, 15];
/// rdi, rsi, rdx, rcx, r8, r9 (psABI 3.2.3).
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];

/// What is known of one image's functions.
pub struct Returning<'a> {
    image: &'a Image,
    known: Mutex<HashMap<(FunctionId, State, u8), bool>>,
}

/// Registers that hold a constant, and the flags of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    general: [Option<u64>; 16],
    flags: Option<Flags>,
}

/// Flags of `a - b`, of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flags {
    bytes: u8,
    a: u64,
    b: u64,
}

impl<'a> Returning<'a> {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(image: &'a Image) -> Self {
        Self { image, known: Mutex::new(HashMap::new()) }
    }

    /// The graph without what is behind calls that never come back.
    #[must_use]
    pub fn trimmed(&self, flow: &Flow) -> Flow {
        let mut flow = flow.clone();
        let states = self.walk(&flow, State::default(), DEPTH).1;
        for (id, before) in states {
            let block = &flow.blocks[id.0];
            let last = block.steps.end - 1;
            if block.end == End::Call && !self.comes_back(&flow.body.steps[last], before, DEPTH) {
                let block = &mut flow.blocks[id.0];
                block.end = End::NoReturn;
                block.successors.remove(0);
            }
        }
        connect(&mut flow.blocks);
        flow
    }

    /// Whether a call or a jump out of a function may come back to who called, with these constants.
    fn comes_back(&self, step: &Step, state: State, depth: u8) -> bool {
        let callee = callee(self.image, step);
        if calls::never_returns(self.image, &callee) {
            return false;
        }
        let (Callee::Function(id), Some(depth)) = (callee, depth.checked_sub(1)) else {
            return true;
        };
        let mut given = State::default();
        for register in ARGUMENTS {
            given.general[register] = state.general[register];
        }
        self.returns(id, given, depth)
    }

    fn returns(&self, id: FunctionId, given: State, depth: u8) -> bool {
        let key = (id, given, depth);
        if let Some(known) = lock(&self.known).get(&key) {
            return *known;
        }
        let function = self.image.function(id);
        let returns = function.import.is_some() || {
            let flow = Flow::new(self.image, function);
            let large = flow.blocks.len() > MOST_BLOCKS;
            flow.problem.is_some() || large || self.walk(&flow, given, depth).0
        };
        lock(&self.known).insert(key, returns);
        returns
    }

    /// Follows a body from its entry: whether it may return, and the constants before the end of each
    /// block that it may come to.
    fn walk(&self, flow: &Flow, entry: State, depth: u8) -> (bool, BTreeMap<BlockId, State>) {
        let mut factory = InstructionInfoFactory::new();
        let mut arrivals: BTreeMap<BlockId, State> = BTreeMap::from([(BlockId(0), entry)]);
        let mut ends = BTreeMap::new();
        let mut queue = BTreeSet::from([BlockId(0)]);
        let mut returns = false;
        while let Some(id) = queue.pop_first() {
            let (Some(block), Some(arrived)) = (flow.blocks.get(id.0), arrivals.get(&id)) else {
                return (true, ends);
            };
            let mut state = *arrived;
            let last = block.steps.end - 1;
            for step in &flow.body.steps[block.steps.start..last] {
                state.step(&mut factory, &step.instruction);
            }
            let step = &flow.body.steps[last];
            ends.insert(id, state);
            returns |= match block.end {
                End::Return | End::Unresolved => true,
                End::TailCall => self.comes_back(step, state, depth),
                End::BranchOut => {
                    let taken = state.takes(step.instruction.condition_code());
                    taken != Some(false) && self.comes_back(step, state, depth)
                }
                _ => false,
            };
            let edges = self.edges(block, step, state, depth);
            if !matches!(block.end, End::Branch | End::BranchOut) {
                state.step(&mut factory, &step.instruction);
            }
            if matches!(block.end, End::Call | End::NoReturn) {
                state = state.behind_call();
            }
            for to in edges {
                let joined = arrivals.get(&to).map_or(state, |known| known.and(state));
                if arrivals.insert(to, joined) != Some(joined) {
                    queue.insert(to);
                }
            }
        }
        (returns, ends)
    }

    /// Where a block may lead with these constants before its last instruction.
    fn edges(&self, block: &Block, step: &Step, state: State, depth: u8) -> Vec<BlockId> {
        let all = &block.successors;
        match (block.end, &all[..]) {
            (End::Branch, [taken, not]) => match state.takes(step.instruction.condition_code()) {
                Some(true) => vec![*taken],
                Some(false) => vec![*not],
                None => all.clone(),
            },
            (End::Call, [_, pads @ ..]) if !self.comes_back(step, state, depth) => pads.to_vec(),
            _ => all.clone(),
        }
    }
}

impl State {
    /// What both agree on.
    fn and(self, other: Self) -> Self {
        let mut both = self;
        for (mine, theirs) in both.general.iter_mut().zip(other.general) {
            *mine = mine.filter(|_| *mine == theirs);
        }
        both.flags = self.flags.filter(|_| self.flags == other.flags);
        both
    }

    fn behind_call(self) -> Self {
        let mut kept = Self::default();
        for register in SAVED {
            kept.general[register] = self.general[register];
        }
        kept
    }

    fn step(&mut self, factory: &mut InstructionInfoFactory, i: &Instruction) {
        let result = self.result(i);
        let flags = self.compared(i);
        for used in factory.info(i).used_registers() {
            let reads =
                matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            if let (false, Some(number)) = (reads, general(used.register())) {
                self.general[number] = None;
            }
        }
        if i.rflags_modified() != 0 {
            self.flags = flags;
        }
        if let (Some(number), Some(result)) = (general(i.op0_register()), result) {
            self.general[number] = Some(result);
        }
    }

    /// The constant that an instruction leaves in its first operand, a whole register or its lower half
    /// (which clears the upper one: SDM volume 1, 3.4.1.1).
    fn result(&self, i: &Instruction) -> Option<u64> {
        let whole = i.op0_kind() == OpKind::Register && matches!(i.op0_register().size(), 4 | 8);
        let same = i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
        let value = match i.mnemonic() {
            Mnemonic::Xor | Mnemonic::Sub if whole && same => 0,
            Mnemonic::Mov if whole => self.operand(i, 1)?,
            _ => return None,
        };
        Some(narrow(value, i.op0_register().size()))
    }

    fn compared(&self, i: &Instruction) -> Option<Flags> {
        let (a, b) = match i.mnemonic() {
            Mnemonic::Cmp => (self.operand(i, 0)?, self.operand(i, 1)?),
            Mnemonic::Test => (self.operand(i, 0)? & self.operand(i, 1)?, 0),
            _ => return None,
        };
        let size = i.op0_register().size();
        let flags =
            Flags { bytes: u8::try_from(size).ok()?, a: narrow(a, size), b: narrow(b, size) };
        Some(flags)
    }

    /// The constant in a register (not in the second byte of one), or an immediate.
    fn operand(&self, i: &Instruction, index: u32) -> Option<u64> {
        match i.op_kind(index) {
            OpKind::Register => {
                use Register::{AH, BH, CH, DH};
                let register = i.op_register(index);
                let low = !matches!(register, AH | BH | CH | DH);
                general(register).filter(|_| low).and_then(|number| self.general[number])
            }
            OpKind::Memory | OpKind::NearBranch64 => None,
            _ => i.try_immediate(index).ok(),
        }
    }

    /// Whether a condition holds, if that is known (SDM volume 1, B.1).
    fn takes(&self, condition: ConditionCode) -> Option<bool> {
        let Flags { bytes, a, b } = self.flags?;
        let shift = 64 - 8 * u32::from(bytes);
        let (x, y) = ((a << shift).cast_signed() >> shift, (b << shift).cast_signed() >> shift);
        Some(match condition {
            ConditionCode::e => a == b,
            ConditionCode::ne => a != b,
            ConditionCode::b => a < b,
            ConditionCode::ae => a >= b,
            ConditionCode::be => a <= b,
            ConditionCode::a => a > b,
            ConditionCode::l => x < y,
            ConditionCode::ge => x >= y,
            ConditionCode::le => x <= y,
            ConditionCode::g => x > y,
            _ => return None,
        })
    }
}

fn general(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

fn narrow(value: u64, bytes: usize) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * bytes)) - 1) }
}

/// Makes the edges backwards anew.
fn connect(blocks: &mut [Block]) {
    blocks.iter_mut().for_each(|block| block.predecessors.clear());
    for id in 0..blocks.len() {
        for next in blocks[id].successors.clone() {
            let before = &mut blocks[next.0].predecessors;
            if before.last() != Some(&BlockId(id)) {
                before.push(BlockId(id));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
