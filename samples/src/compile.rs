//! Compiles each version of a case.
//!
//! Takes a case, a build line and a directory; gives one directory for each version with the
//! program (and its libraries) in it. Every version is compiled from files of the same names, in a
//! directory of its own, with `-DVERSION=N` and from version 2 on `-DNEW`.

use crate::case::{Case, is_source};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// One compiled version.
#[derive(Debug, Clone)]
pub struct Version {
    /// The program.
    pub program: PathBuf,
    /// The image that is updated: the program, or the library that the case names.
    pub target: PathBuf,
}

/// Word of a build line that is ours, not the compiler's: strips the debug information into a file
/// beside, found by `.gnu_debuglink`.
const SEPARATE_DEBUG: &str = "separate-debug";
/// Another: names the sources by absolute paths, as CMake does; OLD's and NEW's then differ.
const ABSOLUTE_PATHS: &str = "absolute-paths";
/// The same, and compiles in a directory beside the sources, as CMake and autotools do.
const OUT_OF_TREE: &str = "out-of-tree";
/// The last: the file is called `NAME-1.c` in OLD and `NAME-2.c` in NEW.
const RENAMED_SOURCES: &str = "renamed-sources";

/// Compiles `version` of a case into `dir`.
///
/// # Errors
/// What the compiler says.
pub fn compile(case: &Case, build: &str, version: u32, dir: &Path) -> Result<Version> {
    let sources = lay_out(case, build, version, dir)?;
    let (libraries, sources): (Vec<String>, Vec<String>) =
        sources.into_iter().partition(|s| s.starts_with("lib") && s.ends_with(".c"));
    let compiling = Compiling::new(build, version, dir)?;
    let mut images = Vec::new();
    for source in &libraries {
        images.push(compiling.library(source)?);
    }
    compiling.program(&sources, &images, &case.name)?;
    images.push(case.name.clone());
    if has(build, SEPARATE_DEBUG) {
        images.iter().try_for_each(|image| separate_debug(image, dir))?;
    }
    let program = dir.join(&case.name);
    let target = case.value("target", build, 1).map_or(program.clone(), |t| dir.join(t));
    ensure!(target.is_file(), "{}: //# target names no image", case.name);
    Ok(Version { program, target })
}

/// A build line, read for one version.
struct Compiling<'a> {
    compiler: &'a str,
    flags: Vec<String>,
    dir: &'a Path,
    /// Where the compiler runs.
    cwd: PathBuf,
    absolute: bool,
}

impl<'a> Compiling<'a> {
    fn new(build: &'a str, version: u32, dir: &'a Path) -> Result<Self> {
        let mut words = build.split_whitespace();
        let compiler = words.next().context("an empty //# build: line")?;
        let cwd = if has(build, OUT_OF_TREE) { dir.join("build") } else { dir.to_path_buf() };
        std::fs::create_dir_all(&cwd)?;
        let ours = [SEPARATE_DEBUG, ABSOLUTE_PATHS, OUT_OF_TREE, RENAMED_SOURCES];
        let mut flags = vec!["-g".to_owned(), "-Wl,--build-id".to_owned()];
        flags.push(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include").to_owned());
        flags.push(format!("-DVERSION={version}"));
        flags.extend((version >= 2).then(|| "-DNEW".to_owned()));
        flags.extend(words.filter(|w| !ours.contains(w)).map(str::to_owned));
        let absolute = has(build, ABSOLUTE_PATHS) || has(build, OUT_OF_TREE);
        Ok(Self { compiler, flags, dir, cwd, absolute })
    }

    /// Makes `libX.so` of `libX.c`.
    fn library(&self, source: &str) -> Result<String> {
        let image = source.replace(".c", ".so");
        let mut command = self.command(&[source.to_owned()]);
        command.args(["-fPIC", "-shared", "-o"]).arg(self.dir.join(&image));
        run(command, &self.cwd)?;
        Ok(image)
    }

    fn program(&self, sources: &[String], libraries: &[String], name: &str) -> Result<()> {
        let mut command = self.command(sources);
        if !self.flags.iter().any(|f| f == "-no-pie" || f == "-static-pie") {
            command.args(["-fPIE", "-pie"]);
        }
        command.arg("-o").arg(self.dir.join(name)).arg("-L").arg(self.dir);
        // The start of a static PIE of glibc 2.36 does not survive it.
        if !libraries.is_empty() {
            command.arg("-Wl,-rpath,$ORIGIN");
        }
        // By name, so that the program asks for the library itself and not for its path.
        let linked = libraries.iter().filter(|l| !l.contains("plugin"));
        command.args(linked.map(|library| format!("-l:{library}")));
        let common = common_objects(self.dir)?;
        command.args([common.join("consent.o"), common.join("libserve.a")]);
        command.args(["-pthread", "-ldl", "-lm"]);
        run(command, &self.cwd)
    }

    fn command(&self, sources: &[String]) -> Command {
        let mut command = Command::new(self.compiler);
        command.args(&self.flags);
        for source in sources {
            command.arg(if self.absolute { self.dir.join(source) } else { PathBuf::from(source) });
        }
        command
    }
}

fn has(build: &str, word: &str) -> bool {
    build.split_whitespace().any(|w| w == word)
}

/// Copies the sources of a version; `old.c` and `new.c` both become `main.c`.
fn lay_out(case: &Case, build: &str, version: u32, dir: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(dir)?;
    let mut sources = Vec::new();
    for file in &case.files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = match (name.as_str(), version) {
            ("old.c", 1) | ("new.c", 2) => "main.c".to_owned(),
            ("old.c" | "new.c", _) => continue,
            _ if has(build, RENAMED_SOURCES) => name.replace('.', &format!("-{version}.")),
            _ => name,
        };
        std::fs::copy(file, dir.join(&name))?;
        if is_source(Path::new(&name)) {
            sources.push(name);
        }
    }
    Ok(sources)
}

/// Where `consent.o` is, which every program is linked with, and `libserve.a`, the question loop of
/// those that have no `main` of their own. Compiled once, apart, so that no case's flags change them.
fn common_objects(dir: &Path) -> Result<&'static Path> {
    static COMMON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = COMMON.get_or_init(|| {
        let apart = dir.join("../../../common");
        std::fs::create_dir_all(&apart)
            .map_err(anyhow::Error::from)
            .and_then(|()| make_common_objects(&apart.canonicalize()?))
            .map_err(|e| format!("{e:#}"))
    });
    made.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

fn make_common_objects(dir: &Path) -> Result<PathBuf> {
    for name in ["serve", "consent"] {
        let source = format!("{}/include/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("gcc");
        command.args(["-O2", "-g", "-fPIE", "-c", &source]);
        run(command, dir)?;
    }
    let mut command = Command::new("ar");
    command.args(["rcs", "libserve.a", "serve.o"]);
    run(command, dir)?;
    Ok(dir.to_path_buf())
}

fn separate_debug(image: &str, dir: &Path) -> Result<()> {
    let debug = format!("{image}.debug");
    let steps: [&[&str]; 3] = [
        &["--only-keep-debug", image, &debug],
        &["--strip-all", image],
        &[&format!("--add-gnu-debuglink={debug}"), image],
    ];
    for step in steps {
        let mut command = Command::new("objcopy");
        command.args(step);
        run(command, dir)?;
    }
    Ok(())
}

fn run(mut command: Command, dir: &Path) -> Result<()> {
    let line = format!("{command:?}").replace('"', "");
    let program = command.get_program().to_string_lossy().into_owned();
    let out = match command.current_dir(dir).stdin(Stdio::null()).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!("{program} is not installed: apt-get install gcc g++ clang lld binutils")
        }
        out => out.with_context(|| format!("run {line}"))?,
    };
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{line}: {}\n{said}", out.status);
    Ok(())
}
