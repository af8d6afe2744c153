//! Was that what the undisturbed program would have said?
//!
//! OLD and NEW write the same lines; only those that begin with `@` name the version that wrote them.
//! Such a line must name the version that ran when it was written. Each line is one system call: where
//! a commit falls between two lines, the one behind it was perhaps begun before.

use super::tracee::{End, Finished};
use anyhow::{Result, ensure};

/// What both builds say when nobody disturbs them.
#[derive(Debug, Clone)]
pub struct Reference {
    /// OLD's output.
    pub old: Vec<u8>,
    /// NEW's.
    pub new: Vec<u8>,
    /// Instructions of OLD from its own stop to its end.
    pub instructions: u64,
}

/// From here on this version ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Bytes that were written before.
    pub at: usize,
    /// NEW runs.
    pub new: bool,
}

impl Reference {
    /// Both must have ended well, with the same lines.
    pub fn new(old: Finished, new: Finished, instructions: u64) -> Result<Reference> {
        for (side, finished) in [("OLD", &old), ("NEW", &new)] {
            ensure!(
                finished.end == End::Exited(0),
                "undisturbed {side} ends with {:?}",
                finished.end
            );
            ensure!(!finished.said.is_empty(), "undisturbed {side} says nothing");
        }
        let reference = Reference { old: old.said, new: new.said, instructions };
        let (old, new) = (lines(&reference.old), lines(&reference.new));
        let alike =
            |a: &[u8], b: &[u8]| a == b || is_version(a) && is_version(b) && a.len() == b.len();
        ensure!(
            old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| alike(a, b)),
            "the undisturbed builds do not say the same"
        );
        Ok(reference)
    }

    /// Judges a disturbed run; an error says what is wrong with it.
    pub fn judge(&self, finished: &Finished, commits: &[Commit]) -> Result<(), String> {
        let (old, new, said) = (lines(&self.old), lines(&self.new), lines(&finished.said));
        let mut at = 0;
        for (number, line) in said.iter().enumerate() {
            let version = |new_runs: bool| if new_runs { new.get(number) } else { old.get(number) };
            if !versions(commits, at).into_iter().any(|v| version(v) == Some(line)) {
                return Err(format!(
                    "line {}: {:?} instead of {:?}",
                    number + 1,
                    text(line),
                    version(commits.last().is_some_and(|c| c.new)).map(|l| text(l)),
                ));
            }
            at += line.len();
        }
        // How it ended is not known then, but all that it had to say is said at its very end.
        if !matches!(finished.end, End::Exited(0) | End::Elsewhere) {
            return Err(format!("{:?} after {} of {} lines", finished.end, said.len(), old.len()));
        }
        if said.len() != old.len() {
            return Err(format!("ended after {} of {} lines", said.len(), old.len()));
        }
        Ok(())
    }
}

/// The versions that may have written the line at this byte.
fn versions(commits: &[Commit], at: usize) -> Vec<bool> {
    let before = commits.iter().rev().find(|c| c.at < at).is_some_and(|c| c.new);
    let mut list = vec![before];
    list.extend(commits.iter().filter(|c| c.at == at).map(|c| c.new));
    list
}

fn is_version(line: &[u8]) -> bool {
    line.first() == Some(&b'@')
}

/// Lines with their ends.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(said: &str) -> Finished {
        Finished { end: End::Exited(0), said: said.as_bytes().to_vec() }
    }

    fn reference() -> Reference {
        Reference::new(finished("a 1\n@ 1\nb 2\n@ 1\n"), finished("a 1\n@ 2\nb 2\n@ 2\n"), 9)
            .unwrap()
    }

    #[test]
    fn the_undisturbed_builds_must_agree() {
        assert!(Reference::new(finished("a 1\n"), finished("a 2\n"), 1).is_err());
        assert!(Reference::new(finished("@ 1\n"), finished("@ 1\na\n"), 1).is_err());
        assert!(Reference::new(finished(""), finished(""), 1).is_err());
        let crashed =
            Finished { end: End::Killed(nix::sys::signal::SIGSEGV), said: b"a\n".to_vec() };
        assert!(Reference::new(finished("a\n"), crashed, 1).is_err());
    }

    #[test]
    fn without_an_update_all_is_old() {
        assert!(reference().judge(&finished("a 1\n@ 1\nb 2\n@ 1\n"), &[]).is_ok());
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n@ 2\n"), &[]).is_err());
    }

    #[test]
    fn behind_the_commit_all_is_new() {
        let there = [Commit { at: 8, new: true }];
        assert!(reference().judge(&finished("a 1\n@ 1\nb 2\n@ 2\n"), &there).is_ok());
        assert!(reference().judge(&finished("a 1\n@ 1\nb 2\n@ 1\n"), &there).is_err(), "still OLD");
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n@ 2\n"), &there).is_err(), "too early");
        let at_a_line = [Commit { at: 4, new: true }];
        assert!(reference().judge(&finished("a 1\n@ 1\nb 2\n@ 2\n"), &at_a_line).is_ok(), "begun");
    }

    #[test]
    fn there_and_back() {
        let commits = [Commit { at: 0, new: true }, Commit { at: 8, new: false }];
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n@ 1\n"), &commits).is_ok());
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n@ 2\n"), &commits).is_err());
    }

    #[test]
    fn wrong_output_and_wrong_ends_are_seen() {
        let there = [Commit { at: 0, new: true }];
        assert!(reference().judge(&finished("a 7\n@ 2\nb 2\n@ 2\n"), &there).is_err());
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n"), &there).is_err());
        assert!(reference().judge(&finished("a 1\n@ 2\nb 2\n@ 2\nc\n"), &there).is_err());
        let cut = Finished { end: End::Elsewhere, said: b"a 1\n@ 2\n".to_vec() };
        assert!(reference().judge(&cut, &there).is_err());
        for end in [End::Hung, End::Exited(9), End::Killed(nix::sys::signal::SIGSEGV)] {
            let said = b"a 1\n@ 2\nb 2\n@ 2\n".to_vec();
            assert!(reference().judge(&Finished { end, said }, &there).is_err());
        }
    }
}
