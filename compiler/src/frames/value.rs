//! Symbolic values of both bodies in one table, so that equal means the same number.
//!
//! A value is 64 bits. Equal operations on equal inputs are one value, whichever build does them, in
//! whatever order and registers: nodes are hash-consed in a normal form. Sums and products with
//! constants are linear combinations modulo 2^64; narrower results are the low bytes of wider ones.
//!
//! A value that depends on *when* it was computed carries the points it depends on ([`Values::depends`]):
//! names given at a point stand for its latest execution, and the relation renames older ones
//! when the point is passed again.

use super::bounds::Bound;
use super::point::PointId;
use dsu_patch_format::plan::Target;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
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

/// How deep a value is looked into for how large it may be.
const MOST_DEPTH: u8 = 6;

/// So many values of one row of the same bitwise operation are put into order.
const MOST_LINKS: usize = 12;

/// What any row of `and`, `or` and `xor` with numbers makes of a value (SDM volume 2: bit by bit):
/// `(of & kept) ^ changed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits {
    /// The value.
    pub(super) of: Value,
    /// What is kept of it.
    pub(super) kept: u64,
    /// What is changed then.
    pub(super) changed: u64,
}

impl Bits {
    fn all_of(of: Value) -> Self {
        Self { of, kept: u64::MAX, changed: 0 }
    }

    /// With one more number.
    fn then(self, operation: Operation, number: u64) -> Self {
        let Self { of, kept, changed } = self;
        match operation {
            Operation::And => Self { of, kept: kept & number, changed: changed & number },
            Operation::Or => Self { of, kept: kept & !number, changed: changed | number },
            _ => Self { of, kept, changed: changed ^ number },
        }
    }
}

/// All values of one pair of functions.
pub struct Values {
    nodes: Vec<Node>,
    numbers: HashMap<Node, Value>,
    depends: Vec<Rc<[PointId]>>,
    /// Whether an address in the frame is part of it.
    framed: Vec<bool>,
    nothing: Rc<[PointId]>,
    /// Points at which a place of one build is said in terms of one of the other's that it goes along with.
    in_step: BTreeSet<PointId>,
    /// Names of counters whose end is known.
    bounds: HashMap<Value, Bound>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            numbers: HashMap::new(),
            depends: Vec::new(),
            framed: Vec::new(),
            nothing: Rc::new([]),
            in_step: BTreeSet::new(),
            bounds: HashMap::new(),
        }
    }
}

impl Values {
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

    /// A name that is known to be bounded before there is anything made of it: what is made of it is made of what it
    /// begins with, too. `None`: something was.
    pub fn bound_name(&mut self, name: Node, first: Value) -> Option<Value> {
        if self.numbers.contains_key(&name) {
            return None;
        }
        let name = self.intern(name);
        let both = [&self.depends[name.0 as usize], &self.depends[first.0 as usize]];
        let all: BTreeSet<PointId> = both.into_iter().flat_map(|set| set.iter().copied()).collect();
        self.depends[name.0 as usize] = all.into_iter().collect();
        Some(name)
    }

    /// What a name may stand for is known from now on; `None`: it is not.
    pub fn bind(&mut self, name: Value, bound: Option<Bound>) {
        match bound {
            Some(bound) => self.bounds.insert(name, bound),
            None => self.bounds.remove(&name),
        };
    }

    /// The sum whose low bytes a value has, where these are all of it: within the bounds of a name that is
    /// part of it, it is one of `range`.
    fn bounded(&mut self, bytes: u8, value: Value, range: RangeInclusive<i128>) -> Option<Value> {
        if self.bounds.is_empty() {
            return None;
        }
        let (terms, _) = self.terms(value);
        terms.into_iter().find_map(|(name, factor)| {
            let Bound { first, last } = *self.bounds.get(&name)?;
            let factor = extended(bytes, factor);
            let times = factor.cast_unsigned();
            let rest = self.linear(&[(value, 1), (name, times.wrapping_neg()), (first, times)], 0);
            let (others, number) = self.terms(rest);
            if others.iter().any(|other| other.1 & mask(bytes) != 0) {
                return None;
            }
            let number = match *range.start() < 0 {
                true => extended(bytes, number).cast_unsigned(),
                false => number & mask(bytes),
            };
            let begins = i128::from(number.cast_signed());
            let ends = begins + i128::from(factor) * i128::from(last);
            let inside = range.contains(&begins) && range.contains(&ends);
            let parts = [(name, times), (first, times.wrapping_neg())];
            inside.then(|| self.linear(&parts, number))
        })
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

    /// The low bytes, zero-extended.
    pub fn low(&mut self, bytes: u8, value: Value) -> Value {
        if bytes >= 8 || self.fits(value, bytes) {
            return value;
        }
        let mask = mask(bytes);
        if let Some(sum) = self.bounded(bytes, value, 0..=i128::from(mask)) {
            return sum;
        }
        match self.node(value).clone() {
            Node::Linear(terms, k) => {
                let stripped: Vec<(Value, u64)> =
                    terms.iter().map(|(v, f)| (self.strip(bytes, *v), f & mask)).collect();
                let sum = self.linear(&stripped, k & mask);
                self.low_of_normal(bytes, sum)
            }
            _ => {
                let stripped = self.strip(bytes, value);
                if stripped == value {
                    self.low_of_normal(bytes, value)
                } else {
                    self.low(bytes, stripped)
                }
            }
        }
    }

    fn low_of_normal(&mut self, bytes: u8, value: Value) -> Value {
        let mask = mask(bytes);
        let (terms, k) = self.terms(value);
        if terms.is_empty() {
            return self.constant(k & mask);
        }
        let value = match self.node(value) {
            Node::Linear(..) => {
                let masked: Vec<_> =
                    terms.iter().map(|(v, f)| (*v, f & mask)).filter(|t| t.1 != 0).collect();
                self.linear(&masked, k & mask)
            }
            _ => value,
        };
        // A number without some of its bits is no more than it.
        if let Node::Linear(terms, k) = self.node(value)
            && let [(term, factor)] = **terms
            && factor == mask
            && self.possible(term) & !*k == 0
        {
            let k = *k;
            return self.linear(&[(term, u64::MAX)], k);
        }
        if self.fits(value, bytes) { value } else { self.intern(Node::Low(bytes, value)) }
    }

    /// A value with the same low bytes, simpler where that is possible.
    fn strip(&mut self, bytes: u8, value: Value) -> Value {
        match self.node(value).clone() {
            Node::Low(n, v) | Node::Signed(n, v) | Node::Insert(n, _, v) if n >= bytes => {
                self.strip(bytes, v)
            }
            Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), operands) => {
                let (a, b) = (self.strip(bytes, operands[0]), self.strip(bytes, operands[1]));
                if (a, b) == (operands[0], operands[1]) {
                    return self.bits_below(bytes, value);
                }
                let stripped = self.bitwise(op, a, b);
                self.bits_below(bytes, stripped)
            }
            Node::Operation(Operation::Multiply, operands) => {
                let (a, b) = (self.strip(bytes, operands[0]), self.strip(bytes, operands[1]));
                self.multiply(a, b)
            }
            _ => value,
        }
    }

    /// A value whose low bytes are those of this one, where numbers say which bits of it count: those above them
    /// do not.
    fn bits_below(&mut self, bytes: u8, value: Value) -> Value {
        let Bits { of, kept, changed } = self.bits(value);
        let below = mask(bytes);
        if of == value || (kept | changed) & !below == 0 {
            return value;
        }
        let made = self.made_of_bits(Bits { of, kept: kept & below, changed: changed & below });
        match *self.node(made) {
            Node::Low(n, inner) if n >= bytes => self.strip(bytes, inner),
            _ => made,
        }
    }

    /// Whether the upper bytes are known to be zero.
    fn fits(&self, value: Value, bytes: u8) -> bool {
        self.most(value, MOST_DEPTH) <= mask(bytes)
    }

    /// A number that the value is never above.
    fn most(&self, value: Value, depth: u8) -> u64 {
        let Some(depth) = depth.checked_sub(1) else { return u64::MAX };
        let of = |v: &Value| self.most(*v, depth);
        match self.node(value) {
            Node::Linear(terms, k) => {
                // Less than a number is no more than that.
                if let [(term, u64::MAX)] = **terms
                    && of(&term) <= *k
                {
                    return *k;
                }
                let mut sum = Some(*k);
                for (term, factor) in terms.iter() {
                    let product = of(term).checked_mul(*factor);
                    sum = sum.zip(product).and_then(|(sum, product)| sum.checked_add(product));
                }
                sum.unwrap_or(u64::MAX)
            }
            Node::Low(n, v) => mask(*n).min(of(v)),
            Node::Load(_, _, n) => mask(*n),
            Node::Operation(Operation::Condition(_), _) => 1,
            Node::Operation(Operation::ShiftRight(n), operands) => {
                let shift = self.as_constant(operands[1]).filter(|s| *s < 64).unwrap_or(0);
                mask(*n) >> shift
            }
            Node::Operation(Operation::And, operands) => {
                operands.iter().map(of).min().unwrap_or(u64::MAX)
            }
            Node::Operation(Operation::Or | Operation::Xor, operands) => {
                let all = operands.iter().map(of).fold(0, |all, most| all | most);
                u64::MAX.checked_shr(all.leading_zeros()).unwrap_or(0)
            }
            Node::Operation(Operation::Select, operands) => {
                operands[1..].iter().map(of).max().unwrap_or(u64::MAX)
            }
            _ => u64::MAX,
        }
    }

    /// The bits of a value that are not known to be zero.
    pub(super) fn possible(&self, value: Value) -> u64 {
        self.possible_at(value, MOST_DEPTH)
    }

    fn possible_at(&self, value: Value, depth: u8) -> u64 {
        let Some(below) = depth.checked_sub(1) else { return u64::MAX };
        let of = |v: &Value| self.possible_at(*v, below);
        match self.node(value) {
            Node::Linear(terms, k) => {
                // No bit above the sum's first, and none below the first of all its parts.
                let most = self.most(value, depth);
                let above = u64::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
                let parts = terms.iter().map(|(term, factor)| {
                    of(term).trailing_zeros().saturating_add(factor.trailing_zeros())
                });
                let zeros = parts.fold(k.trailing_zeros(), u32::min);
                above & u64::MAX.checked_shl(zeros).unwrap_or(0)
            }
            Node::Low(n, v) => mask(*n) & of(v),
            Node::Load(_, _, n) => mask(*n),
            Node::Insert(n, above, low) => of(above) & !mask(*n) | of(low) & mask(*n),
            Node::Operation(Operation::Condition(_), _) => 1,
            Node::Operation(Operation::ShiftRight(n), operands) => {
                let shift = self.as_constant(operands[1]).filter(|s| *s < 64);
                let shifted = shift.map(|shift| (of(&operands[0]) & mask(*n)) >> shift);
                shifted.unwrap_or(mask(*n))
            }
            Node::Operation(Operation::And, operands) => {
                operands.iter().map(of).fold(u64::MAX, |all, bits| all & bits)
            }
            Node::Operation(Operation::Or | Operation::Xor, operands) => {
                operands.iter().map(of).fold(0, |all, bits| all | bits)
            }
            Node::Operation(Operation::Select, operands) => {
                operands[1..].iter().map(of).fold(0, |all, bits| all | bits)
            }
            _ => u64::MAX,
        }
    }

    /// The low bytes, sign-extended to 64 bits.
    pub fn signed(&mut self, bytes: u8, value: Value) -> Value {
        if bytes >= 8 {
            return value;
        }
        let value = self.strip(bytes, value);
        let most = i128::from(mask(bytes) >> 1);
        if let Some(sum) = self.bounded(bytes, value, -most - 1..=most) {
            return sum;
        }
        match self.as_constant(value) {
            Some(k) => self.constant(extended(bytes, k).cast_unsigned()),
            None => self.intern(Node::Signed(bytes, value)),
        }
    }

    /// `old` with its low bytes replaced.
    pub fn insert(&mut self, bytes: u8, old: Value, low: Value) -> Value {
        if bytes >= 8 {
            return low;
        }
        let low = self.low(bytes, low);
        let old = match *self.node(old) {
            Node::Insert(n, before, _) if n <= bytes => before,
            _ => old,
        };
        // All above is zero: the low bytes alone are the value.
        if self.fits(old, bytes) { low } else { self.intern(Node::Insert(bytes, old, low)) }
    }

    /// Bitwise operations, in one form whatever the order of the numbers among them.
    pub fn bitwise(&mut self, operation: Operation, a: Value, b: Value) -> Value {
        let (x, y) = (self.as_constant(a), self.as_constant(b));
        let (a, k) = match (x, y) {
            (Some(x), _) => (b, Some(x)),
            (_, y) => (a, y),
        };
        if let Some(k) = k {
            let bits = self.bits(a).then(operation, k);
            return self.made_of_bits(bits);
        }
        let (p, q) = (self.bits(a), self.bits(b));
        match operation {
            Operation::Or => {
                // Bits that are one on either side are so, whatever the other bits of both are.
                let ones = p.changed & !p.kept | q.changed & !q.kept;
                if ones == 0 {
                    return self.row(operation, p, q);
                }
                let others = [p, q].map(|bits| bits.then(Operation::And, !ones));
                let [a, b] = others.map(|bits| self.made_of_bits(bits));
                let rest = self.bitwise(operation, a, b);
                let bits = self.bits(rest).then(operation, ones);
                self.made_of_bits(bits)
            }
            Operation::Xor => {
                // (a ^ c) ^ b is (a ^ b) ^ c.
                let changed = p.changed ^ q.changed;
                if p.changed | q.changed == 0 {
                    return self.row(operation, p, q);
                }
                let [a, b] = [p, q].map(|bits| self.made_of_bits(Bits { changed: 0, ..bits }));
                let rest = self.bitwise(operation, a, b);
                let bits = self.bits(rest).then(operation, changed);
                self.made_of_bits(bits)
            }
            _ => self.row(operation, p, q),
        }
    }

    /// The same operation on more than two values is the same in any order (SDM volume 2, AND, OR, XOR: bit by
    /// bit); what is there twice is once, or cancels.
    fn row(&mut self, operation: Operation, a: Bits, b: Bits) -> Value {
        let mut all = Vec::new();
        for bits in [a, b] {
            let value = self.made_of_bits(bits);
            self.links(operation, value, &mut all);
        }
        all.sort_unstable();
        if operation == Operation::Xor {
            let mut odd: Vec<Value> = Vec::new();
            for value in all {
                if odd.last() == Some(&value) {
                    odd.pop();
                } else {
                    odd.push(value);
                }
            }
            all = odd;
        } else {
            all.dedup();
        }
        let Some((first, rest)) = all.split_first() else { return self.constant(0) };
        rest.iter().fold(*first, |made, value| self.operation(operation, &[made, *value]))
    }

    fn links(&self, operation: Operation, value: Value, all: &mut Vec<Value>) {
        match self.node(value) {
            Node::Operation(op, operands)
                if *op == operation
                    && all.len() < MOST_LINKS
                    && operands.iter().all(|v| self.as_constant(*v).is_none()) =>
            {
                operands.iter().for_each(|v| self.links(operation, *v, all));
            }
            _ => all.push(value),
        }
    }

    /// `and` with a number: of a row of `or` or `xor` it is that of each, bit by bit.
    fn kept_of(&mut self, value: Value, kept: u64) -> Value {
        let of = self.bits(value).of;
        let wide = |op: &Operation| matches!(op, Operation::Or | Operation::Xor);
        let operation = match self.node(of) {
            Node::Operation(op, _) if wide(op) => Some(*op),
            _ => None,
        };
        let mut all = Vec::new();
        if let Some(operation) = operation {
            self.links(operation, of, &mut all);
        }
        let nested = |v: &Value| matches!(self.node(*v), Node::Operation(op, _) if wide(op));
        match (operation, all.split_first()) {
            (Some(operation), Some((first, rest))) if !all.iter().any(nested) => {
                let first = self.bits(*first).then(Operation::And, kept);
                let mut made = self.made_of_bits(first);
                for other in rest {
                    let other = self.bits(*other).then(Operation::And, kept);
                    let other = self.made_of_bits(other);
                    made = self.bitwise(operation, made, other);
                }
                made
            }
            _ => {
                let number = self.constant(kept);
                self.commutative(Operation::And, value, number)
            }
        }
    }

    /// A value as the bits of another one that numbers have kept, changed, or put in their place.
    pub(super) fn bits(&self, value: Value) -> Bits {
        let mut bits = Bits::all_of(value);
        while let Some(inner) = self.bits_of_one(bits.of) {
            bits = Bits {
                of: inner.of,
                kept: inner.kept & bits.kept,
                changed: inner.changed & bits.kept ^ bits.changed,
            };
        }
        bits.kept &= self.possible(bits.of);
        bits
    }

    /// The same for one operation.
    fn bits_of_one(&self, value: Value) -> Option<Bits> {
        // k - a: where no bit of a is beyond those of k there is no borrow, and each is changed. With all ones it is
        // what `not` is in two's complement.
        let sum = |bytes: u8, inner: Value| {
            let Node::Linear(terms, k) = self.node(inner) else { return None };
            let ([(term, factor)], below) = (&**terms, mask(bytes)) else { return None };
            let (k, factor) = (*k & below, *factor & below);
            if factor == below && self.possible(*term) & below & !k == 0 {
                return Some(Bits { of: *term, kept: below, changed: k });
            }
            // Bits that were moved down, and are where they were again.
            let added = k == 0 && factor.is_power_of_two();
            let moved = if added { factor } else { factor.wrapping_neg() & below };
            let Bits { of, kept, changed: already } = self.bits(*term);
            match self.node(of) {
                Node::Operation(Operation::ShiftRight(n), operands)
                    if moved.is_power_of_two()
                        && already == 0
                        && self.as_constant(operands[1]) == Some(moved.trailing_zeros().into()) =>
                {
                    let kept = (kept << moved.trailing_zeros()) & mask(*n) & below;
                    let is_apart = added || kept & !k == 0;
                    is_apart.then_some(Bits { of: operands[0], kept, changed: k })
                }
                _ => None,
            }
        };
        match self.node(value) {
            Node::Low(n, inner) => {
                let low = || Bits::all_of(*inner).then(Operation::And, mask(*n));
                Some(sum(*n, *inner).unwrap_or_else(low))
            }
            Node::Linear(..) => sum(8, value),
            Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), operands) => {
                let (a, b) = (operands[0], operands[1]);
                match (self.as_constant(a), self.as_constant(b)) {
                    (_, Some(k)) => Some(Bits::all_of(a).then(*op, k)),
                    (Some(k), _) => Some(Bits::all_of(b).then(*op, k)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The value that is such bits, in the one form of it: `and`, then `xor`, then `or`, no bit of one number in
    /// another that need not be there.
    fn made_of_bits(&mut self, bits: Bits) -> Value {
        let Bits { mut of, mut kept, mut changed } = bits;
        // What is above the bits that are kept does not matter.
        let low = loop {
            kept &= self.possible(of);
            let low = match covering(kept) {
                Some(bytes) => self.low(bytes, of),
                None => of,
            };
            let inner = self.bits(low);
            changed ^= inner.changed & kept;
            kept &= inner.kept;
            if inner.of == of {
                break low;
            }
            of = inner.of;
        };
        if kept == 0 {
            return self.constant(changed);
        }
        let mut value = low;
        if kept != self.possible(low) {
            value = self.kept_of(low, kept);
        }
        let (flipped, ones) = (changed & kept, changed & !kept);
        if flipped == kept {
            // `not`, or what is left of a number without these bits of it.
            value = match [1, 2, 4, 8].into_iter().find(|bytes| kept == mask(*bytes)) {
                Some(bytes) => {
                    let not = self.linear(&[(of, u64::MAX)], u64::MAX);
                    self.low(bytes, not)
                }
                None => self.linear(&[(value, u64::MAX)], kept),
            };
        } else if flipped != 0 {
            let number = self.constant(flipped);
            value = self.commutative(Operation::Xor, value, number);
        }
        if ones != 0 {
            let number = self.constant(ones);
            value = self.commutative(Operation::Or, value, number);
        }
        value
    }
}

/// The fewest bytes that hold a number, if they are fewer than eight.
fn covering(number: u64) -> Option<u8> {
    [1, 2, 4].into_iter().find(|bytes| number <= mask(*bytes))
}

/// All ones in so many bytes.
pub fn mask(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * u32::from(bytes))) - 1 }
}

/// The low bytes of a number, with their sign.
pub fn extended(bytes: u8, number: u64) -> i64 {
    let above = 64 - 8 * u32::from(bytes.clamp(1, 8));
    (number << above).cast_signed() >> above
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
    use super::{Bits, Node, Operation, Place, Value, Values, extended, mask, operands};

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

    /// Numbers without order, the same ones each time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        fn bytes(&mut self) -> u8 {
            1 << self.below(4)
        }

        /// One that is likely to be in a program.
        fn constant(&mut self) -> u64 {
            let short = self.next() >> self.below(64);
            match self.below(6) {
                0 => 1 << self.below(64),
                1 => !(1 << self.below(64)),
                2 => mask(self.bytes()),
                3 => extended(1, short).cast_unsigned(),
                4 => short & 0xff00,
                _ => short,
            }
        }
    }

    /// What a value is where the entry's registers hold these numbers, and memory others.
    fn number(values: &Values, value: Value, held: &[u64; 3]) -> u64 {
        let of = |v: &Value| number(values, *v, held);
        match values.node(value) {
            Node::Linear(terms, k) => terms
                .iter()
                .fold(*k, |sum, (v, factor)| sum.wrapping_add(of(v).wrapping_mul(*factor))),
            Node::Entry(Place::General(n)) => held[usize::from(*n)],
            Node::Low(n, v) => of(v) & mask(*n),
            Node::Signed(n, v) => extended(*n, of(v)).cast_unsigned(),
            Node::Insert(n, above, low) => of(above) & !mask(*n) | of(low) & mask(*n),
            Node::Load(_, address, n) => of(address).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(*n),
            Node::Operation(operation, operands) => {
                let all: Vec<u64> = operands.iter().map(of).collect();
                match operation {
                    Operation::And => all[0] & all[1],
                    Operation::Or => all[0] | all[1],
                    Operation::Xor => all[0] ^ all[1],
                    Operation::ShiftRight(n) => (all[0] & mask(*n)) >> all[1],
                    Operation::Condition(_) => all[0] & 1,
                    Operation::Select if all[0] == 1 => all[1],
                    Operation::Select => all[2],
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A value of random operations, and what it has to be.
    fn random(
        values: &mut Values,
        numbers: &mut Numbers,
        held: &[[u64; 3]],
        depth: u8,
    ) -> (Value, Vec<u64>) {
        let each = |a: &[u64], f: &dyn Fn(u64) -> u64| a.iter().map(|n| f(*n)).collect::<Vec<_>>();
        if depth == 0 {
            let n = numbers.below(3);
            let index = usize::try_from(n).unwrap();
            let place = Place::General(u8::try_from(n).unwrap());
            let value = values.intern(Node::Entry(place));
            return (value, held.iter().map(|held| held[index]).collect());
        }
        let (a, x) = random(values, numbers, held, depth - 1);
        let (k, bytes) = (numbers.constant(), numbers.bytes());
        match numbers.below(13) {
            kind @ 0..=5 => {
                let operation = [Operation::And, Operation::Or, Operation::Xor]
                    [usize::try_from(kind % 3).unwrap()];
                let apply = |a: u64, b: u64| match operation {
                    Operation::And => a & b,
                    Operation::Or => a | b,
                    _ => a ^ b,
                };
                if numbers.below(3) > 0 {
                    let constant = values.constant(k);
                    let both = if kind > 2 { [a, constant] } else { [constant, a] };
                    let made = values.bitwise(operation, both[0], both[1]);
                    return (made, each(&x, &|n| apply(n, k)));
                }
                let (b, y) = random(values, numbers, held, depth - 1);
                let made = values.bitwise(operation, a, b);
                (made, x.iter().zip(&y).map(|(a, b)| apply(*a, *b)).collect())
            }
            6 => (values.low(bytes, a), each(&x, &|n| n & mask(bytes))),
            7 => (values.signed(bytes, a), each(&x, &|n| extended(bytes, n).cast_unsigned())),
            8 => {
                let factor = [1, 2, 256, u64::MAX, u64::from(u32::MAX)];
                let factor = factor[usize::try_from(numbers.below(5)).unwrap()];
                let k = [0, 1, 0xff, u64::MAX, k][usize::try_from(numbers.below(5)).unwrap()];
                let made = values.linear(&[(a, factor)], k);
                (made, each(&x, &|n| n.wrapping_mul(factor).wrapping_add(k)))
            }
            9 => {
                let (b, y) = random(values, numbers, held, depth - 1);
                let made = values.insert(bytes, a, b);
                let above = |(a, b): (&u64, &u64)| *a & !mask(bytes) | *b & mask(bytes);
                (made, x.iter().zip(&y).map(above).collect())
            }
            10 => {
                let bits = numbers.below(u64::from(bytes) * 8);
                let constant = values.constant(bits);
                let made = values.operation(Operation::ShiftRight(bytes), &[a, constant]);
                (made, each(&x, &|n| (n & mask(bytes)) >> bits))
            }
            11 => {
                // Down, some bits, and up again by as many or by one more, below a number.
                let bits = numbers.below(u64::from(bytes) * 8);
                let (down, some) = (values.constant(bits), values.constant(k));
                let made = values.operation(Operation::ShiftRight(bytes), &[a, down]);
                let made = values.bitwise(Operation::And, made, some);
                let up = 1u64.wrapping_shl(u32::try_from(bits + numbers.below(5) / 4).unwrap());
                let up = if numbers.below(2) == 0 { up } else { up.wrapping_neg() };
                let top = [0, u64::MAX, k << bits, 1][usize::try_from(numbers.below(4)).unwrap()];
                let made = values.linear(&[(made, up)], top);
                let apply =
                    |n: u64| ((n & mask(bytes)) >> bits & k).wrapping_mul(up).wrapping_add(top);
                (made, each(&x, &apply))
            }
            _ => {
                let memory = values.intern(Node::Entry(Place::Memory));
                let made = values.intern(Node::Load(memory, a, bytes));
                (made, each(&x, &|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(bytes)))
            }
        }
    }

    #[test]
    fn every_form_is_the_same_number() {
        let mut numbers = Numbers(88);
        let mut values = Values::default();
        for round in 0..20_000u64 {
            if round % 500 == 0 {
                values = Values::default();
            }
            let mut held = vec![[0; 3], [u64::MAX; 3]];
            held.extend((0..6).map(|_| [0; 3].map(|_: u64| numbers.constant())));
            let (value, wanted) = random(&mut values, &mut numbers, &held, 2 + (round % 5) as u8);
            for (held, wanted) in held.iter().zip(wanted) {
                let found = number(&values, value, held);
                assert_eq!(found, wanted, "round {round} {held:x?} {:?}", values.node(value));
                let possible = values.possible(value);
                assert_eq!(found & !possible, 0, "round {round} {:?}", values.node(value));
                let Bits { of, kept, changed } = values.bits(value);
                assert_eq!(number(&values, of, held) & kept ^ changed, found, "round {round}");
            }
            // What is made again is what it was.
            let node = values.node(value).clone();
            let again = values.remade(&node, &operands(&node));
            let bits = values.bits(value);
            let same = values.made_of_bits(bits);
            for made in [again, same] {
                for held in &held {
                    assert_eq!(number(&values, made, held), number(&values, value, held));
                }
            }
        }
    }

    /// Rows of operations with numbers, from the first on.
    fn row(values: &mut Values, value: Value, all: &[(Operation, u64)]) -> Value {
        all.iter().fold(value, |value, (operation, k)| {
            let k = values.constant(*k);
            values.bitwise(*operation, value, k)
        })
    }

    #[test]
    fn numbers_in_a_row_of_bitwise_operations_are_one_number_each() {
        use Operation::{And, Or, Xor};
        let mut values = Values::default();
        let x = values.intern(Node::Entry(Place::General(0)));
        let memory = values.intern(Node::Entry(Place::Memory));
        let byte = values.intern(Node::Load(memory, x, 1));
        let same: [[&[(Operation, u64)]; 2]; 7] = [
            [&[(And, !3), (Or, 1)], &[(And, !2), (Or, 1)]],
            [&[(And, 0xffff_ffff_ffff_ff9f), (Or, 0x40)], &[(Or, 0x40), (And, !0x20)]],
            [&[(And, 0xf0), (And, 0x3c)], &[(And, 0x30)]],
            [&[(Or, 0xf0), (Or, 0x0f)], &[(Or, 0xff)]],
            [&[(Xor, 0xf0), (Xor, 0x30)], &[(Xor, 0xc0)]],
            [&[(Xor, 1), (And, 1)], &[(Xor, u64::MAX), (And, 1)]],
            [&[(Or, 6), (Xor, 2)], &[(And, !2), (Or, 4)]],
        ];
        let other: [[&[(Operation, u64)]; 2]; 5] = [
            [&[(And, !3), (Or, 1)], &[(And, !1), (Or, 1)]],
            [&[(And, 0xff9f), (Or, 0x40)], &[(Or, 0x40), (And, 0xff9f)]],
            [&[(Or, 0xf0), (And, 0x3c)], &[(And, 0x3c), (Or, 0xf0)]],
            [&[(Xor, 3), (Or, 1)], &[(Or, 1)]],
            [&[(And, 1), (Xor, 1)], &[(And, 1), (Or, 1)]],
        ];
        for x in [x, byte] {
            for [a, b] in same {
                assert_eq!(row(&mut values, x, a), row(&mut values, x, b), "{a:?} {b:?}");
            }
            for [a, b] in other {
                assert_ne!(row(&mut values, x, a), row(&mut values, x, b), "{a:?} {b:?}");
            }
        }
        // A byte has no bits above it; eight bytes have.
        let above: [&[(Operation, u64)]; 2] = [&[(And, !3)], &[(And, 0xfc)]];
        assert_eq!(row(&mut values, byte, above[0]), row(&mut values, byte, above[1]));
        assert_ne!(row(&mut values, x, above[0]), row(&mut values, x, above[1]));
        // What is above the bytes that are written does not matter.
        let [wide, narrow] = above.map(|all| row(&mut values, x, all));
        assert_eq!(values.low(1, wide), values.low(1, narrow));
        assert_eq!(values.signed(1, wide), values.signed(1, narrow));
        assert_ne!(values.low(2, wide), values.low(2, narrow));
    }

    #[test]
    fn three_values_are_in_one_order() {
        let mut values = Values::default();
        let [x, y, z] = [0, 1, 2].map(|n| values.intern(Node::Entry(Place::General(n))));
        for operation in [Operation::And, Operation::Or, Operation::Xor] {
            let first = values.bitwise(operation, x, y);
            let first = values.bitwise(operation, first, z);
            let second = values.bitwise(operation, z, y);
            let second = values.bitwise(operation, x, second);
            assert_eq!(first, second);
            let twice = values.bitwise(operation, second, y);
            match operation {
                Operation::Xor => assert_eq!(twice, values.bitwise(operation, x, z)),
                _ => assert_eq!(twice, first),
            }
        }
        let (and, or) = (values.bitwise(Operation::And, x, y), values.bitwise(Operation::Or, y, z));
        let mixed = [values.bitwise(Operation::Or, and, z), values.bitwise(Operation::And, x, or)];
        assert_ne!(mixed[0], mixed[1]);
        // A number goes outward, and takes no part of the others with it.
        let one = values.constant(1);
        let odd = values.bitwise(Operation::Or, x, one);
        let (a, b) = (values.bitwise(Operation::Or, odd, y), values.bitwise(Operation::Or, x, y));
        assert_eq!(a, values.bitwise(Operation::Or, one, b));
        assert_ne!(a, b);
    }
}
