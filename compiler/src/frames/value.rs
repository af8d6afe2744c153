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

pub use bits::Bits;

use super::bounds::Bound;
use super::point::PointId;
use dsu_patch_format::plan::Target;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
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

/// The bits of a shift's count that the processor looks at (SDM volume 2, SAL).
pub(super) fn shift_limit(bytes: u8) -> u64 {
    if bytes == 8 { 63 } else { 31 }
}

/// How deep a value is looked into for how large it may be.
const MOST_DEPTH: u8 = 6;

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

    /// What is zero just where a sum is, if that is for one of the numbers that a bounded name in it may stand for:
    /// the name less that number. Builds that count with a number or with a pointer ask the same of it.
    pub fn zero_with(&mut self, sum: Value) -> Option<Value> {
        // Far from where sums would wrap.
        const FARTHEST: i128 = 1 << 62;
        if self.bounds.is_empty() || !self.further {
            return None;
        }
        let (terms, _) = self.terms(sum);
        terms.into_iter().find_map(|(name, times)| {
            let Bound { first, last } = *self.bounds.get(&name)?;
            let rest = self.linear(&[(sum, 1), (name, times.wrapping_neg()), (first, times)], 0);
            let begins = i128::from(self.as_constant(rest)?.cast_signed());
            let factor = i128::from(times.cast_signed());
            let far = factor.checked_mul(i128::from(last)).is_none_or(|n| n.abs() > FARTHEST);
            let ends = i64::try_from(-begins / factor).ok().filter(|_| begins % factor == 0)?;
            let is_met = (last.min(0)..=last.max(0)).contains(&ends);
            let parts = [(name, 1), (first, u64::MAX)];
            (is_met && !far).then(|| self.linear(&parts, ends.wrapping_neg().cast_unsigned()))
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

    /// What an operation makes of numbers.
    fn of_numbers(&mut self, operation: Operation, operands: &[Value]) -> Option<Value> {
        let number = |this: &Self, n: usize| this.as_constant(*operands.get(n)?);
        let known = match operation {
            Operation::Select => {
                return Some(operands[if number(self, 0)? == 0 { 2 } else { 1 }]);
            }
            Operation::And => number(self, 0)? & number(self, 1)?,
            Operation::Or => number(self, 0)? | number(self, 1)?,
            Operation::Xor => number(self, 0)? ^ number(self, 1)?,
            Operation::ShiftLeft(_) => number(self, 0)? << number(self, 1)?,
            Operation::ShiftRight(n) => (number(self, 0)? & mask(n)) >> number(self, 1)?,
            Operation::ShiftArithmetic(n) => {
                (extended(n, number(self, 0)?) >> number(self, 1)?).cast_unsigned()
            }
            Operation::Condition(code) => u64::from(self.is_met(code, operands[0])?),
            _ => return None,
        };
        Some(self.constant(known))
    }

    /// Whether an even condition code (SDM volume 1, B.1) is met by flags that are those of numbers.
    fn is_met(&mut self, code: u8, flags: Value) -> Option<bool> {
        let sign = |bytes: u8, n: u64| extended(bytes, n) < 0;
        let less = |bytes: u8, a: u64, b: u64| extended(bytes, a) < extended(bytes, b);
        match self.node(flags).clone() {
            // Without carry and overflow.
            Node::Operation(Operation::Logic(bytes), all) => {
                let result = self.as_constant(all[0])? & mask(bytes);
                match code {
                    0 | 2 => Some(false),
                    4 | 6 => Some(result == 0),
                    8 | 12 => Some(sign(bytes, result)),
                    14 => Some(sign(bytes, result) || result == 0),
                    _ => None,
                }
            }
            Node::Operation(Operation::Compare(bytes), all) => {
                if (code, bytes) == (4, 8) {
                    let difference = self.subtract(all[0], all[1]);
                    return Some(self.as_constant(difference)? == 0);
                }
                let [a, b] = [all[0], all[1]].map(|v| self.as_constant(v).map(|n| n & mask(bytes)));
                let (a, b) = (a?, b?);
                match code {
                    2 => Some(a < b),
                    4 => Some(a == b),
                    6 => Some(a <= b),
                    8 => Some(sign(bytes, a.wrapping_sub(b))),
                    12 => Some(less(bytes, a, b)),
                    14 => Some(!less(bytes, b, a)),
                    _ => None,
                }
            }
            // What else the flags of a result tell depends on what was done.
            Node::Operation(Operation::Instruction { immediate, output: u8::MAX, .. }, all) => {
                let bytes = u8::try_from(immediate & 0xff).ok()?;
                let result = self.as_constant(all[0])? & mask(bytes);
                match code {
                    4 => Some(result == 0),
                    8 => Some(sign(bytes, result)),
                    _ => None,
                }
            }
            _ => None,
        }
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
    use super::{Node, Operation, Place, Values, extended, mask};

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

    /// By what the processor does with the same numbers, for all conditions and widths.
    #[test]
    fn conditions_on_numbers_are_met_as_the_processor_says() {
        let mut values = Values::default();
        let numbers = [0u64, 1, 2, 0x7f, 0x80, 0xff, 0x8000_0000, 0xffff_ffff, 1 << 63, u64::MAX];
        for bytes in [1u8, 4, 8] {
            for (a, b) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (*a, *b))) {
                let (a, b) = (a & mask(bytes), b & mask(bytes));
                let (x, y) = (extended(bytes, a), extended(bytes, b));
                let sign = extended(bytes, a.wrapping_sub(b)) < 0;
                let compared =
                    [(2, a < b), (4, a == b), (6, a <= b), (8, sign), (12, x < y), (14, x <= y)];
                let (first, second) = (values.constant(a), values.constant(b));
                let flags = values.operation(Operation::Compare(bytes), &[first, second]);
                for (code, met) in compared {
                    let asked = values.operation(Operation::Condition(code), &[flags]);
                    assert_eq!(
                        values.as_constant(asked),
                        Some(u64::from(met)),
                        "{code} {a:x} {b:x}"
                    );
                }
                // As if compared with zero.
                let tested =
                    [(2, false), (4, a == 0), (6, a == 0), (8, x < 0), (12, x < 0), (14, x <= 0)];
                let flags = values.operation(Operation::Logic(bytes), &[first]);
                for (code, met) in tested {
                    let asked = values.operation(Operation::Condition(code), &[flags]);
                    assert_eq!(values.as_constant(asked), Some(u64::from(met)), "{code} {a:x}");
                }
            }
        }
    }

    #[test]
    fn shifts_and_choices_of_numbers_are_numbers() {
        let mut values = Values::default();
        let [value, by, one, zero] = [0xffff_ffff_8000_0001, 4, 1, 0].map(|n| values.constant(n));
        let shifted = [
            (Operation::ShiftRight(8), 0x0fff_ffff_f800_0000),
            (Operation::ShiftRight(4), 0x0800_0000),
            (Operation::ShiftArithmetic(4), 0xffff_ffff_f800_0000),
            (Operation::ShiftLeft(8), 0xffff_fff8_0000_0010),
        ];
        for (operation, result) in shifted {
            let made = values.operation(operation, &[value, by]);
            assert_eq!(values.as_constant(made), Some(result), "{operation:?}");
        }
        assert_eq!(values.operation(Operation::Select, &[one, value, by]), value);
        assert_eq!(values.operation(Operation::Select, &[zero, value, by]), by);
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
