//! Which pairs of builds are measured: a ladder's steps, by gcc or by clang, and its last step compiled
//! anew with other code generation.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::corpus::{Ladder, Recipe, ladder::Builder};

/// Where the two builds of each pair come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Neighbouring steps, gcc -O2.
    Gcc,
    /// Neighbouring steps, clang -O2.
    Clang,
    /// One source, gcc -O2 to gcc -O2 without scheduling.
    Unscheduled,
    /// The same without induction variable selection, either.
    Nosched,
    /// One source, gcc -O2 to gcc -O1.
    O1,
}

/// Two builds to measure.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `07 CVE-2026-27654`.
    pub label: String,
    /// The build that runs.
    pub old: PathBuf,
    /// The build to come.
    pub new: PathBuf,
}

impl Series {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Clang => "clang",
            Self::Unscheduled => "gcc -O2 to unscheduled",
            Self::Nosched => "gcc -O2 to nosched",
            Self::O1 => "gcc -O2 to -O1",
        }
    }

    /// Share of call sites in percent that DESIGN's issue asks for.
    pub fn goal(self) -> f64 {
        match self {
            Self::Gcc => 95.0,
            Self::Clang | Self::Unscheduled | Self::Nosched => 90.0,
            Self::O1 => 75.0,
        }
    }

    /// Builds what is missing, and says which pairs there are.
    pub fn pairs(self, recipe: &Recipe, builder: &mut Builder) -> Result<Vec<Pair>> {
        match self {
            Self::Gcc => Ok(steps(&builder.ladder(recipe)?)),
            Self::Clang => Ok(steps(&builder.ladder(&by_clang(recipe))?)),
            Self::Unscheduled => {
                let flags = " -fno-schedule-insns -fno-schedule-insns2";
                Ok(vec![other_code(recipe, builder, "unscheduled", flags)?])
            }
            Self::Nosched => {
                let flags = " -fno-schedule-insns2 -fno-ivopts";
                Ok(vec![other_code(recipe, builder, "nosched", flags)?])
            }
            Self::O1 => Ok(vec![other_code(recipe, builder, "o1", " -O1")?]),
        }
    }
}

fn steps(ladder: &Ladder) -> Vec<Pair> {
    let pairs = ladder.steps.windows(2);
    pairs
        .map(|pair| Pair {
            label: pair[1].label(),
            old: pair[0].program.clone(),
            new: pair[1].program.clone(),
        })
        .collect()
}

/// The same recipe with clang behind the names `gcc` and `cc`: not every Makefile takes `CC`.
fn by_clang(recipe: &Recipe) -> Recipe {
    // A handful of recipes per run.
    let text = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let make_names = "mkdir -p ../as-gcc; \
                      for name in gcc cc; do \
                        printf '#!/bin/sh\\nexec clang \"$@\"\\n' >../as-gcc/$name; \
                        chmod +x ../as-gcc/$name; \
                      done";
    let path = "PATH=\"$(dirname \"$PWD\")/as-gcc:$PATH\"; export PATH";
    Recipe {
        key: text(format!("{}-clang", recipe.key)),
        configure: text(format!("{make_names}; {path}; {}", recipe.configure)),
        make: text(format!("{path}; {}", recipe.make)),
        clean: text(format!("{path}; {}", recipe.clean)),
        ..*recipe
    }
}

/// The last step compiled with more flags, in the same directory, and kept beside the steps.
fn other_code(recipe: &Recipe, builder: &mut Builder, name: &str, flags: &str) -> Result<Pair> {
    let ladder = &builder.ladder(recipe)?;
    let _lock = builder.lock(recipe)?;
    let home = ladder.tree.parent().context("the tree has a home")?;
    let last = ladder.steps.last().context("a ladder has steps")?;
    let dir = home.join("coverage").join(name);
    let program = last.program.file_name().context("programs have names")?;
    let stamp = std::fs::read_to_string(home.join("stamp"))?;
    if std::fs::read_to_string(dir.join("stamp")).is_ok_and(|s| s == stamp + flags) {
        return Ok(pair(last, &dir.join(program), flags));
    }
    ladder.remake(flags, "", &dir)?;
    // The tree stays as the ladder left it.
    ladder.remake("", "", &home.join("coverage/plain"))?;
    let stamp = std::fs::read_to_string(home.join("stamp"))?;
    std::fs::write(dir.join("stamp"), stamp + flags)?;
    Ok(pair(last, &dir.join(program), flags))
}

fn pair(last: &crate::corpus::Step, new: &Path, flags: &str) -> Pair {
    let (old, new) = (last.program.clone(), new.to_path_buf());
    Pair { label: format!("{}{flags}", last.label()), old, new }
}
