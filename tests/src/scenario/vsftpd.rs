//! vsftpd 3.0.5: the listener is updated; each session after that is a fork of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::ftp::Ftp;
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};

/// The program.
#[derive(Debug)]
pub struct Vsftpd;

const STEPS: Steps = &[
    // Always on the listener's stack.
    ("0004-link-local", Expect::Blocked(&["vsf_standalone_main"])),
    ("0005-whitespaces", Expect::Applied),
    ("0006-greedy", Expect::Applied),
    // Option tables of the start-up are resized.
    ("0007-utf8", Expect::Refused(&["parseconf_bool_array"])),
    ("0008-manpage", Expect::Nothing),
    ("0009-s390", Expect::Nothing),
    ("0010-remote-dos", Expect::Applied),
    ("0011-alpha", Expect::Nothing),
    ("0012-buildflags", Expect::Nothing),
    ("0013-listen", Expect::Nothing),
    ("0014-ssl-cert", Expect::Nothing),
    ("0015-disable-clone-newpid", Expect::Applied),
    ("0030-kfreebsd", Expect::Nothing),
    ("0040-disable-anonymous", Expect::Nothing),
    ("0050-CVE-2015-1419", Expect::Applied),
    ("0055-set_default_listen", Expect::Applied),
    ("0060-seccomp_sandbox", Expect::Applied),
    ("0065-upload_download", Expect::Refused(&["parseconf_str_array"])),
    ("0070-realpath_wrapper", Expect::Applied),
    ("0075-logfile", Expect::Applied),
    ("0076-fix-no-pam", Expect::Nothing),
    ("0077-fix-typo", Expect::Nothing),
];

const GREEDY_FIX: &str = "0006-greedy";

impl Program for Vsftpd {
    fn recipe(&self) -> &'static Recipe {
        &programs::VSFTPD
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
    /// A session from the start, kept through all updates.
    session: Ftp,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        // The anonymous user must get in, and may write nowhere.
        open(dir.path())?;
        for sub in ["empty", "pub"] {
            std::fs::create_dir(dir.path().join(sub))?;
            open(&dir.path().join(sub))?;
        }
        std::fs::write(dir.path().join("pub/file"), content())?;
        for name in ["alpha", "beta", "gamma"] {
            std::fs::write(dir.path().join("pub").join(name), name)?;
        }
        let configuration = dir.path().join("vsftpd.conf");
        std::fs::write(&configuration, options(dir.path(), port))?;
        let mut command = Command::new(&step.program);
        command.arg(&configuration);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        Ok(Running { session: Ftp::anonymous(port)?, server, port, dir })
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
        let port = self.port;
        Ok((0..3).map(|number| client(port, number)).collect())
    }

    fn alive(&mut self) -> Result<()> {
        match self.server.ended() {
            Some(status) => {
                bail!(
                    "vsftpd ended: {status}\n{}",
                    crate::corpus::tail(&self.dir.path().join("log"), 10)
                )
            }
            None => Ok(()),
        }
    }

    fn check(&mut self, version: Version<'_>) -> Result<String> {
        self.session.expect("NOOP", "200")?;
        session(self.port)?;
        // OLD stops at the first `a` of a name, where it is not the last letter.
        let names = listed_names(&mut Ftp::anonymous(self.port)?, "*a")?;
        let (oracle, expected): (_, &[&str]) = if version.has(GREEDY_FIX) {
            ("B", &["alpha", "beta", "gamma"])
        } else {
            ("A", &["beta"])
        };
        ensure!(names == expected, "NLST *a: expected {expected:?}, got {names:?}");
        Ok(format!("the first session goes on, oracle greedy:{oracle}"))
    }
}

fn open(dir: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?)
}

fn content() -> Vec<u8> {
    b"0123456789abcdef\n".repeat(4000)
}

/// The anonymous user is `daemon`, as its home directory has to exist.
fn options(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "listen=YES\nlisten_ipv6=NO\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n\
         anonymous_enable=YES\nlocal_enable=NO\nanon_root={dir}/pub\nsecure_chroot_dir={dir}/empty\n\
         ftp_username=daemon\nnopriv_user=nobody\nmax_per_ip=0\nmax_clients=0\nseccomp_sandbox=NO\n\
         connect_from_port_20=NO\nuse_localtime=NO\nxferlog_enable=NO\n"
    )
}

fn client(port: u16, number: usize) -> load::Client {
    let mut kept = None;
    let mut round: u64 = 0;
    Box::new(move || {
        round += 1;
        if number > 0 {
            return session(port);
        }
        // One client stays in its session for a while.
        let mut ftp = match kept.take() {
            Some(ftp) => ftp,
            None => Ftp::anonymous(port)?,
        };
        ensure!(ftp.fetch("RETR file")? == content(), "RETR: another content");
        ftp.expect("PWD", "257")?;
        if !round.is_multiple_of(50) {
            kept = Some(ftp);
        }
        Ok(())
    })
}

fn listed_names(ftp: &mut Ftp, pattern: &str) -> Result<Vec<String>> {
    let list = String::from_utf8_lossy(&ftp.fetch(&format!("NLST {pattern}"))?).into_owned();
    let mut names: Vec<String> =
        list.lines().map(|l| l.trim_end_matches('\r').to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// A whole session: log in, list with a pattern, fetch, leave.
fn session(port: u16) -> Result<()> {
    let mut ftp = Ftp::anonymous(port)?;
    let names = listed_names(&mut ftp, "be*")?;
    ensure!(names == ["beta"], "NLST be*: {names:?}");
    ensure!(ftp.fetch("RETR file")? == content(), "RETR: another content");
    ftp.expect("SIZE file", "213")?;
    ftp.expect("QUIT", "221")?;
    Ok(())
}
