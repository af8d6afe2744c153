//! Every package that is built has a licence that `deny.toml` allows and comes from the registry or from
//! this workspace. The part of cargo-deny that needs neither its database nor minutes of building.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn licences_and_sources_are_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let deny = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let allowed = list(&deny, "allow");
    assert!(allowed.contains(&"MIT".to_owned()), "deny.toml has no list of licences");
    let out = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20, "cargo metadata lists {} packages", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence}"));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|s| !s.starts_with("registry+")) {
            wrong.push(format!("{name}: source {}", package["source"]));
        }
    }
    assert!(wrong.is_empty(), "not allowed by deny.toml:\n{}", wrong.join("\n"));
}

/// The strings of `KEY = [` up to `]`.
fn list(toml: &str, key: &str) -> Vec<String> {
    let lines = toml.lines().skip_while(|l| l.trim() != format!("{key} = ["));
    let items = lines.skip(1).take_while(|l| l.trim() != "]");
    items.map(|l| l.trim().trim_end_matches(',').trim_matches('"').to_owned()).collect()
}

/// SPDX expressions as they occur: `OR` (also written `/`) binds weaker than `AND`, `WITH` belongs to
/// its licence, parentheses stand around one side of an `AND`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.trim().replace('/', " OR ");
    let sides = split_outside(&expression, " AND ");
    if sides.len() > 1 && !has_outside(&expression, " OR ") {
        return sides.iter().all(|s| is_allowed(s, allowed));
    }
    let sides = split_outside(&expression, " OR ");
    if sides.len() > 1 {
        return sides.iter().any(|s| is_allowed(s, allowed));
    }
    let inner = expression.trim().strip_prefix('(').and_then(|e| e.strip_suffix(')'));
    match inner {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.iter().any(|a| a == expression.trim()),
    }
}

fn has_outside(expression: &str, word: &str) -> bool {
    split_outside(expression, word).len() > 1
}

/// Splits at a word that is not inside parentheses.
fn split_outside<'a>(expression: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[i..].starts_with(word) => {
                parts.push(&expression[start..i]);
                start = i + word.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "A WITH x".to_owned(), "Z".to_owned()];
    for yes in ["MIT", "GPL OR MIT", "GPL/MIT", "(GPL OR MIT) AND Z", "A WITH x OR GPL", "(MIT)"] {
        assert!(is_allowed(yes, &allowed), "{yes}");
    }
    for no in ["GPL", "none", "(GPL OR MIT) AND GPL", "A", "MIT AND GPL", ""] {
        assert!(!is_allowed(no, &allowed), "{no}");
    }
}
