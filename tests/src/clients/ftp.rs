//! FTP: logging in, and files over passive data connections.

use anyhow::{Context, Result, ensure};

use super::Wire;

/// A control connection.
#[derive(Debug)]
pub struct Ftp {
    wire: Wire,
}

impl Ftp {
    /// Connects and waits for the greeting.
    pub fn connect(port: u16) -> Result<Ftp> {
        let mut ftp = Ftp { wire: Wire::connect(port)? };
        ftp.reply("220")?;
        Ok(ftp)
    }

    /// Connects and logs in as the anonymous user.
    pub fn anonymous(port: u16) -> Result<Ftp> {
        let mut ftp = Ftp::connect(port)?;
        ftp.expect("USER anonymous", "331")?;
        ftp.expect("PASS nobody@localhost", "230")?;
        Ok(ftp)
    }

    /// One command whose reply must have this code; gives the reply's last line.
    pub fn expect(&mut self, command: &str, code: &str) -> Result<String> {
        self.wire.send(format!("{command}\r\n").as_bytes())?;
        self.reply(code).with_context(|| command.to_owned())
    }

    /// A command with a passive data connection that sends bytes to us.
    pub fn fetch(&mut self, command: &str) -> Result<Vec<u8>> {
        let line = self.expect("PASV", "227")?;
        let inside = line.split(['(', ')']).nth(1).with_context(|| line.clone())?;
        let numbers: Vec<u16> = inside.split(',').filter_map(|n| n.parse().ok()).collect();
        ensure!(numbers.len() == 6, "PASV: {line}");
        let mut data = Wire::connect(numbers[4] * 256 + numbers[5])?;
        self.expect(command, "150")?;
        let bytes = data.rest()?;
        drop(data);
        self.reply("226")?;
        Ok(bytes)
    }

    fn reply(&mut self, code: &str) -> Result<String> {
        loop {
            let line = self.wire.text_line()?;
            // `220-text` goes on, `220 text` ends.
            if line.get(3..4) == Some(" ") {
                ensure!(line.starts_with(code), "expected {code}, got {line:?}");
                return Ok(line);
            }
        }
    }
}
