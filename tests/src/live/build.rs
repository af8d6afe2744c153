//! OLD and NEW of each change, from the source tree of a ladder's last step.
//!
//! ```text
//! target/corpus/KEY/live/build/       a copy of the tree, with OLD's text again at the end
//! target/corpus/KEY/live/NAME/        the program of one variant; OLD's is `base`
//! target/corpus/KEY/live/stamp        written last: the recipe's stamp and all patches
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Variant;
use crate::corpus::{Ladder, Recipe, shell};
use crate::workspace;

/// The builds of one program.
#[derive(Debug)]
pub struct Builds {
    home: PathBuf,
    program: PathBuf,
}

impl Builds {
    /// OLD.
    pub fn old(&self) -> PathBuf {
        self.home.join("base").join(&self.program)
    }

    /// NEW of a variant.
    pub fn changed(&self, variant: &Variant) -> PathBuf {
        self.home.join(variant.name).join(&self.program)
    }
}

/// Builds what is not there yet.
pub fn make(ladder: &Ladder, variants: &[Variant]) -> Result<Builds> {
    let recipe = &ladder.recipe;
    let corpus = ladder.tree.parent().context("a ladder has a home")?;
    let home = corpus.join("live");
    let program = Path::new(recipe.keep[0]).file_name().context("kept files have names")?;
    let builds = Builds { home: home.clone(), program: program.into() };
    let wanted = stamp(corpus, recipe, variants)?;
    if std::fs::read_to_string(home.join("stamp")).is_ok_and(|found| found == wanted) {
        return Ok(builds);
    }
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let (tree, log) = (home.join("build"), home.join("log"));
    shell(&format!("cp -a '{}' build", ladder.tree.display()), &home, &log)?;
    // What a variant changes is compiled here for OLD, too: OLD and NEW come from one directory.
    for file in changed_files(recipe, variants)? {
        shell(&format!("touch '{file}'"), &tree, &log)?;
    }
    make_one(recipe, &builds, "base")?;
    for variant in variants {
        for patch in variant.patches {
            let path = patch_file(recipe, patch);
            shell(&format!("patch -p1 < '{}'", path.display()), &tree, &log)
                .with_context(|| format!("{} does not fit {}", path.display(), ladder.version))?;
        }
        make_one(recipe, &builds, variant.name)?;
        for patch in variant.patches.iter().rev() {
            let path = patch_file(recipe, patch);
            shell(&format!("patch -R -p1 < '{}'", path.display()), &tree, &log)?;
        }
    }
    std::fs::write(home.join("stamp"), wanted)?;
    Ok(builds)
}

/// Builds the tree as it is and keeps the program.
fn make_one(recipe: &Recipe, builds: &Builds, name: &str) -> Result<()> {
    let (tree, dir) = (builds.home.join("build"), builds.home.join(name));
    shell(&recipe.make_with("", ""), &tree, &builds.home.join("log"))?;
    std::fs::create_dir_all(&dir)?;
    let built = tree.join(recipe.keep[0]);
    std::fs::copy(&built, dir.join(&builds.program))
        .with_context(|| format!("keep {}", built.display()))?;
    Ok(())
}

fn patch_file(recipe: &Recipe, patch: &str) -> PathBuf {
    workspace::root().join("tests/live").join(recipe.key).join(format!("{patch}.patch"))
}

/// All patches, each once.
fn patches(variants: &[Variant]) -> Vec<&'static str> {
    let mut list: Vec<&str> = variants.iter().flat_map(|v| v.patches.iter().copied()).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// The files that they change, as their `+++ b/FILE` lines say.
fn changed_files(recipe: &Recipe, variants: &[Variant]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for patch in patches(variants) {
        let path = patch_file(recipe, patch);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let names = text.lines().filter_map(|l| l.strip_prefix("+++ b/"));
        files.extend(names.filter_map(|n| n.split_whitespace().next()).map(str::to_owned));
    }
    files.sort_unstable();
    files.dedup();
    ensure!(!files.is_empty(), "the patches of {} change no file", recipe.key);
    Ok(files)
}

/// Everything that decides what is built.
fn stamp(corpus: &Path, recipe: &Recipe, variants: &[Variant]) -> Result<String> {
    let mut text = std::fs::read_to_string(corpus.join("stamp"))?;
    for patch in patches(variants) {
        text += &std::fs::read_to_string(patch_file(recipe, patch))?;
    }
    for variant in variants {
        text += &format!("{} {:?}\n", variant.name, variant.patches);
    }
    Ok(text)
}
