//! The harness: states in, states out.

use dsu_patch_format::plan::{Fixup, FixupKind, Target};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where the harness puts the stub, and where NEW is.
pub const STUB: u64 = 0x1000_0000;
pub const LANDING: u64 = 0x1004_0000;
/// The canonical frame address of every case.
pub const CFA: u64 = 0x2001_0000;
/// Memory of a case: so much below and above the CFA.
pub const BELOW: u64 = 8192;
pub const ABOVE: u64 = 512;
/// How far OLD is from where it is linked.
pub const OLD_BIAS: u64 = 0x3000_0000;
/// Where imports are.
pub const IMPORT: u64 = 0x7f12_3456_7890;

const HEADER: usize = 192;
const STATE: usize = HEADER + 32 * 64;

/// The processor and the stack around one frame.
#[derive(Clone)]
pub struct State {
    pub general: [u64; 16],
    pub flags: u64,
    pub canary: u64,
    /// Instructions that the stub took.
    pub steps: u64,
    pub vector: [[u8; 64]; 32],
    pub memory: Vec<u8>,
}

impl State {
    /// Bytes of the stack, from CFA + `cfa` on.
    pub fn stack(&self, cfa: i64, bytes: u32) -> &[u8] {
        let from = usize::try_from(cfa + BELOW.cast_signed()).unwrap();
        &self.memory[from..from + bytes as usize]
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.general.iter().for_each(|r| out.extend(r.to_le_bytes()));
        out.extend(self.flags.to_le_bytes());
        out.resize(start + HEADER, 0);
        self.vector.iter().for_each(|v| out.extend(v));
        out.extend(&self.memory);
    }

    fn decode(bytes: &[u8]) -> Self {
        let word = |i: usize| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap());
        Self {
            general: std::array::from_fn(word),
            flags: word(16),
            canary: word(17),
            steps: word(18),
            vector: std::array::from_fn(|i| {
                bytes[HEADER + 64 * i..HEADER + 64 * (i + 1)].try_into().unwrap()
            }),
            memory: bytes[STATE..].to_vec(),
        }
    }
}

/// The compiled harness.
pub struct Machine {
    _directory: tempfile::TempDir,
    program: PathBuf,
}

impl Machine {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("harness");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stubs/harness.c");
        let status =
            Command::new("gcc").args(["-O1", source, "-o"]).arg(&program).status().unwrap();
        assert!(status.success(), "gcc");
        Self { _directory: directory, program }
    }

    /// Runs each stub on its state.
    pub fn run<'a>(&self, cases: impl Iterator<Item = (&'a [u8], &'a State)>) -> Vec<State> {
        let mut input = Vec::new();
        let mut count = 0;
        for (stub, state) in cases {
            input.extend((stub.len() as u64).to_le_bytes());
            input.extend(stub);
            state.encode(&mut input);
            count += 1;
        }
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || pipe.write_all(&input));
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        let _ = writer.join();
        assert!(child.wait().unwrap().success(), "the harness says why");
        let size = STATE + usize::try_from(BELOW + ABOVE).unwrap();
        assert_eq!(output.len(), count * size);
        output.chunks(size).map(State::decode).collect()
    }
}

/// What apply does with fix-ups.
pub fn fix(bytes: &mut [u8], fixups: &[Fixup]) {
    for fixup in fixups {
        let value = address(fixup.target).wrapping_add_signed(fixup.addend);
        let field = usize::try_from(fixup.at.0 - STUB).unwrap();
        match fixup.kind {
            FixupKind::Rel32 => {
                let distance = value.wrapping_sub(fixup.at.0).cast_signed();
                let distance = i32::try_from(distance).expect("within reach");
                bytes[field..field + 4].copy_from_slice(&distance.to_le_bytes());
            }
            FixupKind::Abs64 => bytes[field..field + 8].copy_from_slice(&value.to_le_bytes()),
            FixupKind::Abs32 => panic!("not in stubs"),
        }
    }
}

/// Where a target is in the process.
pub fn address(target: Target) -> u64 {
    match target {
        Target::Old(a) | Target::OldCode(a) => a.0 + OLD_BIAS,
        Target::OldIdentity(a) => a.0 + OLD_BIAS - 0x1000,
        Target::New(a) => a.0,
        Target::Import(i) => IMPORT + u64::from(i),
    }
}
