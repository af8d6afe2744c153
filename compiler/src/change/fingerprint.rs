//! A number for a function's content that does not depend on where anything is: tells functions of
//! one name apart. Equal numbers are a hint, never a proof.

use crate::code::decode;
use crate::image::{Function, Image, Thing};
use crate::matching::names::canonical;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The content of a function as a number.
#[must_use]
pub fn fingerprint(image: &Image, function: &Function) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Some(import) = &function.import {
        import.name.hash(&mut hasher);
        return hasher.finish();
    }
    let body = decode(image, function);
    for step in &body.steps {
        super::compare::neutral(step).hash(&mut hasher);
        for reference in &step.references {
            match image.resolve(reference.target) {
                Thing::Code { function: callee, offset } => {
                    let callee = image.function(callee);
                    let own = callee.address == function.address;
                    let inside = if own { body.index_at(reference.target) } else { None };
                    (if own { String::new() } else { canonical(callee.name()) }).hash(&mut hasher);
                    inside.map_or(offset, |i| i as u64).hash(&mut hasher);
                }
                Thing::Object { object, offset } => {
                    (canonical(image.object(object).name()), offset).hash(&mut hasher);
                }
                Thing::Constant(address) if reference.access > 0 => {
                    image.content(address, reference.access).hash(&mut hasher);
                }
                Thing::Constant(address) => {
                    super::constants::text_at(image, address).hash(&mut hasher);
                }
                _ => {}
            }
        }
    }
    hasher.finish()
}
