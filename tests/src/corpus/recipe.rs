//! A recipe: which source package, how its ladder is cut into steps, and how each step is built.

/// How the patches after the base become steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// One step for each patch.
    Each,
    /// One step that pushes all of them, with this name.
    All(&'static str),
    /// All patches belong to step 00, and one step, with this name, is what this shell line changes: for
    /// programs that take long to build, and whose package fixes nothing by patches.
    Edit(&'static str, &'static str),
    /// No patches: one step for each tarball of these upstream versions.
    Tarballs(&'static [&'static str]),
}

/// One program of the corpus.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Name in the suites and under `target/corpus`.
    pub key: &'static str,
    /// Debian source package.
    pub package: &'static str,
    /// The version that the steps are known for. Its successors with the same upstream version are
    /// tried when the mirror has deleted it: their series begins with the same patches.
    pub version: &'static str,
    /// The first patch that is a step; those before it belong to step 00.
    pub first_patch: &'static str,
    /// How patches become steps.
    pub grouping: Grouping,
    /// Shell line run once, after the base patches.
    pub configure: &'static str,
    /// `configure` is run again for a patch of a file in whose path this occurs; nothing for never.
    pub reconfigure: Option<&'static str>,
    /// Shell line run for every step. `@CC@` and `@LD@` stand for extra compiler and linker flags.
    pub make: &'static str,
    /// Built files to keep for each step; the first is the program that is updated.
    pub keep: &'static [&'static str],
    /// Shell line that removes what `make` built, but not what `configure` did, for the comparison suite.
    pub clean: &'static str,
    /// Debian packages that the build needs.
    pub needs: &'static [&'static str],
}

impl Recipe {
    /// The line of `make` with the extra compiler and linker flags filled in.
    pub fn make_with(&self, cc: &str, ld: &str) -> String {
        self.make.replace("@CC@", cc).replace("@LD@", ld)
    }

    /// The key of the cache: everything that decides what is built, but the version found.
    pub fn cache_key(&self) -> String {
        let mut plain = *self;
        // What the comparison suite does afterwards does not change the ladder.
        plain.clean = "";
        plain.needs = &[];
        // An option that is not used must not change the keys of those that do not use it.
        format!("{plain:?}").replace("reconfigure: None, ", "")
    }
}
