//! A body that one build has inlined and the other calls: both do the same, and neither has anything new.

mod assembled;

use assembled::{AROUND, carried, pair, reasons};
use dsu_patch_format::plan::SiteKind;

const SOURCE: &str = r#"
static unsigned context;
unsigned char bytes[8] = {1, 2, 3};
static BODY void mix(unsigned char b) { context = context >> 8 ^ b * 5; }
KEEP long f(long n) {
    long first = hook(n);
    for (int i = 0; i < 8; i++) mix(bytes[i]);
    return quiet(first) + quiet(n);
}
int main(int argc, char **argv) { return f(argc) + table[argc] + context + other(2); }
"#;

/// What the one has in a register all through the loop, the other has in memory after each round.
#[test]
fn the_call_is_not_new_and_what_it_stores_not_there() {
    let inlined = "#define BODY inline __attribute__((always_inline))\n";
    let called = "#define BODY __attribute__((noinline, noclone))\n";
    let version = |body: &str| format!("{AROUND}{body}{SOURCE}");
    for (old, new) in [(inlined, called), (called, inlined)] {
        let built = pair(&version(old), &version(new), (&[], &[]));
        let inside = |kind: SiteKind| matches!(kind, SiteKind::Loop | SiteKind::Point);
        let sites = carried(&built).proven.iter().filter(|p| inside(p.kind));
        assert_eq!(sites.count(), 0, "{}", reasons(&built));
        // Before the loop both are where they seem to be.
        assert!(assembled::behind(&built, 0).is_some(), "{}", reasons(&built));
    }
}
