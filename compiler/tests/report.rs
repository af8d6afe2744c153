//! The reports for people: what is in them, in which order, and that nothing in a build gets out of its
//! place in them.

#![allow(clippy::unwrap_used)]

use dsu_compiler::{Built, Options, Outcome, build, report};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#include <stdio.h>
#define KEEP __attribute__((noinline, noclone))
int counter = VERSION;
KEEP int next(int x) __asm__(NEXT);
#ifdef LAYOUT
struct state { int a; long b[VERSION]; } global;
#endif
KEEP int next(int x) {
#if VERSION == 2
    if (x > 7)
        return 7;
#endif
    return x + 1;
}
#if VERSION == 1
KEEP int before(void) { return counter; }
#else
KEEP int after(int x) { puts("after"); return x; }
#endif
int main(void) {
    int x = 0;
    while (x < 100) {
        x += next(x);
#ifdef LAYOUT
        x += global.a;
#endif
        printf("%d\n", x);
    }
#if VERSION == 1
    return before();
#else
    return after(x);
#endif
}
"#;

/// A name like any other to those who read symbol tables, and markup, an attribute's end, an escape
/// sequence and another direction to whoever believes it.
const HOSTILE: &str = "<script>alert('1')</script>\u{1b}[2J&amp;\u{202e}\" onclick=\"x";

struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    /// Both versions.
    fn new(flags: &[&str]) -> Self {
        let pair = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(pair.path("a.c"), SOURCE).unwrap();
        for version in 1..=2 {
            let status = Command::new("gcc")
                .args(["-O1", "-g", "-Wl,--build-id", "a.c"])
                .args(flags)
                .arg(format!("-DVERSION={version}"))
                .args(["-o", &format!("v{version}")])
                .current_dir(pair.dir.path())
                .status()
                .unwrap();
            assert!(status.success());
        }
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            old: self.path("v1"),
            new: self.path("v2"),
            live_frames: true,
            recorded: vec!["--line-numbers".to_owned()],
            ..Options::default()
        }
    }

    fn built(&self) -> Built {
        build(&self.options(), &|_| ()).unwrap()
    }
}

/// The page as parts: tags, and what is between them.
fn parts(page: &str) -> Vec<(&str, &str)> {
    let body = page.split_once("</style>").unwrap().1;
    let tags = body.split('<').skip(1);
    tags.map(|part| part.split_once('>').expect("every tag ends")).collect()
}

/// Tags that have no end (HTML, section 13.1.2).
const VOID: [&str; 1] = ["meta"];

/// What must hold of any page: tags nest, ids are there once, links lead to them, and nothing is loaded
/// or run.
fn well_formed(page: &str) {
    let mut open: Vec<&str> = vec!["html", "head"];
    let mut ids: Vec<&str> = Vec::new();
    let mut links: Vec<&str> = Vec::new();
    for (tag, _) in parts(page) {
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> ends what is open");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "<{tag}>");
        assert!(!["script", "img", "link", "iframe", "object"].contains(&name), "<{tag}>");
        let value = |key: &str| {
            let rest = attributes.split_once(key)?.1;
            rest.strip_prefix("=\"")?.split_once('"').map(|(value, _)| value)
        };
        ids.extend(value("id"));
        links.extend(value("href"));
        assert_eq!(attributes.matches('"').count() % 2, 0, "<{tag}>");
        for attribute in ["onclick=", "src=", "style="] {
            assert!(
                !attributes.contains(attribute) || attributes.contains("aria-label"),
                "<{tag}>"
            );
        }
        if !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never ended: {open:?}");
    for link in links {
        let target = link.strip_prefix('#').expect("links stay inside");
        assert!(ids.contains(&target), "{link} leads nowhere");
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id is there twice");
    assert!(!page.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
    assert!(!page.contains('\u{202e}'));
}

/// Headings, the page's skeleton: stable whatever the compiler makes of the functions.
fn skeleton(page: &str, built: &Built) -> String {
    let mut out = String::new();
    let all = parts(page);
    for (index, (tag, text)) in all.iter().enumerate() {
        let name = tag.split(' ').next().unwrap_or_default();
        if matches!(name, "header" | "nav" | "main" | "h1" | "h2" | "h3" | "summary") {
            let until = all[index..].iter().take_while(|(tag, _)| *tag != format!("/{name}"));
            let text = match name {
                "header" | "nav" | "main" => String::new(),
                // How many sites there are is not this test's business.
                "summary" if text.contains(" site") => continue,
                "summary" => (*text).to_owned(),
                _ => until.map(|(_, text)| *text).collect(),
            };
            out.push_str(format!("{name} {}", text.trim()).trim_end());
            out.push('\n');
        }
    }
    for (image, name) in [(&built.old, "OLD-ID"), (&built.new, "NEW-ID")] {
        out = out.replace(&image.build_id[..12], name);
    }
    out
}

#[test]
fn the_page_has_its_parts_in_order() {
    let pair = Pair::new(&["-DNEXT=\"next\""]);
    let options = pair.options();
    let built = build(&options, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{}", report::text(&built, None));
    let page = report::html(&built, &options);
    well_formed(&page);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report.txt");
    let found = skeleton(&page, &built);
    if std::env::var_os("DSU_BLESS").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(found, expected, "DSU_BLESS=1 accepts it");
    for words in [
        &built.old.build_id,
        &built.new.sha256,
        "--line-numbers",
        "x += next(x);",
        "OLD has no such function",
        "NEW has no such function",
        "its initializer changed",
    ] {
        assert!(page.contains(words), "no {words}");
    }
    assert_eq!(page, report::html(&build(&options, &|_| ()).unwrap(), &options), "the same bytes");
}

#[test]
fn a_refusal_is_the_first_thing_on_the_page() {
    let pair = Pair::new(&["-DNEXT=\"next\"", "-DLAYOUT"]);
    let built = pair.built();
    assert_eq!(built.outcome, Outcome::Refused);
    let page = report::html(&built, &pair.options());
    well_formed(&page);
    assert!(page.contains("verdict bad"));
    let refusal = page.find("Way out:").expect("the way out");
    assert!(refusal < page.find("id=\"functions\"").expect("functions"));
}

#[test]
fn no_name_gets_out_of_its_place() {
    // No assembler takes such a name: it is put in place of one as long.
    let plain = "n".repeat(HOSTILE.len());
    let pair = Pair::new(&[&format!("-DNEXT=\"{plain}\"")]);
    for file in ["v1", "v2"] {
        let mut bytes = std::fs::read(pair.path(file)).unwrap();
        while let Some(at) = bytes.windows(plain.len()).position(|w| w == plain.as_bytes()) {
            bytes[at..at + plain.len()].copy_from_slice(HOSTILE.as_bytes());
        }
        std::fs::write(pair.path(file), bytes).unwrap();
    }
    let options = pair.options();
    let built = build(&options, &|_| ()).unwrap();
    let names: Vec<_> = built.old.functions.iter().map(|f| f.name().to_owned()).collect();
    assert!(names.iter().any(|name| name == HOSTILE), "{names:?}");
    let page = report::html(&built, &options);
    well_formed(&page);
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"), "it is shown");
    let text = report::text(&built, None) + &report::explain(&built, "main").unwrap();
    assert!(text.contains(r"\u{1b}[2J"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn terminals_get_eighty_columns() {
    let pair = Pair::new(&["-DNEXT=\"next\""]);
    let built = pair.built();
    let explained = report::explain(&built, "next").unwrap();
    for line in report::text(&built, None).lines().chain(explained.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(explained.starts_with("next: replaced\n"), "{explained}");
    assert!(explained.contains("\n+ "), "what is new is shown: {explained}");
    let unknown = report::explain(&built, "nex").unwrap_err();
    assert!(unknown.contains("there is next"), "{unknown}");
}
