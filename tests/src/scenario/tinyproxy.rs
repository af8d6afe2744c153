//! tinyproxy 1.10: prefork children, each updated by a command of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::http::Http;
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, children, free_port, wait_for_port, wait_until};

/// The program.
#[derive(Debug)]
pub struct Tinyproxy;

const STEPS: Steps = &[("CVE-2023-49606", Expect::Applied), ("CVE-2022-40468", Expect::Applied)];

/// As many children as ever are: none is forked or ended under the load.
const CHILDREN: usize = 4;

impl Program for Tinyproxy {
    fn recipe(&self) -> &'static Recipe {
        &programs::TINYPROXY
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
    children: Vec<i32>,
    port: u16,
    origin: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let (port, origin) = (free_port()?, origin()?);
        let log = dir.path().join("log");
        let configuration = dir.path().join("tinyproxy.conf");
        std::fs::write(
            &configuration,
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nLogLevel Warning\n\
                 LogFile \"{}\"\nMaxClients {CHILDREN}\nStartServers {CHILDREN}\nMinSpareServers 1\n\
                 MaxSpareServers {}\nMaxRequestsPerChild 0\n",
                dir.path().join("proxy.log").display(),
                CHILDREN * 2
            ),
        )?;
        let mut command = Command::new(&step.program);
        command.arg("-d").arg("-c").arg(&configuration);
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let pid = server.pid();
        wait_until(Duration::from_secs(10), "its children", || children(pid).len() == CHILDREN)?;
        Ok(Running { children: children(pid), server, port, origin, dir })
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        let mut list = vec![self.server.pid()];
        list.extend(&self.children);
        list
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        Ok((0..3).map(|number| client(self.port, self.origin, number)).collect())
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!(
                "tinyproxy ended: {status}\n{}",
                crate::corpus::tail(&self.dir.path().join("log"), 10)
            );
        }
        let now = children(self.server.pid());
        ensure!(now == self.children, "children were {:?}, are {now:?}", self.children);
        Ok(())
    }

    fn check(&mut self, _version: Version<'_>) -> Result<String> {
        for number in 0..2 * CHILDREN {
            proxied(self.port, self.origin, &format!("/check/{number}"))?;
        }
        Ok(format!("{} requests through {CHILDREN} children", 2 * CHILDREN))
    }
}

fn client(port: u16, origin: u16, number: usize) -> load::Client {
    let mut round: u64 = 0;
    Box::new(move || {
        round += 1;
        proxied(
            port,
            origin,
            &format!("/{number}/{round}/{}", "p".repeat(usize::try_from(round % 200)?)),
        )
    })
}

/// One request through the proxy; the origin's answer names the path.
fn proxied(port: u16, origin: u16, path: &str) -> Result<()> {
    let url = format!("http://127.0.0.1:{origin}{path}");
    let headers = [("Connection", "x-private, close"), ("X-Private", "dropped")];
    let response = Http::connect(port)?.ask("GET", &url, &headers, b"")?;
    ensure!(response.status == 200, "GET {path}: {}", response.status);
    ensure!(response.body == answer(path), "GET {path}: another answer");
    Ok(())
}

fn answer(path: &str) -> Vec<u8> {
    path.repeat(20).into_bytes()
}

/// An HTTP server that answers each request with its path, twenty times. Its threads end with the test.
fn origin() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(crate::clients::REPLY_LIMIT)).ok()?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split_whitespace().nth(1)?;
    // The proxy must have dropped the header that the connection header names.
    let body =
        if text.to_lowercase().contains("x-private") { b"leaked".to_vec() } else { answer(path) };
    let head =
        format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}
