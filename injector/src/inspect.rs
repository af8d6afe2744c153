//! `--inspect`: what is in a bundle, without a process.
//!
//! Takes a file; gives all that its manifest says, who signed it, and how much the transaction would do;
//! with `--verbose` also every entry of the plan and every frame's table. Refuses what [`apply`] would
//! refuse of the bundle itself.
//!
//! [`apply`]: crate::apply

use crate::error::ApplyError;
use crate::outcome::count;
use crate::target::elf::hex;
use dsu_patch_format::dump::{dump, printable};
use dsu_patch_format::manifest::{BlindPoint, BuildInfo, DataAction, ReplacedFunction};
use dsu_patch_format::plan::{Import, Plan, Protection};
use dsu_patch_format::{Bundle, PublicKey, codec, signature};
use serde_json::{Value, json};
use std::fmt::{Result as Written, Write};
use std::path::Path;

/// A bundle that was read, with what is known of the file.
#[derive(Debug)]
pub struct Inspection {
    bundle: Bundle,
    bytes: usize,
    digest: String,
    signer: Option<PublicKey>,
    /// The signature was demanded of this key, and is right.
    trusted: bool,
}

/// Reads a bundle whole; with `keys`, one of them must have signed it.
///
/// # Errors
/// [`ApplyError::BundleFile`], [`ApplyError::Bundle`] and [`ApplyError::Untrusted`].
pub fn inspect(path: &Path, keys: &[PublicKey]) -> Result<Inspection, ApplyError> {
    let bytes = read_trusted(path, keys)?;
    Ok(Inspection {
        bundle: codec::decode(&bytes)?,
        bytes: bytes.len(),
        digest: hex(&codec::digest(&bytes)?),
        signer: signature::signer(&bytes)?,
        trusted: !keys.is_empty(),
    })
}

/// A bundle's bytes; with `keys`, one of them must have signed them. What was checked is what is given:
/// the file is read once.
pub(crate) fn read_trusted(path: &Path, keys: &[PublicKey]) -> Result<Vec<u8>, ApplyError> {
    let failed = |error| ApplyError::BundleFile { path: path.to_owned(), error };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > codec::MAX_FILE {
        let error = std::io::Error::other(format!("{size} bytes are too many for a bundle"));
        return Err(failed(error));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    if !keys.is_empty() {
        signature::require(&bytes, keys)?;
    }
    Ok(bytes)
}

impl Inspection {
    /// For tools.
    #[must_use]
    pub fn json(&self, verbose: bool) -> Value {
        let Bundle { manifest, plan, frames } = &self.bundle;
        let mut all = json!({
            "format": codec::VERSION,
            "bytes": self.bytes,
            "digest": self.digest,
            "signature": self.signer.map(|key| json!({
                "key": key.to_string(),
                "trusted": self.trusted,
            })),
            "manifest": manifest,
            "summary": {
                "segments": plan.segments.iter().map(|s| json!({
                    "start": s.start.0,
                    "bytes": s.bytes.len(),
                    "zeroes": s.zeroes,
                    "protection": protection(s.protection),
                })).collect::<Vec<_>>(),
                "imports": plan.imports.iter().map(import).collect::<Vec<_>>(),
                "fixups": plan.fixups.len(),
                "redirects": plan.redirects.len(),
                "sites": plan.sites.len(),
                "writes": plan.writes.len(),
            },
        });
        if verbose {
            all["plan"] = json!(plan);
            all["frames"] = json!(frames);
        }
        all
    }

    /// For people.
    #[must_use]
    pub fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        if verbose {
            out.push('\n');
            out.push_str(&dump(&self.bundle));
        }
        out
    }

    fn write(&self, out: &mut String) -> Written {
        let m = &self.bundle.manifest;
        let tool = printable(&m.tool);
        writeln!(out, "made by    {tool}, format {}, {} bytes", codec::VERSION, self.bytes)?;
        writeln!(out, "digest     {}", self.digest)?;
        match (self.signer, self.trusted) {
            (None, _) => writeln!(out, "signed     no")?,
            (Some(key), true) => writeln!(out, "signed by  {key} (as required)")?,
            (Some(key), false) => {
                writeln!(out, "signed by  {key}")?;
                writeln!(
                    out,
                    "           --require-signature PUBKEY says whether that is your key"
                )?;
            }
        }
        for option in &m.options {
            writeln!(out, "option     {}", printable(option))?;
        }
        build(out, "old", &m.old)?;
        build(out, "new", &m.new)?;
        self.functions(out)?;
        self.data(out)?;
        plan(out, &self.bundle.plan)?;
        for warning in &m.warnings {
            writeln!(out, "warning    {}", printable(warning))?;
        }
        Ok(())
    }

    fn functions(&self, out: &mut String) -> Written {
        let m = &self.bundle.manifest;
        for (index, function) in m.replaced.iter().enumerate() {
            replaced(out, function)?;
            let own = |p: &&BlindPoint| usize::try_from(p.function) == Ok(index);
            for point in m.blind_points.iter().filter(own) {
                let place = place(&point.file, point.line);
                writeln!(out, "           blind at {}{place}", point.at)?;
                writeln!(out, "             {}", printable(&point.why))?;
            }
        }
        for added in &m.added {
            let name = printable(&added.name);
            writeln!(out, "added      {name}, {} bytes at {}", added.size, added.new)?;
        }
        for name in &m.line_only {
            writeln!(out, "kept       {} (other source line numbers alone)", printable(name))?;
        }
        Ok(())
    }

    fn data(&self, out: &mut String) -> Written {
        for d in &self.bundle.manifest.data {
            let (name, why, action) = (printable(&d.name), printable(&d.why), action(d.action));
            writeln!(out, "data       {name} {action}, {} -> {} bytes", d.old_size, d.new_size)?;
            writeln!(out, "             {why}")?;
        }
        Ok(())
    }
}

fn build(out: &mut String, side: &str, build: &BuildInfo) -> Written {
    let kind = format!("{:?}", build.kind).to_lowercase();
    writeln!(out, "{side}        {} ({kind})", printable(&build.file))?;
    writeln!(out, "  build id {}", build.build_id)?;
    writeln!(out, "  sha256   {}", build.sha256)?;
    if let Some(debug) = &build.debug {
        writeln!(out, "  debug    {}", printable(&debug.file))?;
        writeln!(out, "  sha256   {}", debug.sha256)?;
    }
    Ok(())
}

fn replaced(out: &mut String, function: &ReplacedFunction) -> Written {
    let (name, place) = (printable(&function.name), place(&function.file, function.line));
    match function.new {
        Some(new) => writeln!(
            out,
            "replaced   {name}{place}, {} bytes at {} -> {} bytes at {new}",
            function.old_size, function.old, function.new_size
        )?,
        None => {
            writeln!(
                out,
                "removed    {name}{place}, {} bytes at {}",
                function.old_size, function.old
            )?;
        }
    }
    for why in function.why.iter().filter(|_| function.new.is_some()) {
        writeln!(out, "             {}", printable(why))?;
    }
    let coverage = function.coverage;
    if coverage.of > 0 {
        let carried = coverage.sites + coverage.passing;
        writeln!(out, "           live frames: {carried} of {} call sites", coverage.of)?;
    }
    Ok(())
}

/// What the transaction would do, in numbers.
fn plan(out: &mut String, plan: &Plan) -> Written {
    for segment in &plan.segments {
        let size = segment.bytes.len() as u64 + segment.zeroes;
        let kind = protection(segment.protection);
        writeln!(out, "maps       {size} bytes of {kind} at {} plus the bias", segment.start)?;
    }
    for one in &plan.imports {
        writeln!(out, "imports    {}", printable(&import(one)))?;
    }
    writeln!(
        out,
        "writes     {}, {}, {}, {} in place",
        count(plan.fixups.len(), "fix-up"),
        count(plan.redirects.len(), "redirect"),
        count(plan.sites.len(), "site"),
        count(plan.writes.len(), "object")
    )
}

fn import(import: &Import) -> String {
    let version = import.version.as_ref().map(|v| format!("@{v}")).unwrap_or_default();
    let weak = if import.weak { " (weak)" } else { "" };
    format!("{}{version}{weak}", import.name)
}

fn protection(protection: Protection) -> &'static str {
    match protection {
        Protection::Text => "code",
        Protection::ReadOnly => "constants",
        Protection::Data => "variables",
    }
}

fn action(action: DataAction) -> &'static str {
    match action {
        DataAction::Added => "is new",
        DataAction::KeptValue => "keeps its value",
        DataAction::UpdatedInPlace => "is overwritten in place",
        DataAction::Moved => "is replaced by NEW's",
        DataAction::Removed => "is removed",
    }
}

fn place(file: &str, line: u32) -> String {
    if file.is_empty() { String::new() } else { format!(" ({}:{line})", printable(file)) }
}
