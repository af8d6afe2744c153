//! What the tests of the injector share: two builds of a small C program, a bundle made of them by
//! hand, a running child that answers questions, pictures of its memory.
//!
//! The bundles here are made without dsu-build: whole functions of NEW, with their calls and
//! operands that lead to named symbols fixed up by comparing numbers. That is enough for programs
//! that were written for it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod calls;
pub mod deaths;
pub mod sites;

use dsu_injector::{ApplyOptions, Outcome, apply};
use dsu_patch_format::manifest::{BuildInfo, Coverage, ImageKind, Manifest, ReplacedFunction};
use dsu_patch_format::plan::{
    BlindRange, DataWrite, Fixup, FixupKind, Identity, LineRow, MapRun, MapTarget, Plan,
    Protection, Redirect, RedirectForm, Segment, Target, UnwindRow,
};
use dsu_patch_format::{Bundle, NewAddr, OldAddr, PublicKey, SigningKey, encode};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Every wait of a test ends after this.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A function or variable of a build.
#[derive(Debug, Clone)]
pub struct Symbol {
    pub address: u64,
    pub size: u64,
    pub is_function: bool,
    pub bytes: Vec<u8>,
}

/// One build of a program.
#[derive(Debug, Clone)]
pub struct Build {
    pub path: PathBuf,
    pub build_id: String,
    pub extent: (u64, u64),
    pub symbols: BTreeMap<String, Symbol>,
    /// Program points that the source names `site_...`.
    pub points: BTreeMap<String, u64>,
    /// The section `.text`, with its address.
    pub text: (u64, Vec<u8>),
}

/// Compiles `tests/programs/NAME.c` with `-DVERSION=version` and these flags.
pub fn build(name: &str, version: u32, flags: &[&str]) -> Build {
    // Once in a test program: a running child's file must not be replaced under it.
    static BUILT: Mutex<BTreeMap<String, Build>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {version} {flags:?}");
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(key).or_insert_with(|| compile(name, version, flags)).clone()
}

fn compile(name: &str, version: u32, flags: &[&str]) -> Build {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/{name}.c"));
    let tag: String =
        flags.iter().flat_map(|f| f.chars()).filter(|c| c.is_alphanumeric()).collect();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{version}-{tag}"));
    std::fs::create_dir_all(&dir).unwrap();
    // Two test programs may run side by side: build aside, then rename.
    let unique = format!("{name}.{}", std::process::id());
    let (aside, path) = (dir.join(unique), dir.join(name));
    // The compiler comes first where it is another one.
    let (compiler, flags) = match flags.split_first() {
        Some((first, rest)) if first.ends_with("-gcc") => (*first, rest),
        _ => ("gcc", flags),
    };
    let done = Command::new(compiler)
        .args(["-O2", "-g", "-pthread", "-Wl,--build-id", "-fno-ipa-ra", "-fcf-protection=none"])
        .arg(format!("-DVERSION={version}"))
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(&aside)
        .status()
        .unwrap_or_else(|e| panic!("{compiler} is not installed: {e}"));
    assert!(done.success(), "{compiler} failed on {}", source.display());
    std::fs::rename(&aside, &path).unwrap();
    read_build(&path)
}

fn read_build(path: &Path) -> Build {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let build_id = file.build_id().unwrap().expect("a build id");
    let start = file.segments().map(|s| s.address()).min().unwrap();
    let end = file.segments().map(|s| s.address() + s.size()).max().unwrap();
    let text = file.section_by_name(".text").unwrap();
    let mut symbols = BTreeMap::new();
    let mut points = BTreeMap::new();
    for symbol in file.symbols().filter(|s| s.is_definition()) {
        let kind = symbol.kind();
        if !matches!(kind, object::SymbolKind::Text | object::SymbolKind::Data)
            || symbol.size() == 0
        {
            continue;
        }
        if let Some(point) = symbol.name().unwrap().strip_prefix("site_") {
            points.insert(point.to_owned(), symbol.address());
            continue;
        }
        let section = symbol.section_index().and_then(|i| file.section_by_index(i).ok());
        let bytes = section.and_then(|s| s.data_range(symbol.address(), symbol.size()).ok()?);
        symbols.insert(
            symbol.name().unwrap().to_owned(),
            Symbol {
                address: symbol.address(),
                size: symbol.size(),
                is_function: kind == object::SymbolKind::Text,
                bytes: bytes.unwrap_or_default().to_vec(),
            },
        );
    }
    Build {
        path: path.to_owned(),
        build_id: build_id.iter().map(|b| format!("{b:02x}")).collect(),
        extent: (start, end),
        symbols,
        points,
        text: (text.address(), text.data().unwrap().to_vec()),
    }
}

impl Build {
    pub fn symbol(&self, name: &str) -> &Symbol {
        self.symbols.get(name).unwrap_or_else(|| panic!("no symbol {name}"))
    }

    /// Bytes of a function and of the padding behind it; of a variable its size.
    pub fn room(&self, name: &str) -> u64 {
        let symbol = self.symbol(name);
        if !symbol.is_function {
            return symbol.size;
        }
        let next = self.symbols.values().filter(|s| s.is_function && s.address > symbol.address);
        let next = next.map(|s| s.address - symbol.address).min().unwrap_or(symbol.size);
        symbol.size.next_multiple_of(16).min(next)
    }

    /// Code, wherever it ends.
    pub fn code(&self, at: u64, len: usize) -> &[u8] {
        let start = usize::try_from(at - self.text.0).unwrap();
        &self.text.1[start..start + len]
    }

    fn info(&self) -> BuildInfo {
        BuildInfo {
            build_id: self.build_id.clone(),
            file: self.path.file_name().unwrap().to_str().unwrap().to_owned(),
            kind: ImageKind::Executable,
            sha256: "0f".repeat(32),
            debug: None,
        }
    }
}

/// A bundle that replaces the functions `replaced` of OLD by NEW's, carrying NEW's `added` along.
pub fn bundle(old: &Build, new: &Build, replaced: &[&str], added: &[&str]) -> Bundle {
    let mut carried: Vec<&str> = replaced.iter().chain(added).copied().collect();
    carried.sort_by_key(|name| new.symbol(name).address);
    let mut plan = Plan {
        old_start: OldAddr(old.extent.0),
        old_end: OldAddr(old.extent.1),
        files: vec!["program.c".into()],
        ..Plan::default()
    };
    for name in &carried {
        let symbol = new.symbol(name);
        let protection = if symbol.is_function { Protection::Text } else { Protection::Data };
        let mut bytes = symbol.bytes.clone();
        if symbol.is_function {
            // The padding behind it, where the next update may have to write.
            bytes = new.code(symbol.address, usize::try_from(new.room(name)).unwrap()).to_vec();
        }
        plan.segments.push(Segment {
            start: NewAddr(symbol.address),
            zeroes: symbol.size.saturating_sub(bytes.len() as u64),
            bytes,
            protection,
        });
        plan.fixups.extend(fixups(old, new, symbol, &carried));
    }
    let mut by_old: Vec<&str> = replaced.to_vec();
    by_old.sort_by_key(|name| old.symbol(name).address);
    let mut functions = Vec::new();
    for (index, name) in by_old.iter().enumerate() {
        let (from, to) = (old.symbol(name), new.symbol(name));
        let expect = from.bytes[..from.bytes.len().min(16)].to_vec();
        plan.redirects.push(Redirect {
            entry: OldAddr(from.address),
            at: OldAddr(from.address),
            form: RedirectForm::Near,
            to: NewAddr(to.address),
            mask: vec![0; expect.len()],
            expect,
        });
        plan.blind.push(BlindRange {
            start: OldAddr(from.address),
            end: OldAddr(from.address + from.size),
            free: vec![OldAddr(from.address)],
            function: u32::try_from(index).unwrap(),
        });
        let line = u32::try_from(index).unwrap() + 1;
        plan.lines.push(LineRow { start: OldAddr(from.address), file: 0, line });
        plan.identities.push(Identity { new: NewAddr(to.address), old: OldAddr(from.address) });
        functions.push(ReplacedFunction {
            name: (*name).to_owned(),
            old: OldAddr(from.address),
            old_size: from.size,
            new: Some(NewAddr(to.address)),
            new_size: to.size,
            file: "program.c".into(),
            line,
            why: vec!["the test says so".into()],
            coverage: Coverage::default(),
        });
    }
    plan.identities.sort_by_key(|i| i.new);
    plan.unwind = unwind_rows(new, &carried);
    plan.map = map(old, new, &carried);
    Bundle {
        manifest: Manifest {
            tool: "test".into(),
            options: Vec::new(),
            old: old.info(),
            new: new.info(),
            replaced: functions,
            added: Vec::new(),
            line_only: Vec::new(),
            data: Vec::new(),
            blind_points: Vec::new(),
            warnings: Vec::new(),
        },
        plan,
        frames: Vec::new(),
    }
}

/// How frames of these functions are unwound: rows that count by the stack pointer, with saved registers.
fn unwind_rows(new: &Build, carried: &[&str]) -> Vec<UnwindRow> {
    use gimli::{BaseAddresses, CfaRule, EhFrame, LittleEndian, RegisterRule, UnwindSection};
    // By the processor's numbers, which differ from DWARF's.
    let number = |r: gimli::Register| [0, 2, 1, 3, 6, 7, 5, 4][..].get(usize::from(r.0)).copied();
    let number = |r: gimli::Register| number(r).unwrap_or(u8::try_from(r.0).unwrap());
    let data = std::fs::read(&new.path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let section = file.section_by_name(".eh_frame").unwrap();
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let frames = EhFrame::new(section.data().unwrap(), LittleEndian);
    let mut rows = Vec::new();
    for name in carried.iter().filter(|name| new.symbol(name).is_function) {
        let at = new.symbol(name).address;
        let fde = frames.fde_for_address(&bases, at, EhFrame::cie_from_offset).unwrap();
        let mut context = gimli::UnwindContext::new();
        let mut table = fde.rows(&frames, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else { continue };
            let saved = row.registers().filter_map(|(r, rule)| match rule {
                RegisterRule::Offset(at) if r.0 < 16 => {
                    Some((number(*r), i32::try_from(*at).unwrap()))
                }
                _ => None,
            });
            rows.push(UnwindRow {
                start: NewAddr(row.start_address()),
                len: u32::try_from(row.end_address() - row.start_address()).unwrap(),
                cfa: (number(*register), i32::try_from(*offset).unwrap()),
                saved: saved.collect(),
            });
        }
    }
    rows
}

/// Fields of `symbol` that end 4 bytes before an address with a name, relative to their own end.
fn fixups(old: &Build, new: &Build, symbol: &Symbol, carried: &[&str]) -> Vec<Fixup> {
    let mut found: Vec<Fixup> = Vec::new();
    if !symbol.is_function {
        return found;
    }
    let mut at = 0;
    while at + 4 <= symbol.bytes.len() {
        let field = i32::from_le_bytes(symbol.bytes[at..at + 4].try_into().unwrap());
        let place = symbol.address + at as u64;
        let target = (place + 4).wrapping_add_signed(i64::from(field));
        let named = new.symbols.iter().find(|(name, s)| {
            s.address == target && s.address != symbol.address && old.symbols.contains_key(*name)
        });
        match named {
            Some((name, _)) if !carried.contains(&name.as_str()) => {
                let to = old.symbol(name);
                let address = OldAddr(to.address);
                found.push(Fixup {
                    at: NewAddr(place),
                    kind: FixupKind::Rel32,
                    addend: -4,
                    target: if to.is_function {
                        Target::OldCode(address)
                    } else {
                        Target::Old(address)
                    },
                });
                at += 4;
            }
            _ => at += 1,
        }
    }
    found
}

/// Kept symbols where OLD has them, carried ones in the shadow image.
fn map(old: &Build, new: &Build, carried: &[&str]) -> Vec<MapRun> {
    let mut symbols: Vec<_> = new.symbols.iter().collect();
    symbols.sort_by_key(|(_, s)| s.address);
    let mut runs: Vec<MapRun> = Vec::new();
    for (name, symbol) in symbols {
        let to = match old.symbols.get(name) {
            _ if carried.contains(&name.as_str()) => MapTarget::Shadow,
            Some(kept) if kept.size == symbol.size => MapTarget::Old(OldAddr(kept.address)),
            _ => continue,
        };
        let free = runs.last().is_none_or(|r| r.start.0 + r.len <= symbol.address);
        if free {
            let len = if to == MapTarget::Shadow { new.room(name) } else { symbol.size };
            runs.push(MapRun { start: NewAddr(symbol.address), len, to });
        }
    }
    runs
}

/// Adds a write of `bytes` to the variable `name`.
pub fn write_data(bundle: &mut Bundle, old: &Build, name: &str, bytes: &[u8]) {
    bundle.plan.writes.push(DataWrite {
        at: OldAddr(old.symbol(name).address),
        bytes: bytes.to_vec(),
        pointers: Vec::new(),
    });
}

/// A bundle in a file that is removed in the end.
pub struct BundleFile(pub tempfile::NamedTempFile);

impl BundleFile {
    pub fn new(bundle: &Bundle) -> Self {
        Self::of_bytes(&encode(bundle).expect("a valid bundle"))
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Self(file)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub fn options(&self, pid: i32) -> ApplyOptions {
        let mut options = ApplyOptions::new(self.0.path(), pid);
        options.timeout = Duration::from_secs(2);
        options
    }

    pub fn apply(&self, pid: i32) -> Outcome {
        apply(&self.options(pid))
    }
}

/// Runs `dsu-apply` to its end.
pub fn tool(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_dsu-apply")).args(arguments).output().unwrap()
}

/// A pair of the keys that tests sign with.
pub struct Key {
    pub signing: SigningKey,
    pub public: PublicKey,
}

impl Key {
    pub fn path(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../patch-format/tests/keys").join(name)
    }

    pub fn read(name: &str) -> Self {
        let text = |name| std::fs::read_to_string(Self::path(name)).unwrap();
        Self {
            signing: SigningKey::from_pem(&text(&format!("{name}.pem"))).unwrap(),
            public: PublicKey::from_pem(&text(&format!("{name}.pub"))).unwrap(),
        }
    }
}

/// A running program that answers one line to each line that it is told.
pub struct Program {
    child: Child,
    /// Until it is closed.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    pub pid: i32,
}

impl Program {
    pub fn start(path: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(arguments);
        Self::run(command)
    }

    /// As [`Self::start`], in surroundings of the caller's.
    pub fn run(mut command: Command) -> Self {
        let mut child = command
            // The kernel writes the processor's number into each thread's rseq area whenever the
            // thread moves: not a change of ours.
            .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let pid = i32::try_from(child.id()).unwrap();
        let program = Self { input: child.stdin.take(), child, lines, pid };
        assert_eq!(program.line(), "ready");
        program
    }

    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program answers")
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Gives it some bytes without the end of a line.
    pub fn feed(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    /// Lets it read the end of its input.
    pub fn close(&mut self) {
        self.input = None;
    }

    pub fn ask(&mut self, question: &str) -> String {
        self.tell(question);
        self.line()
    }

    pub fn number(&mut self, question: &str) -> i64 {
        let answer = self.ask(question);
        answer.parse().unwrap_or_else(|_| panic!("{answer} is no number"))
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not end");
    }

    /// Kills it and leaves the zombie.
    pub fn kill_only(&mut self) {
        let _ = self.child.kill();
        let dead = || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
            status.map_or(true, |s| s.contains(") Z "))
        };
        for _ in 0..2000 {
            if dead() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not die");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(done.unwrap().success());
    }

    /// Waits until its main thread is in the system call with this number, with its first argument
    /// not standard input.
    pub fn wait_for_call(&self, number: u64) {
        for _ in 0..2000 {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid)).unwrap();
            let mut fields = call.split(' ');
            let same = fields.next() == Some(&number.to_string());
            if same && fields.next().is_some_and(|first| first != "0x0") {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come to call {number}");
    }

    /// Waits until it has used so many clock ticks of a processor by itself (`utime`, proc(5)).
    pub fn has_run_for(&self, ticks: u64) {
        let start = Instant::now();
        let used = || -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
            let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            fields.nth(11).unwrap().parse().unwrap()
        };
        while used() < ticks {
            assert!(start.elapsed() < PATIENCE, "it does not run");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes into the pipe that its signal handler waits for.
    pub fn open_gate(&self) {
        let write_end = format!("/proc/{}/fd/4", self.pid);
        std::fs::OpenOptions::new().write(true).open(write_end).unwrap().write_all(b"x").unwrap();
    }

    /// Waits until its main thread sleeps in the kernel, as it does between questions.
    pub fn settle(&self) {
        for _ in 0..2000 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
            if stat.contains(") S ") || stat.contains(") T ") {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come to rest");
    }

    /// Everything that must be the same after a failed update: mappings, memory, registers that
    /// can be seen, signal state, tracer.
    pub fn picture(&self) -> Picture {
        self.settle();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let keep =
            ["TracerPid", "SigPnd", "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "Threads", "State"];
        let status = status.lines().filter(|l| keep.iter().any(|k| l.starts_with(k)));
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let syscall = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid)).unwrap();
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut content = BTreeMap::new();
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if rest.starts_with("rw-p") || rest.starts_with("r-xp") {
                let (start, end) = range.split_once('-').unwrap();
                let start = u64::from_str_radix(start, 16).unwrap();
                let end = u64::from_str_radix(end, 16).unwrap();
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                use std::os::unix::fs::FileExt;
                if memory.read_exact_at(&mut bytes, start).is_ok() {
                    content.insert(start, bytes);
                }
            }
        }
        Picture { maps, status: status.map(str::to_owned).collect(), syscall, content }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// See [`Program::picture`].
#[derive(PartialEq, Eq)]
pub struct Picture {
    maps: String,
    status: Vec<String>,
    syscall: String,
    content: BTreeMap<u64, Vec<u8>>,
}

impl Picture {
    /// Without what is below the red zone of the first thread's stack: in use by nobody.
    pub fn in_use(mut self) -> Self {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let fields: Vec<&str> = self.syscall.split_whitespace().collect();
        let sp = hex(fields[fields.len() - 2]);
        let found = self
            .content
            .iter_mut()
            .find(|(start, bytes)| (**start..**start + bytes.len() as u64).contains(&sp));
        let (start, bytes) = found.unwrap();
        bytes[..usize::try_from(sp - 128 - start).unwrap()].fill(0);
        self
    }

    /// Fails with what differs.
    pub fn assert_same(&self, after: &Self, when: &str) {
        assert_eq!(self.maps, after.maps, "{when}: mappings");
        assert_eq!(self.status, after.status, "{when}: status");
        assert_eq!(self.syscall, after.syscall, "{when}: system call");
        for (start, before) in &self.content {
            let now = after.content.get(start).unwrap_or_else(|| panic!("{when}: {start:#x} gone"));
            let differs = before.iter().zip(now).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{when}: memory from {start:#x} on");
        }
    }
}

/// Fails with the whole outcome unless it is this exit code.
#[track_caller]
pub fn expect(outcome: &Outcome, exit: dsu_injector::ExitCode) {
    assert_eq!(outcome.exit(), exit, "{}", outcome.text(true));
}
