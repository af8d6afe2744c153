//! A ladder: one source package built once for each of its patches, in one directory.
//!
//! ```text
//! target/corpus/KEY/build/                the source tree, at its last step
//! target/corpus/KEY/steps/NN-PATCH/       the built files of a step, with their debug information
//! target/corpus/KEY/stamp                 written last: recipe, compiler, version had
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::apt::Apt;
use super::recipe::{Grouping, Recipe};
use super::shell;

/// One built version.
#[derive(Debug, Clone)]
pub struct Step {
    /// 0 for the base, then 1, 2, ...
    pub number: usize,
    /// The patch that this step adds, without `.patch`.
    pub patch: String,
    /// Where its built files are.
    pub dir: PathBuf,
    /// The program that is updated.
    pub program: PathBuf,
}

impl Step {
    /// `07 CVE-2026-27654`.
    pub fn label(&self) -> String {
        format!("{:02} {}", self.number, self.patch)
    }
}

/// All steps of a program.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// What was built.
    pub recipe: Recipe,
    /// The package version had.
    pub version: String,
    /// The source tree at its last step, with the program's own tests.
    pub tree: PathBuf,
    /// Built versions, OLD first.
    pub steps: Vec<Step>,
}

impl Ladder {
    /// Builds the tree again as it is configured, with more flags, and keeps the result in `to`.
    pub fn remake(&self, cc: &str, ld: &str, to: &Path) -> Result<()> {
        let home = self.tree.parent().context("the tree has a home")?;
        let log = home.join("log");
        shell(self.recipe.clean, &self.tree, &log)?;
        shell(&self.recipe.make_with(cc, ld), &self.tree, &log)?;
        keep(&self.recipe, &self.tree, to)
    }
}

/// Fetches and builds ladders, each once.
#[derive(Debug)]
pub struct Builder {
    corpus: PathBuf,
    compiler: String,
    apt: Option<Apt>,
}

impl Builder {
    /// A builder whose cache is `corpus`. Asks apt nothing until a ladder is missing.
    pub fn new(corpus: &Path) -> Result<Builder> {
        std::fs::create_dir_all(corpus)?;
        let out = Command::new("gcc").arg("--version").output().context("run gcc --version")?;
        let compiler = String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or("").to_owned();
        Ok(Builder { corpus: corpus.to_path_buf(), compiler, apt: None })
    }

    /// Keeps others from building in the tree of `recipe` while the file is open.
    pub fn lock(&self, recipe: &Recipe) -> Result<Flock<File>> {
        let path = self.corpus.join(format!("{}.lock", recipe.key));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, error)| error).with_context(|| format!("lock {}", path.display()))
    }

    /// The ladder of `recipe`, from the cache or built now.
    pub fn ladder(&mut self, recipe: &Recipe) -> Result<Ladder> {
        let _lock = self.lock(recipe)?;
        let home = self.corpus.join(recipe.key);
        let wanted = format!("{}\n{}\n", recipe.cache_key(), self.compiler);
        let stamp = std::fs::read_to_string(home.join("stamp")).unwrap_or_default();
        if let Some(version) = stamp.strip_prefix(&wanted) {
            return open(recipe, &home, version.trim());
        }
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(home.join("steps"))?;
        let version = match recipe.grouping {
            Grouping::Tarballs(versions) => self.build_tarballs(recipe, &home, versions)?,
            Grouping::Each | Grouping::All(_) => self.build_patches(recipe, &home)?,
            Grouping::Edit(name, edit) => self.build_edited(recipe, &home, name, edit)?,
        };
        std::fs::write(home.join("stamp"), format!("{wanted}{version}\n"))?;
        open(recipe, &home, &version)
    }

    fn apt(&mut self) -> Result<&Apt> {
        if self.apt.is_none() {
            self.apt = Some(Apt::set_up(&self.corpus)?);
        }
        self.apt.as_ref().context("apt was set up")
    }

    fn build_patches(&mut self, recipe: &Recipe, home: &Path) -> Result<String> {
        let (dsc, version) = self.apt()?.source(recipe.package, recipe.version)?;
        let (tree, log) = (home.join("build"), home.join("log"));
        let unpack = format!("dpkg-source --skip-patches -x '{}' build", dsc.display());
        shell(&unpack, home, &log)?;
        let patches = series(&tree)?;
        let first = patches.iter().position(|p| patch_name(p) == recipe.first_patch).with_context(
            || format!("{} {version} has no {}", recipe.package, recipe.first_patch),
        )?;
        for _ in 0..first {
            shell("quilt push -q", &tree, &log)?;
        }
        shell(recipe.configure, &tree, &log)?;
        make_step(recipe, home, 0, "base")?;
        if let Grouping::All(name) = recipe.grouping {
            shell("quilt push -q -a", &tree, &log)?;
            make_step(recipe, home, 1, name)?;
            return Ok(version);
        }
        for (index, patch) in patches[first..].iter().enumerate() {
            shell("quilt push -q", &tree, &log)?;
            if recipe.reconfigure.is_some_and(|part| touches(&tree, patch, part)) {
                shell(recipe.configure, &tree, &log)?;
            }
            make_step(recipe, home, index + 1, patch_name(patch))?;
        }
        Ok(version)
    }

    fn build_edited(
        &mut self,
        recipe: &Recipe,
        home: &Path,
        name: &str,
        edit: &str,
    ) -> Result<String> {
        let (dsc, version) = self.apt()?.source(recipe.package, recipe.version)?;
        let (tree, log) = (home.join("build"), home.join("log"));
        shell(&format!("dpkg-source -x '{}' build", dsc.display()), home, &log)?;
        shell(recipe.configure, &tree, &log)?;
        make_step(recipe, home, 0, "base")?;
        shell(edit, &tree, &log)?;
        make_step(recipe, home, 1, name)?;
        Ok(version)
    }

    fn build_tarballs(
        &mut self,
        recipe: &Recipe,
        home: &Path,
        versions: &[&str],
    ) -> Result<String> {
        let (tree, log) = (home.join("build"), home.join("log"));
        for (number, version) in versions.iter().enumerate() {
            let tarball = self.apt()?.tarball(recipe.package, version)?;
            if tree.exists() {
                std::fs::remove_dir_all(&tree)?;
            }
            std::fs::create_dir_all(&tree)?;
            let unpack = format!("tar -xf '{}' --strip-components=1", tarball.display());
            shell(&unpack, &tree, &log)?;
            shell(recipe.configure, &tree, &log)?;
            make_step(recipe, home, number, version)?;
        }
        Ok(versions.join(" and "))
    }
}

/// Builds the tree as it is and keeps the result as step `number`.
fn make_step(recipe: &Recipe, home: &Path, number: usize, patch: &str) -> Result<()> {
    let tree = home.join("build");
    shell(&recipe.make_with("", ""), &tree, &home.join("log"))?;
    keep(recipe, &tree, &home.join("steps").join(format!("{number:02}-{patch}")))
}

/// Copies the files that the recipe keeps out of `tree`.
fn keep(recipe: &Recipe, tree: &Path, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for file in recipe.keep {
        let name = Path::new(file).file_name().context("kept files have names")?;
        std::fs::copy(tree.join(file), dir.join(name))
            .with_context(|| format!("{} built no {file}", recipe.key))?;
    }
    Ok(())
}

/// The active patches of a quilt series.
fn series(tree: &Path) -> Result<Vec<String>> {
    let path = tree.join("debian/patches/series");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or("").trim());
    let names = lines.filter_map(|l| l.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Says whether a patch changes a file in whose path `part` occurs.
fn touches(tree: &Path, patch: &str, part: &str) -> bool {
    let text = std::fs::read(tree.join("debian/patches").join(patch)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().any(|line| line.starts_with("+++ ") && line.contains(part))
}

/// A patch's name without directory and suffix.
fn patch_name(patch: &str) -> &str {
    let base = patch.rsplit('/').next().unwrap_or(patch);
    base.strip_suffix(".patch").unwrap_or(base)
}

/// Reads the steps of a built ladder.
fn open(recipe: &Recipe, home: &Path, version: &str) -> Result<Ladder> {
    let program = Path::new(recipe.keep[0]).file_name().context("kept files have names")?;
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(home.join("steps"))? {
        let dir = entry?.path();
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((number, patch)) = name.split_once('-') else {
            bail!("{} is not NN-PATCH", dir.display());
        };
        let program = dir.join(program);
        ensure!(program.is_file(), "{} is missing", program.display());
        steps.push(Step { number: number.parse()?, patch: patch.to_owned(), dir, program });
    }
    steps.sort_by_key(|s| s.number);
    ensure!(steps.len() >= 2, "{} has {} steps", recipe.key, steps.len());
    let (tree, version) = (home.join("build"), version.to_owned());
    Ok(Ladder { recipe: *recipe, version, tree, steps })
}

#[cfg(test)]
mod tests {
    use super::patch_name;

    #[test]
    fn patch_names_are_short() {
        assert_eq!(patch_name("debian-packaging/0001-Set.patch"), "0001-Set");
        assert_eq!(patch_name("debian-config"), "debian-config");
    }
}
