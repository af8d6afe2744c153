//! Caller-saved registers that somebody up the stack keeps a value in while a function runs.
//!
//! gcc's `-fipa-ra` lets a caller do so when it sees that the callee, with all that it calls, leaves
//! the register alone. A frame of the callee that is carried over must leave it alone, too: its stub
//! is code that no compiler has seen.
//!
//! Takes OLD, the replaced functions and what every function clobbers. Gives for each function the
//! registers that callers rely on, directly or through others: those of kept callers, and of replaced ones, whose
//! OLD code may run on for a moment, those that NEW's callee leaves alone, too.

use super::clobbers::{Clobbers, Registers};
use super::{callers, liveness, may_rely};
use crate::image::{FunctionId, Image};
use std::collections::{BTreeMap, BTreeSet};

/// The registers, by function.
#[derive(Debug, Default)]
pub struct Relied(BTreeMap<FunctionId, Registers>);

impl Relied {
    /// Looks at all functions that may be on a stack above a replaced one; `partner` tells NEW's.
    #[must_use]
    pub fn new(
        image: &Image,
        replaced: &BTreeSet<FunctionId>,
        (clobbers, others): (&Clobbers, &Clobbers),
        partner: impl Fn(FunctionId) -> Option<FunctionId>,
    ) -> Self {
        let callers = callers(image);
        let none = BTreeSet::new();
        let of = |id: &FunctionId| callers.get(id).unwrap_or(&none);
        let mut above = replaced.clone();
        let mut queue: Vec<FunctionId> = replaced.iter().copied().collect();
        while let Some(id) = queue.pop() {
            queue.extend(of(&id).iter().filter(|caller| above.insert(**caller)));
        }
        let mut relied: BTreeMap<FunctionId, Registers> = BTreeMap::new();
        for id in &above {
            let left_alone = Registers::ALL.without(clobbers.of(*id));
            let by_both = partner(*id).map(|new| left_alone.without(others.of(new)));
            let by_both = by_both.unwrap_or_default();
            let mut set = Registers::default();
            for caller in of(id).iter().filter(|caller| may_rely(image, **caller, *id)) {
                // What else a replaced caller keeps is its translations' matter.
                let left_alone = if replaced.contains(caller) { by_both } else { left_alone };
                if !left_alone.is_empty() {
                    let live =
                        liveness::all_live_after_calls(image, *caller, *id, left_alone, clobbers);
                    set = set.with(live);
                }
            }
            relied.insert(*id, set);
        }
        let mut moved = true;
        while moved {
            moved = false;
            for id in &above {
                let known = relied.get(id).copied().unwrap_or_default();
                let more = of(id).iter().filter_map(|caller| relied.get(caller));
                let now = more.fold(known, |set, r| set.with(r.without(clobbers.of(*id))));
                moved |= now != known;
                relied.insert(*id, now);
            }
        }
        Self(relied)
    }

    /// Whether somebody relies on a general register while a function runs.
    #[must_use]
    pub fn general(&self, id: FunctionId, number: u8) -> bool {
        self.has(id, iced_x86::Register::RAX + u32::from(number))
    }

    /// Whether somebody relies on a vector register.
    #[must_use]
    pub fn vector(&self, id: FunctionId, number: u8) -> bool {
        self.has(id, iced_x86::Register::XMM0 + u32::from(number))
    }

    fn has(&self, id: FunctionId, register: iced_x86::Register) -> bool {
        let known = self.0.get(&id).copied().unwrap_or_default();
        !known.and(Registers::one(register)).is_empty()
    }
}
