//! File names that do not depend on the directory that the image was built in.
//!
//! Decides by text alone: the directories of a build need not exist here.

use std::iter;

/// Directories that hold what no build of this image made: names below stay absolute.
const FOREIGN: [&str; 6] = ["/usr/include", "/usr/lib", "/usr/local", "/rustc", "/opt", "/nix"];

/// How many directories up from the compiler's a file may be to be named relative to it. Two reach
/// from `build/part` to the sources beside `build`.
const LEVELS_UP: usize = 2;

/// `path` joined to `directory`, if it is relative.
pub(super) fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') || directory.is_empty() {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    }
}

/// A path of a unit compiled in `comp_dir`: relative to that directory where it is below it or
/// close by, else as it is; without `.` and inner `..` either way.
pub(super) fn independent(comp_dir: &str, path: &str) -> String {
    let path = parts(path);
    let comp_dir = parts(comp_dir);
    let joined = path.join("/");
    if !joined.starts_with('/') && path.first() != Some(&"") {
        return joined;
    }
    let common = iter::zip(&path, &comp_dir).take_while(|(a, b)| a == b).count();
    let up = comp_dir.len() - common;
    // The first part of an absolute path is the empty one before the slash.
    let is_near = common > 1 && up <= LEVELS_UP;
    if up > 0 && (!is_near || is_foreign(&joined)) {
        return joined;
    }
    let parts: Vec<&str> = iter::repeat_n("..", up).chain(path[common..].iter().copied()).collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn is_foreign(path: &str) -> bool {
    FOREIGN.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}

/// The parts of a path, without those that lead nowhere. An absolute path begins with "".
fn parts(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for (index, part) in path.split('/').enumerate() {
        match part {
            "" if index == 0 && path.starts_with('/') => parts.push(""),
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"") => {}
                Some(&"..") | None => parts.push(".."),
                Some(_) => {
                    parts.pop();
                }
            },
            _ => parts.push(part),
        }
    }
    parts
}

/// The name of a unit. rustc writes `src/main.rs/@/crate.0123456789abcdef-cgu.0`, with a hash that
/// changes from build to build, which is left out.
pub(super) fn unit_name(comp_dir: &str, name: &str) -> String {
    let name = independent(comp_dir, name);
    let Some((source, codegen_unit)) = name.split_once("/@/") else {
        return name;
    };
    let is_hash = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let kept: Vec<String> = codegen_unit
        .split('.')
        .filter_map(|part| match part.split_once('-') {
            Some((hash, rest)) if is_hash(hash) => Some(rest.to_owned()),
            _ if is_hash(part) => None,
            _ => Some(part.to_owned()),
        })
        .collect();
    format!("{source}/@/{}", kept.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_directory() {
        assert_eq!(independent("/b/old", "/b/old/src/a.c"), "src/a.c");
        assert_eq!(independent("/b/old", "src/./x/../a.c"), "src/a.c");
        assert_eq!(independent("/b/old", "../dep/a.h"), "../dep/a.h");
        assert_eq!(independent("/b/old/", "/b/old"), ".");
        assert_eq!(independent("", "/x/a.c"), "/x/a.c");
    }

    #[test]
    fn beside_the_directory() {
        assert_eq!(independent("/b/old/build", "/b/old/src/a.c"), "../src/a.c");
        assert_eq!(independent("/usr/src/p", "/usr/include/stdio.h"), "/usr/include/stdio.h");
        assert_eq!(independent("/usr/include/p", "/usr/include/p/x.h"), "x.h");
        assert_eq!(independent("/a/b/c/d", "/a/x.c"), "/a/x.c");
        assert_eq!(independent("/a", "/b/x.c"), "/b/x.c");
    }

    #[test]
    fn rust_units_lose_their_hash() {
        let name = "src/main.rs/@/shs.0123456789abcdef-cgu.12";
        assert_eq!(unit_name("/b", name), "src/main.rs/@/shs.cgu.12");
        assert_eq!(unit_name("/b", "src/main.rs/@/shs.cgu.1"), "src/main.rs/@/shs.cgu.1");
    }

    #[test]
    fn odd_paths_end() {
        for path in ["", "/", "//", "..", "/..", "/../a", ".", "./"] {
            independent(path, path);
            independent("/a/b", path);
        }
    }
}
