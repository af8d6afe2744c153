//! Which bytes of a replaced function's OLD code may be overwritten once its sites are planted.
//!
//! All that are instructions or padding between them, for nothing else of the function is executed
//! again. Not: the padding behind the function, which a process that has been updated before need not
//! have; code of functions that nest in it and stay; data that assembler code keeps among its
//! instructions. Where something may be data, only what runs straight on from a site is sure not to be.

use super::layout::without;
use crate::code::{Body, Field};
use crate::image::{FunctionId, Image};
use dsu_patch_format::plan::{Redirect, RedirectForm};
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};
use iced_x86::FlowControl;
use std::collections::BTreeSet;
use std::ops::Range;

/// What is known of OLD's text when sites are planted.
pub(super) struct Text<'a> {
    pub old: &'a Image,
    /// Functions whose OLD code is dead after commit.
    pub replaced: BTreeSet<FunctionId>,
    /// Bytes that redirects write: jumps, caves.
    pub redirects: Vec<Redirect>,
}

impl Text<'_> {
    /// The bytes of a part that jumps to stubs may take; `sites` are those in it.
    pub(super) fn usable(&self, body: &Body, part: &Range<u64>, sites: &[u64]) -> Vec<Range<u64>> {
        let mut usable = if may_hold_data(self.old, body, part) {
            straight(body, part, sites)
        } else {
            vec![part.clone()]
        };
        let entry = self.entry(part);
        if let Some(redirect) = entry.filter(|r| r.form == RedirectForm::Near) {
            // It may run into the padding behind a short function.
            usable.push(redirect.at.0..redirect.at.0 + NEAR_JUMP);
        }
        let reserved = self.reserved(part);
        without(&union(usable), &reserved)
    }

    /// The redirect at the entry that a part begins with.
    pub(super) fn entry(&self, part: &Range<u64>) -> Option<&Redirect> {
        self.redirects.iter().find(|r| r.entry.0 == part.start)
    }

    /// Bytes of a part that stay, or hold something else.
    fn reserved(&self, part: &Range<u64>) -> Vec<Range<u64>> {
        let mut out = self.strangers(part);
        for redirect in &self.redirects {
            out.push(redirect.entry.0..redirect.at.0);
            if let RedirectForm::Short { cave } = redirect.form {
                out.push(redirect.at.0..redirect.at.0 + SHORT_JUMP);
                out.push(cave.0..cave.0 + NEAR_JUMP);
            } else if redirect.entry.0 != part.start {
                out.push(redirect.at.0..redirect.at.0 + NEAR_JUMP);
            }
        }
        out.retain(|r| r.start < r.end && r.start < part.end && part.start < r.end);
        out
    }

    /// Code in a part of functions that are not replaced: nested symbols of assembler code.
    fn strangers(&self, part: &Range<u64>) -> Vec<Range<u64>> {
        let functions = &self.old.functions;
        let first = functions.partition_point(|f| f.address < part.start).saturating_sub(8);
        let near = functions.iter().enumerate().skip(first);
        near.take_while(|(_, f)| f.address < part.end)
            .filter(|(i, f)| f.address != part.start && !self.replaced.contains(&FunctionId(*i)))
            .map(|(_, f)| f.main())
            .filter(|main| main.end > part.start)
            .collect()
    }
}

/// Whether something looks at the bytes of a part as anything but its code: a reference to its inside
/// that is not a branch of its own, or bytes that are no instructions.
fn may_hold_data(image: &Image, body: &Body, part: &Range<u64>) -> bool {
    let inside = |address: u64| part.start < address && address < part.end;
    if body.opaque.as_ref().is_some_and(|o| o.start < part.end && part.start < o.end) {
        return true;
    }
    let mut branches = BTreeSet::new();
    for reference in body.steps.iter().flat_map(|s| &s.references) {
        if matches!(reference.field, Field::Branch8 | Field::Branch32) {
            branches.insert(reference.target);
        } else if inside(reference.target) {
            return true;
        }
    }
    let first = image.anchors.partition_point(|a| *a <= part.start);
    let anchors = image.anchors[first..].iter().take_while(|a| **a < part.end);
    anchors.copied().any(|a| !branches.contains(&a))
}

/// The instructions from each site up to where execution leaves the straight line.
fn straight(body: &Body, part: &Range<u64>, sites: &[u64]) -> Vec<Range<u64>> {
    let run = |site: &u64| {
        let steps = body.index_at(*site).and_then(|i| body.steps.get(i..)).unwrap_or_default();
        let leaves = |flow| {
            use FlowControl::{
                Call, ConditionalBranch, IndirectCall, Next, XbeginXabortXend as Transaction,
            };
            !matches!(flow, Next | Call | IndirectCall | ConditionalBranch | Transaction)
        };
        let mut end = *site;
        for step in steps.iter().take_while(|s| s.end() <= part.end) {
            end = step.end();
            if leaves(step.instruction.flow_control()) {
                break;
            }
        }
        *site..end
    };
    sites.iter().map(run).filter(|r| r.start < r.end).collect()
}

/// Ranges that touch or overlap as one.
pub(in crate::emit) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}
