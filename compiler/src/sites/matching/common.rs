//! Long common subsequences in bounded time.
//!
//! What is unique on both sides and in the same order anchors the rest (patience diff); between two
//! anchors short stretches are aligned exactly, long ones only from their ends. The result is a
//! common subsequence always, the longest one often.

use std::collections::HashMap;
use std::ops::Range;

/// Largest table of an exact alignment.
const CELLS: usize = 1 << 16;

/// Pairs of indices of equal elements, both ascending.
#[must_use]
pub fn common<T: Eq + std::hash::Hash>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut stack = vec![(0..a.len(), 0..b.len())];
    while let Some((mut x, mut y)) = stack.pop() {
        while !x.is_empty() && !y.is_empty() && a[x.start] == b[y.start] {
            out.push((x.start, y.start));
            (x.start, y.start) = (x.start + 1, y.start + 1);
        }
        while !x.is_empty() && !y.is_empty() && a[x.end - 1] == b[y.end - 1] {
            (x.end, y.end) = (x.end - 1, y.end - 1);
            out.push((x.end, y.end));
        }
        if x.is_empty() || y.is_empty() {
            continue;
        }
        if x.len() * y.len() <= CELLS {
            exact(a, b, x, y, &mut out);
            continue;
        }
        let (mut from, mut to) = (x.start, y.start);
        let anchors = unique(a, b, &x, &y);
        if anchors.is_empty() {
            continue;
        }
        for (i, j) in anchors {
            stack.push((from..i, to..j));
            out.push((i, j));
            (from, to) = (i + 1, j + 1);
        }
        stack.push((from..x.end, to..y.end));
    }
    out.sort_unstable();
    out
}

/// The longest common subsequence by its table.
fn exact<T: Eq>(a: &[T], b: &[T], x: Range<usize>, y: Range<usize>, out: &mut Vec<(usize, usize)>) {
    let width = y.len() + 1;
    // Longest from here to the ends.
    let mut best = vec![0u32; (x.len() + 1) * width];
    for i in (0..x.len()).rev() {
        for j in (0..y.len()).rev() {
            best[i * width + j] = if a[x.start + i] == b[y.start + j] {
                best[(i + 1) * width + j + 1] + 1
            } else {
                best[(i + 1) * width + j].max(best[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < x.len() && j < y.len() {
        if a[x.start + i] == b[y.start + j] {
            out.push((x.start + i, y.start + j));
            (i, j) = (i + 1, j + 1);
        } else if best[(i + 1) * width + j] >= best[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
}

/// Elements that are there once on both sides, as many as are in the same order.
fn unique<T: Eq + std::hash::Hash>(
    a: &[T],
    b: &[T],
    x: &Range<usize>,
    y: &Range<usize>,
) -> Vec<(usize, usize)> {
    // Count and place on each side.
    let mut seen: HashMap<&T, [(usize, usize); 2]> = HashMap::new();
    for i in x.clone() {
        let entry = seen.entry(&a[i]).or_default();
        entry[0] = (entry[0].0 + 1, i);
    }
    for j in y.clone() {
        let entry = seen.entry(&b[j]).or_default();
        entry[1] = (entry[1].0 + 1, j);
    }
    let both = seen.values().filter(|e| e[0].0 == 1 && e[1].0 == 1);
    let mut pairs: Vec<(usize, usize)> = both.map(|e| (e[0].1, e[1].1)).collect();
    pairs.sort_unstable();
    rising(&pairs, |pair| pair.1).into_iter().map(|i| pairs[i]).collect()
}

/// Indices of a longest subsequence whose keys rise strictly.
#[must_use]
pub fn rising<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Vec<usize> {
    // The item that ends the best subsequence of each length, and what comes before each item.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; items.len()];
    for (i, item) in items.iter().enumerate() {
        let length = ends.partition_point(|e| key(&items[*e]) < key(item));
        before[i] = length.checked_sub(1).map(|l| ends[l]);
        match ends.get_mut(length) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut out: Vec<usize> = std::iter::successors(ends.last().copied(), |i| before[*i]).collect();
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_common(a: &[u32], b: &[u32], pairs: &[(usize, usize)]) {
        assert!(pairs.iter().all(|(i, j)| a[*i] == b[*j]));
        assert!(pairs.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{pairs:?}");
    }

    #[test]
    fn short_sequences_have_their_longest() {
        let (a, b) = ([1, 2, 3, 4, 5, 6, 7], [9, 2, 4, 3, 5, 9, 7, 8]);
        let pairs = common(&a, &b);
        is_common(&a, &b, &pairs);
        assert_eq!(pairs.len(), 4);
        assert_eq!(common::<u32>(&[], &[1]), []);
    }

    #[test]
    fn long_ones_are_anchored_by_what_is_unique() {
        let a: Vec<u32> = (0..5000).map(|i| if i % 3 == 0 { 0 } else { i }).collect();
        let mut b = a.clone();
        b.splice(1000..1010, []);
        b.splice(3000..3000, 90_000..90_040);
        let pairs = common(&a, &b);
        is_common(&a, &b, &pairs);
        assert_eq!(pairs.len(), 4990);
    }

    #[test]
    fn long_ones_without_anchors_end() {
        let (a, b) = (vec![1u32; 3000], [vec![2u32], vec![1; 2000], vec![3]].concat());
        is_common(&a, &b, &common(&a, &b));
    }

    #[test]
    fn a_longest_rising_subsequence() {
        let items = [5, 1, 4, 2, 3, 9, 6];
        let keys: Vec<i32> = rising(&items, |i| *i).into_iter().map(|i| items[i]).collect();
        assert_eq!(keys, [1, 2, 3, 6]);
    }
}
