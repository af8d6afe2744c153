//! redis' protocol.

use anyhow::{Context, Result, bail, ensure};

use super::Wire;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Number(i64),
    /// `$3`, or nothing for `$-1`.
    Bulk(Option<Vec<u8>>),
    /// `*2`
    List(Vec<Reply>),
}

impl Reply {
    /// A bulk string of this text.
    pub fn text(text: &str) -> Reply {
        Reply::Bulk(Some(text.as_bytes().to_vec()))
    }

    /// `+OK`.
    pub fn ok() -> Reply {
        Reply::Status("OK".into())
    }
}

/// A connection to redis.
#[derive(Debug)]
pub struct Redis {
    wire: Wire,
}

impl Redis {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Redis> {
        Ok(Redis { wire: Wire::connect(port)? })
    }

    /// One command and its reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Reply> {
        self.wire.send(&encode(words))?;
        self.reply()
    }

    /// One line as a person types it, and its reply.
    pub fn inline(&mut self, line: &str) -> Result<Reply> {
        self.wire.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// One command of words, and its reply.
    pub fn ask_text(&mut self, words: &[&str]) -> Result<Reply> {
        let words: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        self.ask(&words)
    }

    /// One command whose reply must be `expected`.
    pub fn expect(&mut self, words: &[&str], expected: &Reply) -> Result<()> {
        let reply = self.ask_text(words)?;
        ensure!(reply == *expected, "{}: expected {expected:?}, got {reply:?}", words.join(" "));
        Ok(())
    }

    /// Many commands in one go, and all their replies.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            bytes.extend(encode(&words));
        }
        self.wire.send(&bytes)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// The bytes of one reply's first line, as sent.
    pub fn raw_line(&mut self, words: &[&[u8]]) -> Result<Vec<u8>> {
        self.wire.send(&encode(words))?;
        self.wire.line()
    }

    fn reply(&mut self) -> Result<Reply> {
        let line = self.wire.text_line()?;
        let kind = line.chars().next().context("an empty reply")?;
        let rest = line[1..].to_owned();
        Ok(match kind {
            '+' => Reply::Status(rest),
            '-' => Reply::Error(rest),
            ':' => Reply::Number(rest.parse()?),
            '$' => Reply::Bulk(self.bulk(rest.parse()?)?),
            '*' => {
                let count: i64 = rest.parse()?;
                Reply::List((0..count).map(|_| self.reply()).collect::<Result<_>>()?)
            }
            _ => bail!("not a reply: {line:?}"),
        })
    }

    fn bulk(&mut self, length: i64) -> Result<Option<Vec<u8>>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let mut bytes = self.wire.bytes(length + 2)?;
        ensure!(bytes.ends_with(b"\r\n"), "a bulk string of the wrong length");
        bytes.truncate(length);
        Ok(Some(bytes))
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}
