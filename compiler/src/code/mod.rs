//! Machine code of one image: instructions with every operand that is an address.
//!
//! Takes an image and a function; gives its instructions without padding, each with its references
//! ([`Reference`]); decides nothing about equality. Where decoding fails (data inside code) the
//! body is [`Body::opaque`] from there on, and its bytes stand for themselves.

mod flow;
mod references;

pub use flow::{Flow, follow, is_filler, leading_filler};
pub(crate) use references::is_immediate;
pub use references::{Field, Reference, for_each_reference, references};

use crate::image::{Function, Image, Part};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

/// One instruction of a function.
#[derive(Debug, Clone)]
pub struct Step {
    /// Decoded, at its linked address.
    pub instruction: Instruction,
    /// Its address-valued operands, at most one of them a branch target.
    pub references: Vec<Reference>,
}

impl Step {
    /// First byte as linked.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.instruction.ip()
    }

    /// Past the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.instruction.next_ip()
    }
}

/// A function's instructions, padding left out.
#[derive(Debug, Clone)]
pub struct Body {
    /// Main part and cold parts in order, `nop`s left out.
    pub steps: Vec<Step>,
    /// Ranges of `steps` for each part, and the parts.
    pub parts: Vec<(Part, std::ops::Range<usize>)>,
    /// Bytes that are not instructions, where decoding had to stop: `[start, end of part)`.
    pub opaque: Option<Part>,
}

impl Body {
    /// The index of the first instruction at or behind an address of this body.
    #[must_use]
    pub fn index_at(&self, address: u64) -> Option<usize> {
        let (_, steps) = self.parts.iter().find(|(part, _)| part.contains(&address))?;
        let inside = &self.steps[steps.clone()];
        Some(steps.start + inside.partition_point(|s| s.address() < address))
    }

    /// Whether an address of this body is where an instruction (or padding before one) begins.
    #[must_use]
    pub fn is_boundary(&self, address: u64) -> bool {
        self.index_at(address).is_some_and(|i| {
            i.checked_sub(1)
                .and_then(|b| self.steps.get(b))
                .is_none_or(|before| before.end() <= address || before.address() > address)
        })
    }
}

/// Decodes a function.
#[must_use]
pub fn decode(image: &Image, function: &Function) -> Body {
    let mut body = Body { steps: Vec::new(), parts: Vec::new(), opaque: None };
    for part in function.parts() {
        let first = body.steps.len();
        decode_part(image, &part, &mut body);
        body.parts.push((part, first..body.steps.len()));
    }
    body
}

fn decode_part(image: &Image, part: &Part, body: &mut Body) {
    let Some(code) = image.content(part.start, part.end - part.start) else {
        body.opaque = Some(part.clone());
        return;
    };
    let mut decoder = Decoder::with_ip(64, &code, part.start, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            body.opaque.get_or_insert(instruction.ip()..part.end);
            return;
        }
        if is_padding(&instruction) {
            continue;
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        let references = references(image, &instruction, &offsets);
        body.steps.push(Step { instruction, references });
    }
}

/// Padding inside and between functions: no effect, so its place and length mean nothing.
fn is_padding(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Nop
}
