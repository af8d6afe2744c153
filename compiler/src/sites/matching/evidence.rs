//! What the line tables say of the instructions of both bodies, apart from any matching.
//!
//! Takes the positions of both bodies' instructions and the map of lines. Gives: which instructions
//! belong to lines that only one build has; and, within one body, which blocks were made from the same
//! source: compilers copy positions with the code when they unroll, peel, or duplicate tails, so a
//! block that shares the position of real work with another one is a copy of it, in whole or in part.
//!
//! Refuses to say that a line is new or gone where the declarations around it are as far apart in
//! both files: then nothing shows that the source changed there.

use super::lines::{LineMap, Place, Spot, Spots};
use crate::code::Step;
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the source of two bodies.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Of each step of OLD: NEW's source no longer has its line.
    pub removed: Vec<bool>,
    /// Of each step of NEW: OLD's source did not have its line.
    pub added: Vec<bool>,
    /// OLD's blocks of which NEW's source has nothing left.
    gone: Vec<bool>,
    /// NEW's blocks of which OLD's source had nothing.
    fresh: Vec<bool>,
    /// Which of OLD's blocks are copies of which.
    pub old: Copies,
    /// Which of NEW's blocks are.
    pub new: Copies,
    /// OLD's blocks by the NEW ones that are at the same place of the source: see
    /// [`Evidence::is_anchored`].
    anchored: BTreeSet<(BlockId, BlockId)>,
    /// The same of the calls at their ends.
    calls: BTreeSet<(BlockId, BlockId)>,
    /// OLD's blocks that end with calls which NEW makes at their place, too.
    still_called: BTreeSet<BlockId>,
    /// What each block of OLD does, by where NEW has that.
    old_work: Vec<BTreeSet<(Place, Work)>>,
    /// What each block of NEW does that OLD's source has; no place where the calls around it have no
    /// counterpart.
    new_work: Vec<BTreeMap<(Spot, Work), Option<Place>>>,
}

/// Which blocks of one body were made from the same source.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    of: Vec<BTreeSet<BlockId>>,
    repeats: Vec<bool>,
}

/// What an instruction does, as far as copies of it do the same however they were optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Loads,
    Stores,
    Computes,
    Calls,
}

impl Evidence {
    pub(super) fn new(old: (&Flow, &Spots), new: (&Flow, &Spots), map: &LineMap) -> Self {
        let changed = |spots: &Spots, is_changed: &dyn Fn(&Spot) -> bool| -> Vec<bool> {
            let steps = spots.steps.iter();
            steps.map(|s| s.as_ref().is_some_and(is_changed)).collect()
        };
        let removed = changed(old.1, &|s| map.is_removed(s.file, s.line));
        let added = changed(new.1, &|s| map.is_added(s.file, s.line));
        let (a, b) = (old.1.places(Some(map)), new.1.places(None));
        let all = |flow: &Flow| (0..flow.blocks.len()).map(BlockId).collect::<Vec<_>>();
        let first = |flow: &Flow, block: BlockId| Some(flow.blocks[block.0].steps.start);
        let call = |flow: &Flow, block: BlockId| {
            let b = &flow.blocks[block.0];
            (b.end == End::Call).then(|| b.steps.end - 1)
        };
        let pairs = |of: &dyn Fn(&Flow, BlockId) -> Option<usize>, among: [&[Option<Place>]; 2]| {
            let sides = [(old.0, &a, among[0]), (new.0, &b, among[1])];
            let [x, y] =
                sides.map(|(flow, places, among)| alone(flow, &all(flow), places, among, of));
            x.into_iter().filter_map(|(place, old)| Some((old, *y.get(&place)?))).collect()
        };
        let only_calls = |flow: &Flow, places: &[Option<Place>]| -> Vec<Option<Place>> {
            let steps = flow.body.steps.iter().zip(places);
            steps.map(|(step, place)| place.filter(|_| is_call(step))).collect()
        };
        let (c, d) = (only_calls(old.0, &a), only_calls(new.0, &b));
        let known = |places: &[Option<Place>], step: usize| {
            places[step].filter(|place| place.body.is_some())
        };
        Self {
            anchored: pairs(&first, [&a, &b]),
            calls: pairs(&call, [&c, &d]),
            still_called: {
                let calls = |step: &usize| known(&d, *step);
                let there: BTreeSet<Place> = (0..d.len()).filter_map(|s| calls(&s)).collect();
                let lines: BTreeSet<_> =
                    there.iter().filter_map(|p| Some((p.file, p.line, p.body?))).collect();
                let stays = |block: &BlockId| {
                    let Some(step) = call(old.0, *block) else { return false };
                    known(&c, step).is_some_and(|place| there.contains(&place))
                        || old.1.around(step, map).iter().any(|place| lines.contains(place))
                };
                all(old.0).into_iter().filter(stays).collect()
            },
            old_work: works(old.0, &old.1.steps)
                .map(|all| {
                    all.filter_map(|(step, _, work)| Some((known(&a, step)?, work))).collect()
                })
                .collect(),
            new_work: works(new.0, &new.1.steps)
                .map(|all| {
                    all.filter(|(_, spot, _)| !map.is_added(spot.file, spot.line))
                        .map(|(i, spot, work)| ((spot, work), known(&b, i)))
                        .collect()
                })
                .collect(),
            gone: wholly(old.0, &removed),
            fresh: wholly(new.0, &added),
            removed,
            added,
            old: Copies::new(old.0, &old.1.steps),
            new: Copies::new(new.0, &new.1.steps),
        }
    }
}

impl Evidence {
    /// Whether two blocks begin at one place of the source that no other block of either body has:
    /// who is about to execute the one build's code of that place is nowhere else in the other.
    #[must_use]
    pub fn is_anchored(&self, old: BlockId, new: BlockId) -> bool {
        self.anchored.contains(&(old, new))
    }

    /// Whether two blocks end with calls at one place of the source, at which neither body makes
    /// another call.
    #[must_use]
    pub fn is_same_place(&self, old: BlockId, new: BlockId) -> bool {
        self.calls.contains(&(old, new))
    }

    /// Whether OLD's source did not have the line of a step of NEW.
    #[must_use]
    pub fn is_added(&self, step: usize) -> bool {
        self.added.get(step).copied().unwrap_or(false)
    }

    /// Whether everything that a block of OLD does is gone from the source.
    #[must_use]
    pub fn is_gone(&self, old: BlockId) -> bool {
        self.gone.get(old.0).copied().unwrap_or(false)
    }

    /// Whether everything that a block of NEW does is new in the source.
    #[must_use]
    pub fn is_fresh(&self, new: BlockId) -> bool {
        self.fresh.get(new.0).copied().unwrap_or(false)
    }

    /// Whether NEW calls somebody at the place of the source of the call that a block of OLD ends with, or
    /// does not inline the body that OLD has it in but calls that.
    #[must_use]
    pub fn still_calls(&self, old: BlockId) -> bool {
        self.still_called.contains(&old)
    }

    /// Whether two blocks do the same, of the same places of the source, and anything at all.
    #[must_use]
    pub fn do_alike(&self, old: BlockId, new: BlockId) -> bool {
        let (old, new) = (&self.old_work[old.0], &self.new_work[new.0]);
        let there: Option<BTreeSet<(Place, Work)>> =
            new.iter().map(|((_, work), place)| Some(((*place)?, *work))).collect();
        !old.is_empty() && there.is_some_and(|there| there == *old)
    }

    /// Whether everything of the source that two blocks of NEW both do is done in these blocks of OLD, too.
    pub fn is_done(&self, new: (BlockId, BlockId), old: impl Iterator<Item = BlockId>) -> bool {
        let (one, other) = (&self.new_work[new.0.0], &self.new_work[new.1.0]);
        let done: BTreeSet<&(Place, Work)> =
            old.flat_map(|block| &self.old_work[block.0]).collect();
        let mut shared = one.iter().filter(|(key, _)| other.contains_key(key));
        shared.all(|((_, work), place)| place.is_some_and(|place| done.contains(&(place, *work))))
    }
}

/// What each block does: steps, their places of the source, the work.
fn works<'a>(
    flow: &'a Flow,
    spots: &'a [Option<Spot>],
) -> impl Iterator<Item = impl Iterator<Item = (usize, Spot, Work)> + 'a> + 'a {
    let entry = spots.first().copied().flatten().map(|entry| entry.line);
    let framed = keeps_frame_pointer(flow);
    flow.blocks.iter().map(move |block| {
        let mut infos = InstructionInfoFactory::new();
        block.steps.clone().filter_map(move |step| {
            let spot = spots[step].filter(|spot| Some(spot.line) != entry)?;
            let work = work(&mut infos, &flow.body.steps[step], framed)?;
            Some((step, spot, work))
        })
    })
}

/// Blocks by the place of one of their steps, where `among` has that place in no other block.
fn alone(
    flow: &Flow,
    blocks: &[BlockId],
    places: &[Option<Place>],
    among: &[Option<Place>],
    of: &dyn Fn(&Flow, BlockId) -> Option<usize>,
) -> BTreeMap<Place, BlockId> {
    let mut holders: BTreeMap<Place, BTreeSet<BlockId>> = BTreeMap::new();
    for (place, block) in among.iter().zip(&flow.block_of) {
        if let Some(place) = place {
            holders.entry(*place).or_default().insert(*block);
        }
    }
    let own = blocks.iter().filter_map(|block| Some((places[of(flow, *block)?]?, *block)));
    let known = own.filter(|(place, _)| place.body.is_some() && holders[place].len() == 1);
    known.collect()
}

/// The blocks that do something, all of it on such lines.
fn wholly(flow: &Flow, changed: &[bool]) -> Vec<bool> {
    let is_jump = |step: usize| {
        let i = &flow.body.steps[step].instruction;
        i.mnemonic() == Mnemonic::Nop || i.flow_control() == FlowControl::UnconditionalBranch
    };
    let all = flow.blocks.iter().map(|block| {
        let mut work = block.steps.clone().filter(|step| !is_jump(*step)).peekable();
        work.peek().is_some() && work.all(|step| changed[step])
    });
    all.collect()
}

fn is_call(step: &Step) -> bool {
    matches!(step.instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
}

impl Copies {
    fn new(flow: &Flow, spots: &[Option<Spot>]) -> Self {
        let mut at: BTreeMap<(Spot, Work), BTreeMap<BlockId, usize>> = BTreeMap::new();
        for (block, all) in works(flow, spots).enumerate() {
            for (_, spot, work) in all {
                *at.entry((spot, work)).or_default().entry(BlockId(block)).or_default() += 1;
            }
        }
        let mut of = vec![BTreeSet::new(); flow.blocks.len()];
        let mut repeats = vec![false; flow.blocks.len()];
        for blocks in at.values() {
            for (block, count) in blocks {
                repeats[block.0] |= *count > 1;
                of[block.0].extend(blocks.keys().filter(|other| *other != block));
            }
        }
        Self { of, repeats }
    }

    /// Whether two blocks do work of the same source.
    #[must_use]
    pub fn are_copies(&self, a: BlockId, b: BlockId) -> bool {
        self.of.get(a.0).is_some_and(|of| of.contains(&b))
    }

    /// Whether a block has a copy at all.
    #[must_use]
    pub fn has_copy(&self, block: BlockId) -> bool {
        self.of.get(block.0).is_some_and(|of| !of.is_empty())
    }

    /// Whether a block may do the same work more than once.
    #[must_use]
    pub fn repeats(&self, block: BlockId) -> bool {
        self.repeats.get(block.0).copied().unwrap_or(false)
    }
}

/// The work of an instruction; `None` for what compilers put anywhere: moves, comparisons, spills.
fn work(infos: &mut InstructionInfoFactory, step: &Step, framed: bool) -> Option<Work> {
    let i = &step.instruction;
    match i.flow_control() {
        FlowControl::Next => {}
        FlowControl::Call | FlowControl::IndirectCall => return Some(Work::Calls),
        _ => return None,
    }
    let own_frame = i.memory_base() == Register::RSP || framed && i.memory_base() == Register::RBP;
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) && !own_frame;
    let clears = i.op_count() == 2 && i.op_register(0) == i.op_register(1);
    match i.mnemonic() {
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Push | Mnemonic::Pop | Mnemonic::Leave => {
            None
        }
        Mnemonic::Lea => None,
        _ if memory && i.mnemonic() != Mnemonic::Lea => {
            let writes = infos
                .info(i)
                .used_memory()
                .iter()
                .any(|m| !matches!(m.access(), OpAccess::Read | OpAccess::CondRead));
            Some(if writes { Work::Stores } else { Work::Loads })
        }
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Mov | Mnemonic::Movaps | Mnemonic::Movups => {
            None
        }
        Mnemonic::Movsxd | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Cdqe | Mnemonic::Cdq => {
            None
        }
        Mnemonic::Xor | Mnemonic::Pxor | Mnemonic::Xorps if clears => None,
        // Frames are made and given up in more than one place.
        Mnemonic::Add | Mnemonic::Sub if i.op_register(0) == Register::RSP => None,
        _ => Some(Work::Computes),
    }
}

/// Whether `rbp` is the frame's.
fn keeps_frame_pointer(flow: &Flow) -> bool {
    flow.body.steps.iter().take(12).any(|step| {
        let i = &step.instruction;
        i.mnemonic() == Mnemonic::Mov
            && i.op0_register() == Register::RBP
            && i.op1_register() == Register::RSP
    })
}
