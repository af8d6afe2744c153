//! PostgreSQL's protocol 3, as far as pgbouncer's admin console needs it.

use anyhow::{Context, Result, bail, ensure};

use super::Wire;

/// A session that trusts us.
#[derive(Debug)]
pub struct Postgres {
    wire: Wire,
}

impl Postgres {
    /// Connects as `user` to `database`.
    pub fn connect(port: u16, user: &str, database: &str) -> Result<Postgres> {
        let mut postgres = Postgres { wire: Wire::connect(port)? };
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for word in ["user", user, "database", database, ""] {
            body.extend(word.as_bytes());
            body.push(0);
        }
        let mut message = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
        message.extend(body);
        postgres.wire.send(&message)?;
        postgres.until_ready()?;
        Ok(postgres)
    }

    /// A simple query; gives the first column of each row.
    pub fn query(&mut self, text: &str) -> Result<Vec<Vec<String>>> {
        let mut message = vec![b'Q'];
        message.extend(u32::try_from(text.len() + 5)?.to_be_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        self.wire.send(&message)?;
        self.until_ready().with_context(|| text.to_owned())
    }

    /// Reads messages until `ReadyForQuery`; gives the data rows on the way.
    fn until_ready(&mut self) -> Result<Vec<Vec<String>>> {
        let mut rows = Vec::new();
        loop {
            let head = self.wire.bytes(5)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let body = self.wire.bytes(usize::try_from(length)?.saturating_sub(4))?;
            match head[0] {
                b'Z' => return Ok(rows),
                b'E' => bail!("server: {}", String::from_utf8_lossy(&body).replace('\0', " ")),
                b'D' => rows.push(columns(&body)?),
                b'R' => ensure!(body == [0, 0, 0, 0], "asks for a password"),
                _ => {}
            }
        }
    }
}

/// The columns of a data row, as text.
fn columns(body: &[u8]) -> Result<Vec<String>> {
    let mut list = Vec::new();
    let mut rest = body.get(2..).context("a short row")?;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>().context("a short column")?;
        // -1 stands for null.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        ensure!(tail.len() >= length, "a short column");
        list.push(String::from_utf8_lossy(&tail[..length]).into_owned());
        rest = &tail[length..];
    }
    Ok(list)
}
