//! Progress: spinners on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How long a step took.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Title of the step, or `title: child`.
    pub name: String,
    /// Start, in seconds since the command began.
    pub start_secs: f64,
    /// Duration in seconds.
    pub duration_secs: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing but errors.
    Quiet,
    /// One line per event.
    Plain,
    /// Redrawn lines.
    Terminal,
}

struct Shared {
    mode: Mode,
    multi: MultiProgress,
    began: Instant,
    timings: Mutex<Vec<Timing>>,
}

/// The handle every command reports through. Cheap to clone.
#[derive(Clone)]
pub struct Ui {
    shared: Arc<Shared>,
}

impl Ui {
    /// `quiet` hides everything but errors; `plain` writes lines even on a terminal.
    #[must_use]
    pub fn new(quiet: bool, plain: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let mode = if quiet {
            Mode::Quiet
        } else if plain || dumb || !std::io::stderr().is_terminal() {
            Mode::Plain
        } else {
            Mode::Terminal
        };
        let target = match mode {
            Mode::Terminal => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        Self {
            shared: Arc::new(Shared {
                mode,
                multi: MultiProgress::with_draw_target(target),
                began: Instant::now(),
                timings: Mutex::new(Vec::new()),
            }),
        }
    }

    /// A handle that shows nothing, for tests and libraries.
    #[must_use]
    pub fn hidden() -> Self {
        Self::new(true, true)
    }

    /// Begins a step. Dropping it without [`Step::done`] shows it as failed.
    #[must_use]
    pub fn step(&self, title: impl Into<String>) -> Step {
        let line = Line::begin(self, title.into(), String::new(), "", None);
        let lowest = Mutex::new(line.bar.clone());
        Step { line, lowest }
    }

    /// A line of information.
    pub fn info(&self, text: impl AsRef<str>) {
        self.line(text.as_ref());
    }

    /// A warning: the command goes on, but the user should know.
    pub fn warn(&self, text: impl AsRef<str>) {
        let yellow = Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold();
        self.line(&format!("{yellow}warning:{yellow:#} {}", text.as_ref()));
    }

    /// The durations of all finished steps, in the order they began.
    #[must_use]
    pub fn timings(&self) -> Vec<Timing> {
        let mut timings = self
            .shared
            .timings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        timings.sort_by(|a, b| a.start_secs.total_cmp(&b.start_secs));
        timings
    }

    /// Time since the command began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    fn line(&self, text: &str) {
        match self.shared.mode {
            Mode::Quiet => {}
            Mode::Plain => anstream::eprintln!("{text}"),
            Mode::Terminal => self.shared.multi.suspend(|| anstream::eprintln!("{text}")),
        }
    }
}

/// A step of the command.
pub struct Step {
    line: Line,
    /// What the next child is shown below.
    lowest: Mutex<ProgressBar>,
}

/// One of several things a step does at once, such as a node.
pub struct Child(Line);

impl Step {
    /// Begins a part of this step.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Child {
        let path = format!("{}: ", self.line.title);
        let mut lowest = self.lowest.lock().unwrap_or_else(PoisonError::into_inner);
        let child = Line::begin(&self.line.ui, name.into(), path, "  ", Some(&lowest));
        *lowest = child.bar.clone();
        Child(child)
    }

    /// Shows what is going on right now.
    pub fn message(&self, text: impl Into<String>) {
        self.line.message(text.into());
    }

    /// The step succeeded.
    pub fn done(mut self) {
        self.line.finish(true, None);
    }

    /// The step succeeded; `text` says with what result.
    pub fn done_with(mut self, text: impl AsRef<str>) {
        self.line.finish(true, Some(text.as_ref()));
    }
}

impl Child {
    /// Shows what is going on right now.
    pub fn message(&self, text: impl Into<String>) {
        self.0.message(text.into());
    }

    /// Shows progress in bytes; `total` of 0 means unknown.
    pub fn bytes(&self, done: u64, total: u64) {
        let text = if total > 0 {
            format!("{} / {}", HumanBytes(done.min(total)), HumanBytes(total))
        } else {
            HumanBytes(done).to_string()
        };
        self.0.message(text);
    }

    /// The part succeeded.
    pub fn done(mut self) {
        self.0.finish(true, None);
    }

    /// The part succeeded; `text` says with what result.
    pub fn done_with(mut self, text: impl AsRef<str>) {
        self.0.finish(true, Some(text.as_ref()));
    }
}

/// What steps and children have in common.
struct Line {
    ui: Ui,
    title: String,
    /// Prefix of the name in the timings.
    path: String,
    indent: &'static str,
    bar: ProgressBar,
    began: Instant,
    finished: bool,
}

impl Line {
    fn begin(
        ui: &Ui,
        title: String,
        path: String,
        indent: &'static str,
        after: Option<&ProgressBar>,
    ) -> Self {
        let mut bar = ProgressBar::new_spinner();
        if ui.shared.mode == Mode::Terminal {
            // Complete before it is shown, and cut where the terminal ends, however it is resized.
            bar = bar
                .with_style(
                    ProgressStyle::with_template("{prefix}{spinner} {elapsed:>3.dim} {wide_msg}")
                        .expect("the template is a constant"),
                )
                .with_prefix(indent)
                .with_message(title.clone());
            bar = match after {
                Some(bar_above) => ui.shared.multi.insert_after(bar_above, bar),
                None => ui.shared.multi.add(bar),
            };
            bar.enable_steady_tick(Duration::from_millis(100));
        } else if indent.is_empty() {
            ui.line(&format!(" • {title} ..."));
        }
        Self {
            ui: ui.clone(),
            title,
            path,
            indent,
            bar,
            began: Instant::now(),
            finished: false,
        }
    }

    fn message(&self, text: String) {
        if self.ui.shared.mode == Mode::Terminal {
            self.bar.set_message(format!("{}: {text}", self.title));
        }
    }

    fn finish(&mut self, ok: bool, text: Option<&str>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let took = self.began.elapsed();
        let shared = &self.ui.shared;
        if ok {
            let start = self.began.duration_since(shared.began);
            shared
                .timings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Timing {
                    name: format!("{}{}", self.path, self.title),
                    start_secs: start.as_secs_f64(),
                    duration_secs: took.as_secs_f64(),
                });
        }
        let (mark, colour) = if ok {
            ("✓", AnsiColor::Green)
        } else {
            ("✗", AnsiColor::Red)
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let dim = Style::new().dimmed();
        let text = text.map(|t| format!(" — {t}")).unwrap_or_default();
        self.bar.finish_and_clear();
        self.ui.line(&format!(
            " {}{style}{mark}{style:#} {}{text} {dim}({:.1}s){dim:#}",
            self.indent,
            self.title,
            took.as_secs_f64()
        ));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.finish(false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_steps_leave_their_timing_and_failed_ones_do_not() {
        let ui = Ui::hidden();
        let step = ui.step("outer");
        step.child("a").done();
        drop(step.child("b"));
        step.done();
        let names: Vec<_> = ui.timings().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["outer", "outer: a"]);
    }
}
