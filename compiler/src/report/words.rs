//! A frame translation in words: which place of OLD each location of NEW gets its value from, and why
//! that is right.

use crate::Built;
use crate::change::describe;
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use dsu_patch_format::plan::{SiteKind, Target};

/// A program point: where it is to the code around it.
pub fn kind(kind: SiteKind) -> &'static str {
    match kind {
        SiteKind::Return => "behind the call",
        SiteKind::Loop => "loop head",
        SiteKind::LandingPad => "landing pad",
        SiteKind::Point => "in between",
    }
}

/// One line of a table: to, from, why.
pub fn row(built: &Built, step: &Move) -> [String; 3] {
    [step.to.to_string(), value(built, &step.from), reason(step)]
}

/// What a frame goes on in: NEW, or a copy of its function.
pub fn code(copied: bool) -> &'static str {
    match copied {
        true => "a copy of NEW's code, with objects of the frame where OLD has them,",
        false => "NEW",
    }
}

/// What NEW's frame leaves of OLD's, if it does.
pub fn lowered(table: &Translation) -> String {
    match table.lowered {
        0 => String::new(),
        by => format!(", of which {by} are left over from OLD's"),
    }
}

/// The caller's value of a callee-saved register, where it is anyway: nothing to be read twice.
pub fn is_left(step: &Move) -> bool {
    step.proof == Proof::CalleeSaved && step.from == Value::At(step.to)
}

/// What a location of NEW gets.
fn value(built: &Built, value: &Value) -> String {
    match value {
        Value::At(location) => location.to_string(),
        Value::Constant(number) => match number.cast_signed() {
            small @ -9..=9 => small.to_string(),
            _ => format!("{number:#x}"),
        },
        Value::Address { target, addend: 0 } => format!("&{}", target_name(built, *target)),
        Value::Address { target, addend } => format!("&{}{addend:+}", target_name(built, *target)),
        Value::Frame(offset) => format!("cfa{offset:+}"),
        Value::Canary => "%fs:0x28".to_owned(),
        Value::Binary { op, left, right, .. } => {
            format!("({} {op} {})", self::value(built, left), self::value(built, right))
        }
        Value::ZeroExtend { value, .. } => format!("{}, zeroes above", self::value(built, value)),
        Value::SignExtend { value, .. } => format!("{}, its sign above", self::value(built, value)),
    }
}

fn target_name(built: &Built, target: Target) -> String {
    match target {
        Target::Old(a) | Target::OldCode(a) | Target::OldIdentity(a) => describe(&built.old, a.0),
        Target::New(a) => format!("NEW's {}", describe(&built.new, a.0)),
        Target::Import(i) => {
            let import = built.emitted.plan.imports.get(i as usize);
            import.map_or_else(String::new, |import| import.name.clone())
        }
    }
}

fn reason(step: &Move) -> String {
    match &step.proof {
        Proof::Equal => "proved equal".to_owned(),
        Proof::Variable(name) => format!("same variable `{name}`"),
        Proof::EqualVariable(name) => format!("proved equal, variable `{name}`"),
        Proof::Remade => format!("made again: {}", made(&step.from)),
        Proof::CalleeSaved => "the caller's, kept for it".to_owned(),
        Proof::Result => "result of the call".to_owned(),
        Proof::NewLocal(name) => format!("new variable `{name}`, as it begins"),
        Proof::Lowered => "returns to where the rest of OLD's frame is taken away".to_owned(),
    }
}

fn made(value: &Value) -> &'static str {
    match value {
        Value::Constant(_) => "constant",
        Value::Address { .. } => "address",
        Value::Frame(_) => "address in the frame",
        Value::Canary => "canary of the stack protector",
        // A copy of what is there, under another proof than equality of the place.
        Value::At(Location::Slot { .. } | Location::General { .. } | Location::Vector { .. }) => {
            "copy"
        }
        Value::Binary { .. } | Value::ZeroExtend { .. } | Value::SignExtend { .. } => "arithmetic",
    }
}
