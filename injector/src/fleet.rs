//! Many processes: which ones, one after the other, and what it comes to.
//!
//! Takes ids of processes, or all that run OLD, with their descendants or without; gives the outcome of
//! each, and one exit code. Parents come before their children: a child that is made meanwhile is a copy of
//! its updated parent.

use crate::error::{ApplyError, ExitCode};
use crate::outcome::Outcome;
use crate::target;
use crate::target::process::Status;
use dsu_patch_format::Bundle;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The parent of each process (`/proc/PID/stat`, proc(5)).
fn parents() -> BTreeMap<i32, i32> {
    let Ok(list) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// `roots` and all their descendants, parents first.
#[must_use]
pub fn tree(roots: &[i32]) -> Vec<i32> {
    descendants(roots, &parents())
}

fn descendants(roots: &[i32], parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found: Vec<i32> = Vec::new();
    let mut known = BTreeSet::new();
    let mut next: Vec<i32> = roots.to_vec();
    while !next.is_empty() {
        next.retain(|pid| known.insert(*pid));
        found.extend(&next);
        let children = parents.iter().filter(|(_, parent)| next.contains(parent));
        next = children.map(|(pid, _)| *pid).collect();
    }
    found
}

/// All processes that run OLD and may be looked at, parents first.
#[must_use]
pub fn running_old(bundle: &Bundle) -> Vec<i32> {
    let parents = parents();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let runs = |pid: &i32| *pid != own && runs_old(*pid, bundle);
    let mut found: Vec<i32> = parents.keys().copied().filter(runs).collect();
    found.sort_by_key(|pid| (depth(*pid, &parents), *pid));
    found
}

fn depth(pid: i32, parents: &BTreeMap<i32, i32>) -> usize {
    let mut depth = 0;
    let mut at = pid;
    while let Some(parent) = parents.get(&at).filter(|_| depth < parents.len()) {
        (at, depth) = (*parent, depth + 1);
    }
    depth
}

/// Whether a process runs the build that the bundle is for, whether it can be updated or not: the reason is
/// to be told.
#[must_use]
pub fn runs_old(pid: i32, bundle: &Bundle) -> bool {
    if Status::of(pid).is_none_or(|s| s.is_dead() || !s.has_memory) {
        return false;
    }
    target::runs(pid, &bundle.manifest.old.build_id)
}

/// Leaves out processes that have ended before they could be updated, of those that were not `named` but found:
/// they do not run OLD any more. Not where no other is left.
pub fn forget_ended(outcomes: &mut Vec<Outcome>, named: &[i32]) {
    let ended = |o: &Outcome| {
        let gone = matches!(o.result, Err(ApplyError::NoProcess(_) | ApplyError::Died(_)));
        gone && !named.contains(&o.pid)
    };
    if !outcomes.iter().all(ended) {
        outcomes.retain(|o| !ended(o));
    }
}

/// One exit code for all: that of each, where all are the same; else [`ExitCode::Mixed`].
#[must_use]
pub fn exit(outcomes: &[Outcome]) -> ExitCode {
    let mut codes = outcomes.iter().map(Outcome::exit);
    let Some(first) = codes.next() else { return ExitCode::NoProcess };
    if codes.all(|code| code == first) { first } else { ExitCode::Mixed }
}

/// For tools.
#[must_use]
pub fn json(outcomes: &[Outcome]) -> Value {
    let all: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
    json!({ "exit": exit(outcomes).code(), "processes": all })
}

/// A table for people.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut out = String::from("    pid  outcome           pause us  threads\n");
    for outcome in outcomes {
        let words = match &outcome.result {
            Ok(()) if outcome.dry_run => "would work".to_owned(),
            Ok(()) if outcome.revert => "reverted".to_owned(),
            Ok(()) => "updated".to_owned(),
            Err(e) => e.exit().name(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:>7}  {words:<16} {:>9}  {:>7}",
            outcome.pid,
            outcome.pause.as_micros(),
            outcome.threads
        );
    }
    let well = outcomes.iter().filter(|o| o.result.is_ok()).count();
    let _ = writeln!(out, "{well} of {} processes", outcomes.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first() {
        let parents = BTreeMap::from([(1, 0), (5, 1), (3, 5), (7, 3), (4, 5), (9, 1)]);
        assert_eq!(descendants(&[5], &parents), [5, 3, 4, 7]);
        assert_eq!(descendants(&[7, 5], &parents), [7, 5, 3, 4]);
        assert_eq!(depth(7, &parents), 4);
        // A circle, as a list that was read while processes came and went could show.
        let circle = BTreeMap::from([(2, 3), (3, 2)]);
        assert_eq!(descendants(&[2], &circle), [2, 3]);
        assert_eq!(depth(2, &circle), 2);
    }

    #[test]
    fn one_code_for_all() {
        let with = |result| Outcome { result, ..Outcome::new(1, false) };
        let died = || Err(ApplyError::Died("x".into()));
        assert_eq!(exit(&[]), ExitCode::NoProcess);
        assert_eq!(exit(&[with(Ok(())), with(Ok(()))]), ExitCode::Updated);
        assert_eq!(exit(&[with(died()), with(died())]), ExitCode::Died);
        assert_eq!(exit(&[with(Ok(())), with(died())]), ExitCode::Mixed);
        let mut outcomes = vec![with(Ok(())), with(died())];
        forget_ended(&mut outcomes, &[1]);
        assert_eq!(outcomes.len(), 2, "it was named");
        forget_ended(&mut outcomes, &[]);
        assert_eq!(exit(&outcomes), ExitCode::Updated);
        let mut outcomes = vec![with(died())];
        forget_ended(&mut outcomes, &[]);
        assert_eq!(exit(&outcomes), ExitCode::Died);
        assert!(table(&[with(Ok(())), with(died())]).contains("1 of 2 processes"));
    }
}
