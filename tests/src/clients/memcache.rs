//! memcached's text protocol.

use anyhow::{Result, ensure};

use super::Wire;

/// A connection to memcached.
#[derive(Debug)]
pub struct Memcache {
    wire: Wire,
}

impl Memcache {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Memcache> {
        Ok(Memcache { wire: Wire::connect(port)? })
    }

    /// One line and the line that it is answered with.
    pub fn line(&mut self, line: &str) -> Result<String> {
        self.wire.send(format!("{line}\r\n").as_bytes())?;
        self.wire.text_line()
    }

    /// One line whose reply must be the line `expected`.
    pub fn expect(&mut self, line: &str, expected: &str) -> Result<()> {
        self.expect_lines(line, &[expected])
    }

    /// One line whose reply must be these lines.
    pub fn expect_lines(&mut self, line: &str, expected: &[&str]) -> Result<()> {
        self.wire.send(format!("{line}\r\n").as_bytes())?;
        for wanted in expected {
            let reply = self.wire.text_line()?;
            ensure!(reply == *wanted, "{line}: expected {wanted:?}, got {reply:?}");
        }
        Ok(())
    }

    /// Stores a value with `command` (set, add, append, ...).
    pub fn store(&mut self, command: &str, key: &str, value: &str) -> Result<()> {
        let line = format!("{command} {key} 0 0 {}\r\n{value}", value.len());
        self.expect(&line, "STORED")
    }

    /// The value of a key, with its unique number.
    pub fn gets(&mut self, key: &str) -> Result<Option<(String, u64)>> {
        self.wire.send(format!("gets {key}\r\n").as_bytes())?;
        let line = self.wire.text_line()?;
        if line == "END" {
            return Ok(None);
        }
        let words: Vec<&str> = line.split(' ').collect();
        ensure!(words.len() == 5 && words[0] == "VALUE" && words[1] == key, "gets {key}: {line:?}");
        let value = self.wire.bytes(words[3].parse()?)?;
        self.wire.expect_line("")?;
        self.wire.expect_line("END")?;
        Ok(Some((String::from_utf8_lossy(&value).into_owned(), words[4].parse()?)))
    }

    /// A get whose value must be as expected.
    pub fn expect_value(&mut self, key: &str, expected: &str) -> Result<()> {
        let found = self.gets(key)?;
        ensure!(
            found.as_ref().is_some_and(|(value, _)| value == expected),
            "get {key}: expected {expected:?}, got {found:?}"
        );
        Ok(())
    }
}
