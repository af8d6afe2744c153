//! Arbitrary valid frame translations.

use super::Choices;
use dsu_patch_format::NewAddr;
use dsu_patch_format::Translation;
use dsu_patch_format::frames::{Binary, Location, Move, Proof, Value};
use dsu_patch_format::plan::{Plan, Protection, Target};

impl Choices {
    pub(super) fn frame(&mut self, plan: &Plan) -> Translation {
        let (old_depth, new_depth) = (8 + 8 * self.below(30), 8 + 8 * self.below(30));
        let mut frame =
            Translation { old_depth, new_depth, flags: self.yes(), ..Translation::default() };
        let text = plan.segments.iter().find(|s| s.protection == Protection::Text);
        let text = text.filter(|s| !s.bytes.is_empty()).map(|s| s.start);
        if text.is_some() && self.below(4) == 0 {
            frame.lowered = 16 * self.below(1 + (new_depth - 8) / 16);
        }
        for number in 0..16 {
            if number != 4 && self.below(4) == 0 {
                let bytes = [1, 2, 4, 8][self.count(4)];
                self.fill(plan, &mut frame, Location::General { number, bytes });
            }
        }
        for number in 0..32 {
            if self.below(8) == 0 {
                let bytes = [4, 8, 16, 32, 64][self.count(5)];
                self.fill(plan, &mut frame, Location::Vector { number, bytes });
            }
        }
        self.slots(plan, text, &mut frame);
        frame
    }

    /// Slots of NEW from the stack pointer up, and objects between them.
    fn slots(&mut self, plan: &Plan, text: Option<NewAddr>, frame: &mut Translation) {
        let deepest_object = -frame.old_depth.min(frame.new_depth).cast_signed();
        let mut cfa = -frame.new_depth.cast_signed();
        let home = -(frame.lowered + 8).cast_signed();
        let mut returns = text.map(|text| (home, text)).filter(|_| frame.lowered > 0);
        loop {
            cfa += self.below(20).cast_signed();
            let bytes = 1 + self.small() % 40;
            let end = cfa + i64::from(bytes);
            if let Some((home, text)) = returns.take_if(|(home, _)| end > *home) {
                let to = Location::Slot { cfa: home, bytes: 8 };
                let from = Value::Address { target: Target::New(text), addend: 0 };
                frame.moves.push(Move { to, from, proof: Proof::Lowered });
                cfa = home + 8;
                continue;
            }
            if end > -8 {
                return;
            }
            if cfa >= deepest_object && self.below(4) == 0 {
                frame.objects.push((cfa, end));
            } else {
                self.fill(plan, frame, Location::Slot { cfa, bytes });
            }
            cfa = end;
        }
    }

    fn fill(&mut self, plan: &Plan, frame: &mut Translation, to: Location) {
        let bytes = match to {
            Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
            Location::Slot { bytes, .. } => bytes,
        };
        let from = self.value(plan, frame.old_depth, bytes, 0);
        let proof = match self.below(7) {
            0 => Proof::Equal,
            1 => Proof::Variable(self.text()),
            2 => Proof::EqualVariable(self.text()),
            3 => Proof::Remade,
            4 => Proof::CalleeSaved,
            5 => Proof::Result,
            _ => Proof::NewLocal(self.text()),
        };
        frame.moves.push(Move { to, from, proof });
    }

    /// A value of at least so many bytes.
    fn value(&mut self, plan: &Plan, old_depth: u64, bytes: u32, nested: u32) -> Value {
        let inside = |c: &mut Self, bytes: u8| {
            Box::new(c.value(plan, old_depth, u32::from(bytes), nested + 1))
        };
        match self.below(if nested < 4 { 8 } else { 5 }) {
            0 => Value::Constant(self.below(1 << 40)),
            1 => Value::Address {
                target: self.target(plan),
                addend: self.below(100).cast_signed() - 50,
            },
            2 => Value::Frame(-self.below(300).cast_signed()),
            3 => Value::Canary,
            5 => {
                let ops = [Binary::Add, Binary::Sub, Binary::Mul, Binary::And, Binary::Or]
                    .into_iter()
                    .chain([Binary::Xor, Binary::Shl, Binary::Shr, Binary::Sar]);
                let op = ops.clone().nth(self.count(ops.count())).unwrap();
                let bytes = [4, 8][self.count(2)];
                Value::Binary { op, bytes, left: inside(self, bytes), right: inside(self, bytes) }
            }
            6 => {
                let from = [1, 2, 4][self.count(3)];
                Value::ZeroExtend { from, value: inside(self, from) }
            }
            7 => {
                let (from, to) = [(1, 4), (2, 8), (4, 8)][self.count(3)];
                Value::SignExtend { from, to, value: inside(self, from) }
            }
            _ => Value::At(self.source(old_depth, bytes)),
        }
    }

    fn source(&mut self, old_depth: u64, bytes: u32) -> Location {
        if bytes <= 8 && self.yes() {
            return Location::General { number: u8::try_from(self.below(16)).unwrap(), bytes: 8 };
        }
        if bytes <= 64 && self.yes() {
            return Location::Vector { number: u8::try_from(self.below(32)).unwrap(), bytes: 64 };
        }
        let cfa = -old_depth.cast_signed() + self.below(20).cast_signed();
        Location::Slot { cfa, bytes: bytes + self.small() % 8 }
    }
}
