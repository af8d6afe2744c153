//! What an address of NEW is in the process: as a value that code or data holds.
//!
//! A function that OLD has too is its identity there, whatever its body; a variable that is kept is
//! OLD's; everything else is queued to be carried and is where the shadow image has it.

use super::{Item, Shadow};
use crate::change::{describe, is_bound_code, same_label};
use crate::code::Body;
use crate::emit::Inputs;
use crate::image::{
    DynamicRelocation, FunctionId, Meaning, ObjectId, SectionKind, SymbolName, Thing,
};
use crate::matching::names::readable;
use dsu_patch_format::plan::{Import, Target};
use dsu_patch_format::{NewAddr, OldAddr};

impl Shadow<'_> {
    /// A function's address as a value: its identity, or where the shadow image has it.
    pub(super) fn function_value(&mut self, id: FunctionId) -> Target {
        let pair = self.inputs.pair;
        match pair.matching.old_of(id) {
            Some(old) => Target::OldIdentity(OldAddr(pair.old.function(old).address)),
            None => {
                self.queue.push(Item::Function(id));
                Target::New(NewAddr(pair.new.function(id).address))
            }
        }
    }

    /// What an address of NEW is as a value in the process.
    pub(super) fn value(&mut self, user: &str, address: u64) -> Option<Target> {
        let pair = self.inputs.pair;
        match pair.new.resolve(address) {
            Thing::Code { function, offset: 0 } => Some(self.function_value(function)),
            Thing::Code { function, offset } => Some(match pair.matching.old_of(function) {
                Some(old) if !self.inputs.is_replaced(function) => {
                    Target::OldCode(OldAddr(pair.old.function(old).address.wrapping_add(offset)))
                }
                _ => {
                    self.queue.push(Item::Function(function));
                    Target::New(NewAddr(address))
                }
            }),
            Thing::Object { object, .. } => Some(self.object_value(address, object)),
            Thing::Constant(at) => {
                self.carry_constant(user, at, None);
                Some(Target::New(NewAddr(address)))
            }
            Thing::Slot(slot) => match self.slots.find(pair, &slot) {
                Some(old) => Some(Target::Old(OldAddr(old))),
                None => {
                    self.queue.push(Item::Slot(address));
                    Some(Target::New(NewAddr(address)))
                }
            },
            Thing::Mark(name) => {
                if !same_label(pair, &name) {
                    self.changed_label(user, &name);
                }
                self.mark(user, &name, address)
            }
            Thing::Outside(number) => {
                // As far from OLD's headers as from NEW's; plain numbers need no fix-up at all.
                let offset = number.wrapping_sub(pair.new.extent.start);
                let header = pair.new.extent.contains(&number).then_some(offset)?;
                Some(Target::Old(OldAddr(pair.old.extent.start.wrapping_add(header))))
            }
            Thing::Unknown => match pair.new.object_ending_at(address) {
                Some(object) => Some(self.object_value(address, object)),
                None => {
                    self.unknown(user, address);
                    None
                }
            },
        }
    }

    /// Where OLD has a mark of the linker, or a label without a size.
    pub(super) fn mark(&mut self, user: &str, name: &str, address: u64) -> Option<Target> {
        let found = self.old_mark(name);
        if found.is_none() {
            self.unknown(user, address);
        }
        found.map(|old| Target::Old(OldAddr(old)))
    }

    pub(super) fn old_mark(&self, name: &str) -> Option<u64> {
        let old = self.inputs.pair.old;
        let object = old.objects.iter().find(|o| o.names.iter().any(|n| n == name));
        let section = old.sections.iter().find(|s| s.name == name);
        object.map(|o| o.address).or(section.map(|s| s.address))
    }

    /// The OLD object that a NEW one is, when it stays there.
    pub(super) fn kept_object(&self, id: ObjectId) -> Option<ObjectId> {
        let Inputs { pair, data, .. } = self.inputs;
        pair.matching.old_object(id).filter(|o| !data.moved.contains_key(o))
    }

    fn changed_label(&mut self, user: &str, name: &str) {
        let text = format!(
            "{} refers to {name}, a label without a size among constants, and what is there changed \
             (or there are several of that name)",
            readable(user)
        );
        let way = format!(
            "say what it is in its source: `.type {name}, @object` and `.size {name}, . - {name}`"
        );
        self.refuse("unsized", name, text, &way);
    }

    pub(super) fn unknown(&mut self, user: &str, address: u64) {
        let text = format!(
            "{} refers to {address:#x} in NEW{}, which no symbol names",
            readable(user),
            self.behind(address)
        );
        let way = "build with symbols of statics (no strip -x, no --discard-all), or link with \
                   --emit-relocs";
        self.refuse("unnamed", user, text, way);
    }

    /// The function that an address in code is behind, in words.
    fn behind(&self, address: u64) -> String {
        let image = self.new_image();
        let text = image.section_at(address).is_some_and(|s| s.kind == SectionKind::Text);
        let after = image.functions.partition_point(|f| f.address <= address);
        let before = after.checked_sub(1).filter(|_| text).map(|i| image.functions[i].name());
        before.map_or_else(String::new, |name| format!(" (behind {})", readable(name)))
    }

    /// Carries an anonymous constant whose address is taken. Between functions that is the whole gap:
    /// the address may be in the midst of a table.
    pub(super) fn carry_constant(&mut self, user: &str, address: u64, body: Option<&Body>) {
        let image = self.new_image();
        let text = image.section_at(address).is_some_and(|s| s.kind == SectionKind::Text);
        let Some(gap) = image.constant_zone(address).filter(|_| text) else {
            let end = self.constant_end(address, body);
            return self.queue.push(Item::Constant(address, end));
        };
        if is_bound_code(image, address) {
            return self.unknown(user, address);
        }
        self.queue.push(Item::Constant(gap.start, gap.end));
    }

    pub(super) fn object_value(&mut self, address: u64, object: ObjectId) -> Target {
        let pair = self.inputs.pair;
        let new = pair.new.object(object);
        let Some(old) = self.kept_object(object) else {
            if new.copied {
                let name = new.name().to_owned();
                let text = format!(
                    "NEW takes {name} from a library by a copy relocation, which OLD does not have"
                );
                let way = "build NEW with -fPIE -mno-direct-extern-access, or restart for this \
                           update";
                self.refuse("copy-relocation", &name, text, way);
            }
            self.queue.push(Item::Object(object));
            return Target::New(NewAddr(address));
        };
        let offset = address.wrapping_sub(new.address);
        Target::Old(OldAddr(pair.old.object(old).address.wrapping_add(offset)))
    }

    /// What the dynamic linker would put at a place of NEW.
    pub(super) fn pointer(
        &mut self,
        user: &str,
        relocation: &DynamicRelocation,
    ) -> Option<(Target, i64)> {
        match &relocation.meaning {
            Meaning::Address(address) => Some((self.value(user, *address)?, 0)),
            Meaning::Symbol(symbol, addend) => match symbol.defined {
                Some(address) => Some((self.value(user, address)?, *addend)),
                None => Some((self.import(symbol), *addend)),
            },
            Meaning::Resolver(address) => {
                let text = format!(
                    "NEW selects {} at start-up by a resolver, which OLD does not do",
                    describe(self.new_image(), *address)
                );
                self.refuse("ifunc", user, text, "restart for this update");
                None
            }
            Meaning::Copy(_) | Meaning::Number(_) => None,
            Meaning::ThreadLocal(_, symbol, _) => {
                let name = symbol.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                let text =
                    format!("NEW refers to the thread-local variable {name} as OLD does not");
                let way = "threads that run have no room for it; restart for this update";
                self.refuse("thread-local", &name, text, way);
                None
            }
        }
    }

    pub(super) fn import(&mut self, symbol: &SymbolName) -> Target {
        let import = Import {
            name: symbol.name.clone(),
            version: symbol.version.clone(),
            weak: symbol.weak,
        };
        let index = self.imports.iter().position(|i| *i == import).unwrap_or_else(|| {
            self.imports.push(import);
            self.imports.len() - 1
        });
        Target::Import(u32::try_from(index).unwrap_or(u32::MAX))
    }
}
