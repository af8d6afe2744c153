//! Processes that are out of sight or out of reach in one way or another: in namespaces of their own, without
//! their file, under another root, of other users; updated all the same, or refused with the reason.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::target::maps::{Mapping, Maps};
use dsu_injector::{ExitCode, revert};
use std::path::Path;
use std::process::{Command, Output};

/// Without libraries, so that it runs under any root.
const STATIC: &[&str] = &["-static"];

fn versions(flags: &[&str]) -> [Build; 2] {
    [1, 2].map(|version| build("hardened", version, flags))
}

fn file(flags: &[&str]) -> BundleFile {
    let [old, new] = versions(flags);
    BundleFile::new(&bundle(&old, &new, &["answer"], &[]))
}

fn updated(program: &mut Program, pid: i32, flags: &[&str]) {
    assert_eq!(program.number("a4"), 41);
    expect(&file(flags).apply(pid), ExitCode::Updated);
    assert_eq!(program.number("a4"), 42);
}

/// Namespaces as unshare(1) makes them. Where a system does not let anybody have them, there is nothing to
/// test, and that is said: the numbers of `/proc` are tested below in any case.
fn in_namespaces(arguments: &[&str]) -> Option<Program> {
    let permitted = Command::new("unshare").args(arguments).arg("true").output().unwrap();
    if !permitted.status.success() {
        let why = String::from_utf8_lossy(&permitted.stderr);
        println!("NOT TESTED: unshare {arguments:?} is not permitted here: {why}");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(arguments).arg(&versions(&[])[0].path);
    Some(Program::run(command))
}

/// Of a process that has one child: that one.
fn child_of(pid: i32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn in_other_namespaces() {
    for arguments in [
        &["--mount"][..],
        &["--user"],
        &["--user", "--map-root-user", "--mount"],
        &["--pid", "--fork", "--kill-child"],
        &[
            "--user",
            "--map-root-user",
            "--pid",
            "--mount",
            "--net",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ],
    ] {
        let Some(mut program) = in_namespaces(arguments) else { continue };
        let forks = arguments.contains(&"--fork");
        let pid = if forks { child_of(program.pid) } else { program.pid };
        updated(&mut program, pid, &[]);
    }
}

/// The tool itself, run with these words before it.
fn tool(before: &[&str], file: &Path, pid: i32) -> Output {
    let tool = env!("CARGO_BIN_EXE_dsu-apply");
    let mut words = before.iter().map(Path::new).chain([Path::new(tool)]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(file).args(["--pid", &pid.to_string()]).output().unwrap()
}

/// By its own numbers in its own `/proc`; never by those of another namespace.
#[test]
fn the_tool_in_a_namespace() {
    let mut program = Program::start(&versions(&[])[0].path, &[]);
    let inside = ["unshare", "--pid", "--fork", "--kill-child"];
    if in_namespaces(&inside[1..]).is_none() {
        return;
    }
    let bundle = file(&[]);
    let done = tool(&inside, bundle.0.path(), program.pid);
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(12), "{text}");
    assert!(text.contains("/proc is that of another PID namespace"), "{text}");
    assert_eq!(program.number("a4"), 41);
    // A shell that starts it there. All of it ends with the shell, which is the first process.
    let old = &versions(&[])[0].path;
    let script = "tail -f /dev/null | \"$1\" >&2 & sleep 0.2; exec \"$2\" \"$3\" --pid $!";
    let mut command = Command::new(inside[0]);
    command.args(&inside[1..]).args(["--mount-proc", "sh", "-c", script, "sh"]).arg(old);
    command.arg(env!("CARGO_BIN_EXE_dsu-apply")).arg(bundle.0.path());
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&done.stderr));
}

fn anybodys_dir() -> tempfile::TempDir {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().permissions(permissions).tempdir_in("/tmp").unwrap()
}

#[test]
fn under_another_root() {
    let dir = anybodys_dir();
    std::fs::copy(&versions(STATIC)[0].path, dir.path().join("hardened")).unwrap();
    let mut command = Command::new("chroot");
    command.arg(dir.path()).arg("/hardened");
    let mut program = Program::run(command);
    let pid = program.pid;
    updated(&mut program, pid, STATIC);
}

/// Its file is in a file system that nobody else sees.
#[test]
fn its_file_cannot_be_seen() {
    let dir = anybodys_dir();
    let script = "mount -t tmpfs none \"$1\" && cp \"$2\" \"$1\" && exec \"$1\"/hardened";
    let arguments = ["--mount", "sh", "-c", script, "sh"];
    if in_namespaces(&arguments[..1]).is_none() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(arguments).arg(dir.path()).arg(&versions(&[])[0].path);
    let mut program = Program::run(command);
    assert!(!dir.path().join("hardened").exists());
    let pid = program.pid;
    updated(&mut program, pid, &[]);
}

#[test]
fn its_file_is_gone_or_another_one() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hardened");
        std::fs::copy(&versions(&[])[0].path, &path).unwrap();
        let mut program = Program::start(&path, &[]);
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::copy(&versions(&[])[1].path, &path).unwrap();
        }
        let pid = program.pid;
        updated(&mut program, pid, &[]);
    }
}

/// Of one's own user: updated, unless it does not let itself be looked at.
#[test]
fn by_a_user_without_privileges() {
    const NOBODY: &str = "65534";
    assert!(nix::unistd::geteuid().is_root(), "this test needs root, to become somebody else");
    let dir = anybodys_dir();
    let (path, copy) = (dir.path().join("hardened"), dir.path().join("bundle"));
    let apply = dir.path().join("dsu-apply");
    std::fs::copy(&versions(&[])[0].path, &path).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_dsu-apply"), &apply).unwrap();
    std::fs::copy(file(&[]).0.path(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let run = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(user).args(more).arg(&path);
        Program::run(command)
    };
    let attempt = |program: &Program| {
        let mut command = Command::new("setpriv");
        command.args(user).arg(&apply).arg(&copy).args(["--pid", &program.pid.to_string()]);
        let done = command.output().unwrap();
        (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let refused = |program: &mut Program, words: &str| {
        let (code, text) = attempt(program);
        assert_eq!(code, 12, "{text}");
        assert!(text.contains(words) && text.contains("as root"), "{text}");
        assert_eq!(program.number("a4"), 41);
    };
    let mut program = run(&[]);
    assert_eq!(program.number("!D"), 0);
    refused(&mut program, "PR_SET_DUMPABLE");
    let pid = program.pid;
    updated(&mut program, pid, &[]);
    let mut program = Program::start(&path, &[]);
    assert_eq!(program.number("!u"), 0, "it becomes {NOBODY}");
    refused(&mut program, "changed its user");
    let pid = program.pid;
    updated(&mut program, pid, &[]);
    let capable = ["--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"];
    let mut program = run(&capable);
    refused(&mut program, "capabilities that you lack");
    let mut program = run(&[]);
    let (code, text) = attempt(&program);
    // A system with Yama lets a user trace nobody but children.
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if matches!(yama.trim(), "" | "0") {
        assert_eq!(code, 0, "{text}");
        assert_eq!(program.number("a4"), 42);
    } else {
        assert_eq!(code, 12, "{text}");
        assert!(text.contains("ptrace_scope"), "{text}");
        assert_eq!(program.number("a4"), 41);
    }
}

/// Executables of every kind, by both C libraries: without interpreter, dynamic section or symbol table of it,
/// at a fixed address, linked elsewhere than at 0 as by prelink.
#[test]
fn every_kind_of_executable() {
    dsu_samples::needs::install().unwrap();
    for flags in [
        &["-static"][..],
        &["-static-pie"],
        &["-no-pie"],
        &["-fuse-ld=lld", "-Wl,--image-base=0x4000000"],
        &["-static", "-Wl,-Ttext-segment=0x70000000"],
        &["musl-gcc"],
        &["musl-gcc", "-static"],
        &["musl-gcc", "-static-pie"],
    ] {
        let [old, new, third] = [1, 2, 3].map(|version| build("answer", version, flags));
        let mut program = Program::start(&old.path, &[]);
        let one = BundleFile::new(&bundle(&old, &new, &["answer"], &["added", "bonus"]));
        let two = BundleFile::new(&bundle(&new, &third, &["answer", "other"], &[]));
        println!("{flags:?}");
        assert_eq!(program.number("a5"), 6);
        expect(&one.apply(program.pid), ExitCode::Updated);
        assert_eq!(program.number("a5"), 120);
        expect(&two.apply(program.pid), ExitCode::Updated);
        assert_eq!((program.number("a5"), program.number("o0")), (12_003, 0xaa));
        expect(&revert(&one.options(program.pid)), ExitCode::Updated);
        assert_eq!((program.number("a5"), program.number("p5")), (120, 120));
    }
}

/// Text in anonymous huge pages, alone or with the headers of the file.
#[test]
fn text_in_huge_pages() {
    let flags = ["-Wl,-z,max-page-size=0x200000"];
    let [old, new] = [1, 2].map(|version| build("huge", version, &flags));
    let file = BundleFile::new(&bundle(&old, &new, &["answer"], &[]));
    for arguments in [&[][..], &["headers"]] {
        let mut program = Program::start(&old.path, arguments);
        let maps = Maps::of(program.pid).unwrap();
        let text = |m: &&Mapping| m.executable && m.inode == 0 && m.name.is_empty();
        let text = maps.0.iter().find(text).expect("its text is in anonymous memory");
        assert!(huge_kb(program.pid, text) >= 2048 || !may_be_huge(), "in huge pages");
        assert_eq!(program.number("a4"), 41);
        expect(&file.apply(program.pid), ExitCode::Updated);
        assert_eq!(program.number("a4"), 42);
        expect(&revert(&file.options(program.pid)), ExitCode::Updated);
        assert_eq!(program.number("a4"), 41);
    }
}

/// Whether the system gives huge pages to those who ask for them.
fn may_be_huge() -> bool {
    let how = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let may = how.is_ok_and(|how| !how.contains("[never]"));
    if !may {
        println!("NOT TESTED: this system has no huge pages; the text is in small anonymous ones");
    }
    may
}

fn huge_kb(pid: i32, mapping: &Mapping) -> u64 {
    let all = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let start = format!("{:x}-", mapping.start.0);
    let of = all.lines().skip_while(|line| !line.starts_with(&start));
    let line = of.into_iter().find(|line| line.starts_with("AnonHugePages:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
