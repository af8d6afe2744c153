//! pgbouncer 1.18: its first step changes no function, only a table of read-only data with relocations.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::postgres::Postgres;
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};

/// The program.
#[derive(Debug)]
pub struct Pgbouncer;

const STEPS: Steps = &[("CVE-2025-2291", Expect::Applied), ("CVE-2025-12819", Expect::Applied)];

/// Its default for `auth_query` comes from the table.
const TABLE_FIX: &str = "CVE-2025-2291";

impl Program for Pgbouncer {
    fn recipe(&self) -> &'static Recipe {
        &programs::PGBOUNCER
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn start(&self, _ladder: &Ladder, step: &Step, _fill: Fill) -> Result<Box<dyn Server>> {
        Ok(Box::new(Running::start(step)?))
    }
}

struct Running {
    server: Guard,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        // It refuses to run as root, and gives its rights up after reading this.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
        let configuration = dir.path().join("pgbouncer.ini");
        let user = if nix::unistd::geteuid().is_root() { "user = nobody\n" } else { "" };
        std::fs::write(
            &configuration,
            format!(
                "[databases]\nnone = host=127.0.0.1 port=1 user=nobody\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nauth_type = any\nunix_socket_dir =\nlogfile = {}/pgbouncer.log\n{user}",
                dir.path().display()
            ),
        )?;
        let mut command = Command::new(&step.program);
        command.arg("-q").arg(&configuration);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        Ok(Running { server, port, dir })
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        vec![self.server.pid()]
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..3).map(|_| client(self.port)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        match self.server.ended() {
            Some(status) => {
                let log = crate::corpus::tail(&self.dir.path().join("pgbouncer.log"), 10);
                bail!("pgbouncer ended: {status}\n{log}")
            }
            None => Ok(()),
        }
    }

    fn check(&mut self, version: Version<'_>) -> Result<String> {
        let rows = console(self.port)?.query("SHOW CONFIG")?;
        let row = rows.iter().find(|r| r.first().is_some_and(|key| key == "auth_query"));
        let default = row.and_then(|r| r.get(2)).context("SHOW CONFIG names no auth_query")?;
        let table = if version.has(TABLE_FIX) { "pg_authid" } else { "pg_shadow" };
        ensure!(
            default.contains(table),
            "default of auth_query: expected {table}, got {default:?}"
        );
        Ok(format!("oracle auth_query default: {table}"))
    }
}

fn console(port: u16) -> Result<Postgres> {
    Postgres::connect(port, "nobody", "pgbouncer")
}

fn client(port: u16) -> Result<load::Client> {
    let mut kept = console(port)?;
    let mut round: u64 = 0;
    Ok(Box::new(move || {
        round += 1;
        if round.is_multiple_of(10) {
            kept = console(port)?;
        }
        let rows = kept.query("SHOW DATABASES")?;
        let names: Vec<&str> = rows.iter().filter_map(|r| r.first()).map(String::as_str).collect();
        ensure!(names == ["none", "pgbouncer"], "SHOW DATABASES: {names:?}");
        Ok(())
    }))
}
