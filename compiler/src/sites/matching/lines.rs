//! Which source line of OLD is which of NEW.
//!
//! The sources are not at hand. What is known: where functions are declared in both; instructions
//! that are the same in both, in the same order, at the same column. Both give pairs of lines; a
//! longest rising chain of them is kept for each file. A line between two pairs that are as far
//! apart in both files is as far from them, too; where they are not, lines were added or removed
//! there, and such a line has no counterpart unless an instruction shows it.

use super::common::{common, rising};
use super::tokens::{Key, Token, number};
use crate::change::Pair;
use crate::code::Body;
use crate::debug::{FileId, LineRow, LineTable};
use crate::image::{FunctionId, Image};
use std::collections::{BTreeMap, HashMap};

/// Source position of an instruction, in one side's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Spot {
    /// The file.
    pub file: FileId,
    /// The line.
    pub line: u32,
    /// The column; 0 when unknown.
    pub column: u32,
}

/// The positions of a body's instructions.
pub(super) fn spots(image: &Image, body: &Body) -> Vec<Option<Spot>> {
    body.steps.iter().map(|step| spot(image.debug.lines.row_at(step.address()))).collect()
}

fn spot(row: Option<&LineRow>) -> Option<Spot> {
    let row = row.filter(|row| row.line != 0 && row.file.0 != u32::MAX)?;
    Some(Spot { file: row.file, line: row.line, column: row.column })
}

/// OLD's lines in NEW.
#[derive(Debug, Default)]
pub(super) struct LineMap {
    files: HashMap<FileId, FileMap>,
}

#[derive(Debug)]
struct FileMap {
    /// The file in NEW.
    file: FileId,
    /// Pairs of lines, rising on both sides.
    pairs: Vec<(u32, u32)>,
}

impl LineMap {
    /// Compares both bodies' instructions and the declarations of their files.
    pub(super) fn new(
        pair: Pair<'_>,
        old: (&[Token], &[Option<Spot>]),
        new: (&[Token], &[Option<Spot>]),
    ) -> Self {
        let mut files: HashMap<FileId, FileMap> = HashMap::new();
        for spot in old.1.iter().flatten() {
            if files.contains_key(&spot.file) {
                continue;
            }
            if let Some(file) = same_file(&pair.old.debug.lines, &pair.new.debug.lines, spot.file) {
                files.insert(spot.file, FileMap { file, pairs: Vec::new() });
            }
        }
        declarations(pair, &mut files);
        for ((file, line), counterpart) in shown(&files, old, new) {
            if let Some(map) = files.get_mut(&file) {
                map.pairs.push((line, counterpart));
            }
        }
        for map in files.values_mut() {
            map.pairs.sort_unstable();
            map.pairs.dedup();
            // Of several counterparts of one line the chain keeps one: the last comes first.
            let mut pairs = map.pairs.clone();
            pairs.sort_by_key(|(line, other)| (*line, std::cmp::Reverse(*other)));
            map.pairs = rising(&pairs, |pair| pair.1).into_iter().map(|i| pairs[i]).collect();
        }
        Self { files }
    }

    /// A position of OLD in NEW.
    pub(super) fn to_new(&self, spot: Spot) -> Option<Spot> {
        let map = self.files.get(&spot.file)?;
        Some(Spot { file: map.file, line: map.line(spot.line)?, column: spot.column })
    }
}

impl FileMap {
    fn line(&self, line: u32) -> Option<u32> {
        let behind = self.pairs.partition_point(|(l, _)| *l <= line);
        let shift = |&(l, other): &(u32, u32)| i64::from(other) - i64::from(l);
        let before = behind.checked_sub(1).map(|i| &self.pairs[i]);
        let after = self.pairs.get(behind);
        let by = match (before, after) {
            (Some(pair), _) if pair.0 == line => shift(pair),
            (Some(a), Some(b)) => (shift(a) == shift(b)).then(|| shift(a))?,
            (Some(one), None) | (None, Some(one)) => shift(one),
            (None, None) => 0,
        };
        u32::try_from(i64::from(line) + by).ok()
    }
}

/// The file of the same name.
fn same_file(old: &LineTable, new: &LineTable, file: FileId) -> Option<FileId> {
    let name = old.file(file);
    let by_name = || new.files.iter().position(|f| f == name);
    let same = new.file(file) == name && !name.is_empty();
    let index = if same { file.0 as usize } else { by_name()? };
    u32::try_from(index).ok().map(FileId)
}

/// Adds where functions are declared.
fn declarations(pair: Pair<'_>, files: &mut HashMap<FileId, FileMap>) {
    for (i, function) in pair.old.functions.iter().enumerate() {
        let Some(old) = pair.old.declared(function) else { continue };
        let Some(map) = old.decl_file.and_then(|file| files.get_mut(&file)) else { continue };
        let new = pair.matching.new_of(FunctionId(i)).map(|new| pair.new.function(new));
        if let Some(new) = new.and_then(|new| pair.new.declared(new))
            && new.decl_file == Some(map.file)
            && old.decl_line > 0
            && new.decl_line > 0
        {
            map.pairs.push((old.decl_line, new.decl_line));
        }
    }
}

/// Lines whose instructions are the same, in most cases, as those of one line of NEW.
fn shown(
    files: &HashMap<FileId, FileMap>,
    old: (&[Token], &[Option<Spot>]),
    new: (&[Token], &[Option<Spot>]),
) -> Vec<((FileId, u32), u32)> {
    let key = |token: &Token, file: FileId, column: u32| number(&(token.exact, file, column));
    let keys_old: Vec<(usize, Key)> = (old.0.iter().zip(old.1).enumerate())
        .filter_map(|(i, (token, spot))| {
            let spot = (*spot)?;
            Some((i, key(token, files.get(&spot.file)?.file, spot.column)))
        })
        .collect();
    let keys_new: Vec<(usize, Key)> = (new.0.iter().zip(new.1).enumerate())
        .filter_map(|(i, (token, spot))| spot.map(|s| (i, key(token, s.file, s.column))))
        .collect();
    let plain = |keys: &[(usize, Key)]| keys.iter().map(|(_, key)| *key).collect::<Vec<_>>();
    let mut votes: BTreeMap<(FileId, u32), BTreeMap<u32, usize>> = BTreeMap::new();
    for (i, j) in common(&plain(&keys_old), &plain(&keys_new)) {
        if let (Some(a), Some(b)) = (old.1[keys_old[i].0], new.1[keys_new[j].0]) {
            *votes.entry((a.file, a.line)).or_default().entry(b.line).or_default() += 1;
        }
    }
    votes
        .into_iter()
        .filter_map(|(line, votes)| {
            let all: usize = votes.values().sum();
            let (counterpart, most) = votes.into_iter().max_by_key(|(_, votes)| *votes)?;
            (most * 2 > all).then_some((line, counterpart))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_pairs_keep_their_distance() {
        let map = FileMap { file: FileId(0), pairs: vec![(10, 12), (20, 22), (30, 37)] };
        assert_eq!(map.line(15), Some(17));
        assert_eq!(map.line(20), Some(22));
        // Five lines were added somewhere between 20 and 30.
        assert_eq!(map.line(25), None);
        assert_eq!((map.line(5), map.line(40)), (Some(7), Some(47)));
        assert_eq!(FileMap { file: FileId(0), pairs: vec![] }.line(7), Some(7));
    }
}
