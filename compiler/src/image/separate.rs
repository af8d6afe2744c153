//! Where a stripped file's debug information is: beside it or under the system's debug directory,
//! by `.gnu_debuglink` name or by build id (as gdb looks, "Debugging Information in Separate Files").

use object::Object;
use std::path::{Path, PathBuf};

const SYSTEM: &str = "/usr/lib/debug";

/// Candidate files in the order in which they are tried; those that exist.
pub(super) fn candidates(file: &Path, elf: &object::File<'_>) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let directory = file.parent().unwrap_or(Path::new("."));
    if let Ok(Some((name, _crc))) = elf.gnu_debuglink() {
        let name = String::from_utf8_lossy(name).into_owned();
        // A name, not a path: what a file says must not lead out of its directory.
        if !name.contains('/') {
            out.push(directory.join(&name));
            out.push(directory.join(".debug").join(&name));
            if let Ok(absolute) = directory.canonicalize() {
                let below_root = absolute.strip_prefix("/").unwrap_or(&absolute);
                out.push(Path::new(SYSTEM).join(below_root).join(&name));
            }
        }
    }
    if let Ok(Some(id)) = elf.build_id()
        && id.len() > 1
    {
        let hex = super::load::hex(id);
        let (head, tail) = hex.split_at(2);
        out.push(Path::new(SYSTEM).join(format!(".build-id/{head}/{tail}.debug")));
    }
    out.retain(|p| p.is_file());
    out
}
