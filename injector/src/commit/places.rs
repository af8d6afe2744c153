//! Where everything that a bundle speaks of is in this process.
//!
//! Takes the address map and identities of the version that runs, the bias of the shadow image and
//! the resolved imports; gives process addresses for the bundle's targets and the bytes of its
//! fix-ups. Pure. Refuses what is not in the process and what is out of a field's reach.

use crate::address::{Bias, ProcAddr};
use crate::error::ApplyError;
use crate::record::Identity;
use crate::record::map::AddressMap;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::{Fixup, FixupKind, Plan, Segment, Target};

/// All that is known about addresses.
#[derive(Debug, Clone)]
pub struct Places<'a> {
    /// OLD's linked addresses in the process.
    pub map: &'a AddressMap,
    /// OLD's functions whose identity is elsewhere, ascending by entry.
    pub identities: &'a [Identity],
    /// Of the shadow image.
    pub bias: Bias,
    /// By the index of the plan's imports.
    pub imports: &'a [u64],
}

impl Places<'_> {
    /// Where an OLD address is now.
    ///
    /// # Errors
    /// It is in no part of OLD that the process still has.
    pub fn old(&self, address: OldAddr) -> Result<ProcAddr, ApplyError> {
        self.map.place(address.0).ok_or_else(|| not_there(address, 1))
    }

    /// Where `len` bytes of OLD are now, in one piece.
    ///
    /// # Errors
    /// As [`Places::old`]; or they are in pieces.
    pub fn old_range(&self, address: OldAddr, len: u64) -> Result<ProcAddr, ApplyError> {
        self.map.range(address.0, len).ok_or_else(|| not_there(address, len))
    }

    /// The identity of an OLD function that is elsewhere.
    #[must_use]
    pub fn identity(&self, entry: OldAddr) -> Option<&Identity> {
        let found = self.identities.binary_search_by_key(&entry.0, |i| i.entry).ok()?;
        self.identities.get(found)
    }

    /// The address of a target.
    ///
    /// # Errors
    /// As [`Places::old`].
    pub fn target(&self, target: &Target) -> Result<u64, ApplyError> {
        Ok(match *target {
            Target::Old(a) | Target::OldCode(a) => self.old(a)?.0,
            Target::OldIdentity(a) => match self.identity(a) {
                Some(identity) => identity.identity,
                None => self.old(a)?.0,
            },
            Target::New(a) => self.bias.apply(a.0).0,
            // The bundle was validated: the index is in range.
            Target::Import(i) => self.imports.get(i as usize).copied().unwrap_or_default(),
        })
    }

    /// The bytes of a fixed-up field.
    ///
    /// # Errors
    /// The value does not fit the field.
    pub fn field(&self, fixup: &Fixup) -> Result<([u8; 8], usize), ApplyError> {
        let value = self.target(&fixup.target)?.wrapping_add_signed(fixup.addend);
        let place = self.bias.apply(fixup.at.0);
        let too_far = |width: &str| {
            ApplyError::Unsuitable(format!(
                "the {width} field at {} of NEW cannot hold the way from {place} to {value:#x}: \
                 no free address space near enough",
                fixup.at
            ))
        };
        let mut bytes = [0; 8];
        let size = match fixup.kind {
            FixupKind::Abs64 => {
                bytes = value.to_le_bytes();
                8
            }
            FixupKind::Rel32 => {
                let distance = i32::try_from(value.wrapping_sub(place.0).cast_signed())
                    .map_err(|_| too_far("32-bit relative"))?;
                bytes[..4].copy_from_slice(&distance.to_le_bytes());
                4
            }
            FixupKind::Abs32 => {
                let value = u32::try_from(value)
                    .ok()
                    .filter(|v| i32::try_from(*v).is_ok())
                    .ok_or_else(|| too_far("32-bit absolute"))?;
                bytes[..4].copy_from_slice(&value.to_le_bytes());
                4
            }
        };
        Ok((bytes, size))
    }

    /// The content of all segments with their fields fixed up.
    ///
    /// # Errors
    /// As [`Places::field`].
    pub fn segments(&self, plan: &Plan) -> Result<Vec<Vec<u8>>, ApplyError> {
        let mut content: Vec<Vec<u8>> = plan.segments.iter().map(|s| s.bytes.clone()).collect();
        let mut index = 0;
        for fixup in &plan.fixups {
            // Both ascend, and each fix-up lies in one segment's bytes (validated).
            while plan.segments.get(index).is_some_and(|s| past(s, fixup)) {
                index += 1;
            }
            let (bytes, size) = self.field(fixup)?;
            let start = plan.segments.get(index).map(|s| fixup.at.since(s.start));
            let field = start
                .and_then(|s| usize::try_from(s).ok())
                .and_then(|s| content.get_mut(index)?.get_mut(s..s.checked_add(size)?));
            field
                .ok_or_else(|| ApplyError::Internal(format!("fix-up at {} is nowhere", fixup.at)))?
                .copy_from_slice(&bytes[..size]);
        }
        Ok(content)
    }
}

fn past(segment: &Segment, fixup: &Fixup) -> bool {
    fixup.at >= segment.start.offset(segment.bytes.len() as u64)
}

fn not_there(address: OldAddr, len: u64) -> ApplyError {
    ApplyError::Unsuitable(format!(
        "{len} bytes at {address} of OLD are not in this process in one piece: earlier updates \
         left them out"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsu_patch_format::NewAddr;
    use dsu_patch_format::plan::Protection;

    fn check(kind: FixupKind, addend: i64, target: Target, bias: u64) -> Option<Vec<u8>> {
        let map = AddressMap::of_image(0, 0x1_0000, Bias(0x10_0000));
        let identities = [Identity { entry: 0x50, identity: 0x77_0000, jump: 0 }];
        let places = Places {
            map: &map,
            identities: &identities,
            bias: Bias(bias),
            imports: &[0x7f00_0000_1234],
        };
        let (bytes, size) =
            places.field(&Fixup { at: NewAddr(0x100), kind, addend, target }).ok()?;
        Some(bytes[..size].to_vec())
    }

    #[test]
    fn fields() {
        let old = Target::Old(OldAddr(0x20));
        assert_eq!(
            check(FixupKind::Rel32, -4, old, 0x20_0000),
            Some((-0x10_00e4i32).to_le_bytes().to_vec())
        );
        assert_eq!(
            check(FixupKind::Abs64, 8, Target::New(NewAddr(0x10)), 0x20_0000),
            Some(0x20_0018u64.to_le_bytes().to_vec())
        );
        assert_eq!(
            check(FixupKind::Abs64, 0, Target::Import(0), 0),
            Some(0x7f00_0000_1234u64.to_le_bytes().to_vec())
        );
        assert_eq!(
            check(FixupKind::Abs64, 0, Target::OldIdentity(OldAddr(0x50)), 0),
            Some(0x77_0000u64.to_le_bytes().to_vec())
        );
        assert_eq!(
            check(FixupKind::Abs64, 0, Target::OldCode(OldAddr(0x50)), 0),
            Some(0x10_0050u64.to_le_bytes().to_vec())
        );
    }

    #[test]
    fn overflow_is_refused() {
        let old = Target::Old(OldAddr(0x20));
        assert_eq!(check(FixupKind::Rel32, 0, old, 1 << 33), None);
        assert_eq!(check(FixupKind::Rel32, 0, Target::Import(0), 0), None);
        assert_eq!(check(FixupKind::Abs32, 0, Target::Import(0), 0), None);
        assert_eq!(check(FixupKind::Abs32, 0x7fff_0000, old, 0), None);
        assert!(check(FixupKind::Abs32, 0, old, 0).is_some());
        assert_eq!(check(FixupKind::Abs32, -0x10_0021, old, 0), None);
        assert_eq!(check(FixupKind::Abs64, 0, Target::Old(OldAddr(0x2_0000)), 0), None);
    }

    #[test]
    fn every_fixup_lands_in_its_segment() {
        let map = AddressMap::of_image(0, 0x1000, Bias(0x5000));
        let places = Places { map: &map, identities: &[], bias: Bias(0x9000), imports: &[] };
        let segment = |start, protection| Segment {
            start: NewAddr(start),
            bytes: vec![0xcc; 16],
            zeroes: 0,
            protection,
        };
        let fixup = |at| Fixup {
            at: NewAddr(at),
            kind: FixupKind::Abs64,
            addend: 0,
            target: Target::Old(OldAddr(1)),
        };
        let plan = Plan {
            segments: vec![segment(0, Protection::Text), segment(0x1000, Protection::Data)],
            fixups: vec![fixup(8), fixup(0x1000)],
            ..Plan::default()
        };
        let content = places.segments(&plan).unwrap();
        assert_eq!(content[0][..8], [0xcc; 8]);
        assert_eq!(content[0][8..], 0x5001u64.to_le_bytes());
        assert_eq!(content[1][..8], 0x5001u64.to_le_bytes());
        assert_eq!(content[1][8..], [0xcc; 8]);
    }
}
