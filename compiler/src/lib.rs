//! dsu-build: two builds in, a patch bundle out.
//!
//! ```text
//! OLD, NEW -> image/ -> code/ -> matching/ -> change/ -> data/ -> emit/ -> bundle
//!              debug/             machine/ (register contracts)     report/ (for people and tools)
//!                                 sites/ (points of OLD and NEW)
//! ```
//!
//! | module | question it answers |
//! |---|---|
//! | [`image`] | what is at this address? |
//! | [`debug`] | what did the compiler say: types, lines, scopes? |
//! | [`code`] | which operands of an instruction are addresses? |
//! | [`matching`] | which function or variable of NEW is which of OLD? |
//! | [`change`] | what is different, and who is concerned by it? |
//! | [`machine`] | which registers may a caller rely on? |
//! | [`sites`] | which block of a changed function is which? |
//! | [`data`] | what happens with each variable and table? |
//! | [`emit`] | what does the process need of NEW, and where does each operand lead? |
//! | [`report`] | what should a person, or a tool, know? |
//!
//! [`build`] is the table of contents.

pub mod image;

pub mod debug;

pub mod code;

pub mod matching;

pub mod change;

pub mod machine;

pub mod sites;

pub mod data;

pub mod frames;

pub mod emit;

pub mod check;
mod checked;

pub mod report;

pub mod cli;
pub mod refusal;

use change::{Closure, Comparisons, Pair};
use data::{Choices, DataPlan};
use dsu_patch_format::manifest::BuildInfo;
use dsu_patch_format::signature::{KeyError, encode_signed};
use dsu_patch_format::{Bundle, DecodeError, Manifest, SigningKey, encode};
use emit::{Emitted, Inputs};
use image::{Image, LoadError};
use matching::Matching;
use refusal::Refusal;
use std::cell::LazyCell;
use std::path::{Path, PathBuf};

/// What to build from, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The build that processes run.
    pub old: PathBuf,
    /// The build that they shall run.
    pub new: PathBuf,
    /// Debug file of OLD, when it is kept apart and not found by itself.
    pub debug_old: Option<PathBuf>,
    /// Debug file of NEW.
    pub debug_new: Option<PathBuf>,
    /// Renamed functions, `(OLD, NEW)`.
    pub renames: Vec<(String, String)>,
    /// Replace functions that differ by their line numbers alone, too.
    pub line_numbers: bool,
    /// The user's decisions about data.
    pub choices: Choices,
    /// Nothing unwinds through replaced functions, says the user.
    pub no_unwinding: bool,
    /// In a frame that goes on in NEW, a local that only NEW has may begin with the constant that NEW gives
    /// it before its outermost loop.
    pub init_new_locals: bool,
    /// Carry live frames of replaced functions over; else every point inside of one is blind.
    pub live_frames: bool,
    /// What the manifest says of the options.
    pub recorded: Vec<String>,
    /// Signs the bundle.
    pub key: Option<SigningKey>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// One of the files cannot be used.
    #[error("{side} {path}: {error}")]
    Load {
        /// `OLD` or `NEW`.
        side: &'static str,
        /// The file.
        path: PathBuf,
        /// What it lacks.
        error: LoadError,
    },
    /// There is nothing to sign with.
    #[error("--sign {path}: {error}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What it is instead of a key.
        error: KeyFileError,
    },
    /// The two files cannot be compared.
    #[error("{0}")]
    Mismatch(String),
    /// What was made contradicts the format: a defect of this tool.
    #[error("the bundle made does not pass its own check, please report this: {0}")]
    Encode(#[from] DecodeError),
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system's word.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// Something else.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What building ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is a bundle.
    Written,
    /// The builds do the same.
    NothingToDo,
    /// The difference cannot be put into a running process.
    Refused,
}

/// Both images with everything found out about them.
pub struct Built {
    /// The build that runs.
    pub old: Image,
    /// The build to come.
    pub new: Image,
    /// Who is who.
    pub matching: Matching,
    /// Each pair of functions compared.
    pub comparisons: Comparisons,
    /// Who is replaced.
    pub closure: Closure,
    /// What happens with data.
    pub data: DataPlan,
    /// Of each replaced function's frames: what can be carried over, and what cannot, and why.
    pub carried: Vec<frames::Carried>,
    /// What was emitted.
    pub emitted: Emitted,
    /// Why not.
    pub refusals: Vec<Refusal>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Compares two builds and makes the bundle, if they differ and it can be done.
///
/// `progress` is told each phase as it begins.
///
/// # Errors
/// [`BuildError`] when the files cannot be used. A difference that cannot be carried into a running
/// process is not an error: see [`Outcome::Refused`].
pub fn build(options: &Options, progress: &dyn Fn(&str)) -> Result<Built, BuildError> {
    progress("reading both builds");
    let (old, new) = load(options)?;
    progress("matching functions and variables");
    let matching = Matching::new(&old, &new, &options.renames);
    let pair =
        Pair { old: &old, new: &new, matching: &matching, line_numbers: options.line_numbers };
    progress("comparing functions");
    let comparisons = change::compare_all(pair);
    progress("comparing data and types");
    let mut data = data::plan(pair, &options.choices);
    progress("closing over references");
    // Reads all code of both builds: only when something is replaced.
    let contracts = LazyCell::new(|| machine::Contracts::new(pair));
    let copies = change::readers_of_copies(pair, &data.updates);
    let close = |moved: &_| {
        change::close(pair, &comparisons, moved, |replaced| {
            let mut more = copies.clone();
            if replaced.is_empty() {
                return more;
            }
            more.extend(contracts.broken(replaced));
            for id in emit::roomless(&old, replaced.keys().copied()) {
                let name = old.function(id).name();
                let why = format!("calls {name}, which has no room for a jump to its new body");
                more.extend(contracts.callers(id).map(|caller| (caller, why.clone())));
            }
            more
        })
    };
    let mut closure = close(&data.moved);
    while data.label_tables(pair, &closure) {
        closure = close(&data.moved);
    }
    data.kept_labels(pair, &closure);
    let changed =
        !closure.replaced.is_empty() || !data.updates.is_empty() || !data.moved.is_empty();
    let folded = emit::folded(pair);
    let (mut refusals, mut warnings) = if changed || !data.refusals.is_empty() {
        data::changed_layouts(pair, &options.choices)
    } else {
        (Vec::new(), Vec::new())
    };
    refusals.extend(folded);
    refusals.append(&mut data.refusals);
    warnings.append(&mut data.warnings);
    progress("making the patch");
    let inputs = Inputs {
        pair,
        comparisons: &comparisons,
        closure: &closure,
        data: &data,
        no_unwinding: options.no_unwinding,
        init_new_locals: options.init_new_locals,
        layouts_accepted: !options.choices.accepted_types.is_empty(),
    };
    let mut emitted = if changed { emit::emit(inputs) } else { Emitted::default() };
    let mut carried = Vec::new();
    if options.live_frames && changed && refusals.is_empty() && emitted.refusals.is_empty() {
        progress("carrying frames over");
        carried = frames::carry(inputs, &emitted.plan.fixups);
        progress("checking the sites");
        emitted = checked::plant(inputs, &mut carried, &emitted)?;
    }
    refusals.append(&mut emitted.refusals);
    warnings.append(&mut emitted.warnings);
    let moves =
        |f: &image::FunctionId| carried.iter().any(|c| c.function == *f && !c.proven.is_empty());
    let stuck: Vec<_> = closure.replaced.keys().copied().filter(|f| !moves(f)).collect();
    warnings.extend(report::warnings(pair, &stuck));
    warnings.extend(report::new_locals(pair, &carried));
    warnings.extend(report::unknown_renames(pair, &options.renames));
    let outcome = match (refusals.is_empty(), changed) {
        (false, _) => Outcome::Refused,
        (true, true) => Outcome::Written,
        (true, false) => Outcome::NothingToDo,
    };
    Ok(Built {
        old,
        new,
        matching,
        comparisons,
        closure,
        data,
        carried,
        emitted,
        refusals,
        warnings,
        outcome,
    })
}

/// Reads both files side by side.
fn load(options: &Options) -> Result<(Image, Image), BuildError> {
    let read = |side, path: &Path, debug: Option<&Path>| {
        Image::load(path, debug).map_err(|error| BuildError::Load {
            side,
            path: path.into(),
            error,
        })
    };
    let (old, new) = rayon::join(
        || read("OLD", &options.old, options.debug_old.as_deref()),
        || read("NEW", &options.new, options.debug_new.as_deref()),
    );
    let (old, mut new) = (old?, new?);
    matching::units::align(&old, &mut new);
    if old.kind != new.kind || old.fixed != new.fixed {
        return Err(BuildError::Mismatch(
            "OLD and NEW are different kinds of file (executable, PIE, library): build both alike"
                .to_owned(),
        ));
    }
    let absolute = |image: &Image| image.fixed && image.static_relocations.is_empty();
    if absolute(&old) || absolute(&new) {
        return Err(BuildError::Mismatch(
            "OLD or NEW is linked at a fixed address and does not say which numbers in its code are \
             addresses: link both with -Wl,--emit-relocs, or as PIE (-fPIE -pie)"
                .to_owned(),
        ));
    }
    Ok((old, new))
}

/// What the manifest says of one build.
fn build_info(image: &Image) -> BuildInfo {
    BuildInfo {
        build_id: image.build_id.clone(),
        file: image.file.clone(),
        kind: image.kind,
        sha256: image.sha256.clone(),
        debug: image.debug_file.clone(),
    }
}

impl Built {
    /// The bundle as bytes.
    ///
    /// # Errors
    /// A bundle that its own reader refuses is never written.
    pub fn bundle(&self, options: &Options) -> Result<Vec<u8>, BuildError> {
        let mut data = self.data.changes.clone();
        data.extend(self.emitted.data.clone());
        data.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest {
            tool: concat!("dsu-build ", env!("CARGO_PKG_VERSION")).to_owned(),
            options: options.recorded.clone(),
            old: build_info(&self.old),
            new: build_info(&self.new),
            replaced: self.emitted.replaced.clone(),
            added: self.emitted.added.clone(),
            line_only: self.line_only(),
            data,
            blind_points: self.emitted.blind_points.clone(),
            warnings: self.warnings.clone(),
        };
        let bundle = Bundle {
            manifest,
            plan: self.emitted.plan.clone(),
            frames: self.emitted.frames.clone(),
        };
        Ok(match &options.key {
            Some(key) => encode_signed(&bundle, key)?,
            None => encode(&bundle)?,
        })
    }

    /// Names of functions kept although their line numbers changed.
    #[must_use]
    pub fn line_only(&self) -> Vec<String> {
        self.comparisons
            .iter()
            .filter(|((a, _), c)| {
                c.verdict == change::Verdict::LineOnly && !self.closure.replaced.contains_key(a)
            })
            .map(|((a, _), _)| self.old.function(*a).name().to_owned())
            .collect()
    }
}
