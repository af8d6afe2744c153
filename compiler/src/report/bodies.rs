//! Two bodies of a function as a diff: operands resolved to names, branch targets inside to labels that
//! both sides share, so that nothing differs but what does.
//!
//! ```text
//! instructions, targets blank -> alignment -> labels of aligned lines -> rows
//! ```

use super::points::Place;
use crate::Built;
use crate::change::{describe, neutral};
use crate::code::{Body, Step, decode};
use crate::image::{FunctionId, Image};
use iced_x86::{Formatter, IntelFormatter};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::collections::BTreeSet;

/// One line of the diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In which of the bodies it is.
    pub side: Side,
    /// The label of a branch target.
    pub label: Option<u32>,
    /// The instruction.
    pub text: String,
    /// The source that it was made of; OLD's where it is in both.
    pub place: Place,
}

/// Which body a line is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In both, alike.
    Both,
    /// In OLD alone.
    Old,
    /// In NEW alone.
    New,
}

/// The rows of a function's two bodies; those of one, if it has only one.
pub fn rows(built: &Built, old: Option<FunctionId>, new: Option<FunctionId>) -> Vec<Row> {
    let lines = |image: &Image, id: Option<FunctionId>| {
        id.map_or_else(Vec::new, |id| lines(image, &decode(image, image.function(id))))
    };
    let (a, b) = (lines(&built.old, old), lines(&built.new, new));
    let ops = capture_diff_slices(Algorithm::Myers, &keys(&a), &keys(&b));
    let labels = Labels::new(&ops, &a, &b);
    ops.iter().flat_map(|op| labels.rows(op, &a, &b)).collect()
}

/// Runs of rows that differ, with some equal ones around; between two runs, how many were left out.
pub fn hunks(rows: &[Row], context: usize) -> Vec<Hunk<'_>> {
    let mut out: Vec<Hunk<'_>> = Vec::new();
    let mut end = 0;
    for (index, _) in rows.iter().enumerate().filter(|(_, row)| row.side != Side::Both) {
        let start = index.saturating_sub(context).max(end);
        let stop = (index + context + 1).min(rows.len());
        match out.last_mut() {
            Some(last) if start <= end => last.rows = &rows[end - last.rows.len()..stop],
            _ => out.push(Hunk { skipped: start - end, rows: &rows[start..stop] }),
        }
        end = stop.max(end);
    }
    out
}

/// Rows that belong together.
#[derive(Debug, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Equal rows left out before it.
    pub skipped: usize,
    /// Its rows.
    pub rows: &'a [Row],
}

/// One instruction of one body.
struct Line {
    text: String,
    /// Instructions of the body that it leads to.
    targets: Vec<usize>,
    place: Place,
}

/// What makes two lines equal before targets have names.
fn keys(lines: &[Line]) -> Vec<(&str, usize)> {
    lines.iter().map(|line| (line.text.as_str(), line.targets.len())).collect()
}

fn lines(image: &Image, body: &Body) -> Vec<Line> {
    let mut formatter = IntelFormatter::new();
    let line = |step: &Step| {
        let mut text = String::new();
        // The diff must not show addresses, which always differ.
        formatter.format(&neutral(step), &mut text);
        let mut targets = Vec::new();
        for reference in &step.references {
            match body.index_at(reference.target) {
                Some(index) => targets.push(index),
                None => text = named(&text, &describe(image, reference.target)),
            }
        }
        Line { text, targets, place: Place::of(image, step.address()) }
    };
    body.steps.iter().map(line).collect()
}

/// An instruction with a name where it has no address: [`neutral`] leaves 0 there.
fn named(text: &str, name: &str) -> String {
    if let Some(branch) = text.strip_suffix(" 0") {
        format!("{branch} <{name}>")
    } else if text.contains("[0]") {
        text.replacen("[0]", &format!("[<{name}>]"), 1)
    } else {
        format!("{text}  <{name}>")
    }
}

/// Labels of the lines of both bodies that branches lead to, by index; aligned lines share one.
struct Labels {
    old: Vec<Option<u32>>,
    new: Vec<Option<u32>>,
}

impl Labels {
    fn new(ops: &[DiffOp], a: &[Line], b: &[Line]) -> Self {
        let aimed = |lines: &[Line]| -> BTreeSet<usize> {
            lines.iter().flat_map(|line| line.targets.iter().copied()).collect()
        };
        let (in_old, in_new) = (aimed(a), aimed(b));
        let mut labels = Self { old: vec![None; a.len()], new: vec![None; b.len()] };
        let mut count = 0;
        let mut next = || {
            count += 1;
            Some(count)
        };
        for op in ops {
            let (from, to) = (op.old_range(), op.new_range());
            if let DiffOp::Equal { .. } = op {
                for (i, j) in from.zip(to) {
                    if in_old.contains(&i) || in_new.contains(&j) {
                        labels.old[i] = next();
                        labels.new[j] = labels.old[i];
                    }
                }
                continue;
            }
            from.filter(|i| in_old.contains(i)).for_each(|i| labels.old[i] = next());
            to.filter(|j| in_new.contains(j)).for_each(|j| labels.new[j] = next());
        }
        labels
    }

    fn rows(&self, op: &DiffOp, a: &[Line], b: &[Line]) -> Vec<Row> {
        let old = |i: usize| row(Side::Old, &a[i], i, &self.old);
        let new = |j: usize| row(Side::New, &b[j], j, &self.new);
        if !matches!(op, DiffOp::Equal { .. }) {
            return op.old_range().map(old).chain(op.new_range().map(new)).collect();
        }
        let mut out = Vec::new();
        for (i, j) in op.old_range().zip(op.new_range()) {
            let (p, q) = (old(i), new(j));
            if p.text == q.text {
                out.push(Row { side: Side::Both, ..p });
            } else {
                // The same instruction, which leads elsewhere.
                out.extend([p, q]);
            }
        }
        out
    }
}

fn row(side: Side, line: &Line, index: usize, labels: &[Option<u32>]) -> Row {
    let mut text = line.text.clone();
    for target in &line.targets {
        let label = labels.get(*target).copied().flatten();
        text = named(&text, &label.map_or_else(|| "end".to_owned(), |label| format!("L{label}")));
    }
    Row { side, label: labels.get(index).copied().flatten(), text, place: line.place.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(side: Side, text: &str) -> Row {
        Row { side, label: None, text: text.to_owned(), place: Place::default() }
    }

    #[test]
    fn equal_rows_far_from_any_difference_are_left_out() {
        let mut rows: Vec<Row> = (0..20).map(|i| row(Side::Both, &i.to_string())).collect();
        rows[5].side = Side::Old;
        rows[8].side = Side::New;
        rows[18].side = Side::Old;
        let hunks = hunks(&rows, 2);
        let shape: Vec<_> = hunks.iter().map(|h| (h.skipped, h.rows.len())).collect();
        assert_eq!(shape, [(3, 8), (5, 4)]);
        assert_eq!(hunks[0].rows[0].text, "3");
        assert_eq!(hunks[1].rows[3].text, "19");
        assert!(super::hunks(&rows[..5], 2).is_empty());
    }

    #[test]
    fn a_label_is_shared_by_aligned_lines() {
        let line = |text: &str, targets: &[usize]| Line {
            text: text.to_owned(),
            targets: targets.to_vec(),
            place: Place::default(),
        };
        let a = [line("jne 0", &[2]), line("nop", &[]), line("ret", &[])];
        let b = [line("jne 0", &[3]), line("inc", &[]), line("nop", &[]), line("ret", &[])];
        let ops = capture_diff_slices(Algorithm::Myers, &keys(&a), &keys(&b));
        let labels = Labels::new(&ops, &a, &b);
        let rows: Vec<Row> = ops.iter().flat_map(|op| labels.rows(op, &a, &b)).collect();
        let shown: Vec<_> = rows.iter().map(|r| (r.side, r.text.as_str(), r.label)).collect();
        assert_eq!(
            shown,
            [
                (Side::Both, "jne <L1>", None),
                (Side::New, "inc", None),
                (Side::Both, "nop", None),
                (Side::Both, "ret", Some(1)),
            ]
        );
    }
}
