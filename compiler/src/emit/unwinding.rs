//! What unwinding needs and the shadow image does not have yet.
//!
//! Unwind tables of carried functions are not registered in the process, so an exception that
//! should pass through one ends the program. Where a language throws, that is refused.

use super::shadow::Placed;
use super::{Emitted, Inputs};
use crate::debug::Language;
use crate::matching::names::readable;
use crate::refusal::Refusal;

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
