//! HTTP/1.1 over kept connections.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use super::Wire;

/// A response.
#[derive(Debug)]
pub struct Response {
    /// 200, 404, ...
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection to an HTTP server.
#[derive(Debug)]
pub struct Http {
    wire: Wire,
}

impl Http {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Http> {
        Ok(Http { wire: Wire::connect(port)? })
    }

    /// One request with the header lines given, and its response. The connection stays open if the
    /// server keeps it so.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "PUT" || method == "POST" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.wire.send(&bytes)?;
        self.response(method)
    }

    /// A GET whose status and body must be as expected.
    pub fn expect(&mut self, path: &str, status: u16, body: &[u8]) -> Result<()> {
        let response = self.ask("GET", path, &[], b"")?;
        ensure!(
            response.status == status,
            "GET {path}: expected {status}, got {}",
            response.status
        );
        ensure!(
            response.body == body,
            "GET {path}: expected {} bytes, got {} others: {:?}",
            body.len(),
            response.body.len(),
            String::from_utf8_lossy(&response.body[..response.body.len().min(80)])
        );
        Ok(())
    }

    fn response(&mut self, method: &str) -> Result<Response> {
        let first = self.wire.text_line()?;
        let status = first.split_whitespace().nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("not a status line: {first:?}"))?;
        let mut headers = HashMap::new();
        loop {
            let line = self.wire.text_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
        let chunked = headers.get("transfer-encoding").is_some_and(|v| v == "chunked");
        let length: Option<usize> = headers.get("content-length").map(|v| v.parse()).transpose()?;
        let body = match length {
            _ if method == "HEAD" || status == 204 || status == 304 => Vec::new(),
            _ if chunked => self.chunks()?,
            Some(length) => self.wire.bytes(length)?,
            None => self.wire.rest()?,
        };
        Ok(Response { status, headers, body })
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.wire.text_line()?;
            let length = usize::from_str_radix(line.trim(), 16).context("chunk length")?;
            body.extend(self.wire.bytes(length)?);
            self.wire.expect_line("")?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
}
