//! Data on standard output.

use std::io::{ErrorKind, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde::Serialize;

/// `-o`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// A table as kubectl prints it: upper-case headings, columns padded with spaces.
#[derive(Debug, Clone)]
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(headings.into_iter().map(str::to_uppercase));
        Self { inner }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.inner
            .add_row(cells.into_iter().map(Into::into).collect::<Vec<String>>());
        self
    }

    /// Aligns a column to the right, for numbers.
    pub fn right(&mut self, column: usize) -> &mut Self {
        if let Some(column) = self.inner.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// The table as text, one line per row.
    #[must_use]
    pub fn render(&self) -> String {
        let mut table = self.inner.clone();
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        let mut text = String::new();
        for line in table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints data in the format asked for. `table` is only called when a table is wanted.
///
/// # Errors
/// The data cannot be serialised or standard output cannot be written; a closed pipe is no error.
pub fn emit<T: Serialize>(
    format: OutputFormat,
    data: &T,
    table: impl FnOnce() -> Table,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Table => emit_text(&table().render()),
        OutputFormat::Json => emit_text(&(serde_json::to_string_pretty(data)? + "\n")),
        OutputFormat::Yaml => emit_text(&kindnet_api::yaml::to_string(data)?),
    }
}

/// Prints text as it is.
///
/// # Errors
/// Standard output cannot be written; a closed pipe is no error.
pub fn emit_text(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(["name", "role"]);
        table
            .row(["kind-control-plane", "control-plane"])
            .row(["kind-worker", "worker"]);
        assert_eq!(
            table.render(),
            "NAME                 ROLE\nkind-control-plane   control-plane\nkind-worker          \
             worker\n"
        );
    }
}
