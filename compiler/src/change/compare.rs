//! Two bodies, instruction by instruction.

use super::meaning::Meanings;
use super::{Pair, bodies, lines, target};
use crate::code::{Body, Step};
use crate::image::FunctionId;
use iced_x86::{Instruction, OpKind, Register};
use std::cell::OnceCell;

/// Whether a function goes on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Equal.
    Same,
    /// Equal but for immediates that are their own source lines.
    LineOnly,
    /// Different.
    Changed,
}

/// What comparing two bodies found.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The result.
    pub verdict: Verdict,
    /// The first differences in words, when there are any.
    pub reasons: Vec<String>,
    /// Runs of addresses that the bodies share, when they are equal: OLD start, NEW start, bytes.
    pub runs: Vec<(u64, u64, u64)>,
}

/// How many differences are worth telling.
const REASONS: usize = 4;

/// Compares a pair of functions.
#[must_use]
pub fn compare_function(pair: Pair<'_>, a: FunctionId, b: FunctionId) -> Comparison {
    let (old, new) = (pair.old.function(a), pair.new.function(b));
    if let (Some(x), Some(y)) = (&old.import, &new.import) {
        let same = x.name == y.name && x.version == y.version;
        let reasons = if same { vec![] } else { vec![format!("imports {y} instead of {x}")] };
        let verdict = if same { Verdict::Same } else { Verdict::Changed };
        let len = old.size.min(new.size);
        return Comparison { verdict, reasons, runs: vec![(old.address, new.address, len)] };
    }
    let (x, y) = bodies(pair, a, b);
    let mut comparing = Comparing {
        pair,
        a,
        b,
        old: &x,
        new: &y,
        lines: 0,
        reasons: Vec::new(),
        meanings: (OnceCell::new(), OnceCell::new()),
    };
    comparing.run();
    let Comparing { lines, reasons, .. } = comparing;
    let verdict = match (reasons.is_empty(), lines) {
        (true, 0) => Verdict::Same,
        (true, _) if !pair.line_numbers => Verdict::LineOnly,
        _ => Verdict::Changed,
    };
    let reasons = if verdict == Verdict::Changed && reasons.is_empty() {
        vec![format!("{lines} source line numbers in it changed")]
    } else {
        reasons
    };
    let runs = if verdict == Verdict::Changed { Vec::new() } else { runs(&x, &y) };
    Comparison { verdict, reasons, runs }
}

/// Both bodies of a pair, and what was found so far.
pub(super) struct Comparing<'a> {
    pub pair: Pair<'a>,
    pub a: FunctionId,
    pub b: FunctionId,
    pub old: &'a Body,
    pub new: &'a Body,
    lines: usize,
    reasons: Vec<String>,
    /// Whose OLD's and NEW's addresses are, when that had to be asked.
    meanings: (OnceCell<Meanings>, OnceCell<Meanings>),
}

impl Comparing<'_> {
    /// Whose the addresses are that OLD's body takes.
    pub(super) fn old_meanings(&self) -> &Meanings {
        let image = self.pair.old;
        self.meanings.0.get_or_init(|| Meanings::new(image, image.function(self.a), self.old))
    }

    /// Whose the addresses are that NEW's body takes.
    pub(super) fn new_meanings(&self) -> &Meanings {
        let image = self.pair.new;
        self.meanings.1.get_or_init(|| Meanings::new(image, image.function(self.b), self.new))
    }

    fn run(&mut self) {
        let shape = self.shape();
        let (x, y) = (&self.old.steps, &self.new.steps);
        for (index, (s, t)) in x.iter().zip(y).enumerate() {
            if self.reasons.len() >= REASONS {
                break;
            }
            if let Err(reason) = self.step(index, s, t) {
                let place = self.pair.new.debug.position(t.address());
                let place = place.map_or_else(String::new, |(f, l)| format!("{f}:{l}: "));
                self.reasons.push(format!("{place}{reason}"));
                // Behind an insertion everything differs: one reason tells as much as a hundred.
                if x.len() != y.len() {
                    break;
                }
            }
        }
        self.reasons.extend(shape);
    }

    /// Differences that the instructions alone do not show.
    fn shape(&self) -> Option<String> {
        let (x, y) = (self.old, self.new);
        if x.steps.len() != y.steps.len() {
            return Some(format!("{} instructions -> {}", x.steps.len(), y.steps.len()));
        }
        if x.parts.len() != y.parts.len() || x.parts.iter().zip(&y.parts).any(|(p, q)| p.1 != q.1) {
            return Some("the split into a hot and a cold part changed".to_owned());
        }
        match (&x.opaque, &y.opaque) {
            (None, None) => None,
            (Some(p), Some(q)) => {
                let bytes = |image: &crate::image::Image, r: &std::ops::Range<u64>| {
                    image.content(r.start, r.end - r.start).map(std::borrow::Cow::into_owned)
                };
                let same = bytes(self.pair.old, p) == bytes(self.pair.new, q);
                (!same).then(|| "bytes in it that are not instructions changed".to_owned())
            }
            _ => Some("bytes in it are instructions in one build only".to_owned()),
        }
    }

    fn step(&mut self, index: usize, s: &Step, t: &Step) -> Result<(), String> {
        if neutral(s) != neutral(t) {
            if lines::is_line_number(self.pair, self.old, self.new, index) {
                self.lines += 1;
            } else if !self.same_thread_local(s, t) {
                return Err(self.texts(s, t));
            }
        } else if self.touches_thread_pointer(s) {
            return Err("uses thread-local variables, which moved".to_owned());
        } else if thread_local_displacement(&s.instruction).is_some()
            && !self.same_thread_local(s, t)
        {
            return Err("refers to another thread-local variable".to_owned());
        }
        if s.references.len() != t.references.len() {
            return Err(self.texts(s, t));
        }
        for (p, q) in s.references.iter().zip(&t.references) {
            target::same_reference(self, s, t, p, q)?;
        }
        Ok(())
    }

    /// Both instructions in words.
    fn texts(&self, s: &Step, t: &Step) -> String {
        let text = |image: &crate::image::Image, step: &Step| {
            let targets = step.references.iter().filter(|r| {
                self.old.index_at(r.target).is_none() && self.new.index_at(r.target).is_none()
            });
            let names: String =
                targets.map(|r| format!(" <{}>", target::describe(image, r.target))).collect();
            format!("`{}{names}`", neutral(step))
        };
        format!("{} -> {}", text(self.pair.old, s), text(self.pair.new, t))
    }

    /// Two local-exec accesses to one variable, wherever it is (psABI 3.5.4: `%fs:offset`).
    fn same_thread_local(&self, s: &Step, t: &Step) -> bool {
        let (Some(d), Some(e)) =
            (thread_local_displacement(&s.instruction), thread_local_displacement(&t.instruction))
        else {
            return false;
        };
        let mut without = (neutral(s), neutral(t));
        without.0.set_memory_displacement64(0);
        without.1.set_memory_displacement64(0);
        let old = thread_local(self.pair.old, d);
        let new = thread_local(self.pair.new, e);
        without.0 == without.1
            && match (old, new) {
                (Some((x, i)), Some((y, j))) => {
                    i == j && self.pair.matching.new_object(x) == Some(y)
                }
                // Not a variable of this image: the canary and its like keep their offset.
                (None, None) => d == e,
                _ => false,
            }
    }

    /// `mov %fs:0`: what is added to the thread pointer afterwards does not show its meaning.
    fn touches_thread_pointer(&self, s: &Step) -> bool {
        let i = &s.instruction;
        i.segment_prefix() == Register::FS
            && i.memory_base() == Register::None
            && i.memory_index() == Register::None
            && i.memory_displacement64() == 0
            && thread_local_layout_moved(self.pair)
    }
}

/// Whether some thread-local variable of the executables has another offset in NEW.
pub(crate) fn thread_local_layout_moved(pair: Pair<'_>) -> bool {
    use crate::image::{Image, ObjectId, Storage};
    let offset = |image: &Image, id: ObjectId| {
        let tls = image.tls.as_ref()?;
        Some(image.object(id).address - tls.extent.start).map(|o| tls.to_thread_pointer - o)
    };
    pair.old.objects.iter().enumerate().any(|(i, object)| {
        object.storage == Storage::ThreadLocal
            && pair
                .matching
                .new_object(ObjectId(i))
                .is_none_or(|n| offset(pair.old, ObjectId(i)) != offset(pair.new, n))
    })
}

/// The displacement of an operand `%fs:displacement`.
pub(crate) fn thread_local_displacement(i: &Instruction) -> Option<i64> {
    let direct = i.segment_prefix() == Register::FS
        && (0..i.op_count()).any(|o| i.op_kind(o) == OpKind::Memory)
        && i.memory_base() == Register::None
        && i.memory_index() == Register::None;
    // Sign-extended by the processor (SDM volume 1, 3.7.5.1).
    direct.then(|| i.memory_displacement64().cast_signed()).filter(|d| *d < 0)
}

/// The thread-local variable at a displacement from the thread pointer, and the offset in it.
pub(crate) fn thread_local(
    image: &crate::image::Image,
    displacement: i64,
) -> Option<(crate::image::ObjectId, u64)> {
    let tls = image.tls.as_ref()?;
    let address = (tls.extent.start + tls.to_thread_pointer).checked_add_signed(displacement)?;
    let id = image.thread_local_at(address)?;
    Some((id, address - image.object(id).address))
}

/// An instruction without the addresses in it and without its encoding's lengths.
pub(crate) fn neutral(step: &Step) -> Instruction {
    use crate::code::Field;
    let mut i = step.instruction;
    i.as_near_branch();
    for reference in &step.references {
        match reference.field {
            Field::Branch8 | Field::Branch32 => i.set_near_branch64(0),
            Field::Relative32 => i.set_memory_displacement64(0),
            Field::Absolute32 | Field::Absolute64 if reference.immediate => {
                for operand in 0..i.op_count() {
                    if matches!(
                        i.op_kind(operand),
                        OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64
                    ) {
                        i.set_immediate_u64(operand, 0);
                    }
                }
            }
            Field::Absolute32 | Field::Absolute64 => i.set_memory_displacement64(0),
        }
    }
    i.set_ip(0);
    i.set_len(0);
    i
}

/// Equal bodies as runs of one difference: where padding or a branch's length differs a new run
/// begins.
fn runs(x: &Body, y: &Body) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for ((_, range), (_, _)) in x.parts.iter().zip(&y.parts) {
        let mut open: Option<(u64, u64, u64)> = None;
        for (s, t) in x.steps[range.clone()].iter().zip(&y.steps[range.clone()]) {
            let (from, to) = (s.address(), t.address());
            let len = s.instruction.len().min(t.instruction.len()) as u64;
            open = match open {
                Some((f, g, _)) if from.wrapping_sub(f) == to.wrapping_sub(g) => {
                    Some((f, g, from - f + len))
                }
                before => {
                    out.extend(before);
                    Some((from, to, len))
                }
            };
        }
        out.extend(open);
    }
    out
}
