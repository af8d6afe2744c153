//! nginx 1.22: twenty fixes in a master and its workers, one dsu-apply for each process.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Updates, Version};
use crate::clients::http::Http;
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, children, free_port, wait_for_port, wait_until};

/// The program.
#[derive(Debug)]
pub struct Nginx;

const STEPS: Steps = &[
    ("CVE-2025-23419", Expect::Applied),
    ("CVE-2024-7347-1", Expect::Applied),
    ("CVE-2024-7347-2", Expect::Applied),
    ("CVE-2025-53859", Expect::Applied),
    ("CVE-2026-1642", Expect::Applied),
    ("CVE-2026-27651", Expect::Applied),
    ("CVE-2026-27654", Expect::Applied),
    ("CVE-2026-27784", Expect::Nothing),
    ("CVE-2026-28753", Expect::Applied),
    // CORPUS.md calls it a step without differences; but it adds a check to ngx_stream_ssl_handler, which
    // this configuration contains.
    ("CVE-2026-28755", Expect::Applied),
    ("CVE-2026-32647", Expect::Applied),
    ("CVE-2026-42945", Expect::Applied),
    ("CVE-2026-42946.1", Expect::Applied),
    ("CVE-2026-42946.2", Expect::Applied),
    // Grows a struct that lives in the heap.
    ("CVE-2026-40701", Expect::Refused(&["ngx_ssl_ocsp_ctx_s"])),
    ("CVE-2026-42934", Expect::Applied),
    ("CVE-2026-9256", Expect::Applied),
    // Adds a module that start-up registers.
    (
        "FIX-HTTP2bomb",
        Expect::Refused(&["ngx_http_header_count_module", "ngx_modules", "ngx_module_names"]),
    ),
    ("CVE-2026-48142", Expect::Applied),
    ("CVE-2026-42055", Expect::Applied),
];

const REWRITE_FIX: &str = "CVE-2026-42945";
const COPY_FIX: &str = "CVE-2026-27654";

/// A page of this size is sent in several writes.
const LARGE: usize = 300_000;

impl Program for Nginx {
    fn recipe(&self) -> &'static Recipe {
        &programs::NGINX
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn start(&self, _ladder: &Ladder, step: &Step, _fill: Fill) -> Result<Box<dyn Server>> {
        Ok(Box::new(Running::start(step)?))
    }

    fn apart(
        &self,
        ladder: &Ladder,
        _updates: Option<&Updates<'_>>,
    ) -> Vec<(String, Result<String>)> {
        vec![("COPY before its fix".to_owned(), copy_kills_old(ladder))]
    }

    fn repeated(&self) -> bool {
        true
    }
}

struct Running {
    server: Guard,
    workers: Vec<i32>,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        for sub in ["html", "dav", "logs", "temp"] {
            std::fs::create_dir(dir.path().join(sub))?;
        }
        std::fs::write(dir.path().join("html/small"), small())?;
        std::fs::write(dir.path().join("html/large"), large())?;
        std::fs::write(dir.path().join("nginx.conf"), configuration(port))?;
        let mut command = Command::new(&step.program);
        command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let pid = server.pid();
        wait_until(Duration::from_secs(10), "four workers", || children(pid).len() == 4)?;
        Ok(Running { workers: children(pid), server, port, dir })
    }

    fn error_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("logs/error.log")).unwrap_or_default()
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        let mut list = vec![self.server.pid()];
        list.extend(&self.workers);
        list
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..5).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!("nginx ended: {status}\n{}", self.error_log());
        }
        let workers = children(self.server.pid());
        let log = self.error_log();
        ensure!(workers == self.workers, "workers were {:?}, are {workers:?}\n{log}", self.workers);
        let alarm = log.lines().find(|l| l.contains("[alert]") || l.contains("[emerg]"));
        ensure!(alarm.is_none(), "error log: {alarm:?}");
        Ok(())
    }

    fn check(&mut self, version: Version<'_>) -> Result<String> {
        // Each new connection may come to any worker.
        let wanted: &[u8] = if version.has(REWRITE_FIX) { b"/rw/a+b\n" } else { b"/rw/a%2\n" };
        for _ in 0..16 {
            Http::connect(self.port)?.expect("/rw/a+b", 200, wanted)?;
        }
        let mut text =
            format!("oracle rewrite:{}", if version.has(REWRITE_FIX) { "B" } else { "A" });
        if version.has(COPY_FIX) {
            for _ in 0..16 {
                let status = short_copy(self.port)?;
                ensure!(status == 400, "COPY to a short destination: expected 400, got {status}");
            }
            text += " copy:B";
        }
        Ok(text)
    }
}

fn small() -> Vec<u8> {
    b"a small page\n".to_vec()
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect()
}

fn configuration(port: u16) -> String {
    format!(
        "daemon off;
user root;
worker_processes 4;
pid logs/pid;
error_log logs/error.log error;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_requests 100000;
  client_body_temp_path temp/body;
  proxy_temp_path temp/proxy;
  fastcgi_temp_path temp/fastcgi;
  uwsgi_temp_path temp/uwsgi;
  scgi_temp_path temp/scgi;
  server {{
    listen 127.0.0.1:{port};
    root html;
    location /rw {{ rewrite ^(.*) /new?c=1; set $v $1; return 200 \"$v\\n\"; }}
    location /dav-with-a-long-name/ {{
      alias dav/;
      dav_methods PUT DELETE COPY MOVE MKCOL;
      create_full_put_path on;
    }}
    location /proxied/ {{ proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass http://127.0.0.1:{port}/; }}
  }}
}}
"
    )
}

/// A COPY whose destination is shorter than the alias.
fn short_copy(port: u16) -> Result<u16> {
    let mut http = Http::connect(port)?;
    let path = "/dav-with-a-long-name/oracle";
    let put = http.ask("PUT", path, &[], b"content")?;
    ensure!(put.status == 201 || put.status == 204, "PUT {path}: {}", put.status);
    Ok(http.ask("COPY", path, &[("Destination", "/x")], b"")?.status)
}

fn copy_kills_old(ladder: &Ladder) -> Result<String> {
    let fix = ladder.steps.iter().position(|s| s.patch.starts_with(COPY_FIX));
    let Some(before) = fix.and_then(|f| ladder.steps.get(f - 1)) else {
        bail!("the ladder has no {COPY_FIX}");
    };
    let running = Running::start(before)?;
    let answer = short_copy(running.port);
    ensure!(
        answer.is_err(),
        "build {} answers {answer:?}: expected that its worker dies",
        before.label()
    );
    wait_until(Duration::from_secs(10), "a worker dies", || {
        running.error_log().contains("exited on signal")
    })?;
    Ok(format!("build {} loses its worker, as known", before.label()))
}

fn client(port: u16, number: usize) -> Result<load::Client> {
    let mut http = Http::connect(port)?;
    let mut round: u64 = 0;
    Ok(Box::new(move || {
        round += 1;
        match round % 5 {
            0 => http.expect("/small", 200, &small()),
            1 => http.expect("/large", 200, &large()),
            2 => http.expect("/proxied/small", 200, &small()),
            3 => files(&mut http, number, round),
            // New connections are taken by either worker.
            _ if round % 20 == 4 => Http::connect(port)?.expect("/small", 200, &small()),
            _ => http.expect("/rw/plain", 200, b"/rw/plain\n"),
        }
    }))
}

/// A file is put, read, copied and deleted.
fn files(http: &mut Http, number: usize, round: u64) -> Result<()> {
    let (path, copy) =
        (format!("/dav-with-a-long-name/{number}"), format!("/dav-with-a-long-name/{number}c"));
    let body = format!("round {round} {}", "b".repeat(usize::try_from(round % 3000)?));
    let mut ask =
        |method: &str, path: &str, headers: &[(&str, &str)], content: &[u8], expected: u16| {
            let response = http.ask(method, path, headers, content)?;
            ensure!(
                response.status == expected,
                "{method} {path}: {}, not {expected}",
                response.status
            );
            Ok(())
        };
    ask("PUT", &path, &[], body.as_bytes(), 201)?;
    ask("COPY", &path, &[("Destination", &copy)], b"", 204)?;
    ask("DELETE", &path, &[], b"", 204)?;
    http.expect(&copy, 200, body.as_bytes())?;
    let last = http.ask("DELETE", &copy, &[], b"")?;
    ensure!(last.status == 204, "DELETE {copy}: {}", last.status);
    Ok(())
}
