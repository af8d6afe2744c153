//! Local variables of a function, read when they are asked for.

use super::{Cfa, Function, Image, UnwindRow};
use crate::code::{Body, decode};
use crate::debug::{DebugError, FrameView, Locals, SectionStore};
use iced_x86::FlowControl;

/// rsp's number.
const RSP: u8 = 4;

/// Why local variables are not known.
#[derive(Debug, thiserror::Error)]
pub enum LocalsError {
    /// The function came without debug information.
    #[error("no debug information for this function")]
    Undescribed,
    /// The sections cannot be read any more.
    #[error("debug information: {0}")]
    Sections(String),
    /// The function's entry cannot be read.
    #[error("debug information: {0}")]
    Debug(#[from] DebugError),
}

impl Image {
    /// The local variables of a function: where each is, and when.
    ///
    /// # Errors
    /// [`LocalsError`] when the debug information does not describe it, or is damaged.
    pub fn locals(&self, function: &Function) -> Result<Locals, LocalsError> {
        let index = function.debug.ok_or(LocalsError::Undescribed)?;
        let file = self.apart.as_deref().unwrap_or(&self.bytes);
        let store = self.store.get_or_init(|| {
            let file = object::File::parse(file).map_err(|e| e.to_string())?;
            SectionStore::load(&file).map_err(|e| e.to_string())
        });
        let store = store.as_ref().map_err(|e| LocalsError::Sections(e.clone()))?;
        let rows = self.rows(function);
        // rustc's producer says "clang LLVM", too.
        let body_relative = self.unit_of(function).is_some_and(|unit| unit.is_clang);
        let body_depth =
            body_relative.then(|| body_depth(&decode(self, function), &rows)).flatten();
        let frame = FrameView { rows: &rows, body_relative, body_depth };
        Ok(self.debug.locals(index, store, file, &frame)?)
    }
}

/// CFA minus stack pointer as it is in the body of a function that does not keep its CFA in another
/// register. Calls need a whole frame (the psABI aligns the stack there), and only arguments that
/// are pushed for some of them make it deeper: so it is the smallest depth at any call; and without
/// calls, the greatest.
fn body_depth(body: &Body, rows: &[UnwindRow]) -> Option<i64> {
    let mut calls: Option<i64> = None;
    let mut deepest: Option<i64> = None;
    for row in rows {
        let Cfa::Register(RSP, offset) = row.cfa else { continue };
        deepest = deepest.max(Some(offset));
    }
    for step in &body.steps {
        let call = matches!(
            step.instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        );
        if !call {
            continue;
        }
        let row = rows.iter().find(|row| row.extent.contains(&step.address()))?;
        let Cfa::Register(RSP, offset) = row.cfa else { return None };
        calls = Some(calls.map_or(offset, |least| least.min(offset)));
    }
    calls.or(deepest)
}

#[cfg(test)]
mod tests;
