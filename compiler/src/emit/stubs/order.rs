//! The order of the moves, as if all were done at once.
//!
//! A piece may be written when no other one that is still to come reads what it overwrites. Where each
//! waits for another (registers that change places), the source of one of them goes to the scratch
//! area, and nobody has to wait for that one any more.

use super::Unencodable;
use super::code::Code;
use super::pieces::{Dest, Piece, Source};
use std::collections::BTreeSet;

/// What is to be done, in any order, and with which register to carry values through.
pub(super) struct Work {
    pub pieces: Vec<Piece>,
    /// The piece that fills the temporary register, when all others are done with it.
    pub last: Option<Piece>,
    pub temp: u8,
}

impl Work {
    /// Takes the piece out that fills the temporary register, and puts its source where no other
    /// piece overwrites it.
    pub(super) fn set_last_apart(&mut self, code: &mut Code) -> Result<(), Unencodable> {
        let fills = |p: &Piece| p.to == Dest::General(self.temp);
        let Some(index) = self.pieces.iter().position(fills) else {
            return Ok(());
        };
        let mut last = self.pieces.remove(index);
        if self.pieces.iter().any(|p| overwrites(p, &last)) {
            last.park(code, self.temp)?;
        }
        self.last = Some(last);
        Ok(())
    }
}

/// Whether writing one piece destroys the source of another.
fn overwrites(one: &Piece, other: &Piece) -> bool {
    match (one.to, other.from) {
        (Dest::General(a), Source::General(b)) | (Dest::Vector(a), Source::Vector(b)) => a == b,
        (Dest::Memory(_), Source::Memory(_)) => match (one.writes(), other.reads()) {
            (Some((start, end)), Some((from, to))) => start < to && from < end,
            _ => false,
        },
        _ => false,
    }
}

/// Writes the moves.
pub(super) fn write(work: Work, code: &mut Code) -> Result<(), Unencodable> {
    let Work { pieces, last, temp } = work;
    let mut order = Order::new(pieces);
    while let Some(next) = order.next() {
        match next {
            Next::Write(piece) => piece.write(code, temp)?,
            Next::Park(index) => {
                if let Some(piece) = order.pieces.get_mut(index) {
                    piece.park(code, temp)?;
                }
            }
        }
    }
    last.map_or(Ok(()), |piece| piece.write(code, temp))
}

enum Next {
    Write(Piece),
    Park(usize),
}

struct Order {
    pieces: Vec<Piece>,
    /// For each piece those that wait for it: they overwrite what it reads. Empty once it is written
    /// or parked.
    waiting: Vec<Vec<usize>>,
    /// For each piece those that it waits for, done or not.
    readers: Vec<Vec<usize>>,
    /// For each piece how many it still waits for.
    blockers: Vec<usize>,
    /// Pieces that wait for nothing.
    ready: BTreeSet<usize>,
    /// Pieces not yet written.
    pending: BTreeSet<usize>,
}

impl Order {
    fn new(pieces: Vec<Piece>) -> Self {
        let count = pieces.len();
        let mut order = Self {
            waiting: vec![Vec::new(); count],
            readers: vec![Vec::new(); count],
            blockers: vec![0; count],
            ready: BTreeSet::new(),
            pending: (0..count).collect(),
            pieces,
        };
        let writers = Writers::new(&order.pieces);
        for reader in 0..count {
            for writer in writers.of(&order.pieces, reader) {
                order.waiting[reader].push(writer);
                order.readers[writer].push(reader);
                order.blockers[writer] += 1;
            }
        }
        order.ready = (0..count).filter(|i| order.blockers[*i] == 0).collect();
        order
    }

    fn next(&mut self) -> Option<Next> {
        if let Some(index) = self.ready.pop_first() {
            self.pending.remove(&index);
            self.release(index);
            return Some(Next::Write(self.pieces[index]));
        }
        let index = self.in_cycle()?;
        self.release(index);
        Some(Next::Park(index))
    }

    /// Nobody has to wait for a piece any more.
    fn release(&mut self, index: usize) {
        for writer in std::mem::take(&mut self.waiting[index]) {
            self.blockers[writer] -= 1;
            if self.blockers[writer] == 0 {
                self.ready.insert(writer);
            }
        }
    }

    /// Some piece that waits for itself by way of others: follow who waits for whom long enough.
    fn in_cycle(&self) -> Option<usize> {
        let mut at = *self.pending.first()?;
        for _ in 0..self.pending.len() {
            at = *self.readers[at].iter().find(|r| self.waiting[**r].contains(&at))?;
        }
        Some(at)
    }
}

/// Who writes what.
struct Writers {
    general: [Option<usize>; 16],
    vector: [Option<usize>; 32],
    /// Start, end and index, ascending; disjoint as destinations are.
    memory: Vec<(i64, i64, usize)>,
}

impl Writers {
    fn new(pieces: &[Piece]) -> Self {
        let mut writers = Self { general: [None; 16], vector: [None; 32], memory: Vec::new() };
        for (index, piece) in pieces.iter().enumerate() {
            match piece.to {
                Dest::General(n) => writers.general[usize::from(n)] = Some(index),
                Dest::Vector(n) => writers.vector[usize::from(n)] = Some(index),
                Dest::Memory(_) => {
                    writers.memory.extend(piece.writes().map(|(start, end)| (start, end, index)));
                }
            }
        }
        writers.memory.sort_unstable();
        writers
    }

    /// Those that overwrite what a piece reads, itself left out: it reads before it writes.
    fn of(&self, pieces: &[Piece], reader: usize) -> Vec<usize> {
        let mut out: Vec<usize> = match pieces[reader].from {
            Source::General(n) => self.general[usize::from(n)].into_iter().collect(),
            Source::Vector(n) => self.vector[usize::from(n)].into_iter().collect(),
            Source::Leaf(_) => Vec::new(),
            Source::Memory(_) => {
                let Some((from, to)) = pieces[reader].reads() else { return Vec::new() };
                let first = self.memory.partition_point(|(_, end, _)| *end <= from);
                let met = self.memory[first..].iter().take_while(|(start, _, _)| *start < to);
                met.map(|(_, _, index)| *index).collect()
            }
        };
        out.retain(|writer| *writer != reader);
        out
    }
}
