//! The code generations that programs are compiled with, and which of them are paired as OLD and NEW.

use anyhow::{Result, bail};

/// One way to make code from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation {
    /// As in `--pair`.
    pub name: &'static str,
    /// The compiler.
    pub compiler: &'static str,
    /// Its flags, but for those that every program needs.
    pub flags: &'static [&'static str],
}

const fn gcc(name: &'static str, flags: &'static [&'static str]) -> Generation {
    Generation { name, compiler: "gcc", flags }
}

const fn clang(name: &'static str, flags: &'static [&'static str]) -> Generation {
    Generation { name, compiler: "clang", flags }
}

/// All code generations.
pub const GENERATIONS: &[Generation] = &[
    gcc("gcc-O1", &["-O1"]),
    gcc("gcc-O2", &["-O2"]),
    gcc("gcc-O3", &["-O3"]),
    gcc("gcc-Os", &["-Os"]),
    gcc("gcc-nosched", &["-O2", "-fno-schedule-insns2", "-fno-ivopts"]),
    gcc("gcc-frame", &["-O2", "-fno-omit-frame-pointer"]),
    gcc("gcc-ssp", &["-O2", "-fstack-protector-strong"]),
    gcc("gcc-nowrap", &["-O2", "-fno-shrink-wrap"]),
    gcc("gcc-unroll", &["-O3", "-funroll-loops", "-fpeel-loops"]),
    gcc("gcc-all-unroll", &["-O2", "-funroll-all-loops"]),
    gcc("gcc-novec", &["-O3", "-fno-tree-vectorize"]),
    gcc("gcc-noivopts", &["-O2", "-fno-ivopts"]),
    gcc("gcc-nogcse", &["-O2", "-fno-gcse"]),
    gcc("gcc-nopre", &["-O2", "-fno-tree-pre"]),
    gcc("gcc-noipara", &["-O2", "-fno-ipa-ra"]),
    gcc("gcc-noplt", &["-O2", "-fno-plt"]),
    gcc("gcc-nomotion", &["-O2", "-fno-tree-loop-im", "-fno-tree-sink", "-fno-tree-dse"]),
    gcc("gcc-nomodref", &["-O2", "-fno-ipa-modref", "-fno-ipa-reference"]),
    // No fused operations: they round otherwise.
    gcc("gcc-v3", &["-O3", "-march=x86-64-v3", "-ffp-contract=off"]),
    clang("clang-O1", &["-O1"]),
    clang("clang-O2", &["-O2"]),
    clang("clang-O3", &["-O3"]),
    clang("clang-frame", &["-O2", "-fno-omit-frame-pointer"]),
];

/// What follows a generation's name when the source is the next version's.
const NEXT: &str = "+new";

/// A build of some source: how, and from which version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Side {
    /// How.
    pub generation: Generation,
    /// Compiled with `-DNEW`.
    pub next: bool,
}

impl Side {
    /// From `gcc-O2` or `gcc-O2+new`.
    pub fn parse(text: &str) -> Result<Side> {
        let (name, next) = match text.strip_suffix(NEXT) {
            Some(name) => (name, true),
            None => (text, false),
        };
        match GENERATIONS.iter().find(|g| g.name == name) {
            Some(generation) => Ok(Side { generation: *generation, next }),
            None => {
                let names: Vec<_> = GENERATIONS.iter().map(|g| g.name).collect();
                bail!("no code generation {name}; there are: {}", names.join(", "))
            }
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.generation.name, if self.next { NEXT } else { "" })
    }
}

/// OLD and NEW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// What runs.
    pub old: Side,
    /// What it becomes.
    pub new: Side,
}

impl Pair {
    /// From `OLD:NEW`.
    pub fn parse(text: &str) -> Result<Pair> {
        let Some((old, new)) = text.split_once(':') else {
            bail!("a pair is OLD:NEW, as gcc-O2:gcc-O1 or gcc-O2:gcc-O2+new, not {text}");
        };
        Ok(Pair { old: Side::parse(old)?, new: Side::parse(new)? })
    }

    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Pair {
        Pair { old: self.new, new: self.old }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.old, self.new)
    }
}

/// The pairs of the torture programs when none is asked for: every kind of difference that issue 3 names,
/// the ones between whole optimization levels both ways, and the next version of the source.
pub const PAIRS: &[&str] = &[
    "gcc-O2:gcc-nosched",
    "gcc-O2:gcc-frame",
    "gcc-O2:gcc-ssp",
    "gcc-O2:gcc-nowrap",
    "gcc-frame:gcc-O2",
    "gcc-ssp:gcc-O2",
    "gcc-O2:gcc-O1",
    "gcc-O1:gcc-O2",
    "gcc-O2:gcc-O3",
    "gcc-O2:gcc-Os",
    "gcc-O2:clang-O2",
    "clang-O2:gcc-O2",
    "clang-O2:clang-O1",
    "clang-O2:clang-frame",
    "gcc-O2:gcc-O2+new",
    "gcc-O2+new:gcc-O2",
    "gcc-O1:gcc-O1+new",
    "gcc-O3:gcc-O3+new",
    "clang-O2:clang-O2+new",
];

/// Further pairs, for long runs: single optimizations left out or added, one at a time.
pub const MORE_PAIRS: &[&str] = &[
    "gcc-O2:gcc-unroll",
    "gcc-unroll:gcc-O2",
    "gcc-O2:gcc-all-unroll",
    "gcc-all-unroll:gcc-O2",
    "gcc-O3:gcc-unroll",
    "gcc-O3:gcc-novec",
    "gcc-novec:gcc-O3",
    "gcc-O3:gcc-O2",
    "gcc-Os:gcc-O2",
    "gcc-O1:gcc-O3",
    "gcc-O2:gcc-noivopts",
    "gcc-noivopts:gcc-O2",
    "gcc-O2:gcc-nogcse",
    "gcc-O2:gcc-nopre",
    "gcc-nopre:gcc-O2",
    "gcc-O2:gcc-noipara",
    "gcc-noipara:gcc-O2",
    "gcc-O2:gcc-noplt",
    "gcc-O2:gcc-nomotion",
    "gcc-nomotion:gcc-O2",
    "gcc-O2:gcc-nomodref",
    "gcc-nomodref:gcc-O2",
    "gcc-O3:gcc-v3",
    "gcc-v3:gcc-O3",
    "clang-O2:clang-O3",
    "clang-O3:clang-O2",
    "clang-O1:clang-O2",
];

/// The pairs of csmith's programs, each of which gets one of them in turn.
pub const RANDOM_PAIRS: &[&str] = &[
    "gcc-O2:gcc-nosched",
    "gcc-O2:gcc-frame",
    "gcc-O1:gcc-O2",
    "gcc-O2:gcc-ssp",
    "gcc-O2:gcc-O1",
    "clang-O2:clang-frame",
    "gcc-O2:gcc-O3",
    "gcc-O2:gcc-Os",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_back() {
        for text in PAIRS.iter().chain(MORE_PAIRS).chain(RANDOM_PAIRS) {
            assert_eq!(Pair::parse(text).unwrap().to_string(), *text);
        }
        let pair = Pair::parse("gcc-O2:clang-O2+new").unwrap();
        assert_eq!(pair.reversed().to_string(), "clang-O2+new:gcc-O2");
        assert!(Pair::parse("gcc-O2").is_err());
        assert!(Pair::parse("gcc-O2:gcc-O9").is_err());
    }
}
