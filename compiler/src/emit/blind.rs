//! Blind ranges: OLD code of replaced and removed functions, and the source lines in it.

use super::{Emitted, Inputs};
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
    out.plan.blind = ranges;
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
