//! Source packages through a private apt configuration directory, without touching the machine's.
//!
//! Takes the machine's own mirror as apt itself reports it; writes source lists for the suites of this
//! and neighbouring releases under `target/corpus/apt`; gives downloaded `.dsc` files or tarballs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::NotHad;

/// Releases whose sources the recipes name.
const RELEASES: [&str; 3] = ["bullseye", "bookworm", "trixie"];

/// A private apt whose index has been fetched.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
}

/// The machine's mirrors of the release and of its security updates, with the keys that sign them.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    release: String,
    security: String,
    signed_by: Option<String>,
}

impl Apt {
    /// Sets the private directory up below `corpus` and fetches the source indexes.
    pub fn set_up(corpus: &Path) -> Result<Apt> {
        let dir = corpus.join("apt");
        for sub in ["lists/partial", "cache/archives/partial", "download"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let mirrors = machine_mirrors()?;
        std::fs::write(dir.join("sources.list"), source_lists(&mirrors))?;
        std::fs::write(dir.join("apt.conf"), configuration(&dir))?;
        let apt = Apt { dir };
        // A suite that one mirror lacks must not cost the others: `update` then fails in part only.
        let out =
            apt.command("apt-get").args(["-q", "update"]).output().context("apt-get update")?;
        if !out.status.success() {
            eprintln!("apt-get update (private): {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(apt)
    }

    /// Fetches the source package, `version` or else its successor with the same upstream version.
    /// Gives the `.dsc` and the version had.
    pub fn source(&self, package: &str, version: &str) -> Result<(PathBuf, String)> {
        let mut tried = Vec::new();
        for candidate in self.candidates(package, version)? {
            match self.download(&format!("{package}={candidate}"), &[]) {
                Ok(()) => return Ok((self.dsc(package, &candidate)?, candidate)),
                Err(error) => tried.push(format!("{candidate} ({error})")),
            }
        }
        bail!(NotHad(format!("source package {package} {version}; tried: {}", tried.join("; "))))
    }

    /// Fetches the upstream tarball of `upstream` alone: the mirror keeps it longer than the `.dsc` of a
    /// point release.
    pub fn tarball(&self, package: &str, upstream: &str) -> Result<PathBuf> {
        let versions = self.versions(package)?;
        let mut tried = Vec::new();
        for version in versions.iter().filter(|v| upstream_of(v) == upstream) {
            // apt-get fails for the files that are gone, after having kept those that are not.
            let result = self.download(&format!("{package}={version}"), &["--tar-only"]);
            if let Some(path) = self.find_tarball(package, upstream)? {
                return Ok(path);
            }
            tried.push(format!("{version} ({:?})", result.err().map(|e| e.to_string())));
        }
        bail!(NotHad(format!("tarball of {package} {upstream}; tried: {}", tried.join("; "))))
    }

    fn find_tarball(&self, package: &str, upstream: &str) -> Result<Option<PathBuf>> {
        let prefix = format!("{package}_{upstream}.orig.tar.");
        for entry in std::fs::read_dir(self.dir.join("download"))? {
            let path = entry?.path();
            let name =
                path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(&prefix) && !name.ends_with(".asc") {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// `version` first, then the others with its upstream version, newest first.
    fn candidates(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let mut list = vec![version.to_owned()];
        let others = self.versions(package)?;
        list.extend(
            others
                .into_iter()
                .rev()
                .filter(|v| v != version && upstream_of(v) == upstream_of(version)),
        );
        Ok(list)
    }

    /// Versions in the index, each once, in the index's order.
    fn versions(&self, package: &str) -> Result<Vec<String>> {
        let out = self.command("apt-cache").args(["showsrc", "--only-source", package]).output()?;
        let mut list: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            if let Some(version) = line.strip_prefix("Version: ")
                && !list.iter().any(|v| v == version)
            {
                list.push(version.to_owned());
            }
        }
        Ok(list)
    }

    fn download(&self, what: &str, options: &[&str]) -> Result<()> {
        let out = self
            .command("apt-get")
            .args(["-q", "source", "--download-only"])
            .args(options)
            .arg(what)
            .current_dir(self.dir.join("download"))
            .output()?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let why = text.lines().find(|l| l.starts_with("E:")).unwrap_or("no message").to_owned();
        ensure!(out.status.success(), "{why}");
        Ok(())
    }

    fn dsc(&self, package: &str, version: &str) -> Result<PathBuf> {
        let without_epoch = version.split_once(':').map_or(version, |(_, v)| v);
        let path = self.dir.join("download").join(format!("{package}_{without_epoch}.dsc"));
        ensure!(path.is_file(), "apt-get source gave no {}", path.display());
        Ok(path)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// The upstream part of a Debian version: without epoch and Debian revision.
fn upstream_of(version: &str) -> &str {
    let rest = version.split_once(':').map_or(version, |(_, v)| v);
    rest.rsplit_once('-').map_or(rest, |(upstream, _)| upstream)
}

/// Asks apt which mirrors this machine uses.
fn machine_mirrors() -> Result<Mirrors> {
    let out = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(SIGNED_BY)",
            "Created-By: Packages",
        ])
        .output()
        .context("apt-get indextargets: the corpus needs a Debian machine")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    pick_mirrors(&text).with_context(|| {
        format!("no Debian mirror with a -security suite in apt's configuration:\n{text}")
    })
}

/// The mirror of some release whose name is known, and that of its `-security` suite.
fn pick_mirrors(targets: &str) -> Option<Mirrors> {
    let mut rows = Vec::new();
    for line in targets.lines() {
        let mut words = line.split_whitespace();
        if let (Some(uri), Some(release)) = (words.next(), words.next()) {
            rows.push((uri.to_owned(), release.to_owned(), words.next().map(str::to_owned)));
        }
    }
    let of = |suite: &str| rows.iter().find(|(_, release, _)| release == suite).cloned();
    RELEASES.iter().find_map(|release| {
        let (main, _, key) = of(release)?;
        let (security, _, _) = of(&format!("{release}-security"))?;
        let signed_by = key.filter(|k| k.starts_with('/'));
        Some(Mirrors { release: main, security, signed_by })
    })
}

fn source_lists(mirrors: &Mirrors) -> String {
    // Without a key file of its own, the machine's archive keyring is what signed its indexes.
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let keyring = mirrors.signed_by.as_deref().unwrap_or(keyring);
    let mut text = String::new();
    for release in RELEASES {
        text += &format!("deb-src [signed-by={keyring}] {} {release} main\n", mirrors.release);
        text += &format!(
            "deb-src [signed-by={keyring}] {} {release}-security main\n",
            mirrors.security
        );
    }
    text
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Dir::Etc::sourcelist \"{dir}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Check-Valid-Until \"false\";\n\
         Acquire::Languages \"none\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_part_of_versions() {
        assert_eq!(upstream_of("5:7.0.15-1~deb12u10"), "7.0.15");
        assert_eq!(upstream_of("1.22.1-9+deb12u9"), "1.22.1");
    }

    #[test]
    fn third_party_suites_are_not_mirrors() {
        let text = "http://a.example/x bookworm-pgdg\nhttp://m.example/d/ bookworm\n\
                    http://m.example/s/ bookworm-security\n";
        let mirrors = pick_mirrors(text).unwrap();
        assert_eq!(mirrors.release, "http://m.example/d/");
        assert_eq!(mirrors.security, "http://m.example/s/");
        assert_eq!(pick_mirrors("http://a.example bookworm-pgdg\n"), None);
    }
}
