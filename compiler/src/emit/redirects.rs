//! Redirects: the jump at each replaced function's OLD entry.
//!
//! Five bytes where there is room: in the function and the padding behind it. Else two bytes to a
//! cave of padding within reach. Behind `endbr64`, so that indirect branches still land on one.

use super::expected::expected;
use super::{Emitted, Inputs};
use crate::change::Pair;
use crate::image::{Function, FunctionId, Image};
use crate::matching::names::readable;
use crate::refusal::Refusal;
use dsu_patch_format::plan::{Redirect, RedirectForm};
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::BTreeSet;

/// `endbr64` (SDM volume 2).
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Bytes of an entry that apply compares before it writes.
const EXPECT: u64 = 16;

pub(super) fn write(inputs: Inputs<'_>, out: &mut Emitted) {
    let pair = inputs.pair;
    let mut caves: BTreeSet<u64> = BTreeSet::new();
    for id in inputs.closure.replaced.keys() {
        let old = pair.old.function(*id);
        let Some(new) = pair.matching.new_of(*id) else {
            continue;
        };
        let (at, form) = match place(pair.old, old, &mut caves) {
            Ok(found) => found,
            // Every caller has a NEW body too, which calls the NEW one directly.
            Err(_) if only_called(pair.old, *id) => continue,
            Err(refusal) => {
                out.refusals.push(refusal);
                continue;
            }
        };
        let (expect, mask) = entry_bytes(pair.old, old);
        out.plan.redirects.push(Redirect {
            entry: OldAddr(old.address),
            at: OldAddr(at),
            form,
            to: NewAddr(pair.new.function(new).address),
            expect,
            mask,
        });
    }
}

/// Replaced functions without room for a jump, which nothing but direct calls can reach: replacing
/// their callers serves as well.
pub fn roomless<'a>(
    image: &'a Image,
    replaced: impl Iterator<Item = FunctionId> + 'a,
) -> impl Iterator<Item = FunctionId> + 'a {
    let mut caves = BTreeSet::new();
    replaced.filter(move |id| {
        place(image, image.function(*id), &mut caves).is_err() && only_called(image, *id)
    })
}

fn only_called(image: &Image, id: FunctionId) -> bool {
    !image.function(id).exported && !address_taken(image, id)
}

/// Where the jump goes and how.
fn place(
    image: &Image,
    function: &Function,
    caves: &mut BTreeSet<u64>,
) -> Result<(u64, RedirectForm), Refusal> {
    let room = usable(image, function);
    let marked = image.content(function.address, 4).is_some_and(|b| *b == ENDBR64);
    if marked && room >= 4 + NEAR_JUMP {
        return Ok((function.address + 4, RedirectForm::Near));
    }
    if room >= NEAR_JUMP {
        return Ok((function.address, RedirectForm::Near));
    }
    let cave = (room >= SHORT_JUMP).then(|| cave(image, function.address, caves)).flatten();
    if let Some(cave) = cave {
        caves.insert(cave);
        return Ok((function.address, RedirectForm::Short { cave: OldAddr(cave) }));
    }
    Err(Refusal {
        code: "no-room",
        subject: function.name().to_owned(),
        text: format!(
            "{} has {room} bytes up to what follows it and no padding within reach: no room for a \
             jump to its new body",
            readable(function.name())
        ),
        way_out: "build with -falign-functions=16".to_owned(),
    })
}

/// The function's bytes and the padding behind it.
pub(super) fn usable(image: &Image, function: &Function) -> u64 {
    if function.room <= function.size
        || padding(image, function.main().end, function.address + function.room)
    {
        function.room
    } else {
        function.size.min(function.room)
    }
}

/// Whether a range is filled with what linkers and assemblers fill with, and nothing refers to it.
fn padding(image: &Image, start: u64, end: u64) -> bool {
    if start >= end {
        return true;
    }
    let Some(code) = image.content(start, end - start) else {
        return false;
    };
    let mut decoder = iced_x86::Decoder::with_ip(64, &code, start, iced_x86::DecoderOptions::NONE);
    let filler = code.iter().all(|b| *b == 0) || {
        let mut all = true;
        while decoder.can_decode() && all {
            let i = decoder.decode();
            all = matches!(i.mnemonic(), iced_x86::Mnemonic::Nop | iced_x86::Mnemonic::Int3);
        }
        all
    };
    filler && image.next_anchor(start.wrapping_sub(1)) >= end
}

/// Five bytes of padding between functions within reach of a short jump at an address.
fn cave(image: &Image, from: u64, taken: &BTreeSet<u64>) -> Option<u64> {
    let low = from.saturating_sub(120);
    let first = image.functions.partition_point(|f| f.address < low).saturating_sub(1);
    image.functions[first..]
        .iter()
        .take_while(|f| f.address <= from + 120)
        .flat_map(|f| {
            let (start, end) = (f.main().end, f.address + f.room);
            (start..end.saturating_sub(NEAR_JUMP - 1).max(start)).step_by(5)
        })
        .filter(|c| {
            let reach = c.wrapping_sub(from + SHORT_JUMP).cast_signed();
            i8::try_from(reach).is_ok()
                && !taken.contains(c)
                // The room of a function within reach of its own redirect is not spare.
                && image.functions.iter().all(|f| {
                    f.size >= NEAR_JUMP + 4 || !(f.main().end..f.address + 9).contains(c)
                })
        })
        .find(|c| padding(image, *c, c + NEAR_JUMP))
}

/// The first bytes of an entry, and which of them an earlier update may have changed.
fn entry_bytes(image: &Image, function: &Function) -> (Vec<u8>, Vec<u8>) {
    let mut references = Vec::new();
    crate::code::for_each_reference(image, function.main(), |r| references.push(r));
    expected(image, function.address, EXPECT.min(function.size), references)
}

/// Several functions that OLD had at one address and NEW has apart: pointers to that address do not
/// tell which one they mean.
#[must_use]
pub fn folded(pair: Pair<'_>) -> Vec<Refusal> {
    let mut out = Vec::new();
    for split in &pair.matching.splits {
        let old = pair.old.function(split.old);
        if old.import.is_some() || only_called(pair.old, split.old) {
            continue;
        }
        let (first, other) = (pair.new.function(split.primary), pair.new.function(split.other));
        out.push(Refusal {
            code: "folded",
            subject: other.name().to_owned(),
            text: format!(
                "OLD has {} and {} at one address ({:#x}), NEW has them apart with different code; \
                 pointers that the process holds do not tell which one they mean",
                readable(first.name()),
                readable(other.name()),
                old.address
            ),
            way_out: "link OLD and NEW without identical code folding (-Wl,--icf=none), or with \
                      --icf=safe"
                .to_owned(),
        });
    }
    out
}

fn address_taken(image: &Image, id: FunctionId) -> bool {
    use crate::image::Meaning;
    let address = image.function(id).address;
    let in_data = image.relocations.values().any(|r| r.meaning == Meaning::Address(address));
    let emitted = image
        .static_relocations
        .iter()
        .any(|r| r.kind == object::elf::R_X86_64_64 && image.word(r.at) == Some(address));
    in_data
        || emitted
        || image.functions.iter().any(|f| {
            let mut taken = false;
            for part in f.parts() {
                crate::code::for_each_reference(image, part, |r| {
                    taken |= r.taken && r.target == address;
                });
            }
            taken
        })
}
