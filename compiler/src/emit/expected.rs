//! What OLD's text must hold where something is written over it.

use crate::code::{Field, Reference};
use crate::image::Image;

/// OLD's bytes from `start` on, and which of them an earlier update may have changed: operands that
/// are addresses may have been fixed up (0 in the mask), the rest is as built (0xff).
pub(super) fn expected(
    image: &Image,
    start: u64,
    len: u64,
    references: impl IntoIterator<Item = Reference>,
) -> (Vec<u8>, Vec<u8>) {
    let bytes = image.content(start, len).unwrap_or_default().into_owned();
    let mut mask = vec![0xff; bytes.len()];
    for reference in references {
        let size = match reference.field {
            Field::Branch8 => 1,
            Field::Absolute64 => 8,
            _ => 4,
        };
        for at in reference.at..reference.at + size {
            let index = at.checked_sub(start).and_then(|i| usize::try_from(i).ok());
            if let Some(byte) = index.and_then(|i| mask.get_mut(i)) {
                *byte = 0;
            }
        }
    }
    (bytes, mask)
}
