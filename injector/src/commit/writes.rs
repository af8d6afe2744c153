//! The writes of a commit, computed while the process runs.
//!
//! Takes the plan and the places; gives what is written where, in order: data first, then for each
//! redirect its cave, its jump, and the jump at its identity, then for each site its cave and its jump;
//! and the regions in which that is done. Pure. Also gives the identities of NEW.

use super::places::Places;
use super::regions::{self, Region};
use crate::address::ProcAddr;
use crate::again::PutBack;
use crate::error::ApplyError;
use crate::record::Identity;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::{MapTarget, Plan, Redirect, RedirectForm, Site};
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};

/// `jmp rel32` and `jmp rel8` (SDM volume 2, JMP).
const JMP_REL32: u8 = 0xe9;
const JMP_REL8: u8 = 0xeb;

/// One write of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub at: ProcAddr,
    /// New content.
    pub bytes: Vec<u8>,
    /// For messages.
    pub what: String,
    /// Code: others near it are written with it.
    pub text: bool,
    /// A cave, which an earlier update may have used.
    pub cave: bool,
}

/// Bytes that must be there before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Where.
    pub at: ProcAddr,
    /// Content ...
    pub bytes: Vec<u8>,
    /// ... where a bit is set here.
    pub mask: Vec<u8>,
    /// For messages.
    pub what: String,
}

/// Everything that a commit does, prepared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitPlan {
    /// In order.
    pub writes: Vec<Write>,
    /// Checked before the first of them.
    pub expected: Vec<Expected>,
    /// What is read, checked and written at once.
    pub regions: Vec<Region>,
    /// For the record.
    pub identities: Vec<Identity>,
}

impl CommitPlan {
    /// Computes it. `name` gives the name of the function at an OLD entry.
    ///
    /// # Errors
    /// Something is not in the process, or out of reach.
    pub fn new(
        plan: &Plan,
        places: &Places<'_>,
        name: impl Fn(OldAddr) -> String,
    ) -> Result<Self, ApplyError> {
        let mut commit = Self::default();
        commit.data(plan, places)?;
        for redirect in &plan.redirects {
            commit.redirect(redirect, places, &name(redirect.entry))?;
        }
        for site in &plan.sites {
            commit.site(site, places)?;
        }
        commit.inherit_identities(plan, places);
        commit.regions = regions::of(&commit.writes, &commit.expected);
        Ok(commit)
    }

    fn data(&mut self, plan: &Plan, places: &Places<'_>) -> Result<(), ApplyError> {
        for write in &plan.writes {
            let at = places.old_range(write.at, write.bytes.len() as u64)?;
            let mut bytes = write.bytes.clone();
            for pointer in &write.pointers {
                let value = places.target(&pointer.target)?.wrapping_add_signed(pointer.addend);
                let field = usize::try_from(pointer.offset)
                    .ok()
                    .and_then(|o| bytes.get_mut(o..o.checked_add(8)?))
                    .ok_or_else(|| ApplyError::Internal("a pointer outside its write".into()))?;
                field.copy_from_slice(&value.to_le_bytes());
            }
            let what = format!("data at {} of OLD", write.at);
            self.writes.push(Write { at, bytes, what, text: false, cave: false });
        }
        Ok(())
    }

    /// Stands for the real one where only its sizes matter: the same number of writes of the same
    /// lengths, and of identities.
    #[must_use]
    pub fn draft(plan: &Plan, places: &Places<'_>) -> Self {
        let mut draft = Self::default();
        let mut write = |len| {
            let (at, what) = (ProcAddr(0), String::new());
            draft.writes.push(Write { at, bytes: vec![0; len], what, text: true, cave: false });
        };
        let mut jump = |form: RedirectForm| {
            write(5);
            if form != RedirectForm::Near {
                write(2);
            }
        };
        plan.sites.iter().for_each(|s| jump(s.form));
        plan.redirects.iter().for_each(|r| jump(r.form));
        plan.writes.iter().for_each(|w| write(w.bytes.len()));
        for redirect in &plan.redirects {
            if places.identity(redirect.entry).is_some() {
                write(5);
            }
        }
        for redirect in &plan.redirects {
            let entry = redirect.to.0;
            draft.identities.push(Identity { entry, identity: 0, jump: 0 });
        }
        draft.inherit_identities(plan, places);
        draft
    }

    fn redirect(
        &mut self,
        redirect: &Redirect,
        places: &Places<'_>,
        name: &str,
    ) -> Result<(), ApplyError> {
        let to = places.bias.apply(redirect.to.0);
        let entry = places.old(redirect.entry)?;
        if !redirect.expect.is_empty() {
            self.expected.push(Expected {
                at: places.old_range(redirect.entry, redirect.expect.len() as u64)?,
                bytes: redirect.expect.clone(),
                mask: redirect.mask.clone(),
                what: format!("the entry of {name}"),
            });
        }
        let what = format!("redirect of {name}");
        let jump = self.jump(redirect.at, redirect.form, to, places, &what)?;
        let known = places.identity(redirect.entry).copied();
        if let Some(identity) = known {
            // Pointers lead here: straight to NEW, not by way of OLD's code.
            let at = ProcAddr(identity.jump);
            self.expected.push(Expected {
                at,
                bytes: vec![JMP_REL32],
                mask: vec![0xff],
                what: format!("the earlier redirect of {name}"),
            });
            self.near(at, to, &what)?;
        }
        self.identities.push(Identity {
            entry: redirect.to.0,
            identity: known.map_or(entry.0, |i| i.identity),
            jump: known.map_or(jump.0, |i| i.jump),
        });
        Ok(())
    }

    fn site(&mut self, site: &Site, places: &Places<'_>) -> Result<(), ApplyError> {
        let what = format!("site at {} of OLD", site.at);
        let stub = places.bias.apply(site.stub.0);
        self.jump(site.at, site.form, stub, places, &what)?;
        self.expected.push(Expected {
            at: places.old_range(site.at, site.form.jump_len())?,
            bytes: site.expect.clone(),
            mask: site.mask.clone(),
            what: format!("the {what}"),
        });
        Ok(())
    }

    /// A jump from OLD code; gives where its `jmp rel32` is.
    fn jump(
        &mut self,
        at: OldAddr,
        form: RedirectForm,
        to: ProcAddr,
        places: &Places<'_>,
        what: &str,
    ) -> Result<ProcAddr, ApplyError> {
        let at = places.old_range(at, form.jump_len())?;
        let Some(cave) = form.cave() else {
            self.near(at, to, what)?;
            return Ok(at);
        };
        let cave = places.old_range(cave, NEAR_JUMP)?;
        self.near(cave, to, what)?;
        self.writes.last_mut().into_iter().for_each(|write| write.cave = true);
        let distance = cave.since(at.offset(SHORT_JUMP)).cast_signed();
        let distance = i8::try_from(distance).map_err(|_| {
            ApplyError::Unsuitable(format!("the padding for the {what} is not near it"))
        })?;
        let bytes = vec![JMP_REL8, distance.to_le_bytes()[0]];
        self.writes.push(Write { at, bytes, what: what.to_owned(), text: true, cave: false });
        Ok(cave)
    }

    fn near(&mut self, at: ProcAddr, to: ProcAddr, what: &str) -> Result<(), ApplyError> {
        let distance = to.since(at.offset(NEAR_JUMP)).cast_signed();
        let distance = i32::try_from(distance).map_err(|_| {
            ApplyError::Unsuitable(format!("a jump from {at} to {to} is too far ({what})"))
        })?;
        let mut bytes = vec![JMP_REL32];
        bytes.extend_from_slice(&distance.to_le_bytes());
        self.writes.push(Write { at, bytes, what: what.to_owned(), text: true, cave: false });
        Ok(())
    }

    /// Adds that code of a shadow image that is taken again becomes what it was.
    pub fn put_back(&mut self, places: &[PutBack]) {
        for place in places {
            let what = "code of the earlier application".to_owned();
            self.expected.push(Expected {
                at: place.at,
                bytes: place.now.clone(),
                mask: vec![0xff; place.now.len()],
                what: what.clone(),
            });
            let (at, bytes) = (place.at, place.first.clone());
            self.writes.push(Write { at, bytes, what, text: true, cave: false });
        }
        self.regions = regions::of(&self.writes, &self.expected);
    }

    /// Whether a cave of this update is one of an earlier one, which has written at `written`: two
    /// builds show the same padding, the process has only one.
    ///
    /// # Errors
    /// It is, and names it.
    pub fn refuse_used_caves(&self, mut written: Vec<(ProcAddr, u64)>) -> Result<(), ApplyError> {
        written.sort_unstable();
        for cave in self.writes.iter().filter(|w| w.cave) {
            let end = cave.at.offset(NEAR_JUMP);
            // Writes are short or far apart: those that reach a cave begin shortly before it.
            let before = written.partition_point(|(at, _)| *at < end);
            let used =
                written[..before].iter().rev().take(8).any(|(at, len)| at.offset(*len) > cave.at);
            if used {
                return Err(ApplyError::Unsuitable(format!(
                    "the padding at {} that the {} needs is used by an earlier update",
                    cave.at, cave.what
                )));
            }
        }
        Ok(())
    }

    /// Functions that an earlier update replaced and this one keeps: their code stays where it is,
    /// so does their identity; only their linked address is another one in NEW.
    fn inherit_identities(&mut self, plan: &Plan, places: &Places<'_>) {
        for identity in places.identities {
            if plan.redirects.iter().any(|r| r.entry.0 == identity.entry) {
                continue;
            }
            let kept = plan.map.iter().find_map(|run| match run.to {
                MapTarget::Old(old) if identity.entry.wrapping_sub(old.0) < run.len => {
                    Some(run.start.0 + (identity.entry - old.0))
                }
                _ => None,
            });
            self.identities.extend(kept.map(|entry| Identity { entry, ..*identity }));
        }
        self.identities.sort_by_key(|i| i.entry);
        self.identities.dedup_by_key(|i| i.entry);
    }

    /// Bytes of the journal: a count, and for each write its place, its length, both contents.
    #[must_use]
    pub fn journal_len(&self) -> usize {
        4 + self.writes.iter().map(|w| 12 + 2 * w.bytes.len()).sum::<usize>()
    }

    /// The journal, once the old contents of the regions are known.
    #[must_use]
    pub fn journal(&self, old: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.journal_len());
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&number(self.writes.len()));
        for (region, old) in self.regions.iter().zip(old) {
            for write in region.writes.iter().filter_map(|i| self.writes.get(*i)) {
                let len = write.bytes.len();
                out.extend_from_slice(&write.at.0.to_le_bytes());
                out.extend_from_slice(&number(len));
                out.extend_from_slice(region.slice(old, write.at, len));
                out.extend_from_slice(&write.bytes);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Bias;
    use crate::record::map::AddressMap;
    use dsu_patch_format::NewAddr;
    use dsu_patch_format::plan::{DataPointer, DataWrite, MapRun, Target};

    fn redirect(entry: u64, form: RedirectForm, to: u64) -> Redirect {
        Redirect {
            entry: OldAddr(entry),
            at: OldAddr(entry),
            form,
            to: NewAddr(to),
            expect: vec![1, 2],
            mask: vec![0xff, 0xff],
        }
    }

    fn commit(plan: &Plan, map: &AddressMap, identities: &[Identity]) -> CommitPlan {
        let places = Places { map, identities, bias: Bias(0x2_0000), imports: &[] };
        CommitPlan::new(plan, &places, |a| a.to_string()).unwrap()
    }

    #[test]
    fn first_update() {
        let map = AddressMap::of_image(0, 0x1000, Bias(0x1_0000));
        let plan = Plan {
            redirects: vec![
                redirect(0x100, RedirectForm::Near, 0x40),
                redirect(0x200, RedirectForm::Short { cave: OldAddr(0x1f0) }, 0x80),
            ],
            writes: vec![DataWrite {
                at: OldAddr(0x800),
                bytes: vec![7; 10],
                pointers: vec![DataPointer {
                    offset: 2,
                    addend: 1,
                    target: Target::New(NewAddr(3)),
                }],
            }],
            ..Plan::default()
        };
        let commit = commit(&plan, &map, &[]);
        let bytes: Vec<_> = commit.writes.iter().map(|w| (w.at.0, w.bytes.clone())).collect();
        let mut data = vec![7, 7];
        data.extend_from_slice(&0x2_0004u64.to_le_bytes());
        assert_eq!(bytes[0], (0x1_0800, data));
        let near = |distance: i32| [&[0xe9][..], &distance.to_le_bytes()].concat();
        assert_eq!(bytes[1], (0x1_0100, near(0x2_0040 - 0x1_0105)));
        assert_eq!(bytes[2], (0x1_01f0, near(0x2_0080 - 0x1_01f5)), "the cave first");
        assert_eq!(bytes[3], (0x1_0200, vec![0xeb, 0xee]));
        assert_eq!(
            commit.identities,
            [
                Identity { entry: 0x40, identity: 0x1_0100, jump: 0x1_0100 },
                Identity { entry: 0x80, identity: 0x1_0200, jump: 0x1_01f0 },
            ]
        );
    }

    #[test]
    fn a_second_update_redirects_the_code_and_the_identity() {
        // 0x40 was replaced in the first update, 0x80 as well and is kept now, at 0xc0.
        let map = AddressMap::of_image(0, 0x1000, Bias(0x3_0000));
        let identities = [
            Identity { entry: 0x40, identity: 0x1_0100, jump: 0x1_0104 },
            Identity { entry: 0x80, identity: 0x1_0200, jump: 0x1_01f0 },
        ];
        let plan = Plan {
            redirects: vec![redirect(0x40, RedirectForm::Near, 0x48)],
            map: vec![MapRun { start: NewAddr(0xc0), len: 8, to: MapTarget::Old(OldAddr(0x80)) }],
            ..Plan::default()
        };
        let commit = commit(&plan, &map, &identities);
        let at: Vec<_> = commit.writes.iter().map(|w| w.at.0).collect();
        assert_eq!(at, [0x3_0040, 0x1_0104]);
        assert_eq!(
            commit.identities,
            [
                Identity { entry: 0x48, identity: 0x1_0100, jump: 0x1_0104 },
                Identity { entry: 0xc0, identity: 0x1_0200, jump: 0x1_01f0 },
            ]
        );
        assert_eq!(commit.expected[1].bytes, [0xe9]);
    }

    #[test]
    fn the_journal_has_the_length_that_was_promised() {
        let map = AddressMap::of_image(0, 0x1000, Bias(0x1_0000));
        let plan = Plan { redirects: vec![redirect(0, RedirectForm::Near, 0)], ..Plan::default() };
        let commit = commit(&plan, &map, &[]);
        let old: Vec<_> = commit.regions.iter().map(|r| vec![9; r.len]).collect();
        let journal = commit.journal(&old);
        assert_eq!(journal.len(), commit.journal_len());
        assert_eq!(journal[16..21], [9; 5]);
    }

    #[test]
    fn sites_are_jumps_to_stubs() {
        let map = AddressMap::of_image(0, 0x1000, Bias(0x1_0000));
        let site = |at, form: RedirectForm| Site {
            at: OldAddr(at),
            kind: dsu_patch_format::plan::SiteKind::Return,
            form,
            stub: NewAddr(0x90),
            stub_len: 5,
            to: NewAddr(0x40),
            function: 0,
            expect: vec![3; usize::try_from(form.jump_len()).unwrap()],
            mask: vec![0xff; usize::try_from(form.jump_len()).unwrap()],
        };
        let short = RedirectForm::Short { cave: OldAddr(0x130) };
        let plan = Plan {
            sites: vec![site(0x110, RedirectForm::Near), site(0x120, short)],
            ..Plan::default()
        };
        let commit = commit(&plan, &map, &[]);
        let bytes: Vec<_> = commit.writes.iter().map(|w| (w.at.0, w.bytes.clone())).collect();
        let near = |distance: i32| [&[0xe9][..], &distance.to_le_bytes()].concat();
        assert_eq!(bytes[0], (0x1_0110, near(0x2_0090 - 0x1_0115)));
        assert_eq!(bytes[1], (0x1_0130, near(0x2_0090 - 0x1_0135)), "the cave first");
        assert_eq!(bytes[2], (0x1_0120, vec![0xeb, 0x0e]));
        let expected: Vec<_> = commit.expected.iter().map(|e| (e.at.0, e.bytes.len())).collect();
        assert_eq!(expected, [(0x1_0110, 5), (0x1_0120, 2)]);
        assert_eq!(commit.regions.len(), 1);
        let places = Places { map: &map, identities: &[], bias: Bias(0x2_0000), imports: &[] };
        assert_eq!(CommitPlan::draft(&plan, &places).journal_len(), commit.journal_len());

        let written = |at, len| vec![(ProcAddr(0x10), 4), (ProcAddr(at), len)];
        assert!(commit.refuse_used_caves(written(0x1_0134, 1)).is_err());
        assert!(commit.refuse_used_caves(written(0x1_012c, 5)).is_err());
        assert!(commit.refuse_used_caves(written(0x1_012b, 5)).is_ok());
        assert!(commit.refuse_used_caves(written(0x1_0135, 5)).is_ok());
        assert!(commit.refuse_used_caves(written(0x1_0110, 5)).is_ok(), "not a cave");
    }
}
