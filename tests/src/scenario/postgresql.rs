//! PostgreSQL: a postmaster, its helpers, and 20 connected backends, updated by one command.
//!
//! Not a ladder: one change of the server, which every process of it runs. The server is built; the cluster is
//! made by the package's own `initdb`, and as nobody, for it does not run as root.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dsu_samples::tools::Tools;
use tempfile::TempDir;

use crate::clients::postgres::Postgres;
use crate::corpus::Ladder;
use crate::load::{Client, Load};
use crate::process::{Guard, descendants, free_port, wait_for_port, wait_until};
use crate::report::{Report, Verdict};
use crate::tool;

/// Connected backends.
const BACKENDS: usize = 20;
/// `nobody` and `nogroup` (base-passwd).
const NOBODY: u32 = 65_534;
/// What the function answers before the change and after it.
const ANSWERS: [&str; 2] = ["97", "98"];
const CASE: &str = "20 backends, one command";
/// How long it may take to start.
const READY: Duration = Duration::from_secs(30);
const INITDB: &str = "/usr/lib/postgresql/15/bin/initdb";

/// Updates a cluster under load, there and back.
pub fn run(ladder: &Ladder, tools: &Tools, report: &mut Report) {
    let key = ladder.recipe.key;
    match update(ladder, tools) {
        Ok((text, pause)) => report.add(key, CASE, Verdict::Passed, &text, pause),
        Err(error) => report.failure(key, CASE, &error),
    }
}

/// A running cluster, in a directory that is removed in the end.
struct Cluster {
    // Ends before its directory goes: fields are dropped in this order.
    postmaster: Guard,
    port: u16,
    dir: TempDir,
}

impl Cluster {
    fn start(program: &Path) -> Result<Cluster> {
        let dir = TempDir::new()?;
        // Where the program was built nobody may look.
        let server = dir.path().join("postgres");
        std::fs::copy(program, &server)?;
        let owned = nix::unistd::geteuid().is_root();
        if owned {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let as_nobody = |program: &Path| {
            let mut command = Command::new(program);
            if owned {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir(dir.path()).env("LC_ALL", "C");
            command
        };
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        let mut initdb = as_nobody(Path::new(INITDB));
        initdb.arg("-D").arg(&data).args(["-U", "tester", "-A", "trust", "-N", "--locale=C"]);
        let done = initdb.output().with_context(|| format!("run {INITDB}"))?;
        ensure!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        let port = free_port()?;
        let mut command = as_nobody(&server);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", "dynamic_library_path=/usr/lib/postgresql/15/lib"]);
        let mut postmaster = Guard::start(command, &log)?;
        wait_for_port(port, &mut postmaster, &log)?;
        let cluster = Cluster { postmaster, port, dir };
        // It listens before it is ready.
        wait_until(READY, "a connection", || cluster.connect().is_ok())?;
        std::fs::write(&log, "")?;
        Ok(cluster)
    }

    fn connect(&self) -> Result<Postgres> {
        Postgres::connect(self.port, "tester", "postgres")
    }

    /// The postmaster and all that it has forked.
    fn processes(&self) -> Vec<i32> {
        let pid = self.postmaster.pid();
        std::iter::once(pid).chain(descendants(pid)).collect()
    }

    /// What the server complained of.
    fn complaints(&self) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(self.dir.path().join("log"))?;
        let bad = ["ERROR", "FATAL", "PANIC", "terminated by signal", "WARNING"];
        let lines = log.lines().filter(|line| bad.iter().any(|word| line.contains(word)));
        Ok(lines.map(str::to_owned).collect())
    }
}

/// Which answers are right.
#[derive(Debug, Default)]
struct Right {
    new: AtomicBool,
    changing: AtomicBool,
    /// Questions that every connection was asked so far.
    rounds: Vec<AtomicU64>,
}

impl Right {
    fn is(&self, answer: &str) -> bool {
        let now = ANSWERS[usize::from(self.new.load(Ordering::SeqCst))];
        answer == now || self.changing.load(Ordering::SeqCst) && ANSWERS.contains(&answer)
    }
}

fn ask(connection: &mut Postgres, query: &str) -> Result<String> {
    let rows = connection.query(query)?;
    let value = rows.first().and_then(|row| row.first()).cloned();
    value.with_context(|| format!("{query}: no row"))
}

fn client(mut connection: Postgres, number: usize, right: Arc<Right>) -> Client {
    let mut asked: u64 = 0;
    Box::new(move || {
        asked += 1;
        let answer = ask(&mut connection, "SELECT ascii('a')")?;
        ensure!(right.is(&answer), "connection {number}: ascii is {answer}");
        let sum = ask(&mut connection, "SELECT sum(i) FROM generate_series(1, 100) i")?;
        ensure!(sum == "5050", "connection {number}: the sum is {sum}");
        let update = format!("UPDATE counts SET n = n + 1 WHERE id = {number} RETURNING n");
        let count = ask(&mut connection, &update)?;
        ensure!(count == asked.to_string(), "connection {number}: {count} of {asked} updates");
        right.rounds[number].fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    })
}

fn update(ladder: &Ladder, tools: &Tools) -> Result<(String, Option<u64>)> {
    let [old, new] = &ladder.steps[..] else { anyhow::bail!("not two builds") };
    let bundles = TempDir::new()?;
    let bundle = |from: &Path, to: &Path, name: &str| -> Result<PathBuf> {
        let bundle = bundles.path().join(name);
        let said = tool::build(tools, from, to, &bundle, &[])?;
        ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
        ensure!(said.changed().iter().any(|f| f.name == "ascii"), "{:?}", said.changed());
        Ok(bundle)
    };
    let ways =
        [bundle(&old.program, &new.program, "there")?, bundle(&new.program, &old.program, "back")?];
    let cluster = Cluster::start(&old.program)?;
    let mut first = cluster.connect()?;
    first.query("CREATE TABLE counts (id int PRIMARY KEY, n bigint)")?;
    let highest = BACKENDS - 1;
    first.query(&format!("INSERT INTO counts SELECT i, 0 FROM generate_series(0, {highest}) i"))?;
    let right = Arc::new(Right {
        rounds: (0..BACKENDS).map(|_| AtomicU64::new(0)).collect(),
        ..Right::default()
    });
    let clients = (0..BACKENDS)
        .map(|number| Ok(client(cluster.connect()?, number, Arc::clone(&right))))
        .collect::<Result<_>>()?;
    let load = Load::start(clients);
    load.progress(200)?;
    let family = cluster.processes();
    ensure!(family.len() > BACKENDS + 1, "{} processes", family.len());
    let mut pauses = Vec::new();
    for way in [0, 1, 0] {
        pauses.extend(change(&cluster, tools, &ways[way], way == 0, &right, &load)?);
        // A connection of before that asked nothing meanwhile, and one that is forked now.
        for connection in [&mut first, &mut cluster.connect()?] {
            let answer = ask(connection, "SELECT ascii('a')")?;
            ensure!(answer == ANSWERS[1 - way], "ascii is {answer} after the update");
        }
    }
    // Its helpers come and go.
    let last = cluster.processes();
    ensure!(last.first() == family.first() && last.len() > BACKENDS + 1, "a backend has ended");
    let operations = load.finish()?;
    let complaints = cluster.complaints()?;
    ensure!(complaints.is_empty(), "the server says: {}", complaints.join("; "));
    let text = format!(
        "{} processes updated 3 times by one command each, {} queries, none failed",
        last.len(),
        operations * 3
    );
    Ok((text, pauses.into_iter().max()))
}

/// One command for the whole tree, under load.
fn change(
    cluster: &Cluster,
    tools: &Tools,
    bundle: &Path,
    new: bool,
    right: &Right,
    load: &Load,
) -> Result<Option<u64>> {
    right.changing.store(true, Ordering::SeqCst);
    let pid = cluster.postmaster.pid().to_string();
    let said = tool::operate(
        tools,
        &[bundle.as_os_str(), "--tree".as_ref(), "--pid".as_ref(), pid.as_ref()],
    )?;
    ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
    right.new.store(new, Ordering::SeqCst);
    let count = || right.rounds.iter().map(|n| n.load(Ordering::SeqCst));
    let goals: Vec<u64> = count().map(|n| n + 2).collect();
    while count().zip(&goals).any(|(n, goal)| n < *goal) {
        load.progress(10)?;
    }
    right.changing.store(false, Ordering::SeqCst);
    load.progress(200)?;
    Ok(said.pause_us())
}
