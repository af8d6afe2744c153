//! Symbolic values of both bodies in one table, so that equal means the same number.
//!
//! A value is 64 bits. Equal operations on equal inputs are one value, whichever build does them, in
//! whatever order and registers: nodes are hash-consed in a normal form. Sums and products with
//! constants are linear combinations modulo 2^64; narrower results are the low bytes of wider ones.
//!
//! A value that depends on *when* it was computed carries the points it depends on ([`Values::depends`]):
//! names given at a point stand for its latest execution, and the relation renames older ones
//! when the point is passed again.

mod bits;
mod counters;
mod narrow;
mod numbers;

pub use bits::Bits;
pub(super) use numbers::shift_limit;
pub use numbers::{extended, mask};

use super::bounds::Bound;
use super::point::PointId;
use dsu_patch_format::plan::Target;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A value in [`Values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

/// Which of the two bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The build that runs.
    Old,
    /// The build to come.
    New,
}

/// A place that holds a value, named for its entry value and as the representative of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A general register by number.
    General(u8),
    /// Eight bytes of a vector register: its number, and which eight.
    Lane(u8, u8),
    /// The status flags.
    Flags,
    /// All memory but private slots.
    Memory,
    /// Private memory at an offset from the CFA, that many bytes.
    Slot(i64, u8),
}

/// Where the stack protector's canary is, from the thread pointer (psABI 1.0, table A.1: `%fs:0x28`). Nobody changes it.
pub const CANARY: u64 = 0x28;

/// What an address is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// The frame's CFA.
    Cfa,
    /// A local of the frame whose address is taken, the same one in both bodies wherever it lies:
    /// in the addresses of loads and stores only.
    Local(u32),
    /// The thread pointer.
    Thread,
    /// OLD's image as it lies in the process.
    Old,
    /// Identities of OLD's functions.
    Identity,
    /// The shadow image.
    Shadow,
    /// A symbol of another image.
    Import(u32),
}

/// How a value is computed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// Sum of values times factors, plus a number. No terms: a constant.
    Linear(Rc<[(Value, u64)]>, u64),
    /// An address.
    Base(Base),
    /// What a place held at entry.
    Entry(Place),
    /// The low bytes, zero-extended.
    Low(u8, Value),
    /// The low bytes, sign-extended to 64 bits.
    Signed(u8, Value),
    /// The first with its low bytes replaced by those of the second.
    Insert(u8, Value, Value),
    /// Any other pure function of its operands.
    Operation(Operation, Rc<[Value]>),
    /// What memory held at an address, zero-extended.
    Load(Value, Value, u8),
    /// Memory after a store: memory before, address, value, bytes.
    Store(Value, Value, Value, u8),
    /// Memory that never changes: constants, the dynamic linker's slots.
    Constants,
    /// Named at a point: what a class of places held when the point was last entered.
    Phi(PointId, Side, Place),
    /// Named at a point: what the nth step behind it gave last.
    Given(PointId, Option<Side>, u32, Place),
}

/// A pure function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Product of two values that are not constant.
    Multiply,
    /// Shift left of so many bytes' width, by a value.
    ShiftLeft(u8),
    /// Shift right of so many bytes' width.
    ShiftRight(u8),
    /// Arithmetic shift right of so many bytes' width.
    ShiftArithmetic(u8),
    /// Flags of a comparison (subtraction) of so many bytes.
    Compare(u8),
    /// Flags of a logical result of so many bytes.
    Logic(u8),
    /// A condition (an even condition code) on flags: 0 or 1.
    Condition(u8),
    /// Condition, value if 1, value if 0.
    Select,
    /// Result `output` of an instruction with an immediate.
    Instruction {
        /// iced's number of the instruction's form.
        code: u16,
        /// Its immediate.
        immediate: u64,
        /// Which of its results.
        output: u8,
    },
}

impl Operation {
    /// The width of a shift, in bytes.
    fn shifts(self) -> Option<u8> {
        match self {
            Self::ShiftLeft(bytes) | Self::ShiftRight(bytes) | Self::ShiftArithmetic(bytes) => {
                Some(bytes)
            }
            _ => None,
        }
    }
}

/// All values of one pair of functions.
pub struct Values {
    nodes: Vec<Node>,
    numbers: FxHashMap<Node, Value>,
    depends: Vec<Rc<[PointId]>>,
    /// Whether an address in the frame is part of it.
    framed: Vec<bool>,
    nothing: Rc<[PointId]>,
    /// Points at which a place of one build is said in terms of one of the other's that it goes along with.
    in_step: BTreeSet<PointId>,
    /// Names of counters whose end is known.
    bounds: FxHashMap<Value, Bound>,
    /// More is done to know what loops count with.
    further: bool,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            numbers: FxHashMap::default(),
            depends: Vec::new(),
            framed: Vec::new(),
            nothing: Rc::new([]),
            in_step: BTreeSet::new(),
            bounds: FxHashMap::default(),
            further: false,
        }
    }
}

impl Values {
    /// No values; `further` says that more is done to know what loops count with.
    pub fn new(further: bool) -> Self {
        Self { further, ..Self::default() }
    }

    /// Whether more is done to know what loops count with.
    pub fn is_further(&self) -> bool {
        self.further
    }

    /// How a value is computed.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.0 as usize]
    }

    /// At a point a place of one build is said in terms of one of the other's that it goes along with.
    pub fn go_in_step(&mut self, point: PointId) {
        self.in_step.insert(point);
    }

    /// Whether any is.
    pub fn are_in_step(&self, point: PointId) -> bool {
        self.in_step.contains(&point)
    }

    /// Whether a value is made of what a place held when a point was last entered; what calls gave and memory
    /// holds aside.
    pub fn goes_around(&self, value: Value, point: PointId) -> bool {
        if !self.depends_on(value, point) {
            return false;
        }
        let any = |operands: &[Value]| operands.iter().any(|v| self.goes_around(*v, point));
        match self.node(value) {
            Node::Linear(terms, _) => terms.iter().any(|t| self.goes_around(t.0, point)),
            Node::Low(_, v) | Node::Signed(_, v) => any(&[*v]),
            Node::Insert(_, a, b) => any(&[*a, *b]),
            Node::Operation(_, operands) => any(operands),
            Node::Phi(..) => true,
            _ => false,
        }
    }

    /// Whether a value contains a name of a point.
    pub fn depends_on(&self, value: Value, point: PointId) -> bool {
        self.depends(value).binary_search(&point).is_ok()
    }

    /// The points whose names a value contains, ascending.
    pub fn depends(&self, value: Value) -> &[PointId] {
        &self.depends[value.0 as usize]
    }

    /// The value of a node that is in normal form already.
    pub fn intern(&mut self, node: Node) -> Value {
        if let Some(known) = self.numbers.get(&node) {
            return *known;
        }
        let operands = operands(&node);
        let depends = self.dependencies(&node, &operands);
        let own = matches!(node, Node::Base(Base::Cfa | Base::Local(_)));
        let framed = own || operands.iter().any(|v| self.framed[v.0 as usize]);
        // A pair of functions has far less than 2^32 values: the relation is bounded.
        let value = Value(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node.clone());
        self.depends.push(depends);
        self.framed.push(framed);
        self.numbers.insert(node, value);
        value
    }

    /// Whether a value was there when the function was entered, or is made of what was, and not of where the frame
    /// is: then it is no address in the frame, which nobody had yet.
    pub fn is_from_entry(&self, value: Value) -> bool {
        self.depends(value).is_empty() && !self.framed[value.0 as usize]
    }

    fn dependencies(&self, node: &Node, operands: &[Value]) -> Rc<[PointId]> {
        if let Node::Phi(point, ..) | Node::Given(point, ..) = node {
            return Rc::new([*point]);
        }
        let mut sets = operands.iter().map(|v| &self.depends[v.0 as usize]);
        let Some(first) = sets.next() else { return self.nothing.clone() };
        let mut union = first.clone();
        for set in sets {
            if set.iter().all(|p| union.binary_search(p).is_ok()) {
                continue;
            }
            let mut all: Vec<PointId> = union.iter().chain(set.iter()).copied().collect();
            all.sort_unstable();
            all.dedup();
            union = all.into();
        }
        union
    }

    /// A number.
    pub fn constant(&mut self, number: u64) -> Value {
        self.intern(Node::Linear(Rc::new([]), number))
    }

    /// The number, if it is one.
    pub fn as_constant(&self, value: Value) -> Option<u64> {
        match self.node(value) {
            Node::Linear(terms, k) if terms.is_empty() => Some(*k),
            _ => None,
        }
    }

    /// A base plus a number.
    pub fn address(&mut self, base: Base, offset: u64) -> Value {
        let base = self.intern(Node::Base(base));
        self.linear(&[(base, 1)], offset)
    }

    /// What a target stands for, as a value. [`Target::OldCode`] is no value of a program.
    pub fn target(&mut self, target: &Target, addend: i64) -> Value {
        let (base, offset) = match *target {
            Target::Old(a) => (Base::Old, a.0),
            Target::OldCode(a) | Target::OldIdentity(a) => (Base::Identity, a.0),
            Target::New(a) => (Base::Shadow, a.0),
            Target::Import(i) => (Base::Import(i), 0),
        };
        self.address(base, offset.wrapping_add_signed(addend))
    }

    /// Base and number, if it is an address.
    pub fn as_address(&self, value: Value) -> Option<(Base, u64)> {
        let (term, offset) = match self.node(value) {
            Node::Base(base) => return Some((*base, 0)),
            Node::Linear(terms, k) => match **terms {
                [(term, 1)] => (term, *k),
                _ => return None,
            },
            _ => return None,
        };
        match self.node(term) {
            Node::Base(base) => Some((*base, offset)),
            _ => None,
        }
    }

    /// The offset from the CFA, if it is an address in the frame.
    pub fn as_frame(&self, value: Value) -> Option<i64> {
        match self.as_address(value) {
            Some((Base::Cfa, offset)) => Some(offset.cast_signed()),
            _ => None,
        }
    }

    /// Terms and number of a value seen as a linear combination.
    pub fn terms(&self, value: Value) -> (Vec<(Value, u64)>, u64) {
        match self.node(value) {
            Node::Linear(terms, k) => (terms.to_vec(), *k),
            _ => (vec![(value, 1)], 0),
        }
    }

    /// A linear combination of values.
    pub fn linear(&mut self, parts: &[(Value, u64)], constant: u64) -> Value {
        let mut sum = constant;
        let mut terms: Vec<(Value, u64)> = Vec::new();
        for (value, factor) in parts {
            let (inner, k) = self.terms(*value);
            sum = sum.wrapping_add(k.wrapping_mul(*factor));
            terms.extend(inner.into_iter().map(|(v, f)| (v, f.wrapping_mul(*factor))));
        }
        terms.sort_unstable_by_key(|t| t.0);
        terms.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.wrapping_add(next.1);
            }
            same
        });
        terms.retain(|t| t.1 != 0);
        if let ([(value, 1)], 0) = (&terms[..], sum) {
            return *value;
        }
        self.intern(Node::Linear(terms.into(), sum))
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.linear(&[(a, 1), (b, 1)], 0)
    }

    /// `a + number`.
    pub fn offset(&mut self, a: Value, number: u64) -> Value {
        self.linear(&[(a, 1)], number)
    }

    /// `a - b`.
    pub fn subtract(&mut self, a: Value, b: Value) -> Value {
        self.linear(&[(a, 1), (b, u64::MAX)], 0)
    }

    /// `a * b`.
    pub fn multiply(&mut self, a: Value, b: Value) -> Value {
        match (self.as_constant(a), self.as_constant(b)) {
            (_, Some(k)) => self.linear(&[(a, k)], 0),
            (Some(k), _) => self.linear(&[(b, k)], 0),
            _ => self.commutative(Operation::Multiply, a, b),
        }
    }

    /// An operation whose operands may change places.
    pub fn commutative(&mut self, operation: Operation, a: Value, b: Value) -> Value {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        self.operation(operation, &[a, b])
    }

    /// Any operation.
    pub fn operation(&mut self, operation: Operation, operands: &[Value]) -> Value {
        if let (Some(bytes), [value, count]) = (operation.shifts(), operands)
            && let Some(number) = self.as_constant(*count)
            && number & shift_limit(bytes) != number
        {
            let count = self.constant(number & shift_limit(bytes));
            return self.operation(operation, &[*value, count]);
        }
        if let Some(known) = self.of_numbers(operation, operands) {
            return known;
        }
        self.intern(Node::Operation(operation, operands.into()))
    }

    /// What a node is with other [`operands`], in normal form; loads and stores, of which memory tells more, as they are.
    pub fn remade(&mut self, node: &Node, operands: &[Value]) -> Value {
        match (node, operands) {
            (Node::Linear(terms, k), all) => {
                let factors = terms.iter().map(|term| term.1);
                let parts: Vec<(Value, u64)> = all.iter().copied().zip(factors).collect();
                self.linear(&parts, *k)
            }
            (Node::Low(bytes, _), [inner]) => self.low(*bytes, *inner),
            (Node::Signed(bytes, _), [inner]) => self.signed(*bytes, *inner),
            (Node::Insert(bytes, ..), [above, low]) => self.insert(*bytes, *above, *low),
            (
                Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), _),
                [a, b],
            ) => self.bitwise(*op, *a, *b),
            (Node::Operation(Operation::Multiply, _), [a, b]) => self.multiply(*a, *b),
            (Node::Operation(operation, _), all) => self.operation(*operation, all),
            (Node::Load(_, _, bytes), [from, address]) => {
                self.intern(Node::Load(*from, *address, *bytes))
            }
            (Node::Store(.., bytes), [before, address, stored]) => {
                self.intern(Node::Store(*before, *address, *stored, *bytes))
            }
            _ => self.intern(node.clone()),
        }
    }
}

/// What a node is made of.
pub fn operands(node: &Node) -> Vec<Value> {
    match node {
        Node::Linear(terms, _) => terms.iter().map(|t| t.0).collect(),
        Node::Low(_, v) | Node::Signed(_, v) => vec![*v],
        Node::Insert(_, a, b) | Node::Load(a, b, _) => vec![*a, *b],
        Node::Operation(_, operands) => operands.to_vec(),
        Node::Store(a, b, c, _) => vec![*a, *b, *c],
        Node::Phi(..) | Node::Given(..) => Vec::new(),
        Node::Base(_) | Node::Entry(_) | Node::Constants => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Operation, Place, Values};

    #[test]
    fn masks_forget_what_is_above_them() {
        let mut values = Values::default();
        let x = values.intern(Node::Entry(Place::General(0)));
        let less = values.offset(x, u64::MAX);
        let eight = values.constant(8);
        let low = values.low(4, less);
        let (a, b) = (
            values.bitwise(Operation::And, less, eight),
            values.bitwise(Operation::And, low, eight),
        );
        assert_eq!(a, b);
        // Nine more has no carry out of four bytes.
        let (wide, narrow) = (values.offset(a, 9), values.offset(b, 9));
        assert_eq!(values.low(4, narrow), wide);
    }

    #[test]
    fn sums_that_may_carry_are_not_narrow() {
        let mut values = Values::default();
        let x = values.intern(Node::Entry(Place::General(0)));
        let low = values.low(4, x);
        let one_more = values.offset(low, 1);
        assert_ne!(values.low(4, one_more), one_more);
        let less = values.offset(low, u64::MAX);
        assert_ne!(values.low(4, less), less);
    }
}
