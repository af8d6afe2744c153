//! The shadow image: which parts of NEW it carries, and the fix-ups of their operands.
//!
//! Starts from the replaced functions and follows references: what only NEW has is carried as well,
//! what OLD has too is referred to where it is. All carried parts keep their distances as linked,
//! so references between them need nothing (DESIGN section 4).

mod choice;
mod scope;
mod values;

use self::choice::Choice;
use super::pieces::{Pieces, protection};
use super::slots::Slots;
use super::{Emitted, Inputs};
use crate::change::{describe, is_readable_text, jump_table, offset_table, pointers};
use crate::code::{Body, Field, Reference, Step, decode};
use crate::image::{DynamicRelocation, Function, FunctionId, Image, ObjectId, Storage, Thing};
use crate::matching::names::readable;
use crate::refusal::Refusal;
use dsu_patch_format::plan::{
    DataPointer, DataWrite, Fixup, FixupKind, Import, Protection, Target,
};
use dsu_patch_format::validate::NEAR_JUMP;
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::{BTreeMap, BTreeSet};

/// `jmp rel32`.
const JMP: u8 = 0xe9;
/// Room for the longest redirect, so that a later update can replace what this one brings.
const ROOM: u64 = 4 + NEAR_JUMP;

/// What the shadow image carries.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// NEW functions with their code, PLT entries among them.
    pub functions: BTreeSet<FunctionId>,
    /// NEW objects.
    pub objects: BTreeSet<ObjectId>,
    /// NEW slots.
    pub slots: BTreeSet<u64>,
}

/// Bytes that a carried function has for itself: padding that a redirect may need included.
pub(super) fn room(function: &Function) -> u64 {
    function.size.max(ROOM.min(function.room))
}

/// Carries everything needed; writes segments, fix-ups, imports, data writes.
pub(super) fn build(inputs: Inputs<'_>, out: &mut Emitted) -> Placed {
    let mut shadow = Shadow {
        inputs,
        slots: Slots::new(inputs.pair.old),
        placed: Placed::default(),
        constants: BTreeSet::new(),
        queue: Vec::new(),
        pieces: Pieces::default(),
        fixups: BTreeMap::new(),
        imports: Vec::new(),
        refusals: BTreeMap::new(),
        islands: BTreeSet::new(),
    };
    let mut roots: Vec<FunctionId> =
        inputs.closure.replaced.keys().filter_map(|f| inputs.pair.matching.new_of(*f)).collect();
    roots.sort_unstable();
    shadow.queue.extend(roots.into_iter().map(Item::Function));
    let writes = shadow.data_writes();
    shadow.run();
    shadow.islands();
    let Shadow { placed, pieces, fixups, imports, refusals, .. } = shadow;
    out.refusals.extend(refusals.into_values());
    match pieces.segments(inputs.pair.new) {
        Ok(segments) => out.plan.segments = segments,
        Err(refusal) => out.refusals.push(refusal),
    }
    out.plan.fixups = fixups.into_values().collect();
    out.plan.imports = imports;
    out.plan.writes = writes;
    placed
}

/// Something of NEW still to be carried.
enum Item {
    Function(FunctionId),
    Object(ObjectId),
    Constant(u64, u64),
    Slot(u64),
}

struct Shadow<'a> {
    inputs: Inputs<'a>,
    slots: Slots,
    placed: Placed,
    constants: BTreeSet<(u64, u64)>,
    queue: Vec<Item>,
    pieces: Pieces,
    fixups: BTreeMap<u64, Fixup>,
    imports: Vec<Import>,
    /// By subject, so that one cause is told once.
    refusals: BTreeMap<(String, String), Refusal>,
    /// Kept functions that something reaches by a short jump.
    islands: BTreeSet<FunctionId>,
}

/// A function being carried, for what its references mean.
struct Carrying<'b> {
    id: FunctionId,
    function: &'b Function,
    body: &'b Body,
}

/// The choices for a function's operands, by the place of their fields.
type Choices = BTreeMap<u64, Choice>;

impl<'a> Shadow<'a> {
    fn new_image(&self) -> &'a Image {
        self.inputs.pair.new
    }

    fn run(&mut self) {
        while let Some(item) = self.queue.pop() {
            match item {
                Item::Function(id) if self.placed.functions.insert(id) => self.function(id),
                Item::Object(id) if self.placed.objects.insert(id) => self.object(id),
                Item::Constant(start, end) if self.constants.insert((start, end)) => {
                    self.range(start, end);
                }
                Item::Slot(at) if self.placed.slots.insert(at) => self.slot(at),
                _ => {}
            }
        }
    }

    fn refuse(&mut self, code: &'static str, subject: &str, text: String, way_out: &str) {
        let refusal =
            Refusal { code, subject: subject.to_owned(), text, way_out: way_out.to_owned() };
        self.refusals.entry((code.to_owned(), subject.to_owned())).or_insert(refusal);
    }

    fn function(&mut self, id: FunctionId) {
        let image = self.new_image();
        let function = image.function(id);
        if function.import.is_some() {
            return self.plt_entry(function);
        }
        let body = decode(image, function);
        if let Some(opaque) = &body.opaque {
            let text = format!(
                "{} has bytes that are not instructions at {:#x}; it cannot be rebuilt elsewhere",
                readable(function.name()),
                opaque.start
            );
            let way = "keep data out of the code of functions that the update changes";
            return self.refuse("data-in-code", function.name(), text, way);
        }
        for part in function.parts() {
            self.pieces.add(part.start, part.end, Protection::Text);
        }
        let room = room(function);
        self.pieces.add(function.address, function.address + room, Protection::Text);
        let carrying = Carrying { id, function, body: &body };
        let choices = self.choices(&carrying);
        for step in &body.steps {
            self.thread_local(&carrying, step);
            for reference in &step.references {
                self.reference(&carrying, &choices, reference);
            }
        }
    }

    /// A PLT entry up to its jump; its slot is filled at once, so the lazy part is never needed.
    fn plt_entry(&mut self, function: &Function) {
        let image = self.new_image();
        let mut end = function.address;
        let mut slot = None;
        crate::code::for_each_reference(image, function.main(), |r| {
            if slot.is_none() && r.field == Field::Relative32 && r.access == 8 {
                slot = Some(r);
                end = r.at + 4;
            }
        });
        if let Some(reference) = slot {
            self.pieces.add(function.address, end, Protection::Text);
            match image.resolve(reference.target) {
                Thing::Slot(relocation) => self.slot_operand(&reference, &relocation),
                _ => self.unknown(function.name(), reference.target),
            }
        }
    }

    /// `%fs:offset` operands keep OLD's offset of the same variable.
    fn thread_local(&mut self, ctx: &Carrying<'_>, step: &Step) {
        use crate::change::{thread_local, thread_local_displacement, thread_local_layout_moved};
        let pair = self.inputs.pair;
        let name = ctx.function.name();
        let Some(displacement) = thread_local_displacement(&step.instruction) else {
            let i = &step.instruction;
            let pointer = i.segment_prefix() == iced_x86::Register::FS
                && i.memory_base() == iced_x86::Register::None
                && i.memory_displacement64() == 0;
            if pointer && thread_local_layout_moved(pair) {
                let text = format!(
                    "{} computes addresses of thread-local variables, whose offsets changed",
                    readable(name)
                );
                let way = "keep the thread-local variables and their order";
                self.refuse("thread-local-layout", name, text, way);
            }
            return;
        };
        let Some((object, offset)) = thread_local(pair.new, displacement) else {
            return;
        };
        let old = pair.matching.old_object(object);
        let old_offset = old.and_then(|o| {
            let tls = pair.old.tls.as_ref()?;
            let within = pair.old.object(o).address - tls.extent.start + offset;
            Some(within.cast_signed() - tls.to_thread_pointer.cast_signed())
        });
        match old_offset {
            Some(old) if old == displacement => {}
            _ => {
                let variable = pair.new.object(object).name().to_owned();
                let text = format!(
                    "{} uses the thread-local variable {variable}, which OLD {}",
                    readable(name),
                    if old.is_some() { "has at another offset" } else { "does not have" }
                );
                let way = "threads that run have no room for it: keep the thread-local variables \
                           of OLD and their order, or restart for this update";
                self.refuse("thread-local", &variable, text, way);
            }
        }
    }

    fn fix(&mut self, reference: &Reference, target: Target) {
        self.fix_beyond(reference, target, 0);
    }

    /// The same, with so many bytes added to the target.
    fn fix_beyond(&mut self, reference: &Reference, target: Target, distance: i64) {
        let image = self.new_image();
        let stands = reference.target;
        let (kind, addend) = match reference.field {
            Field::Absolute32 => (FixupKind::Abs32, 0),
            Field::Absolute64 => (FixupKind::Abs64, 0),
            // The displacement counts from the next instruction, the field's value from itself.
            Field::Branch8 | Field::Branch32 | Field::Relative32 => {
                let field = image.content(reference.at, 4).unwrap_or_default();
                let bytes = <[u8; 4]>::try_from(field.as_ref()).unwrap_or_default();
                let value = i64::from(i32::from_le_bytes(bytes));
                let next = stands.wrapping_sub(value.cast_unsigned());
                (FixupKind::Rel32, reference.at.wrapping_sub(next).cast_signed())
            }
        };
        let (at, addend) = (NewAddr(reference.at), addend.wrapping_add(distance));
        self.fixups.insert(reference.at, Fixup { at, kind, addend, target });
    }

    /// A reference whose target is carried too: relative ones are right as linked.
    fn carried(&mut self, reference: &Reference) {
        if matches!(reference.field, Field::Absolute32 | Field::Absolute64) {
            self.fix(reference, Target::New(NewAddr(reference.target)));
        }
    }

    fn reference(&mut self, ctx: &Carrying<'_>, choices: &Choices, r: &Reference) {
        if ctx.body.index_at(r.target).is_some() {
            // Its own entry as a value is its identity all the same.
            if r.target == ctx.function.address && !is_branch(r) {
                let target = self.function_value(ctx.id);
                return self.fix_value(r, target);
            }
            return self.carried(r);
        }
        if let Some(owner) = r.symbol.and_then(|s| self.new_image().object_at(s))
            && !is_branch(r)
            && self.new_image().object(owner).size > 0
        {
            return self.object_operand(r, owner);
        }
        match choices.get(&r.at) {
            Some(Choice::Object(owner)) => self.object_operand(r, *owner),
            Some(Choice::Constants) => self.constants_around(r),
            Some(Choice::Ambiguous(one, two)) => self.ambiguous(ctx, r, *one, *two),
            Some(Choice::Bound) => match self.new_image().resolve(r.target) {
                Thing::Mark(name) => {
                    if let Some(target) = self.mark(ctx.function.name(), &name, r.target) {
                        self.fix_value(r, target);
                    }
                }
                _ => self.thing(ctx, r),
            },
            Some(Choice::Here) | None => self.thing(ctx, r),
        }
    }

    /// A reference to what it points into.
    fn thing(&mut self, ctx: &Carrying<'_>, r: &Reference) {
        match self.new_image().resolve(r.target) {
            Thing::Code { function, offset } if is_branch(r) => {
                self.branch(ctx, r, function, offset);
            }
            Thing::Slot(slot) => self.slot_operand(r, &slot),
            Thing::Object { object, .. } => self.object_operand(r, object),
            // Code without a symbol: its end and its operands are not known.
            Thing::Constant(address) if is_branch(r) => {
                self.unknown(ctx.function.name(), address);
            }
            Thing::Constant(address) => {
                if r.access > 0 {
                    self.queue.push(Item::Constant(address, address + r.access));
                } else {
                    self.carry_constant(ctx.function.name(), address, Some(ctx.body));
                }
                self.carried(r);
            }
            Thing::Code { .. } | Thing::Outside(_) | Thing::Mark(_) | Thing::Unknown => {
                if let Some(target) = self.value(ctx.function.name(), r.target) {
                    self.fix_value(r, target);
                }
            }
        }
    }

    fn fix_value(&mut self, r: &Reference, target: Target) {
        match target {
            Target::New(_) => self.carried(r),
            target => self.fix(r, target),
        }
    }

    fn branch(&mut self, ctx: &Carrying<'_>, r: &Reference, callee: FunctionId, offset: u64) {
        let pair = self.inputs.pair;
        let kept = pair.matching.old_of(callee).filter(|_| !self.inputs.is_replaced(callee));
        let Some(old) = kept else {
            self.queue.push(Item::Function(callee));
            return;
        };
        let old_address = pair.old.function(old).address;
        if r.field != Field::Branch8 {
            return self.fix(r, Target::OldCode(OldAddr(old_address.wrapping_add(offset))));
        }
        if offset == 0 && pair.new.function(callee).room >= NEAR_JUMP {
            self.islands.insert(callee);
            return;
        }
        let text = format!(
            "{} reaches {} by a short jump, which cannot lead to where OLD has it",
            readable(ctx.function.name()),
            describe(pair.new, r.target)
        );
        self.refuse("short-jump", ctx.function.name(), text, "build with -ffunction-sections");
    }

    fn object_operand(&mut self, r: &Reference, object: ObjectId) {
        let target = self.object_value(r.target, object);
        match (target, self.kept_object(object)) {
            // By its start: what an earlier update has put near it in the process is not what was near it
            // when it was linked.
            (Target::Old(address), Some(old)) => {
                let start = self.inputs.pair.old.object(old).address;
                let distance = address.0.wrapping_sub(start).cast_signed();
                self.fix_beyond(r, Target::Old(OldAddr(start)), distance);
            }
            (target, _) => self.fix_value(r, target),
        }
    }

    fn slot_operand(&mut self, r: &Reference, slot: &DynamicRelocation) {
        match self.slots.find(self.inputs.pair, slot) {
            Some(old) => self.fix(r, Target::Old(OldAddr(old))),
            None => {
                self.queue.push(Item::Slot(r.target));
                self.carried(r);
            }
        }
    }

    /// Where a constant ends that is to be carried: too long does no harm, too short does.
    fn constant_end(&self, address: u64, body: Option<&Body>) -> u64 {
        let image = self.new_image();
        let anchor = image.next_anchor(address);
        if body.is_some_and(|b| jump_table(image, b, address).is_some()) {
            return anchor;
        }
        let len = anchor.saturating_sub(address);
        let text = image.content(address, len).is_some_and(|bytes| {
            let end = bytes.iter().position(|b| *b == 0);
            // Eight characters and a NUL are no table; then what follows is another text, which
            // nothing refers to.
            let long = end.is_some_and(|e| e >= 8) && is_readable_text(&bytes[..end.unwrap_or(0)]);
            long || end.is_some_and(|end| bytes[end..].iter().all(|b| *b == 0))
        });
        if text {
            return anchor;
        }
        image.constant_zone(address).map_or(anchor, |zone| zone.end)
    }

    fn object(&mut self, id: ObjectId) {
        let object = self.new_image().object(id);
        if object.storage == Storage::ThreadLocal {
            return;
        }
        let size = object.size.max(object.distances.unwrap_or(0));
        self.range(object.address, object.address + size);
        for target in offset_table(self.new_image(), object, size) {
            let end = self.constant_end(target, None);
            self.queue.push(Item::Constant(target, end));
        }
    }

    /// Carries bytes with the pointers in them.
    fn range(&mut self, start: u64, end: u64) {
        let image = self.new_image();
        let Some(section) = image.section_at(start) else {
            return;
        };
        let end = end.min(section.end());
        self.pieces.add(start, end, protection(section.kind));
        for (offset, relocation) in pointers(image, &(start..end)) {
            let at = start + offset;
            if let Some((target, addend)) = self.pointer(&format!("{at:#x}"), &relocation) {
                let fixup = Fixup { at: NewAddr(at), kind: FixupKind::Abs64, addend, target };
                self.fixups.insert(at, fixup);
            }
        }
    }

    fn slot(&mut self, at: u64) {
        let Thing::Slot(relocation) = self.new_image().resolve(at) else {
            return;
        };
        self.pieces.add(at, at + 8, Protection::ReadOnly);
        if let Some((target, addend)) = self.pointer("a slot", &relocation) {
            let fixup = Fixup { at: NewAddr(at), kind: FixupKind::Abs64, addend, target };
            self.fixups.insert(at, fixup);
        }
    }

    /// A kept function's place in the shadow image holds a jump to it.
    fn islands(&mut self) {
        let pair = self.inputs.pair;
        for id in std::mem::take(&mut self.islands) {
            let function = pair.new.function(id);
            let Some(old) = pair.matching.old_of(id) else {
                continue;
            };
            if self.pieces.contains(function.address) {
                continue;
            }
            let mut jump = vec![JMP];
            jump.extend_from_slice(&[0; 4]);
            self.pieces.put(function.address, jump, Protection::Text);
            let at = NewAddr(function.address + 1);
            let target = Target::OldCode(OldAddr(pair.old.function(old).address));
            let fixup = Fixup { at, kind: FixupKind::Rel32, addend: -4, target };
            self.fixups.insert(at.0, fixup);
        }
    }

    /// Constants and chosen variables that are overwritten in place.
    fn data_writes(&mut self) -> Vec<DataWrite> {
        let pair = self.inputs.pair;
        let mut writes = Vec::new();
        for (a, b) in &self.inputs.data.updates {
            let (old, new) = (pair.old.object(*a), pair.new.object(*b));
            let Some(bytes) = pair.new.content(new.address, new.size) else {
                continue;
            };
            let mut bytes = bytes.into_owned();
            let mut data_pointers = Vec::new();
            for (offset, relocation) in pointers(pair.new, &new.range()) {
                if let Some((target, addend)) = self.pointer(new.name(), &relocation) {
                    data_pointers.push(DataPointer { offset, addend, target });
                    let from = usize::try_from(offset).unwrap_or(usize::MAX);
                    if let Some(field) = bytes.get_mut(from..from.saturating_add(8)) {
                        field.fill(0);
                    }
                }
            }
            let at = OldAddr(old.address);
            writes.push(DataWrite { at, bytes, pointers: data_pointers });
        }
        writes.sort_by_key(|w| w.at);
        writes
    }
}

fn is_branch(r: &Reference) -> bool {
    matches!(r.field, Field::Branch8 | Field::Branch32)
}
