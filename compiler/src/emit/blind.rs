//! Blind ranges: OLD code of replaced and removed functions, the source lines in it, and the ends of it to
//! which nobody returns: an address there is the next function's, which pointers hold.

use super::{Emitted, Inputs};
use crate::image::Image;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::{BlindRange, LineRow};
use std::collections::HashMap;

pub(super) fn write(inputs: Inputs<'_>, out: &mut Emitted) {
    let old = inputs.pair.old;
    let mut ranges = Vec::new();
    for (index, replaced) in out.replaced.iter().enumerate() {
        let Some(id) = old.function_at(replaced.old.0) else {
            continue;
        };
        let redirect = out.plan.redirects.iter().find(|r| r.entry == replaced.old);
        for part in old.function(id).parts().filter(|p| !p.is_empty()) {
            let entry = redirect
                .filter(|_| part.start == replaced.old.0)
                .map(|r| [Some(replaced.old), Some(r.at)]);
            let mut free: Vec<OldAddr> = entry.into_iter().flatten().flatten().collect();
            free.dedup();
            free.retain(|f| f.0 < part.end);
            ranges.push(BlindRange {
                start: OldAddr(part.start),
                end: OldAddr(part.end),
                free,
                function: u32::try_from(index).unwrap_or(u32::MAX),
            });
        }
    }
    ranges.sort_by_key(|r| r.start);
    // Nested assembler symbols: each byte once, the first function names it.
    let mut end = OldAddr(0);
    ranges.retain_mut(|r| {
        r.start = r.start.max(end);
        end = end.max(r.end);
        r.free.retain(|f| *f >= r.start);
        r.start < r.end
    });
    lines(inputs, &ranges, out);
    out.plan.dead_returns = ranges.iter().filter(|r| is_dead_end(old, r)).map(|r| r.end).collect();
    out.plan.blind = ranges;
}

/// Bytes of the longest call that matters here: opcode, ModRM, SIB, 32-bit displacement.
const LONGEST_CALL: u64 = 7;

/// Whether no call ends where the range does.
fn is_dead_end(old: &Image, range: &BlindRange) -> bool {
    let len = LONGEST_CALL.min(range.end.0 - range.start.0);
    old.content(range.end.0 - len, len).is_some_and(|code| !may_end_with_call(&code))
}

/// Whether the last bytes could be those of a call, however they are divided into instructions: `e8 rel32`,
/// `ff /2` or `ff /3` (SDM volume 2, CALL, and 2.1.5 on the forms of ModRM).
fn may_end_with_call(code: &[u8]) -> bool {
    let back = |n: usize| code.len().checked_sub(n).and_then(|at| code.get(at)).copied();
    let indirect = |length: usize| {
        back(length) == Some(0xff)
            && back(length - 1).is_some_and(|modrm| matches!(modrm >> 3 & 7, 2 | 3))
    };
    // Without a displacement, with one of 1 or 4 bytes; each with a SIB byte or not.
    back(5) == Some(0xe8) || [2, 3, 4, 6, 7].into_iter().any(indirect)
}

fn lines(inputs: Inputs<'_>, ranges: &[BlindRange], out: &mut Emitted) {
    let table = &inputs.pair.old.debug.lines;
    let mut files: HashMap<String, u32> = HashMap::new();
    for range in ranges {
        for row in table.rows_in(range.start.0..range.end.0).iter().filter(|r| !r.end_sequence) {
            let name = table.file(row.file);
            let next = u32::try_from(files.len()).unwrap_or(u32::MAX);
            let file = *files.entry(name.to_owned()).or_insert_with(|| {
                out.plan.files.push(name.to_owned());
                next
            });
            let row =
                LineRow { start: OldAddr(row.address.max(range.start.0)), file, line: row.line };
            match out.plan.lines.last_mut() {
                Some(last) if last.start == row.start => *last = row,
                Some(last) if (last.file, last.line) == (row.file, row.line) => {}
                _ => out.plan.lines.push(row),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::may_end_with_call;

    #[test]
    fn ends() {
        for call in [
            &[0xe8, 1, 2, 3, 4][..],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd7],
            &[0xff, 0x14, 0xc8],
            &[0xff, 0x50, 8],
            &[0xff, 0x54, 0x24, 8],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x94, 0xc8, 1, 2, 3, 4],
            &[0xff, 0x1c, 0x24],
        ] {
            let code = [&[0x90, 0x90], call].concat();
            assert!(may_end_with_call(&code), "{call:x?}");
        }
        for other in [
            &[0xc3][..],
            &[0xe9, 1, 2, 3, 4],
            &[0xeb, 5],
            &[0x0f, 0x0b],
            &[0xff, 0xe0],
            &[0x0f, 0x1f, 0x44, 0, 0],
        ] {
            let code = [&[0x90; 7], other].concat();
            assert!(!may_end_with_call(&code), "{other:x?}");
        }
    }
}
