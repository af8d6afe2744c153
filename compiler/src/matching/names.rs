//! Names without what compilers add to them anew in each build.

use dsu_patch_format::dump::printable;

/// Suffix words of clones that gcc and LLVM number.
const NUMBERED: [&str; 6] = ["isra", "constprop", "part", "lto_priv", "llvm", "localalias"];

/// A symbol's name without the numbers of its clones, without Rust's hash.
///
/// `f.constprop.3` is `f.constprop`, `f.lto_priv.0` is `f`, `x.1234` is `x`.
#[must_use]
pub fn canonical(name: &str) -> String {
    // Versions of symbols have numbers that mean something.
    if let Some((plain, version)) = name.split_once('@') {
        return format!("{}@{version}", canonical(plain));
    }
    let name = without_rust_hash(name);
    let mut out = String::with_capacity(name.len());
    let mut parts = name.split('.').enumerate().peekable();
    while let Some((index, part)) = parts.next() {
        if index == 0 {
            out.push_str(part);
            continue;
        }
        let numbered = parts.peek().is_some_and(|(_, next)| is_number(next));
        if matches!(part, "lto_priv" | "llvm" | "localalias") {
            if numbered {
                parts.next();
            }
            continue;
        }
        if NUMBERED.contains(&part) && numbered {
            parts.next();
        } else if is_number(part) {
            continue;
        }
        out.push('.');
        out.push_str(part);
    }
    out
}

/// The name before every suffix: `f` of `f.isra.0.cold`.
#[must_use]
pub fn stem(name: &str) -> &str {
    match name.char_indices().skip(1).find(|(_, c)| *c == '.') {
        Some((at, _)) => &name[..at],
        None => name,
    }
}

/// Whether one of two canonical names is a function and the other a clone of it that gcc has made for certain
/// arguments (`constprop`, `isra`): that is left away which is the same in all calls, nothing else. What OLD
/// gives back NEW may not do without: a clone of OLD's that gives nothing back (`isra`) is another function.
#[must_use]
pub fn is_specialized(old: &str, new: &str) -> bool {
    let words = |name: &str| {
        let mut words = name[stem(name).len()..].split('.').skip(1);
        let known = words.clone().all(|word| matches!(word, "constprop" | "isra"));
        known.then(|| words.any(|word| word == "isra"))
    };
    let (Some(old_isra), Some(new_isra)) = (words(old), words(new)) else { return false };
    stem(old) == stem(new) && (new_isra || !old_isra)
}

/// Whether a local's name carries a number that the compiler chose (`counter.7`).
#[must_use]
pub fn is_numbered(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, tail)| is_number(tail))
}

/// Whether link-time optimization made a static global under a number of its own (`count.lto_priv.3`): it is
/// known in its unit only, and the number is another one in the next build.
#[must_use]
pub fn is_privatized(name: &str) -> bool {
    name.contains(".lto_priv.") || name.contains(".llvm.")
}

/// Whether the compiler made a table of its own, so that its name means nothing and its content
/// everything: gcc's `CSWTCH.3`, clang's `switch.table.f` and `reltable.f`.
#[must_use]
pub fn is_compilers_table(name: &str) -> bool {
    name.starts_with("CSWTCH.") || name.starts_with("switch.table.") || is_offset_table(name)
}

/// Whether a table holds 32-bit distances from itself to constants (clang's relative lookup tables).
#[must_use]
pub fn is_offset_table(name: &str) -> bool {
    name.starts_with("reltable.")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Legacy Rust mangling ends in `17h`, sixteen hexadecimal digits, `E`: a hash of the build.
fn without_rust_hash(name: &str) -> &str {
    if let Some(rest) = name.strip_prefix("_ZN")
        && rest.len() > 20
        && name.ends_with('E')
        && let Some(cut) = name.len().checked_sub(20)
        && name.is_char_boundary(cut)
        && name[cut..].starts_with("17h")
        && name[cut + 3..name.len() - 1].bytes().all(|b| b.is_ascii_hexdigit())
    {
        return &name[..cut];
    }
    name
}

/// A name for people: demangled where it is mangled, without characters that command a terminal.
#[must_use]
pub fn readable(name: &str) -> String {
    printable(&demangled(name)).into_owned()
}

fn demangled(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
        && let Ok(text) = symbol.demangle()
    {
        return text;
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_have_no_numbers_of_the_build() {
        for (name, expected) in [
            ("main", "main"),
            ("f.constprop.3", "f.constprop"),
            ("f.isra.0.constprop.1", "f.isra.constprop"),
            ("f.lto_priv.0", "f"),
            ("counter.1234", "counter"),
            ("memcpy@GLIBC_2.14", "memcpy@GLIBC_2.14"),
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "_ZN4core3fmt5Write9write_fmt"),
        ] {
            assert_eq!(canonical(name), expected, "{name}");
        }
        assert_eq!(stem("f.isra.0.cold"), "f");
        assert!(is_specialized("f", "f.constprop") && is_specialized("f.constprop", "f"));
        assert!(is_specialized("f", "f.isra") && !is_specialized("f.isra", "f"), "no result");
        assert!(!is_specialized("f", "f.part") && !is_specialized("f", "g.constprop"));
        assert_eq!(stem(".hidden"), ".hidden");
        assert!(is_numbered("x.1") && !is_numbered("x") && !is_numbered("x.cold"));
    }
}
