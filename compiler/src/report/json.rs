//! One JSON object for tools. Names and types of its fields are stable.

use crate::matching::names::readable;
use crate::{Built, Outcome};
use dsu_patch_format::OldAddr;
use dsu_patch_format::manifest::{DataAction, DataChange};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The report as JSON.
#[must_use]
pub fn json(built: &Built) -> Value {
    let outcome = match built.outcome {
        Outcome::Written => "written",
        Outcome::NothingToDo => "nothing-to-do",
        Outcome::Refused => "refused",
    };
    let changed: Vec<Value> = built
        .closure
        .replaced
        .iter()
        .map(|(id, why)| {
            let old = built.old.function(*id);
            let new = built.matching.new_of(*id).map(|n| built.new.function(n));
            json!({
                "name": old.name(),
                "readable": readable(old.name()),
                "old_address": old.address,
                "old_size": old.size,
                "new_address": new.map(|n| n.address),
                "new_size": new.map(|n| n.size),
                "why": why,
            })
        })
        .collect();
    let removed: Vec<&str> = built
        .emitted
        .replaced
        .iter()
        .filter(|f| f.new.is_none())
        .map(|f| f.name.as_str())
        .collect();
    let data = |actions: &[DataAction]| -> Vec<Value> {
        built
            .data
            .changes
            .iter()
            .chain(&built.emitted.data)
            .filter(|d| actions.contains(&d.action))
            .map(|DataChange { name, action, why, old_size, new_size }| {
                json!({
                    "name": name,
                    "action": action,
                    "why": why,
                    "old_size": old_size,
                    "new_size": new_size,
                })
            })
            .collect()
    };
    let layout: Vec<Value> = built
        .refusals
        .iter()
        .filter(|r| r.code.ends_with("-layout"))
        .map(|r| json!({"name": r.subject, "text": r.text}))
        .collect();
    json!({
        "outcome": outcome,
        "old": {"file": built.old.file, "build_id": built.old.build_id},
        "new": {"file": built.new.file, "build_id": built.new.build_id},
        "functions": {
            "compared": built.comparisons.len(),
            "changed": changed,
            "added": built.emitted.added.iter().map(|a| json!({
                "name": a.name, "new_address": a.new.0, "size": a.size,
            })).collect::<Vec<_>>(),
            "removed": removed,
            "line_only": built.line_only(),
        },
        "data": {
            "added": data(&[DataAction::Added]),
            "initializer_changed": data(&[DataAction::KeptValue]),
            "updated_in_place": data(&[DataAction::UpdatedInPlace]),
            "moved": data(&[DataAction::Moved]),
            "layout_changed": layout,
        },
        "frames": built.emitted.replaced.iter().map(|f| json!({
            "name": f.name,
            "sites": f.coverage.sites,
            "passing": f.coverage.passing,
            "of": f.coverage.of,
        })).collect::<Vec<_>>(),
        "blind_points": blind_points(built),
        "warnings": built.warnings,
        "refusals": built.refusals,
    })
}

/// The blind points, and whether a local that only NEW has is all that stands against one.
fn blind_points(built: &Built) -> Vec<Value> {
    let blind = built.carried.iter().flat_map(|one| &one.blind);
    let new_locals: BTreeSet<OldAddr> =
        blind.filter(|b| b.obstacles.iter().all(|o| o.new_local)).map(|b| b.at).collect();
    let points = built.emitted.blind_points.iter();
    points
        .map(|point| {
            json!({
                "function": point.function,
                "at": point.at,
                "kind": point.kind,
                "line": point.line,
                "why": point.why,
                "new_local": new_locals.contains(&point.at),
            })
        })
        .collect()
}
