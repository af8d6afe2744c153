//! Everything that must be refused: a clear error, its own exit code, and the process as it was.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Build, BundleFile, Key, Program, build, bundle, expect};
use dsu_injector::ptrace::thread::Running;
use dsu_injector::target::Target;
use dsu_injector::{ApplyOptions, ExitCode, apply};
use dsu_patch_format::plan::Import;
use dsu_patch_format::signature::encode_signed;
use dsu_patch_format::{Bundle, encode};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("answer", version, &[]))
}

fn first_bundle() -> Bundle {
    let [old, new, _] = versions();
    bundle(&old, &new, &["answer"], &["added", "bonus"])
}

/// Applies and expects this refusal, with these words, and no trace of it.
fn refused(program: &Program, file: &BundleFile, exit: ExitCode, words: &[&str]) {
    let before = program.picture();
    let outcome = file.apply(program.pid);
    expect(&outcome, exit);
    let text = outcome.text(false);
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert_eq!(outcome.json()["exit"], exit.code());
    before.assert_same(&program.picture(), &text);
}

#[test]
fn damaged_bundles() {
    let [old, ..] = versions();
    let program = Program::start(&old.path, &[]);
    let good = encode(&first_bundle()).unwrap();
    for cut in [0, 1, 7, 8, 31, 32, 100, good.len() - 33, good.len() - 1] {
        let file = BundleFile::of_bytes(&good[..cut]);
        refused(&program, &file, ExitCode::Bundle, &["bundle"]);
    }
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let outcome = BundleFile::of_bytes(&bytes).apply(program.pid);
        expect(&outcome, ExitCode::Bundle);
    }
    let outcome = apply(&ApplyOptions::new("/no/such/bundle", program.pid));
    expect(&outcome, ExitCode::Bundle);
}

/// Absent, wrong, for other content: of a dry run as of the real thing.
#[test]
fn untrusted_bundles() {
    let [old, ..] = versions();
    let program = Program::start(&old.path, &[]);
    let [one, other] = ["one", "other"].map(Key::read);
    let signed = encode_signed(&first_bundle(), &other.signing).unwrap();
    let bare = encode(&first_bundle()).unwrap();
    let mut changed = first_bundle();
    changed.manifest.warnings.push("changed after it was signed".into());
    let behind = signed.len() - 32 - 64;
    let content = encode_signed(&changed, &one.signing).unwrap();
    let moved = [&content[..content.len() - 32 - 64], &signed[behind..]].concat();
    for (bytes, key, exit, words) in [
        (&bare[..], &other, ExitCode::Untrusted, "not signed"),
        (&signed, &one, ExitCode::Untrusted, "none of the keys required"),
        (&moved, &other, ExitCode::Untrusted, "signature does not match"),
        (&signed[..behind], &other, ExitCode::Bundle, "truncated"),
    ] {
        let file = BundleFile::of_bytes(bytes);
        let mut options = file.options(program.pid);
        options.required_keys = vec![key.public];
        for dry_run in [true, false] {
            options.dry_run = dry_run;
            let before = program.picture();
            let outcome = apply(&options);
            expect(&outcome, exit);
            assert!(outcome.text(false).contains(words), "{}", outcome.text(false));
            before.assert_same(&program.picture(), words);
        }
    }
    let file = BundleFile::of_bytes(&signed);
    let mut options = file.options(program.pid);
    options.required_keys = vec![one.public, other.public];
    expect(&apply(&options), ExitCode::Updated);
}

#[test]
fn wrong_builds_and_wrong_processes() {
    let [_, new, third] = versions();
    let file = BundleFile::new(&first_bundle());
    let words = ["its answer is build", &*third.build_id];
    refused(&Program::start(&third.path, &[]), &file, ExitCode::WrongBuild, &words);
    let words = ["runs answer already", "since its start"];
    refused(&Program::start(&new.path, &[]), &file, ExitCode::AlreadyApplied, &words);
    let other = build("threads", 1, &[]);
    let program = Program::start(&other.path, &["2", "0"]);
    refused(&program, &file, ExitCode::WrongBuild, &["does not run build", &other.build_id]);
}

#[test]
fn no_process() {
    let [old, ..] = versions();
    let file = BundleFile::new(&first_bundle());
    let mut program = Program::start(&old.path, &[]);
    program.kill_only();
    let outcome = file.apply(program.pid);
    expect(&outcome, ExitCode::NoProcess);
    assert!(outcome.text(false).contains("has ended"), "{}", outcome.text(false));
    let pid = program.pid;
    drop(program);
    expect(&file.apply(pid), ExitCode::NoProcess);
    expect(&file.apply(0), ExitCode::NoProcess);
    expect(&file.apply(-1), ExitCode::NoProcess);
}

#[test]
fn a_thread_is_not_a_process() {
    let file = BundleFile::new(&first_bundle());
    let program = Program::start(&build("threads", 1, &[]).path, &["2", "0"]);
    let tids = dsu_injector::ptrace::process::thread_ids(program.pid).unwrap();
    let tid = *tids.iter().find(|t| **t != program.pid).unwrap();
    let outcome = file.apply(tid);
    expect(&outcome, ExitCode::NoProcess);
    let advice = format!("use --pid {}", program.pid);
    assert!(outcome.text(false).contains(&advice), "{}", outcome.text(false));
}

#[test]
fn another_users_process() {
    let [old, ..] = versions();
    let program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&first_bundle());
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    });
    // Tool and bundle where anybody may read them.
    let dir = tempfile::Builder::new().permissions(all_may_read()).tempdir_in("/tmp").unwrap();
    let (tool, copy) = (dir.path().join("dsu-apply"), dir.path().join("bundle"));
    std::fs::copy(env!("CARGO_BIN_EXE_dsu-apply"), &tool).unwrap();
    std::fs::copy(file.0.path(), &copy).unwrap();
    std::fs::set_permissions(&copy, all_may_read()).unwrap();
    let mut command = Command::new(&tool);
    let pid = if root {
        command.uid(65534).gid(65534);
        program.pid
    } else {
        1
    };
    let before = program.picture();
    let done = command.arg(&copy).args(["--pid", &pid.to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(12), "{text}");
    assert!(text.contains("belongs to user 0") && text.contains("as root"), "{text}");
    before.assert_same(&program.picture(), "another user");
}

fn all_may_read() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o755)
}

#[test]
fn a_traced_process() {
    let [old, ..] = versions();
    let program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&first_bundle());
    let tracer = Running::seize(program.pid).unwrap();
    let outcome = file.apply(program.pid);
    expect(&outcome, ExitCode::NotPermitted);
    assert!(outcome.text(false).contains("is traced by process"), "{}", outcome.text(false));
    drop(tracer);
    dsu_injector::ptrace::thread::let_go_of_the_rest();
    expect(&file.apply(program.pid), ExitCode::Updated);
}

#[test]
fn a_32_bit_process() {
    let dir = tempfile::tempdir().unwrap();
    let (source, path) = (dir.path().join("small.c"), dir.path().join("small"));
    // pause(), forever, without any library.
    let code = "void _start(void) { for (;;) __asm__ volatile(\"int $0x80\" :: \"a\"(29)); }";
    std::fs::write(&source, code).unwrap();
    let built = Command::new("gcc")
        .args(["-m32", "-nostdlib", "-static", "-o"])
        .args([&path, &source])
        .status();
    assert!(built.unwrap().success(), "gcc -m32 -nostdlib");
    let mut child = Command::new(&path).stdin(Stdio::null()).spawn().unwrap();
    let outcome = BundleFile::new(&first_bundle()).apply(i32::try_from(child.id()).unwrap());
    let _ = child.kill();
    let _ = child.wait();
    expect(&outcome, ExitCode::NotX8664);
    assert!(outcome.text(false).contains("32-bit"), "{}", outcome.text(false));
}

#[test]
fn imports() {
    let [old, ..] = versions();
    let mut program = Program::start(&old.path, &[]);
    let import = |name: &str, version: Option<&str>, weak| Import {
        name: name.into(),
        version: version.map(str::to_owned),
        weak,
    };
    let mut bundle = first_bundle();
    // Ordinary, of a certain version, indirect (strlen is one in glibc), absent but weak.
    bundle.plan.imports = vec![
        import("getpid", None, false),
        import("fclose", Some("GLIBC_2.2.5"), false),
        import("strlen", None, false),
        import("no_such_function", None, true),
    ];
    let found = Target::look(program.pid, &bundle).map(|t| t.imports).unwrap();
    for (address, name) in found.iter().zip(["getpid", "fclose", "strlen"]) {
        assert_eq!(i64::try_from(*address), Ok(program.number(&format!("d{name}"))), "{name}");
    }
    assert_eq!(found[3], 0);
    for missing in [
        import("no_such_function", None, false),
        import("getpid", Some("NO_SUCH_VERSION"), false),
        import("errno", None, false),
    ] {
        let name = missing.name.clone();
        bundle.plan.imports = vec![missing];
        refused(&program, &BundleFile::new(&bundle), ExitCode::Unsuitable, &[&name]);
    }
}

/// What happens to a process while an update waits for a function to leave the stack.
fn meanwhile(what: impl FnOnce(&mut Program) + Send + 'static) -> dsu_injector::Outcome {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.ask("i"), "inside");
    program.settle();
    let file = BundleFile::new(&bundle(&old, &new, &["inside"], &[]));
    let mut options = file.options(program.pid);
    options.timeout = Duration::from_secs(10);
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        what(&mut program);
        program
    });
    let outcome = apply(&options);
    drop(other.join());
    outcome
}

#[test]
fn the_process_dies_meanwhile() {
    expect(&meanwhile(Program::kill_only), ExitCode::Died);
}

#[test]
fn the_process_executes_another_program_meanwhile() {
    // Ends `inside`, and executes at once. A checkpoint in between would be luck.
    let outcome = meanwhile(|program| {
        program.tell("xx");
        std::thread::sleep(Duration::from_millis(300));
    });
    assert!(matches!(outcome.exit(), ExitCode::Died | ExitCode::Updated), "{}", outcome.text(true));
}

#[test]
fn the_function_leaves_the_stack_meanwhile() {
    expect(&meanwhile(|program| program.tell("x")), ExitCode::Updated);
}

#[test]
fn usage() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_dsu-apply")).args(arguments).output().unwrap()
    };
    for arguments in [
        &[][..],
        &["bundle"],
        &["bundle", "--pid", "x"],
        &["bundle", "--pid", "0"],
        &["bundle", "--pid", "1", "--inspect"],
        &["bundle", "--pid", "1", "--require-signature", "/no/such/key"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    for code in ExitCode::ALL {
        assert!(text.contains(&format!("{:>2}  {}", code.code(), code.meaning())), "{text}");
    }
    let json = run(&["/no/such/bundle", "--pid", "1", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &report["exit"]), (Some(10), &10.into()));
    assert_eq!(report["outcome"], "bundle");
}
