//! Which source line of OLD is which of NEW.
//!
//! The sources are not at hand. What is known: where functions are declared in both, and where this one
//! ends; instructions
//! that are the same in both, in the same order, at the same column; at which columns each line has
//! code. Of the lines between two declarations these give pairs (`align`); a longest rising chain of
//! all is kept for each file. A line between two pairs that are as far
//! apart in both files is as far from them, too; where they are not, lines were added or removed
//! there, and such a line has no counterpart unless an instruction shows it.

use super::align::{Lines, Stretch};
use super::common::{common, rising};
use super::tokens::{Key, Token, number};
use crate::change::Pair;
use crate::code::Body;
use crate::debug::{FileId, Inlined, LineTable, Locals, Scope};
use crate::image::{FunctionId, Image};
use crate::matching::names;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Source position of an instruction, in one side's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Spot {
    /// The file.
    pub file: FileId,
    /// The line.
    pub line: u32,
    /// The column; 0 when unknown.
    pub column: u32,
    /// The inlined body that it is in, of [`Spots::bodies`]; none where it is the function's own.
    pub body: Option<usize>,
}

/// The positions of a body's instructions.
pub(super) struct Spots {
    /// Of each step.
    pub steps: Vec<Option<Spot>>,
    /// The bodies inlined into the function.
    pub bodies: Vec<Inlined>,
    /// The line of the brace that closes the function, where that is known.
    closing: Option<(FileId, u32)>,
}

/// Looks them up.
pub(super) fn spots(image: &Image, locals: &Locals, body: &Body) -> Spots {
    let bodies = locals.inlined.clone();
    let steps: Vec<Option<Spot>> = body
        .steps
        .iter()
        .map(|step| {
            let row = image.debug.lines.row_at(step.address());
            let row = row.filter(|row| row.line != 0 && row.file.0 != u32::MAX)?;
            let body = innermost(&bodies, step.address());
            Some(Spot { file: row.file, line: row.line, column: row.column, body })
        })
        .collect();
    let closing = closing(body, &steps);
    Spots { steps, bodies, closing }
}

/// Compilers give the instruction that returns the position of the closing brace, which stands in the first
/// column where a function does not stand in another one. No other line of the function is behind it.
fn closing(body: &Body, spots: &[Option<Spot>]) -> Option<(FileId, u32)> {
    let own = spots.iter().flatten().filter(|spot| spot.body.is_none());
    let last = own.clone().map(|spot| spot.line).max()?;
    let returns = body
        .steps
        .iter()
        .zip(spots)
        .filter(|(step, _)| step.instruction.flow_control() == iced_x86::FlowControl::Return);
    let mut places = returns.map(|(_, spot)| {
        let spot = spot.filter(|spot| spot.body.is_none() && spot.column == 1)?;
        (spot.line == last).then_some((spot.file, spot.line))
    });
    let first = places.next()??;
    places.all(|place| place == Some(first)).then_some(first)
}

/// The innermost inlined body at an address.
fn innermost(bodies: &[Inlined], address: u64) -> Option<usize> {
    let holds = |body: &Inlined| body.ranges.iter().any(|range| range.contains(&address));
    let holding = bodies.iter().enumerate().filter(|(_, body)| holds(body));
    holding.max_by_key(|(_, body)| body.scope.len()).map(|(index, _)| index)
}

/// A source position in NEW's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file.
    pub file: FileId,
    /// The line.
    pub line: u32,
    /// The column; 0 when unknown.
    pub column: u32,
    /// The function's own body, or the calls that stand around it; `None` when their lines have no
    /// counterpart.
    pub body: Option<Key>,
}

impl Place {
    /// The line alone.
    pub(super) fn line(&self) -> (FileId, u32) {
        (self.file, self.line)
    }
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
    /// Those of them that declarations and closing braces give.
    declared: Vec<(u32, u32)>,
}

impl LineMap {
    /// Compares both bodies' instructions and the declarations of their files.
    pub(super) fn new(pair: Pair<'_>, old: (&[Token], &Spots), new: (&[Token], &Spots)) -> Self {
        let mut files: HashMap<FileId, FileMap> = HashMap::new();
        let calls = old.1.bodies.iter().flat_map(|body| &body.scope);
        let calls = calls.filter_map(|scope| scope.call.as_ref()?.file);
        let all = old.1.steps.iter().flatten().map(|spot| spot.file).chain(calls);
        for file in all.collect::<BTreeSet<FileId>>() {
            let (from, to) = (&pair.old.debug.lines, &pair.new.debug.lines);
            if let Some(other) = same_file(from, to, file) {
                files
                    .insert(file, FileMap { file: other, pairs: Vec::new(), declared: Vec::new() });
            }
        }
        declarations(pair, &mut files);
        if let (Some((file, line)), Some((other, new_line))) = (old.1.closing, new.1.closing)
            && let Some(map) = files.get_mut(&file).filter(|map| map.file == other)
        {
            map.pairs.push((line, new_line));
        }
        for map in files.values_mut() {
            map.chain();
            map.declared.clone_from(&map.pairs);
        }
        let votes = shown(&files, (old.0, &old.1.steps), (new.0, &new.1.steps));
        align(&mut files, &votes, (&old.1.steps, &new.1.steps));
        for map in files.values_mut() {
            map.chain();
        }
        Self { files }
    }

    /// Whether NEW has no such line of OLD any more. Only where declarations show that lines were
    /// added or removed nearby: instructions alone may mislead.
    pub(super) fn is_removed(&self, file: FileId, line: u32) -> bool {
        let Some(map) = self.files.get(&file) else { return false };
        map.line(line).is_none() && is_edited(&map.declared, line)
    }

    /// Whether OLD has no such line of NEW yet.
    pub(super) fn is_added(&self, file: FileId, line: u32) -> bool {
        let Some(map) = self.files.values().find(|map| map.file == file) else { return false };
        let back = |pairs: &[(u32, u32)]| pairs.iter().map(|(a, b)| (*b, *a)).collect::<Vec<_>>();
        let inverse = FileMap { file, pairs: back(&map.pairs), declared: back(&map.declared) };
        inverse.line(line).is_none() && is_edited(&inverse.declared, line)
    }

    /// A line of OLD in NEW.
    fn line(&self, file: FileId, line: u32) -> Option<(FileId, u32)> {
        let map = self.files.get(&file)?;
        Some((map.file, map.line(line)?))
    }
}

impl Spots {
    /// The positions in NEW's terms: through the map for OLD, as they are for NEW.
    pub(super) fn places(&self, map: Option<&LineMap>) -> Vec<Option<Place>> {
        let bodies = self.bodies.iter().map(|body| key(&body.scope, map));
        let bodies: Vec<Option<Key>> = bodies.collect();
        let place = |spot: &Option<Spot>| {
            let spot = (*spot)?;
            let (file, line) = line(map, spot.file, spot.line)?;
            let body = spot.body.map_or(Some(0), |body| bodies[body]);
            Some(Place { file, line, column: spot.column, body })
        };
        self.steps.iter().map(place).collect()
    }

    /// The calls that the inlined bodies around a step stand for: their lines, and the bodies that those are in.
    pub(super) fn around(&self, step: usize, map: &LineMap) -> Vec<(FileId, u32, Key)> {
        let body = self.steps[step].and_then(|spot| spot.body);
        let scope = body.map_or(&[][..], |body| &self.bodies[body].scope);
        let at = |inner: usize| {
            let call = scope[inner].call.as_ref()?;
            let (file, line) = map.line(call.file?, call.line)?;
            Some((file, line, key(&scope[..inner], Some(map))?))
        };
        (1..scope.len()).filter_map(at).collect()
    }
}

/// A line in NEW's terms.
fn line(map: Option<&LineMap>, file: FileId, line: u32) -> Option<(FileId, u32)> {
    match map {
        Some(map) => map.line(file, line),
        None => Some((file, line)),
    }
}

/// A body by the calls around it, in NEW's terms; 0: the function's own.
fn key(scope: &[Scope], map: Option<&LineMap>) -> Option<Key> {
    if scope.len() < 2 {
        return Some(0);
    }
    let calls = scope.iter().map(|scope| {
        let call = scope.call.as_ref();
        let at = call.map(|call| line(map, call.file?, call.line));
        let name = names::canonical(&scope.function);
        // The function's own body has no call around it.
        at.map_or(Some((name.clone(), None)), |at| Some((name.clone(), Some(at?))))
    });
    Some(number(&calls.collect::<Option<Vec<_>>>()?))
}

impl FileMap {
    /// Keeps a longest chain of pairs.
    fn chain(&mut self) {
        // Of several counterparts of one line the chain keeps one: the last comes first.
        self.pairs.sort_unstable_by_key(|(line, other)| (*line, std::cmp::Reverse(*other)));
        self.pairs.dedup();
        let kept = rising(&self.pairs, |pair| pair.1);
        self.pairs = kept.into_iter().map(|i| self.pairs[i]).collect();
    }

    /// Between which pairs a line is.
    fn stretch(&self, line: u32) -> usize {
        self.pairs.partition_point(|(l, _)| *l <= line)
    }

    fn line(&self, line: u32) -> Option<u32> {
        let behind = self.stretch(line);
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

/// Whether the lines between the declarations around one are not as many on the other side. Behind
/// the last declaration nobody knows.
fn is_edited(declared: &[(u32, u32)], line: u32) -> bool {
    let behind = declared.partition_point(|(l, _)| *l <= line);
    let shift = |&(l, other): &(u32, u32)| i64::from(other) - i64::from(l);
    let before = behind.checked_sub(1).map_or(0, |i| shift(&declared[i]));
    declared.get(behind).is_some_and(|after| shift(after) != before)
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

/// Adds the lines between declarations.
fn align(
    files: &mut HashMap<FileId, FileMap>,
    votes: &[((FileId, u32), u32)],
    (old, new): (&[Option<Spot>], &[Option<Spot>]),
) {
    let lines = |spots: &[Option<Spot>]| {
        let mut files: HashMap<FileId, Lines> = HashMap::new();
        for spot in spots.iter().flatten() {
            let lines = files.entry(spot.file).or_default();
            lines.entry(spot.line).or_default().insert(spot.column);
        }
        files
    };
    let (old, new) = (lines(old), lines(new));
    let nothing = Lines::new();
    for (file, map) in files.iter_mut() {
        let Some(lines) = old.get(file) else { continue };
        let of = votes.iter().filter(|((of, _), _)| of == file);
        let shown: BTreeMap<u32, u32> = of.map(|((_, line), other)| (*line, *other)).collect();
        let mut stretches: BTreeMap<usize, Vec<(u32, &BTreeSet<u32>)>> = BTreeMap::new();
        for (line, columns) in lines {
            stretches.entry(map.stretch(*line)).or_default().push((*line, columns));
        }
        let shift = |pair: Option<&(u32, u32)>| pair.map(|(a, b)| i64::from(*b) - i64::from(*a));
        let mut found = Vec::new();
        for (behind, old) in stretches {
            let before = behind.checked_sub(1).and_then(|i| map.declared.get(i));
            let ends = (shift(before), shift(map.declared.get(behind)));
            let new = new.get(&map.file).unwrap_or(&nothing);
            found.extend(Stretch { old, new, ends, shown: &shown }.pairs());
        }
        map.pairs.extend(found);
    }
}

/// Lines whose instructions are the same, in most cases, as those of one line of NEW. What is
/// frequent says little.
fn shown(
    files: &HashMap<FileId, FileMap>,
    old: (&[Token], &[Option<Spot>]),
    new: (&[Token], &[Option<Spot>]),
) -> Vec<((FileId, u32), u32)> {
    let key = |token: &Token, file: FileId, column: u32| number(&(token.exact, file, column));
    let (mut keys_old, mut keys_new) = (Vec::new(), Vec::new());
    for (token, spot) in old.0.iter().zip(old.1) {
        if let Some(spot) = spot
            && let Some(map) = files.get(&spot.file)
        {
            keys_old.push((key(token, map.file, spot.column), *spot));
        }
    }
    for (token, spot) in new.0.iter().zip(new.1) {
        keys_new.extend(spot.map(|spot| (key(token, spot.file, spot.column), spot)));
    }
    let mut count: HashMap<Key, usize> = HashMap::new();
    for (key, _) in keys_old.iter().chain(&keys_new) {
        *count.entry(*key).or_default() += 1;
    }
    let plain = |keys: &[(Key, Spot)]| keys.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    let mut votes: BTreeMap<(FileId, u32), BTreeMap<u32, usize>> = BTreeMap::new();
    for (i, j) in common(&plain(&keys_old), &plain(&keys_new)) {
        let ((key, a), (_, b)) = (keys_old[i], keys_new[j]);
        let votes = votes.entry((a.file, a.line)).or_default();
        *votes.entry(b.line).or_default() += 1000 / count.get(&key).copied().unwrap_or(1);
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
        let pairs = vec![(10, 12), (20, 22), (30, 37)];
        let map = FileMap { file: FileId(0), pairs, declared: vec![] };
        assert_eq!(map.line(15), Some(17));
        assert_eq!(map.line(20), Some(22));
        // Five lines were added somewhere between 20 and 30.
        assert_eq!(map.line(25), None);
        assert_eq!((map.line(5), map.line(40)), (Some(7), Some(47)));
        assert_eq!(FileMap { file: FileId(0), pairs: vec![], declared: vec![] }.line(7), Some(7));
    }

    #[test]
    fn lines_are_new_or_gone_only_where_declarations_moved() {
        let map = |pairs: &[(u32, u32)], declared: &[(u32, u32)]| {
            let map =
                FileMap { file: FileId(5), pairs: pairs.to_vec(), declared: declared.to_vec() };
            LineMap { files: HashMap::from([(FileId(3), map)]) }
        };
        let declared = [(10, 10), (20, 21)];
        let edited = map(&[(10, 10), (14, 14), (15, 16), (20, 21)], &declared);
        let added: Vec<u32> = (9..23).filter(|l| edited.is_added(FileId(5), *l)).collect();
        assert_eq!(added, [15]);
        assert!(!edited.is_removed(FileId(3), 14));
        // Instructions that seem to have moved between declarations that have not.
        let misled = map(&[(10, 10), (14, 16), (20, 20)], &[(10, 10), (20, 20)]);
        assert!((9..23).all(|l| !misled.is_added(FileId(5), l)));
        assert!((9..23).all(|l| !misled.is_removed(FileId(3), l)));
        // Behind the last declaration nobody knows.
        let last = map(&[(10, 10), (14, 16)], &[(10, 10)]);
        assert!((9..23).all(|l| !last.is_added(FileId(5), l)));
    }
}
