//! What is done with two builds: all of dsu-build, with its reports. Takes any bytes as OLD and NEW; a
//! panic is a defect, an error or a refusal is an answer.

use dsu_compiler::{Options, Outcome, build, report};

/// Compares two files, and makes of the result all that can be made of it.
pub fn compare(old: &[u8], new: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let mut options = Options {
        old: write("old", old),
        new: write("new", new),
        no_unwinding: true,
        ..Options::default()
    };
    for live_frames in [false, true] {
        options.live_frames = live_frames;
        let Ok(built) = build(&options, &|_| ()) else { continue };
        let text = report::text(&built, None);
        assert!(!text.contains('\u{1b}'), "nothing commands a terminal");
        assert!(!report::html(&built, &options).is_empty());
        assert!(report::json(&built).is_object());
        if built.outcome == Outcome::Written {
            // An error is one that the reader found: nothing wrong is written.
            let _ = built.bundle(&options);
        }
    }
}
