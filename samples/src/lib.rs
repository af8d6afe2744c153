//! Small programs as OLD/NEW pairs, with what must come of them in their comments.
//!
//! ```text
//! cases/NAME.c -> case     -> compile       -> report  (dsu-build: what it must find, and nothing else)
//! cases/NAME/     directives  each version     program (dsu-apply: what it answers before and after)
//!                             in target/       \_________________ run __________________________/
//! ```
//!
//! | module | answers |
//! |---|---|
//! | [`directive`] | what does a comment `//# key: value` say? |
//! | [`case`] | which cases are there, and what does one expect of a step? |
//! | [`compile`] | the same source, once for each version |
//! | [`needs`] | which compilers are missing? |
//! | [`tools`] | where are dsu-build and dsu-apply, and what did they say? |
//! | [`report`] | does the report say what the case expects, and no more? |
//! | [`program`] | a running sample: asks it, never outlives it |
//! | [`run`] | all of it, for one case and one build line |
//! | [`tour`] | the guided tour |
//!
//! Adding a case is adding a C file; `cases/README.md` lists the directives.

pub mod directive;

pub mod case;

pub mod compile;

pub mod needs;

pub mod tools;

pub mod report;

pub mod program;

pub mod run;

pub mod tour;
