//! Text that comes from the builds (names, paths, source lines) as text of a page, whatever is in it.

use dsu_patch_format::dump::is_deceptive;
use std::fmt::{Display, Formatter, Result, Write};

/// Shown as it is, and nothing else: no markup, no attribute's end, no control of direction.
pub struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' => f.write_char(c)?,
                c if is_deceptive(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out() {
        let hostile = "</code><script>alert(\"1\")</script>' onclick='x&amp;\u{0}\n\u{202e}\u{1b}";
        let shown = Text(hostile).to_string();
        assert!(!shown.contains(['<', '>', '"', '\'', '\n', '\u{0}', '\u{1b}', '\u{202e}']));
        assert!(shown.starts_with("&lt;/code&gt;&lt;script&gt;"), "{shown}");
        assert!(shown.contains("&amp;amp;"), "{shown}");
        assert!(shown.ends_with(r"\u{202e}\u{1b}"), "{shown}");
        assert_eq!(Text("größe<T>\t").to_string(), "größe&lt;T&gt;\t");
    }
}
