//! How kindnetctl talks to people and to programs.
//!
//! Data goes to standard output (`table`, `json` or `yaml`), everything else to standard error.
//! Progress is drawn on a terminal and written as plain lines elsewhere; `NO_COLOR` is honoured.

mod error;
mod output;
mod progress;

pub use error::{ExitCode, UserError, WithHint, report};
pub use output::{OutputFormat, Table, emit, emit_text};
pub use progress::{Child, Step, Timing, Ui};
