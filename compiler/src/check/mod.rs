//! The independent checker of checkpoint sites: reads an encoded bundle back and proves, from the two
//! images alone, that each stub does what its table says and that the table says enough.
//!
//! It shares no code with what makes tables and stubs (`frames`, `emit`, `machine`): it has its own
//! decoding, control flow, frame depths, liveness, unwinding rows and stub semantics. What it objects
//! to is not put into a bundle. It takes the word of the builder for what is a statement about two programs, not
//! about a stub: that the value which the table names is the one that NEW's variable should have ([`Proof::Equal`] and
//! [`Proof::Variable`]), and which object an address means where one ends and another begins.
//!
//! [`Proof::Equal`]: dsu_patch_format::frames::Proof::Equal
//! [`Proof::Variable`]: dsu_patch_format::frames::Proof::Variable
//!
//! # Part 1: the stub does what the table says
//!
//! The stub is executed over symbols. The lattice, for one byte:
//!
//! ```text
//!   Known(b)                     a number
//!   Of(term, i)                  byte i of a term: an OLD register, an OLD stack byte CFA+k, the canary,
//!                                OLD's flags, CFA+k, an address, arithmetic over bytes, a sign
//!   Of(Unknown n, 0)             nothing is known: equal to itself alone
//! ```
//!
//! A state maps each byte of the 16 general and 32 vector registers, of the flags and of the memory
//! around the CFA to such a byte; two bytes are the same value exactly when they are the same element,
//! since terms are hash-consed in a normal form. At the start every location is its own symbol. There
//! are no joins: the stub is straight-line. After each instruction a signal may come, so all memory
//! below `rsp - 128` becomes unknown (psABI 3.2.2: 128 bytes below the stack pointer are kept, nothing
//! further down). Proved at the end:
//!
//! ```text
//!   for each move:  final[byte i of move.to] == initial value of move.from, byte i
//!   final rsp       == CFA - new_depth
//!   final flags     == initial flags, when the table says so
//!   each write      lies in [rsp, CFA-8), outside of every object
//!   the last byte   is the end of a jump to the site's counterpart
//! ```
//!
//! A concrete interpreter, written apart from the symbolic one, runs the stub with its fix-ups applied
//! on random states, signals included, and compares: a second opinion on the same question.
//!
//! # Part 2: the table supplies every live location
//!
//! On NEW's function, from its bytes:
//!
//! - forward, must: what each register and slot holds, of `CFA+k`, the caller's value of a callee-saved
//!   register, the canary, a number, an address; joins keep what is equal.
//! - forward, may: which registers a defined value may be in, which bytes of the frame may have been
//!   written. What can hold no value in NEW itself needs none.
//! - backward, may: which bytes of registers, flags and slots may be read before they are written.
//!   Bytes of copies count as far as the copy does. A call reads the registers of its callee's
//!   prototype; it ends the life of what its callee, with all that it calls, may change.
//!
//! Then, at the counterpart: each live byte is written by a move, or lies in an object that stays, or
//! lies from the CFA up where OLD has it; a location that holds `CFA+k`, a caller's value or the canary
//! is given just that; the callee-saved registers go from where OLD's unwinding row has them to where
//! NEW's row has them; both depths are those of the rows.
//!
//! Where NEW's frame stands lower than OLD's did, NEW's offsets count from a CFA that is so much lower; its
//! return address is that of code which lifts the stack pointer and returns, and NEW touches nothing from
//! there up ([`lowered`]).
//!
//! Where a frame goes on in a copy of NEW's function with objects of its frame elsewhere, all of that is proved of the
//! function, with the table's places named as the function names them; and of the copy, that it is the function but
//! for where those objects are ([`copies`]).
//!
//! # Part 3: the sites
//!
//! Program points are instruction boundaries of the two bodies of one function, calls correspond,
//! planted bytes cover nothing but dead code of their function, and the text is as expected.
//!
//! # Part 4: the passages
//!
//! OLD code that runs on for a moment ends soon, at sites or out of the function ([`passages`]).

mod calls;
mod code;
mod concrete;
mod copies;
mod demand;
mod dispatch;
mod effects;
mod function;
mod jumps;
mod lowered;
pub mod mutate;
mod numbers;
mod passages;
mod reach;
mod rows;
mod sites;
mod stub;
mod supply;
mod symbolic;
mod table;
mod targets;
mod values;
mod word;

#[cfg(test)]
mod tests;

use crate::image::{FunctionId, Image};
use calls::Calls;
use copies::{Copy, Followed};
use dsu_patch_format::frames::Translation;
use dsu_patch_format::plan::{Plan, Site};
use dsu_patch_format::{Bundle, NewAddr, OldAddr};
use function::Analysis;
pub use passages::Impassable;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the checker does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// [`dsu_patch_format::plan::Plan::sites`] by index.
    pub site: usize,
    /// The program point in OLD.
    pub at: OldAddr,
    /// Name of the function in OLD.
    pub function: String,
    /// What must hold.
    pub rule: Rule,
    /// What does not, in words.
    pub subject: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, at, function, rule, subject } = self;
        write!(f, "site {site} at {at} in {function}: {subject} (must hold: {rule})")
    }
}

macro_rules! rules {
    ($($name:ident: $words:literal,)*) => {
        /// What must hold of a site, its stub and its table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $(#[doc = $words] $name,)* }

        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $words,)* })
            }
        }
    };
}

rules! {
    Table: "a table's destinations are sorted, disjoint places of NEW's frame, its sources wide enough",
    Bytes: "a stub is whole instructions of its own, straight-line, inside of a text segment",
    End: "a stub ends with a jump to the counterpart",
    Whitelist: "a stub has only instructions whose effect the checker knows",
    InstructionSet: "a stub needs no instruction set that the functions do not need",
    Write: "a stub writes only between the stack pointer and the return address, never into objects",
    Read: "a stub reads only the frame, constants of its own and the canary",
    StackPointer: "the stack pointer is CFA plus a number throughout, and CFA - new_depth at the end",
    Flags: "flags go through when the table says so, and no other flag changes",
    Move: "each destination holds its source",
    SecondOpinion: "the stub does the same on numbers",
    Depth: "table, unwinding rows and both bodies have the CFA in one place",
    Live: "each location that NEW may read is supplied, as wide as it is read",
    CallersValue: "what NEW has of its caller's registers is given the caller's values",
    FrameAddress: "what is an address of the frame, or the canary, in NEW is given just that",
    Constant: "what is one number in NEW on every path is given no other",
    Arguments: "NEW finds its arguments on the stack where OLD has them",
    Object: "what has its address taken stays where it is, and is the same thing in OLD",
    Source: "a source is what OLD still reads, and survives whatever may return at the site",
    Lowered: "a frame that stands lower keeps the stack aligned, returns, and leaves what is above alone",
    Copy: "a copy of a function does the same, with the objects that it names elsewhere in the frame",
    Twice: "where a frame may be translated twice, every slot stays in place",
    Unknown: "it is known where NEW goes from the counterpart",
    Counterpart: "a site leads to NEW's body of its function, which the shadow image has",
    Boundary: "both points of a site are where instructions begin, to which some path leads",
    Callee: "a return point leads behind the same call, a landing pad to a landing pad",
    Planted: "planted jumps cover nothing but dead code of their function",
    Expect: "the text expected at a site is OLD's",
}

/// Something that does not hold, before it is known where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    rule: Rule,
    subject: String,
}

impl Finding {
    fn new(rule: Rule, subject: impl Into<String>) -> Self {
        Self { rule, subject: subject.into() }
    }
}

/// Checks every site of a bundle, as read back from its bytes. Nothing is objected to that holds;
/// what cannot be proved is. Ordered by site.
#[must_use]
pub fn check(old: &Image, new: &Image, bundle: &Bundle) -> Vec<Objection> {
    Checker::new(old, new, bundle).sites(bundle)
}

/// Both images as the checker sees them, with the functions that have sites analysed.
pub struct Checker<'i> {
    old: Calls<'i>,
    new: Calls<'i>,
    old_functions: BTreeMap<FunctionId, Analysis>,
    new_functions: BTreeMap<FunctionId, Analysis>,
    /// By the place of each in the shadow image.
    copies: BTreeMap<NewAddr, Result<Followed, Finding>>,
}

impl<'i> Checker<'i> {
    /// Analyses the functions that the sites of a bundle are in.
    #[must_use]
    pub fn new(old: &'i Image, new: &'i Image, bundle: &Bundle) -> Self {
        let plan = &bundle.plan;
        let copies: Vec<(NewAddr, Result<Copy<'_>, Finding>)> =
            plan.copies.par_iter().map(|copy| (copy.start, Copy::read(new, plan, copy))).collect();
        let origin = |site: &Site| {
            let copy = plan.copy_at(site.to)?;
            let (_, read) = copies.iter().find(|(start, _)| *start == copy.start)?;
            read.as_ref().ok()?.origin(site.to)
        };
        let pairs: BTreeSet<(FunctionId, FunctionId)> = plan
            .sites
            .iter()
            .filter_map(|s| sites::functions(old, new, bundle, s, origin(s).unwrap_or(s.to.0)).ok())
            .collect();
        let (old, new) = rayon::join(|| Calls::new(old), || Calls::new(new));
        let analyse = |calls: &Calls<'_>, ids: BTreeSet<FunctionId>| -> BTreeMap<_, _> {
            ids.into_par_iter().map(|id| (id, Analysis::new(calls, id))).collect()
        };
        let (old_functions, new_functions) = rayon::join(
            || analyse(&old, pairs.iter().map(|p| p.0).collect()),
            || analyse(&new, pairs.iter().map(|p| p.1).collect()),
        );
        let follow = |(start, read): (NewAddr, Result<Copy<'_>, Finding>)| {
            let followed = read.and_then(|copy| {
                let analysis = new_functions.get(&copy.function);
                let analysis = analysis.ok_or_else(|| copy.useless())?;
                Ok(copy.follow(&new, analysis))
            });
            (start, followed)
        };
        let copies = copies.into_par_iter().map(follow).collect();
        Self { old, new, old_functions, new_functions, copies }
    }

    /// What is wrong with the sites of a bundle whose sites are in functions analysed before, by site.
    #[must_use]
    pub fn sites(&self, bundle: &Bundle) -> Vec<Objection> {
        let mut all: Vec<Objection> = (0..bundle.plan.sites.len())
            .into_par_iter()
            .flat_map_iter(|site| self.site(bundle, site))
            .collect();
        all.sort_by_key(|o| o.site);
        all
    }

    /// Functions of which some passage is none.
    #[must_use]
    pub fn passages(&self, bundle: &Bundle) -> Vec<Impassable> {
        passages::check(&self.old, bundle)
    }

    /// What is wrong with one site of a bundle whose sites are in functions analysed before.
    #[must_use]
    pub fn site(&self, bundle: &Bundle, index: usize) -> Vec<Objection> {
        let Some(site) = bundle.plan.sites.get(index) else { return Vec::new() };
        let function = usize::try_from(site.function).ok();
        let function = function.and_then(|i| bundle.manifest.replaced.get(i));
        let name = function.map_or_else(|| "?".to_owned(), |f| f.name.clone());
        let objection = |finding: Finding| Objection {
            site: index,
            at: site.at,
            function: name.clone(),
            rule: finding.rule,
            subject: finding.subject,
        };
        self.findings(bundle, site, index).into_iter().map(objection).collect()
    }

    fn findings(&self, bundle: &Bundle, site: &Site, index: usize) -> Vec<Finding> {
        let Some(translation) = bundle.frames.get(index) else {
            return vec![Finding::new(Rule::Table, "the site has no table")];
        };
        let plan = &bundle.plan;
        let copy = plan.copy_at(site.to);
        let followed = copy.and_then(|copy| self.copies.get(&copy.start));
        let (to, followed) = match followed {
            None => (site.to.0, None),
            Some(Err(finding)) => return vec![finding.clone()],
            Some(Ok(followed)) => match (followed.origin(site.to), followed.finding()) {
                (_, Some(finding)) => return vec![finding.clone()],
                (Some(to), None) if followed.is_jumping(to) => {
                    let what = format!("at {} what a table of the copy says is in use", site.to);
                    return vec![Finding::new(Rule::Copy, what)];
                }
                (Some(to), None) => (to, Some(followed)),
                (None, None) => {
                    let what = format!("no instruction of the copy begins at {}", site.to);
                    return vec![Finding::new(Rule::Boundary, what)];
                }
            },
        };
        let pair = sites::functions(self.old.image, self.new.image, bundle, site, to);
        let (old, new) = match pair {
            Ok((old, new)) => (self.old_functions.get(&old), self.new_functions.get(&new)),
            Err(finding) => return vec![finding],
        };
        let (Some(old), Some(new)) = (old, new) else {
            return vec![Finding::new(Rule::Counterpart, "the functions were not analysed")];
        };
        let mut out = sites::points(plan, site, &old.code, (&new.code, to));
        if let Some(copy) = copy.filter(|copy| copy.of.0 != self.new.image.function(new.id).address)
        {
            let what = format!("the copy at {} is another function's", copy.start);
            out.push(Finding::new(Rule::Counterpart, what));
        }
        out.extend(sites::planting(self.old.image, plan, index, old));
        let (ended, found) = check_stub(plan, site, translation);
        out.extend(found);
        let points = (old.point(&self.old, site.at.0), new.point(&self.new, to));
        let (Some(old_point), Some(new_point)) = points else {
            out.push(Finding::new(Rule::Boundary, "no path of the function leads to the point"));
            return out;
        };
        let old = supply::Side { calls: &self.old, function: old, point: &old_point };
        let new = supply::Side { calls: &self.new, function: new, point: &new_point };
        out.extend(sites::calls(bundle, site, old, (new, to)));
        if let Some(mut ended) = ended {
            out.extend(lowered::check(plan, translation, new, copy));
            let seen = lowered::as_seen_by_new(translation, copy);
            let state = followed.and_then(|followed| followed.state(to));
            let copy = copy.zip(state);
            let ended = &mut ended;
            let supply = supply::Supply { old, new, site, translation, seen, copy, ended };
            out.extend(supply.check());
        }
        out
    }
}

/// Part 1 for one site.
fn check_stub<'p>(
    plan: &'p Plan,
    site: &Site,
    translation: &'p Translation,
) -> (Option<symbolic::State<'p>>, Vec<Finding>) {
    let mut found = table::well_formed(translation);
    let Some((old_depth, _)) = table::depths(translation).filter(|_| found.is_empty()) else {
        return (None, found);
    };
    let operations = match stub::decode(plan, site) {
        Ok(operations) => operations,
        Err(finding) => {
            found.push(finding);
            return (None, found);
        }
    };
    let lost = table::lost_below(site.kind, old_depth);
    let mut state = symbolic::State::new(old_depth, lost, table::limits(plan, translation));
    if let Err(finding) = state.run(&operations) {
        found.push(finding);
        return (None, found);
    }
    found.extend(table::compare(&mut state, translation, site.kind));
    if found.is_empty() {
        found.extend(concrete::check(plan, site, translation, lost));
    }
    (Some(state), found)
}
