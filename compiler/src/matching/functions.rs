//! Functions: by name, then unit, then content.

use super::{Matching, Split, names};
use crate::change::fingerprint;
use crate::image::{Function, FunctionId, Image};
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Groups<K> = BTreeMap<K, (Vec<FunctionId>, Vec<FunctionId>)>;

/// Adds every pair of functions to `matching`; objects must be paired before, for the contents.
pub(super) fn pair(old: &Image, new: &Image, renames: &[(String, String)], out: &mut Matching) {
    let mut edges = BTreeSet::new();
    for (from, to) in renames {
        let find = |image: &Image, name: &String| {
            image.functions.iter().position(|f| f.names.contains(name)).map(FunctionId)
        };
        if let (Some(a), Some(b)) = (find(old, from), find(new, to)) {
            edges.insert((a, b));
        }
    }
    let named = |f: &Function, name: String| (!f.nameless).then(|| (scope(f), name));
    let whole = |name: &str| (!names::is_privatized(name)).then(|| name.to_owned());
    by_key(old, new, &mut edges, false, |f, name| named(f, whole(name)?));
    by_key(old, new, &mut edges, false, |f, name| named(f, names::canonical(name)));
    // A file that was renamed, a static that became global: only when the content agrees, since
    // another function of that name may have taken its place. Code without a name likewise.
    by_key(old, new, &mut edges, true, |f, name| {
        (f.import.is_none()).then(|| (String::new(), names::canonical(name)))
    });
    settle(old, new, &edges, out);
}

/// Statics are known within their unit only.
fn scope(function: &Function) -> String {
    let is_static = function.local || function.names.iter().all(|n| names::is_privatized(n));
    if is_static && function.import.is_none() { function.unit.clone() } else { String::new() }
}

/// Pairs what shares a key. One on each side is a pair, unless the content must be the same too;
/// several are told apart by content.
fn by_key<K: Ord>(
    old: &Image,
    new: &Image,
    edges: &mut BTreeSet<(FunctionId, FunctionId)>,
    same_content: bool,
    key: impl Fn(&Function, &str) -> Option<K>,
) {
    let (done_old, done_new): (BTreeSet<_>, BTreeSet<_>) = edges.iter().copied().unzip();
    let mut groups: Groups<K> = BTreeMap::new();
    let mut collect = |image: &Image, done: &BTreeSet<FunctionId>, second: bool| {
        for (i, function) in image.functions.iter().enumerate() {
            // A function all of whose names may still find partners stays in: folded ones have
            // several.
            if done.contains(&FunctionId(i)) && function.names.len() == 1 {
                continue;
            }
            for key in function.names.iter().filter_map(|n| key(function, n)) {
                let group = groups.entry(key).or_default();
                let side = if second { &mut group.1 } else { &mut group.0 };
                if side.last() != Some(&FunctionId(i)) {
                    side.push(FunctionId(i));
                }
            }
        }
    };
    collect(old, &done_old, false);
    collect(new, &done_new, true);
    for (_, (olds, news)) in groups {
        match (olds.as_slice(), news.as_slice()) {
            ([], _) | (_, []) => {}
            ([a], [b]) if done_old.contains(a) && done_new.contains(b) => {
                // Both have partners by a better key: aliases of folded functions only.
                if old.function(*a).names.len() > 1 || new.function(*b).names.len() > 1 {
                    edges.insert((*a, *b));
                }
            }
            ([a], [b]) if !same_content => {
                edges.insert((*a, *b));
            }
            (olds, news) => by_content(old, new, olds, news, same_content, edges),
        }
    }
}

/// Several of one name: equal contents first, then, when as many remain on both sides, in order.
fn by_content(
    old: &Image,
    new: &Image,
    olds: &[FunctionId],
    news: &[FunctionId],
    only_equal: bool,
    edges: &mut BTreeSet<(FunctionId, FunctionId)>,
) {
    let mut by_print: HashMap<u64, Vec<FunctionId>> = HashMap::new();
    for b in news {
        by_print.entry(fingerprint(new, new.function(*b))).or_default().push(*b);
    }
    let (mut rest_old, mut rest_new) = (Vec::new(), news.to_vec());
    for a in olds {
        let twins = by_print.get_mut(&fingerprint(old, old.function(*a)));
        match twins.and_then(|t| (!t.is_empty()).then(|| t.remove(0))) {
            Some(b) => {
                edges.insert((*a, b));
                rest_new.retain(|n| *n != b);
            }
            None => rest_old.push(*a),
        }
    }
    if rest_old.len() == rest_new.len() && !only_equal {
        edges.extend(rest_old.into_iter().zip(rest_new));
    }
}

/// Turns edges into the relation. An OLD function with several NEW partners is split: the partner
/// with the same content, else the first, goes on as it.
fn settle(
    old: &Image,
    new: &Image,
    edges: &BTreeSet<(FunctionId, FunctionId)>,
    out: &mut Matching,
) {
    let mut partners: BTreeMap<FunctionId, Vec<FunctionId>> = BTreeMap::new();
    for (a, b) in edges {
        partners.entry(*a).or_default().push(*b);
    }
    for (a, news) in partners {
        let print = || fingerprint(old, old.function(a));
        let primary = match news.as_slice() {
            [only] => *only,
            several => {
                let print = print();
                let same = several.iter().find(|b| fingerprint(new, new.function(**b)) == print);
                *same.unwrap_or(&several[0])
            }
        };
        out.add_function(a, primary);
        for other in news.into_iter().filter(|b| *b != primary) {
            if fingerprint(new, new.function(other)) == print() {
                out.add_function(a, other);
            } else {
                out.splits.push(Split { old: a, primary, other });
            }
        }
    }
}
