//! Text for terminals: nothing wider than eighty columns that can be broken, tables aligned by what is
//! in them. The same text whatever the terminal, so that it can be compared and mailed.

use dsu_patch_format::dump::printable;
use std::fmt::Write;

/// Columns.
pub const WIDTH: usize = 80;

/// Writes `text` behind `first`, broken at spaces; further lines are indented by `indent`.
pub fn wrapped(out: &mut String, first: &str, indent: usize, text: &str) {
    let mut line = first.to_owned();
    let mut bare = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let space = usize::from(!bare);
        if !bare && columns(&line) + space + columns(word) > WIDTH {
            finish(out, &line);
            line = " ".repeat(indent);
            bare = true;
        }
        if !bare {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    finish(out, &line);
}

/// What is shown of a text of several lines: nothing in it commands the terminal, whichever part of a
/// build it comes from.
pub fn shown(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

fn finish(out: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", line.trim_end());
}

/// Writes rows of three columns, the first two as wide as their widest entry, up to a bound; the last
/// one is broken.
pub fn table(out: &mut String, indent: usize, rows: &[[String; 3]]) {
    let widest = |column: usize, bound: usize| {
        let fits = rows.iter().map(|row| columns(&row[column])).filter(|width| *width <= bound);
        fits.max().unwrap_or(0)
    };
    let (to, from) = (widest(0, 16), widest(1, 24));
    for row in rows {
        let first = format!("{:indent$}{:to$} <- {:from$} ", "", row[0], row[1]);
        wrapped(out, &format!("{first} "), indent + to + from + 6, &row[2]);
    }
}

/// How wide a text is, as far as can be told without tables of all scripts.
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_hang() {
        let mut out = String::new();
        wrapped(&mut out, "  why: ", 4, &"word ".repeat(40));
        assert!(out.lines().all(|line| columns(line) <= WIDTH), "{out}");
        assert!(out.lines().skip(1).all(|line| line.starts_with("    word")), "{out}");
        assert_eq!(out.matches("word").count(), 40);
    }

    #[test]
    fn what_cannot_be_broken_stands_alone() {
        let mut out = String::new();
        wrapped(&mut out, "  ", 4, &format!("a {} b", "x".repeat(100)));
        assert_eq!(out, format!("  a\n    {}\n    b\n", "x".repeat(100)));
        out.clear();
        wrapped(&mut out, "  name  ", 4, "");
        assert_eq!(out, "  name\n", "nothing at the end of a line");
    }

    #[test]
    fn lines_stay_and_commands_do_not() {
        assert_eq!(shown("a\u{1b}[2J\n\tb\n"), "a\\u{1b}[2J\n\\tb\n");
    }

    #[test]
    fn columns_are_as_wide_as_needed() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let mut out = String::new();
        table(&mut out, 2, &[row(["rbx", "rbx", "same"]), row(["[cfa-24]:8", "r12", "other"])]);
        assert_eq!(out, "  rbx        <- rbx  same\n  [cfa-24]:8 <- r12  other\n");
    }
}
