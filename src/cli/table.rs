//! Rows of text: aligned under a heading on a terminal, separated by tabs in a pipe.

use std::io;

use super::output::{Output, Tone};

/// A table whose cells are escaped already.
#[derive(Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading that starts with `>` sets its column flush right.
    #[must_use]
    pub fn new(heading: &[&'static str]) -> Self {
        let right = heading.iter().map(|name| name.starts_with('>')).collect();
        let heading = heading.iter().map(|name| name.trim_start_matches('>')).collect();
        Self { heading, right, rows: Vec::new() }
    }

    /// Cells beyond the heading are dropped, missing ones are empty.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.heading.len()).collect();
        row.resize(self.heading.len(), String::new());
        self.rows.push(row);
    }

    pub fn print(&self, output: &mut Output<'_>) -> io::Result<()> {
        if !output.is_terminal() {
            return self.rows.iter().try_for_each(|row| output.line(&row.join("\t")));
        }
        let widths = self.widths();
        let heading: Vec<String> = self.heading.iter().map(ToString::to_string).collect();
        let line = self.aligned(&heading, &widths);
        output.line(&output.paint(Tone::Heading, &line))?;
        self.rows.iter().try_for_each(|row| output.line(&self.aligned(row, &widths)))
    }

    fn widths(&self) -> Vec<usize> {
        let column = |index: usize| {
            let cells = self.rows.iter().filter_map(move |row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let names = self.heading.iter().enumerate();
        names.map(|(index, name)| name.len().max(column(index))).collect()
    }

    fn aligned(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(&self.right) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            if !line.is_empty() {
                line.push(' ');
            }
            let (before, after) = if *right { (padding.as_str(), "") } else { ("", &*padding) };
            line.extend([before, cell, after]);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, Table};

    fn shown(terminal: bool) -> String {
        let mut table = Table::new(&["NODE", ">MINOR", "SUBSYSTEM"]);
        table.push(["/dev/café".into(), "7".into(), "block".into()]);
        table.push(["sda".into(), "1200".into(), String::new()]);
        table.push(["x".into()]);
        let mut written = Vec::new();
        table.print(&mut Output::to(&mut written, false, terminal)).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn a_terminal_gets_a_heading_and_aligned_columns() {
        let expected = "NODE      MINOR SUBSYSTEM\n/dev/café     7 block\nsda        1200\nx\n";
        assert_eq!(shown(true), expected);
    }

    #[test]
    fn a_pipe_gets_tabs_and_every_cell_of_every_row() {
        assert_eq!(shown(false), "/dev/café\t7\tblock\nsda\t1200\t\nx\t\t\n");
    }
}
