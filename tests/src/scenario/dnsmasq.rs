//! dnsmasq 2.85: its server and the helper process that runs scripts for it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::dns::Dns;
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, children, free_port, wait_until};

/// The program.
#[derive(Debug)]
pub struct Dnsmasq;

const STEPS: Steps = &[
    ("CVE-2022-0934", Expect::Applied),
    ("CVE-2023-28450", Expect::Applied),
    // Grows the heap singleton `daemon` and `frec`.
    ("CVE-2023-50387", Expect::Refused(&["dnsmasq_daemon", "frec"])),
    // A union in heap blocks.
    ("CVE-2026-2291", Expect::Refused(&["bigname"])),
    ("CVE-2026-4890", Expect::Applied),
    ("CVE-2026-4891", Expect::Applied),
    // Runs for ever in the helper process, whose frame goes on in NEW.
    ("CVE-2026-4892", Expect::Applied),
    ("CVE-2026-4893", Expect::Applied),
];

const NAMES: usize = 200;

impl Program for Dnsmasq {
    fn recipe(&self) -> &'static Recipe {
        &programs::DNSMASQ
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
    helper: Vec<i32>,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let hosts = dir.path().join("hosts");
        let lines = (0..NAMES).map(|n| format!("10.1.{}.{} {}\n", n / 100, n % 100, name(n)));
        std::fs::write(&hosts, lines.collect::<String>())?;
        let mut command = Command::new(&step.program);
        command.args([
            "-k",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--listen-address=127.0.0.1", "--user=", "--group=", "--pid-file="]);
        // These two make it keep a helper process.
        command.args(["--script-arp", "--dhcp-script=/bin/true"]);
        command.arg(format!("--port={port}")).arg(format!("--addn-hosts={}", hosts.display()));
        let log = dir.path().join("log");
        let mut running =
            Running { server: Guard::start(command, &log)?, helper: Vec::new(), port, dir };
        wait_until(Duration::from_secs(10), "dnsmasq answers", || {
            running.server.ended().is_some() || answers(port)
        })?;
        running.alive()?;
        let pid = running.server.pid();
        wait_until(Duration::from_secs(10), "its helper", || children(pid).len() == 1)?;
        running.helper = children(pid);
        Ok(running)
    }
}

/// Asked over UDP: for a TCP connection dnsmasq forks, and the child would pass for the helper. A port
/// that is not yet open refuses at once; a question that comes before its start-up is done is lost.
fn answers(port: u16) -> bool {
    let limit = Duration::from_millis(200);
    Dns::with_limit(port, limit).is_ok_and(|mut dns| ask(&mut dns, 0).is_ok())
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        let mut list = self.helper.clone();
        list.push(self.server.pid());
        list
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..3).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        match self.server.ended() {
            Some(status) => {
                bail!(
                    "dnsmasq ended: {status}\n{}",
                    crate::corpus::tail(&self.dir.path().join("log"), 10)
                )
            }
            None => Ok(()),
        }
    }

    fn check(&mut self, _version: Version<'_>) -> Result<String> {
        let mut dns = Dns::connect(self.port)?;
        (0..NAMES).try_for_each(|number| ask(&mut dns, number))?;
        Ok(format!("{NAMES} names"))
    }
}

fn name(number: usize) -> String {
    format!("host{number}.test")
}

fn ask(dns: &mut Dns, number: usize) -> Result<()> {
    let found = dns.address(&name(number))?;
    let expected = [10, 1, u8::try_from(number / 100)?, u8::try_from(number % 100)?];
    ensure!(found == expected, "{}: expected {expected:?}, got {found:?}", name(number));
    Ok(())
}

fn client(port: u16, number: usize) -> Result<load::Client> {
    let mut dns = Dns::connect(port)?;
    let mut round = number;
    Ok(Box::new(move || {
        round += 1;
        ask(&mut dns, round % NAMES)
    }))
}
