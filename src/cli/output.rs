//! Where output goes: JSON, a table for eyes, or plain lines for pipes.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use clap::ValueEnum;

use super::escape;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that is not dumb, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// A meaning, not a colour: what it looks like is decided here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Heading,
    Good,
    Bad,
    Faint,
}

/// The command's standard output.
pub struct Output<'a> {
    out: Box<dyn Write + 'a>,
    json: bool,
    terminal: bool,
    color: bool,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("json", &self.json)
            .field("terminal", &self.terminal)
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    #[must_use]
    pub fn stdout(json: bool, color: Color) -> Output<'static> {
        let terminal = io::stdout().is_terminal();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && colors_wanted(),
        };
        Output { out: Box::new(BufWriter::new(io::stdout())), json, terminal, color }
    }

    /// For tests: everything is decided by the caller.
    pub fn to(out: impl Write + 'a, json: bool, terminal: bool) -> Self {
        Self { out: Box::new(out), json, terminal, color: false }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line; the caller has escaped what came from devices.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// One JSON document: indented on a terminal, else one line, so that `monitor --json` is
    /// lines and every other command one.
    pub fn json(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        let rendered = if self.terminal {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        self.line(&escape::json(&rendered.map_err(io::Error::other)?))
    }

    /// One JSON document on one line, on a terminal too.
    pub fn json_line(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        let rendered = serde_json::to_string(document).map_err(io::Error::other)?;
        self.line(&escape::json(&rendered))
    }

    /// Bytes as they are: completions and the like, which hold nothing of any device.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The text with the colour of its meaning, where there are colours.
    #[must_use]
    pub fn paint(&self, tone: Tone, shown: &str) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Bad => "31;1",
            Tone::Faint => "2",
        };
        if !self.color || code.is_empty() || shown.is_empty() {
            return shown.to_owned();
        }
        format!("\x1b[{code}m{shown}\x1b[0m")
    }
}

fn colors_wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !no_color && !dumb
}

#[cfg(test)]
mod tests {
    use super::{Output, Tone};

    #[test]
    fn without_colour_nothing_is_added() {
        let output = Output::to(Vec::new(), false, true);
        assert_eq!(output.paint(Tone::Bad, "x"), "x");
    }

    #[test]
    fn with_colour_the_text_is_set_back_at_its_end() {
        let mut output = Output::to(Vec::new(), false, true);
        output.color = true;
        assert_eq!(output.paint(Tone::Bad, "x"), "\x1b[31;1mx\x1b[0m");
        assert_eq!(output.paint(Tone::Plain, "x"), "x");
    }

    #[test]
    fn json_into_a_pipe_is_one_line() {
        let mut written = Vec::new();
        Output::to(&mut written, true, false).json(&serde_json::json!([1, { "a": 2 }])).unwrap();
        assert_eq!(written, b"[1,{\"a\":2}]\n");
    }
}
