//! What unwinding needs: rows for the unwinder of the next update, and what the shadow image does not have
//! yet.
//!
//! Unwind tables of carried functions are not registered in the process, so an exception that
//! should pass through one ends the program. Where a language throws, that is refused.

use super::shadow::Placed;
use super::{Emitted, Inputs};
use crate::debug::Language;
use crate::image::Cfa;
use crate::matching::names::readable;
use crate::refusal::Refusal;
use dsu_patch_format::NewAddr;
use dsu_patch_format::plan::{Protection, UnwindRow};

/// The rows of the functions that are put into the shadow image, where they are of the usual kinds.
pub(super) fn rows(inputs: Inputs<'_>, placed: &Placed, out: &mut Emitted) {
    let image = inputs.pair.new;
    let functions = placed.functions.iter().map(|id| image.function(*id));
    let mut rows: Vec<UnwindRow> = functions
        .flat_map(|function| image.rows(function))
        .filter_map(|row| carried(&row))
        .collect();
    rows.sort_by_key(|row| row.start);
    let mut end = 0;
    let text = |row: &UnwindRow| {
        let segments = out.plan.segments.iter().filter(|s| s.protection == Protection::Text);
        let first = row.start.0;
        segments.into_iter().any(|s| {
            let inside = first.checked_sub(s.start.0);
            inside.is_some_and(|o| o + u64::from(row.len) <= s.bytes.len() as u64)
        })
    };
    rows.retain(|row| {
        let free = row.start.0 >= end && text(row);
        if free {
            end = row.start.0 + u64::from(row.len);
        }
        free
    });
    out.plan.unwind = rows;
}

fn carried(row: &crate::image::UnwindRow) -> Option<UnwindRow> {
    let Cfa::Register(register, offset) = row.cfa else { return None };
    let saved = row.saved.iter().map(|(r, o)| Some((*r, i32::try_from(*o).ok()?)));
    let row = UnwindRow {
        start: NewAddr(row.extent.start),
        len: u32::try_from(row.extent.end - row.extent.start).ok().filter(|len| *len > 0)?,
        cfa: (register, i32::try_from(offset).ok()?),
        saved: saved.collect::<Option<_>>().filter(|_| !row.odd)?,
    };
    Some(row)
}

pub(super) fn check(inputs: Inputs<'_>, placed: &Placed, out: &mut Emitted) {
    let image = inputs.pair.new;
    if inputs.no_unwinding || !image.sections.iter().any(|s| s.name == ".gcc_except_table") {
        return;
    }
    let throwing: Vec<&str> = placed
        .functions
        .iter()
        .map(|id| image.function(*id))
        .filter(|function| {
            image
                .unit_of(function)
                .is_some_and(|u| matches!(u.language, Language::Cpp | Language::Rust))
        })
        .map(crate::image::Function::name)
        .collect();
    let Some(first) = throwing.first() else { return };
    out.refusals.push(Refusal {
        code: "unwinding",
        subject: (*first).to_owned(),
        text: format!(
            "{} ({} functions in all) is C++ or Rust code through which an exception or panic may \
             pass; unwinding through replaced code is not supported yet and would end the process",
            readable(first),
            throwing.len()
        ),
        way_out: "if none passes through them (or panics abort), --accept-no-unwinding".to_owned(),
    });
}
