//! What stands against blind call sites, sorted by kind.

use std::collections::BTreeMap;

/// Places shown for each kind of reason.
const EXAMPLES: usize = 4;

/// Kinds of reasons with the sites where they were told.
#[derive(Debug, Default)]
pub struct Reasons {
    kinds: BTreeMap<String, Kind>,
    sites: u64,
}

#[derive(Debug, Default)]
struct Kind {
    /// Sites where it is told.
    sites: u64,
    /// Sites where no other is.
    alone: u64,
    examples: Vec<String>,
}

impl Reasons {
    /// Counts what was told of one site, reasons parted by `; `.
    pub fn add(&mut self, place: &str, why: &str) {
        let mut kinds: Vec<String> = why.split("; ").map(kind).collect();
        kinds.sort();
        kinds.dedup();
        self.sites += 1;
        let alone = u64::from(kinds.len() == 1);
        for name in kinds {
            let kind = self.kinds.entry(name).or_default();
            kind.sites += 1;
            kind.alone += alone;
            if kind.examples.len() < EXAMPLES {
                kind.examples.push(place.to_owned());
            }
        }
    }

    /// Sites in which all these reasons were told.
    pub fn sites(&self) -> u64 {
        self.sites
    }

    /// The histogram, the largest first: sites, sites with no other reason, reason, examples.
    pub fn lines(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(name, kind)| (std::cmp::Reverse(kind.sites), name.as_str()));
        kinds
            .into_iter()
            .map(|(name, kind)| {
                format!(
                    "{:>6} {:>6}  {name}  [{}]",
                    kind.sites,
                    kind.alone,
                    kind.examples.join(", ")
                )
            })
            .collect()
    }
}

/// A reason without what differs from site to site: quoted names, places, numbers, registers.
fn kind(reason: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for word in reason.split_inclusive([' ', ',', ':', ')', '(']) {
        let ticks = word.matches('`').count();
        let bare = word.trim_end_matches([' ', ',', ':', ')', '(']);
        let tail = &word[bare.len()..];
        if quoted || ticks > 0 {
            quoted ^= ticks % 2 == 1;
            if !quoted {
                out.push('_');
                out.push_str(tail);
            }
        } else if bare.starts_with("0x") || is_register(bare) || is_number(bare) {
            out.push('_');
            out.push_str(tail);
        } else {
            out.push_str(word);
        }
    }
    out
}

fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches("CFA").trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

fn is_register(word: &str) -> bool {
    let numbered = |prefix: &str| {
        word.strip_prefix(prefix)
            .is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    };
    let named = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"].contains(&word);
    named || ["r", "xmm", "ymm", "zmm"].iter().any(|p| numbered(p))
}

#[cfg(test)]
mod tests {
    use super::{Reasons, kind};

    #[test]
    fn names_and_places_do_not_count() {
        let a = kind(
            "variable `it` (a.c:12): in OLD, the debug information contradicts the code at 0x12f3",
        );
        let b = kind(
            "variable `x y` (b.c:7): in OLD, the debug information contradicts the code at 0x99",
        );
        assert_eq!(a.replace("a.c", "").len(), b.replace("b.c", "").len());
        assert_eq!(kind("a value in rbx at CFA-12"), kind("a value in r15 at CFA-64"));
        assert_ne!(kind("a value in rbx"), kind("a value in memory"));
    }

    #[test]
    fn a_reason_that_stands_alone_is_counted_as_such() {
        let mut reasons = Reasons::default();
        reasons.add("f:1", "no counterpart");
        reasons.add("f:2", "no counterpart; a value in rbx");
        let lines = reasons.lines();
        assert!(lines[0].starts_with("     2      1  no counterpart"), "{lines:?}");
        assert!(lines[1].starts_with("     1      0  a value in _"), "{lines:?}");
        assert_eq!(reasons.sites(), 2);
    }
}
