//! A stable text form of a bundle, for people and golden tests. One fact a line; no digests, so
//! that a golden file changes only where the bundle's meaning does.

use crate::Bundle;
use crate::manifest::{BuildInfo, Coverage};
use crate::plan::{FixupKind, MapTarget, Plan, RedirectForm, SiteKind, Target};
use std::borrow::Cow;
use std::fmt::{self, Write};

/// Text of a bundle as it may be shown: a name must not command the terminal, nor pretend to be a line of
/// its own, nor to be another name.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return text.into();
    }
    let shown = |c: char| if is_deceptive(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(shown).collect()
}

/// A character that controls a terminal, or the direction of the text around it (Unicode TR 36, section
/// 2.5).
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    let direction = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || direction
}

/// The whole bundle as text.
#[must_use]
pub fn dump(bundle: &Bundle) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = manifest(&mut out, bundle)
        .and_then(|()| plan(&mut out, &bundle.plan))
        .and_then(|()| sites(&mut out, bundle));
    out
}

fn manifest(out: &mut String, bundle: &Bundle) -> fmt::Result {
    let m = &bundle.manifest;
    for option in &m.options {
        writeln!(out, "option {}", printable(option))?;
    }
    build(out, "old", &m.old)?;
    build(out, "new", &m.new)?;
    for f in &m.replaced {
        match f.new {
            Some(new) => writeln!(
                out,
                "replaced {} {}+{} -> {new}+{}",
                printable(&f.name),
                f.old,
                f.old_size,
                f.new_size
            )?,
            None => writeln!(out, "removed {} {}+{}", printable(&f.name), f.old, f.old_size)?,
        }
        for why in &f.why {
            writeln!(out, "  why {}", printable(why))?;
        }
        if f.coverage.of > 0 {
            let Coverage { sites, passing, new_locals, of } = f.coverage;
            writeln!(
                out,
                "  sites {sites} of {of}, {passing} pass on, {new_locals} only for new locals"
            )?;
        }
    }
    for f in &m.added {
        writeln!(out, "added {} {}+{}", printable(&f.name), f.new, f.size)?;
    }
    for name in &m.line_only {
        writeln!(out, "line-only {}", printable(name))?;
    }
    for d in &m.data {
        writeln!(
            out,
            "data {} {} -> {} {:?}: {}",
            printable(&d.name),
            d.old_size,
            d.new_size,
            d.action,
            printable(&d.why)
        )?;
    }
    for p in &m.blind_points {
        let kind = site_kind(p.kind);
        let new_local = if p.new_local { " new-local" } else { "" };
        writeln!(
            out,
            "blind {kind} {} function {}{new_local} {}:{}: {}",
            p.at,
            p.function,
            printable(&p.file),
            p.line,
            printable(&p.why)
        )?;
    }
    for warning in &m.warnings {
        writeln!(out, "warning {}", printable(warning))?;
    }
    Ok(())
}

fn build(out: &mut String, side: &str, build: &BuildInfo) -> fmt::Result {
    write!(out, "{side} {:?} {}", build.kind, printable(&build.file))?;
    match &build.debug {
        Some(debug) => writeln!(out, " debug {}", printable(&debug.file)),
        None => writeln!(out),
    }
}

fn plan(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "extent {} {} low {}", plan.old_start, plan.old_end, plan.low_2gib)?;
    for s in &plan.segments {
        writeln!(
            out,
            "segment {} {:?} {} bytes {} zeroes",
            s.start,
            s.protection,
            s.bytes.len(),
            s.zeroes
        )?;
    }
    for f in &plan.fixups {
        let kind = match f.kind {
            FixupKind::Rel32 => "rel32",
            FixupKind::Abs64 => "abs64",
            FixupKind::Abs32 => "abs32",
        };
        writeln!(out, "fixup {} {kind} {}{:+}", f.at, target(plan, &f.target), f.addend)?;
    }
    for r in &plan.redirects {
        writeln!(out, "redirect {} at {} to {}{}", r.entry, r.at, r.to, by_cave(r.form))?;
    }
    for w in &plan.writes {
        writeln!(out, "write {} {} bytes", w.at, w.bytes.len())?;
        for p in &w.pointers {
            writeln!(out, "  pointer +{} {}{:+}", p.offset, target(plan, &p.target), p.addend)?;
        }
    }
    for b in &plan.blind {
        writeln!(out, "blind {}..{} function {}", b.start, b.end, b.function)?;
    }
    for run in &plan.map {
        match run.to {
            MapTarget::Old(old) => writeln!(out, "map {}+{} old {old}", run.start, run.len)?,
            MapTarget::Shadow => writeln!(out, "map {}+{} shadow", run.start, run.len)?,
        }
    }
    for i in &plan.identities {
        writeln!(out, "identity {} is {}", i.new, i.old)?;
    }
    for copy in &plan.copies {
        writeln!(out, "copy {}+{} of {} lowered {}", copy.start, copy.len, copy.of, copy.lowered)?;
        for o in &copy.objects {
            writeln!(out, "  cfa{:+}..cfa{:+} at cfa{:+} of OLD", o.start, o.end, o.old)?;
        }
    }
    for row in &plan.unwind {
        let (register, offset) = row.cfa;
        write!(out, "unwind {}+{} cfa r{register}{offset:+}", row.start, row.len)?;
        for (register, offset) in &row.saved {
            write!(out, " r{register} at cfa{offset:+}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn sites(out: &mut String, bundle: &Bundle) -> fmt::Result {
    for (index, s) in bundle.plan.sites.iter().enumerate() {
        let (kind, form) = (site_kind(s.kind), by_cave(s.form));
        let (at, function, stub, len, to) = (s.at, s.function, s.stub, s.stub_len, s.to);
        writeln!(out, "site {at} {kind} function {function} stub {stub}+{len} to {to}{form}")?;
        if let Some(frame) = bundle.frames.get(index) {
            for line in frame.to_string().lines() {
                writeln!(out, "  {}", printable(line))?;
            }
        }
    }
    for dead in &bundle.plan.dead_returns {
        writeln!(out, "dead-return {dead}")?;
    }
    for at in &bundle.plan.unexpected_returns {
        writeln!(out, "unexpected-return {at}")?;
    }
    for (at, bytes) in &bundle.plan.left {
        writeln!(out, "left {at}+{bytes}")?;
    }
    for p in &bundle.plan.passages {
        write!(out, "passage {} {} function {} exits", p.start, p.end, p.function)?;
        p.exits.iter().try_for_each(|site| write!(out, " {site}"))?;
        write!(out, " names")?;
        p.names.iter().try_for_each(|name| write!(out, " {name}"))?;
        writeln!(out)?;
    }
    Ok(())
}

fn by_cave(form: RedirectForm) -> String {
    form.cave().map(|cave| format!(" by {cave}")).unwrap_or_default()
}

fn site_kind(kind: SiteKind) -> &'static str {
    match kind {
        SiteKind::Return => "return",
        SiteKind::Loop => "loop",
        SiteKind::LandingPad => "landing-pad",
        SiteKind::Point => "point",
    }
}

fn target(plan: &Plan, target: &Target) -> String {
    let Target::Import(i) = target else { return target.to_string() };
    let name = plan.imports.get(*i as usize).map_or("?", |i| i.name.as_str());
    format!("import {}", printable(name))
}
