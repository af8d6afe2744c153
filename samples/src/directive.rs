//! Comments of the form `//# key[word] step: value`.
//!
//! Takes the text of a source file; gives its directives in order. Refuses keys that nobody reads:
//! a directive with a typing error would otherwise assert nothing.

use anyhow::{Result, bail};

/// Every key that [`crate::run`] reads, with its meaning in `cases/README.md`.
pub const KEYS: &[&str] = &[
    "build",
    "ladder",
    "target",
    "changed",
    "kept",
    "added",
    "removed",
    "line-only",
    "data",
    "refused",
    "nothing-to-do",
    "warning",
    "build-args",
    "build-error",
    "apply",
    "apply-args",
    "blocker",
    "says",
    "before",
    "after",
];

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Line of the file, from 1.
    pub line: usize,
    /// One of [`KEYS`].
    pub key: String,
    /// Only for build lines that contain this word; with `!` before it, only for the others.
    pub word: Option<String>,
    /// Step of the ladder that it is about, from 1.
    pub step: usize,
    /// The rest of the line.
    pub value: String,
}

impl Directive {
    /// Says whether the directive counts for a build line.
    #[must_use]
    pub fn applies_to(&self, build: &str) -> bool {
        let has = |word: &str| build.split_whitespace().any(|w| w == word);
        match self.word.as_deref() {
            None => true,
            Some(word) => word.strip_prefix('!').map_or_else(|| has(word), |w| !has(w)),
        }
    }

    /// The words of the value.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.value.split_whitespace()
    }
}

impl std::fmt::Display for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "//# {}", self.key)?;
        if let Some(word) = &self.word {
            write!(f, "[{word}]")?;
        }
        if self.step != 1 {
            write!(f, " {}", self.step)?;
        }
        if self.value.is_empty() { Ok(()) } else { write!(f, ": {}", self.value) }
    }
}

/// All directives of a file.
///
/// # Errors
/// The line of the first one that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Directive>> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(i, line)| Some((i + 1, line.trim_start().strip_prefix("//#")?)))
        .map(|(line, rest)| parse_one(line, rest.trim()))
        .collect()
}

fn parse_one(line: usize, text: &str) -> Result<Directive> {
    // The colon that ends the key, not one inside `[-Wl,--x:y]`.
    let bracket = text.find('[').filter(|i| text.find(':').is_none_or(|colon| *i < colon));
    let after_bracket = bracket.and_then(|_| text.find(']')).unwrap_or(0);
    let colon = text[after_bracket..].find(':').map(|i| i + after_bracket);
    let (head, value) = colon.map_or((text, ""), |i| (&text[..i], text[i + 1..].trim()));
    let (head, word) = match head.split_once('[') {
        Some((before, rest)) => {
            let Some((word, after)) = rest.split_once(']') else {
                bail!("line {line}: no ] in //# {text}");
            };
            (format!("{before}{after}"), Some(word.to_owned()))
        }
        None => (head.to_owned(), None),
    };
    let mut words = head.split_whitespace();
    let key = words.next().unwrap_or("").to_owned();
    if !KEYS.contains(&key.as_str()) {
        bail!("line {line}: //# {text}: no such directive, there are: {}", KEYS.join(" "));
    }
    let step = match words.next().map(str::parse) {
        None => 1,
        Some(Ok(step)) if step >= 1 => step,
        _ => bail!("line {line}: //# {text}: expected `key step: value`"),
    };
    Ok(Directive { line, key, word, step, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Directive {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn all_parts_are_read() {
        let d = one("int x;\n//# changed[clang] 2: f g\n");
        assert_eq!((d.line, d.step, d.key.as_str()), (2, 2, "changed"));
        assert_eq!(d.words().collect::<Vec<_>>(), ["f", "g"]);
        assert_eq!(d.to_string(), "//# changed[clang] 2: f g");
    }

    #[test]
    fn a_word_limits_the_builds() {
        let only = one("//# kept[-O0]: f");
        assert!(only.applies_to("gcc -O0") && !only.applies_to("gcc -O2"));
        let but = one("//# kept[!-O0]: f");
        assert!(!but.applies_to("gcc -O0") && but.applies_to("gcc -O2"));
    }

    #[test]
    fn a_colon_in_the_value_stays() {
        assert_eq!(one("//# before: a => b: c").value, "a => b: c");
        assert_eq!(one("//# after: 7 => [7: 8]").value, "7 => [7: 8]");
        assert_eq!(one("//# kept[-Wl,--a:b]: f").value, "f");
    }

    #[test]
    fn typing_errors_are_found() {
        assert!(parse("//# chnaged: f").is_err());
        assert!(parse("//# changed two: f").is_err());
        assert!(parse("//# changed[x: f").is_err());
    }
}
