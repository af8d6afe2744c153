//! A function whose objects on the stack lie elsewhere than its code says: as if it had been compiled so.
//!
//! Takes a function and where its objects shall be; gives the same function with other displacements, its frame,
//! liveness and objects told anew, or why that cannot be. Nothing but displacements changes, and copies of the stack
//! pointer that become additions; everything of the frame that is no such object stays where it was.
//!
//! # Which object an address means
//!
//! Code that accesses bytes at a known place means the object there. An address that is handed to somebody is one of
//! an object, or of its end (C17 6.5.6), be that an array or not: where one object ends and another begins, what OLD
//! hands over decides. But where code adds an index, goes on from an address in a loop, or compares it, compilers count
//! from wherever they like: `a[i - 1]` may be counted from the last bytes of what lies before `a`. So that may mean
//! every object of the frame, and all of those have to be moved by the same distance; else there is no answer.

use super::analysis::Analysis;
use super::calls::callee;
use super::convention::{ARGUMENTS, callee_prototype};
use super::effects::{Access, Effects};
use super::flow::Flow;
use super::frame::{Addresses, Frame, Place, RSP, computed};
use super::layout::{ALIGNMENT, Layout, only};
use crate::image::Image;
use iced_x86::{
    Code, EncodingKind, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic, OpAccess,
    OpKind, Register,
};
use std::collections::BTreeMap;
use std::ops::Range;

/// What OLD hands to the callees that both have.
pub struct Handed<'a> {
    /// Bytes between OLD's CFA and the function's own.
    pub by: i64,
    /// The address of OLD's frame, from its CFA, in an argument register at the call that is the counterpart of a
    /// step's, if there is one of both.
    pub old: &'a dyn Fn(usize, usize) -> Option<i64>,
}

impl Analysis {
    /// The same function with its objects elsewhere, told from OLD's CFA.
    ///
    /// # Errors
    /// Why there is no such function.
    pub fn relaid(
        &self,
        image: &Image,
        layout: &Layout,
        handed: &Handed<'_>,
    ) -> Result<Self, String> {
        if self.touches_caller() {
            return Err("it reads or writes its caller's frame".to_owned());
        }
        let unknown = (0..self.flow.body.steps.len())
            .any(|step| self.frame.is_reached(step) && self.frame.depth(step).is_none());
        if unknown {
            return Err("its frame has no fixed size".to_owned());
        }
        let kept = kept(self, image, layout);
        let own = Frame::with_slots(image, &self.flow, &kept);
        let flow =
            Relaying { analysis: self, own: &own, kept: &kept, image, layout, handed }.run()?;
        let mut relaid = self.clone();
        relaid.frame = Frame::new(image, &flow);
        relaid.flow = flow;
        for live in &mut relaid.live {
            let mut slots: Vec<_> =
                live.slots.iter().flat_map(|range| layout.places(range)).collect();
            slots.sort_by_key(|range| range.start);
            live.slots = joined(slots);
        }
        for object in &mut relaid.objects {
            let shift = layout.of_bytes(&object.extent);
            let shift = shift.ok_or("an object lies in another one")?;
            object.extent = object.extent.start + shift..object.extent.end + shift;
        }
        relaid.objects.sort_by_key(|object| object.extent.start);
        Ok(relaid.told_from(handed.by))
    }
}

/// Ranges that are adjacent as one.
fn joined(ranges: Vec<Range<i64>>) -> Vec<Range<i64>> {
    let mut out: Vec<Range<i64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}

/// Slots in which nothing but one address of the frame is ever kept, with the address.
fn kept(analysis: &Analysis, image: &Image, layout: &Layout) -> BTreeMap<i64, i64> {
    const ROUNDS: usize = 3;
    let flow = &analysis.flow;
    let mut kept = BTreeMap::new();
    for _ in 0..ROUNDS {
        let frame = Frame::with_slots(image, flow, &kept);
        let mut found: BTreeMap<i64, Option<i64>> = BTreeMap::new();
        let mut others: Vec<Range<i64>> = Vec::new();
        for step in (0..flow.body.steps.len()).filter(|step| frame.is_reached(*step)) {
            let i = &flow.body.steps[step].instruction;
            let stored = (i.mnemonic() == Mnemonic::Mov && i.op1_register().is_gpr64())
                .then(|| frame.addresses(step)[i.op1_register().number()])
                .flatten();
            for access in Effects::of(i).memory.iter().filter(|access| access.changes) {
                match (frame.place(step, access), stored) {
                    (Place::Frame(bytes), Some(at)) if bytes.end - bytes.start == 8 => {
                        let known = found.entry(bytes.start).or_insert(Some(at));
                        *known = known.filter(|known| *known == at);
                    }
                    (Place::Frame(bytes), _) => others.push(bytes),
                    _ => {}
                }
            }
        }
        others.extend(layout.pinned().cloned());
        others.extend(analysis.objects.iter().map(|object| object.extent.clone()));
        let overlaps = |slot: i64, range: &Range<i64>| range.start < slot + 8 && slot < range.end;
        let slots: Vec<i64> = found.keys().copied().collect();
        let alone = |slot: i64| {
            !others.iter().any(|range| overlaps(slot, range))
                && !slots.iter().any(|other| *other != slot && overlaps(slot, &(*other..other + 8)))
        };
        let next = found.iter().filter_map(|(slot, at)| Some((*slot, (*at)?)));
        let next: BTreeMap<i64, i64> = next.filter(|(slot, _)| alone(*slot)).collect();
        if next == kept {
            return kept;
        }
        kept = next;
    }
    BTreeMap::new()
}

struct Relaying<'a> {
    analysis: &'a Analysis,
    /// Its frame, with what is in slots.
    own: &'a Frame,
    /// What is in slots.
    kept: &'a BTreeMap<i64, i64>,
    image: &'a Image,
    layout: &'a Layout,
    handed: &'a Handed<'a>,
}

impl Relaying<'_> {
    /// Displacements are changed until every access is where it shall be: a changed address changes those that are
    /// made of it.
    fn run(&self) -> Result<Flow, String> {
        const MOST: usize = 12;
        let mut flow = self.analysis.flow.clone();
        for _ in 0..MOST {
            let moved =
                |(slot, at): (&i64, &i64)| (*slot, at.saturating_add(self.layout.of_made(*at)));
            let kept = self.kept.iter().map(moved).collect();
            let frame = Frame::with_slots(self.image, &flow, &kept);
            let mut changed = false;
            for step in 0..flow.body.steps.len() {
                if self.own.is_reached(step) {
                    let instruction = &mut flow.body.steps[step].instruction;
                    changed |= self.move_operand(step, &frame, instruction)?;
                }
            }
            if !changed {
                self.verify(&flow, &frame)?;
                return Ok(flow);
            }
        }
        Err("addresses of its frame are made of each other in too many steps".to_owned())
    }

    /// Changes the displacement of one step, if its operand is not where it shall be; says whether.
    fn move_operand(
        &self,
        step: usize,
        frame: &Frame,
        i: &mut Instruction,
    ) -> Result<bool, String> {
        let original = &self.analysis.flow.body.steps[step].instruction;
        let own = self.own;
        // The stack pointer is no address of an object, whatever ends or begins there.
        if original.op0_kind() == OpKind::Register && original.op0_register() == Register::RSP {
            return Ok(false);
        }
        let copies = original.mnemonic() == Mnemonic::Mov && original.op0_register().is_gpr64();
        if copies && original.op1_kind() == OpKind::Register {
            let source = original.op1_register().number();
            // The frame pointer stays one (psABI 3.2.2).
            if source == RSP && original.op0_register() == Register::RBP {
                return Ok(false);
            }
            let (Some(at), Some(now)) =
                (own.addresses(step)[source], frame.addresses(step)[source])
            else {
                return Ok(false);
            };
            let wanted = at.saturating_add(self.layout.of_made(at));
            let mut moved = *original;
            if wanted != now {
                let (to, from) = (original.op0_register(), original.op1_register());
                let operand = MemoryOperand::with_base_displ(from, wanted - now);
                moved = Instruction::with2(Code::Lea_r64_m, to, operand)
                    .map_err(|why| why.to_string())?;
                // The processor's own address counts from the end.
                moved.set_len(original.len());
                moved.set_ip(original.ip());
            }
            let changed = *i != moved;
            *i = moved;
            return Ok(changed);
        }
        if !has_memory(original) {
            return Ok(false);
        }
        let (was, is) = (own.place(step, &operand(original)), frame.place(step, &operand(i)));
        let wanted = match (&was, original.mnemonic() == Mnemonic::Lea) {
            (Place::Elsewhere, _) => return Ok(false),
            (Place::Frame(bytes), _) => {
                let shift = self.layout.of_bytes(bytes);
                bytes.start + shift.ok_or_else(|| self.unclear(step, bytes.start))?
            }
            // Of part of an address nobody knows what it is for.
            (Place::Indexed(at), true)
                if original.memory_index() == Register::None
                    && original.op0_register().is_gpr64() =>
            {
                at + self.layout.of_made(*at)
            }
            (Place::Indexed(at), _) => {
                at + self.layout.of_base().ok_or_else(|| self.unclear(step, *at))?
            }
        };
        let now = match is {
            Place::Frame(bytes) => bytes.start,
            Place::Indexed(at) => at,
            Place::Elsewhere => return Err(self.unclear(step, wanted)),
        };
        if now == wanted {
            return Ok(false);
        }
        let displacement = i.memory_displacement64().cast_signed() + (wanted - now);
        i.set_memory_displacement64(displacement.cast_unsigned());
        i.set_memory_displ_size(1);
        Ok(true)
    }

    fn unclear(&self, step: usize, at: i64) -> String {
        let address = self.analysis.flow.body.steps[step].address();
        format!("the code at {address:#x} may mean several objects of the frame by CFA{at:+}")
    }

    /// That every access is where it shall be, and every address that is used as one.
    fn verify(&self, flow: &Flow, frame: &Frame) -> Result<(), String> {
        let own = self.own;
        for step in 0..flow.body.steps.len() {
            if !own.is_reached(step) {
                continue;
            }
            let original = &self.analysis.flow.body.steps[step].instruction;
            let instruction = &flow.body.steps[step].instruction;
            let (before, after) = (Effects::of(original), Effects::of(instruction));
            if before.memory.len() != after.memory.len() {
                return Err(self.unclear(step, 0));
            }
            for (was, is) in before.memory.iter().zip(&after.memory) {
                self.verify_access((step, original), (was, own), (is, frame))?;
            }
            let (was, is) = (own.addresses(step), frame.addresses(step));
            if original.mnemonic() == Mnemonic::Call {
                self.verify_arguments(step, (&was, &is))?;
            }
            for (at, loose) in self.values(step, &before) {
                let shift =
                    if loose { self.layout.of_base() } else { self.layout.of_pointer(at.1) };
                let wanted = shift.map(|shift| at.1 + shift);
                if wanted.is_none() || is[at.0] != wanted {
                    return Err(self.unclear(step, at.1));
                }
            }
            // What is not followed any more may be anything made of it.
            for (at, now) in lost(&self.analysis.live, flow, (own, frame), (step, &was, &is)) {
                let wanted = self.layout.of_base().map(|shift| at + shift);
                if wanted.is_none() || now != wanted {
                    return Err(self.unclear(step, at));
                }
            }
        }
        Ok(())
    }

    /// That addresses which are handed to a callee are those that OLD hands to it.
    fn verify_arguments(
        &self,
        step: usize,
        (was, is): (&Addresses, &Addresses),
    ) -> Result<(), String> {
        let callee = callee(self.image, &self.analysis.flow.body.steps[step]);
        let taken = match callee_prototype(self.image, &callee) {
            Some(prototype) if !prototype.variadic => prototype.integer.into(),
            _ => ARGUMENTS.len(),
        };
        for number in ARGUMENTS.into_iter().take(taken) {
            let Some(at) = was[number] else { continue };
            let wanted = match (self.handed.old)(step, number) {
                Some(handed) if self.layout.may_be_pinned(at) => {
                    Some(handed.saturating_add(self.handed.by))
                }
                _ => self.layout.of_pointer(at).map(|shift| at + shift),
            };
            if wanted.is_none() || is[number] != wanted {
                return Err(self.unclear(step, at));
            }
        }
        Ok(())
    }

    fn verify_access(
        &self,
        (step, original): (usize, &Instruction),
        (was, own): (&Access, &Frame),
        (is, frame): (&Access, &Frame),
    ) -> Result<(), String> {
        let (before, after) = (own.place(step, was), frame.place(step, is));
        let (shift, found, at) = match (before, after) {
            (Place::Frame(before), Place::Frame(after)) => {
                (self.layout.of_bytes(&before), after.start - before.start, before.start)
            }
            (Place::Indexed(before), Place::Indexed(after)) => {
                // A string begins in its object.
                let shift = match original.is_string_instruction() {
                    true => only(self.layout.holding(before)).unwrap_or(Some(0)),
                    false => self.layout.of_base(),
                };
                (shift, after - before, before)
            }
            (Place::Elsewhere, Place::Elsewhere) => {
                let is_known = |register: Register| {
                    register.is_gpr64() && own.addresses(step)[register.number()].is_some()
                };
                let thread = matches!(was.segment, Register::FS | Register::GS);
                if !thread && (is_known(was.base) || is_known(was.index)) {
                    return Err(self.unclear(step, 0));
                }
                // A pointer into an object, perhaps.
                if self.layout.is_shifted() && wants_alignment(original) {
                    return Err(aligned(original));
                }
                return Ok(());
            }
            _ => return Err(self.unclear(step, 0)),
        };
        if shift != Some(found) {
            return Err(self.unclear(step, at));
        }
        if found % ALIGNMENT != 0 && wants_alignment(original) {
            return Err(aligned(original));
        }
        Ok(())
    }

    /// Registers with addresses of the frame that a step uses as values, each with the address as the code makes it;
    /// and whether something may be added to it.
    fn values(&self, step: usize, effects: &Effects) -> Vec<((usize, i64), bool)> {
        let i = &self.analysis.flow.body.steps[step].instruction;
        let addresses = self.own.addresses(step);
        let mut out = Vec::new();
        for (number, at) in addresses.iter().enumerate() {
            let Some(at) = *at else { continue };
            let reads = effects.reads.general[number] | effects.masked.general[number] != 0;
            if number == RSP && !names_stack_pointer(i) || !reads {
                continue;
            }
            match used(i, number) {
                Used::Followed => {}
                Used::Stored => {
                    // What is kept in the frame may be counted from; elsewhere it is a pointer.
                    let place = match i.mnemonic() {
                        Mnemonic::Push => Place::Elsewhere,
                        _ => self.own.place(step, &operand(i)),
                    };
                    let private = match place {
                        Place::Frame(bytes) if !self.kept.contains_key(&bytes.start) => {
                            self.layout.of_bytes(&bytes) == Some(0)
                        }
                        _ => false,
                    };
                    out.push(((number, at), private));
                }
                Used::Otherwise => out.push(((number, at), true)),
            }
        }
        out
    }
}

/// How a step uses a register.
enum Used {
    /// As the base of its operand, or to make another address that is known.
    Followed,
    /// It puts it into memory.
    Stored,
    Otherwise,
}

fn used(i: &Instruction, number: usize) -> Used {
    let is = |register: Register| register.is_gpr() && register.full_register().number() == number;
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(i);
    let mut explicit = (0..i.op_count()).filter(|n| {
        let access = info.op_access(*n);
        let read = !matches!(access, OpAccess::None | OpAccess::Write | OpAccess::CondWrite);
        i.op_kind(*n) == OpKind::Register && is(i.op_register(*n)) && read
    });
    let Some(first) = explicit.next() else {
        let based = has_memory(i)
            && (is(i.memory_base()) || is(i.memory_index()) && i.memory_index_scale() == 1);
        // Strings' addresses are those of their accesses.
        let string = i.is_string_instruction() && matches!(number, 6 | 7);
        let leaves = i.mnemonic() == Mnemonic::Leave;
        return if based || string || leaves { Used::Followed } else { Used::Otherwise };
    };
    if explicit.next().is_some() {
        return Used::Otherwise;
    }
    let wide = i.op_register(first).is_gpr64();
    match i.mnemonic() {
        Mnemonic::Mov if i.op0_kind() == OpKind::Register && wide => Used::Followed,
        Mnemonic::Mov if has_memory(i) && wide => Used::Stored,
        Mnemonic::Push if wide => Used::Stored,
        Mnemonic::Add | Mnemonic::Sub if i.op1_kind() != OpKind::Register && wide => Used::Followed,
        Mnemonic::Inc | Mnemonic::Dec if wide => Used::Followed,
        _ => Used::Otherwise,
    }
}

/// Whether an instruction puts the stack pointer itself somewhere, or computes with it.
fn names_stack_pointer(i: &Instruction) -> bool {
    let is = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n) == Register::RSP;
    match i.mnemonic() {
        Mnemonic::Mov => i.op_count() == 2 && is(1) && has_memory(i),
        Mnemonic::Push | Mnemonic::Cmp | Mnemonic::Test => (0..i.op_count()).any(is),
        Mnemonic::Lea => false,
        _ => i.op_count() > 1 && !is(0) && (1..i.op_count()).any(is),
    }
}

/// Addresses that are known before a step and live, and not known, behind it: as the code makes it, and as it is now.
fn lost(
    live: &[super::live::Live],
    flow: &Flow,
    (own, frame): (&Frame, &Frame),
    (step, was, is): (usize, &Addresses, &Addresses),
) -> Vec<(i64, Option<i64>)> {
    let i = &flow.body.steps[step].instruction;
    let changes = Effects::of(i).changes;
    let mut out = Vec::new();
    for next in flow.next(step) {
        let (behind, now_behind) = (own.addresses(next), frame.addresses(next));
        for number in (0..16).filter(|n| *n != RSP) {
            if live[next].general[number] == 0
                || behind[number].is_some() && now_behind[number].is_some()
            {
                continue;
            }
            let keeps = i.mnemonic() != Mnemonic::Call || super::frame::is_preserved(number);
            let kept = changes.general[number] == 0 && keeps;
            let (at, now) = if kept {
                (was[number], is[number])
            } else {
                let of = |addresses: &Addresses| match computed(i, addresses) {
                    Some((to, at)) if to == number => at,
                    _ => None,
                };
                (of(was), of(is))
            };
            if let Some(at) = at {
                out.push((at, now));
            }
        }
    }
    out
}

fn has_memory(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) && !i.is_ip_rel_memory_operand()
}

/// The operand of an instruction that names one.
fn operand(i: &Instruction) -> Access {
    let mut access = Access::computed(i);
    if i.mnemonic() != Mnemonic::Lea {
        access.segment = i.segment_prefix();
        access.bytes = u64::try_from(i.memory_size().size()).ok().filter(|bytes| *bytes > 0);
    }
    access
}

/// Of code that accesses so many bytes at once that it has to be where its compiler has put it.
fn aligned(i: &Instruction) -> String {
    format!("the code at {:#x} relies on how an object is aligned", i.ip())
}

/// Whether an instruction may fault where its operand is not aligned as the code has it (SDM volume 1, 10.4.4).
fn wants_alignment(i: &Instruction) -> bool {
    let wide = i.memory_size().size() >= 16;
    let unaligned = matches!(
        i.mnemonic(),
        Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu
            | Mnemonic::Lddqu
            | Mnemonic::Vmovups
            | Mnemonic::Vmovupd
            | Mnemonic::Vmovdqu
            | Mnemonic::Vmovdqu8
            | Mnemonic::Vmovdqu16
            | Mnemonic::Vmovdqu32
            | Mnemonic::Vmovdqu64
            | Mnemonic::Vlddqu
    );
    let aligned = matches!(
        i.mnemonic(),
        Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovdqa32
            | Mnemonic::Vmovdqa64
            | Mnemonic::Vmovntps
            | Mnemonic::Vmovntpd
            | Mnemonic::Vmovntdq
            | Mnemonic::Vmovntdqa
    );
    wide && if i.code().encoding() == EncodingKind::Legacy { !unaligned } else { aligned }
}
