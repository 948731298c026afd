//! The report for people: one line a check, a column a family, failures explained below.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::report::{Check, Outcome, Report};

const PASSED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const FAILED: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)))
    .bold();
const SKIPPED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const HEADING: Style = Style::new().bold();

/// Failures of a check that are shown in full; `-o json` has them all.
const SHOWN: usize = 2;

/// A cell is at least so wide: `✓ 1234 ms*`.
const CELL: usize = 12;

/// Renders the report. The text holds escape sequences for colours; whoever prints it strips them
/// where they are not wanted.
#[must_use]
pub fn table(report: &Report) -> String {
    let lines = lines(report);
    let title = lines
        .iter()
        .map(|l| l.title.chars().count())
        .max()
        .unwrap_or(0);
    let id = lines.iter().map(|l| l.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for line in &lines {
        if line.group != group {
            if !group.is_empty() {
                text.push('\n');
            }
            group = line.group;
            let heading = if group == lines[0].group {
                let mut columns = String::new();
                for family in &report.families {
                    let _ = write!(columns, "{family:<CELL$}");
                }
                format!("{group:<width$}{}", columns.trim_end(), width = title + 4)
            } else {
                group.to_owned()
            };
            let _ = writeln!(text, "{HEADING}{heading}{HEADING:#}");
        }
        let mut row = format!("  {:<title$}  ", line.title);
        for check in &line.checks {
            row.push_str(&cell(check));
        }
        // Checks that are about both families have one cell.
        for _ in line.checks.len()..report.families.len().max(1) {
            let _ = write!(row, "{:CELL$}", "");
        }
        let _ = write!(row, "{:<id$}", line.id);
        let _ = writeln!(text, "{}", row.trim_end());
        match skipped_alike(&line.checks) {
            Some(reason) => {
                let _ = writeln!(text, "      {SKIPPED}{reason}{SKIPPED:#}");
            }
            None => line.checks.iter().for_each(|c| explain(&mut text, c)),
        }
    }
    summary(&mut text, report);
    text
}

struct Line<'a> {
    group: &'a str,
    title: &'a str,
    id: &'a str,
    checks: Vec<&'a Check>,
}

fn lines(report: &Report) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for check in &report.checks {
        match lines.last_mut() {
            Some(line) if line.id == check.id => line.checks.push(check),
            _ => lines.push(Line {
                group: &check.group,
                title: &check.title,
                id: &check.id,
                checks: vec![check],
            }),
        }
    }
    lines
}

fn cell(check: &Check) -> String {
    let (style, text) = match &check.outcome {
        Outcome::Pass if check.duration.is_zero() => (PASSED, "✓".to_owned()),
        Outcome::Pass => {
            let again = if check.retries > 0 { "*" } else { "" };
            (PASSED, format!("✓ {}{again}", millis(check.duration)))
        }
        Outcome::Fail { .. } => (FAILED, "✗ FAILED".to_owned()),
        Outcome::Skipped { .. } => (SKIPPED, "- skipped".to_owned()),
    };
    let padding = CELL.saturating_sub(text.chars().count());
    format!("{style}{text}{style:#}{:padding$}", "")
}

fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

/// Why every family was skipped, where it is one reason.
fn skipped_alike<'a>(checks: &[&'a Check]) -> Option<&'a str> {
    let reason = |check: &&'a Check| match &check.outcome {
        Outcome::Skipped { reason } => Some(reason.as_str()),
        _ => None,
    };
    let first = checks.first().and_then(reason)?;
    let alike = checks.len() > 1 && checks.iter().all(|c| reason(c) == Some(first));
    alike.then_some(first)
}

fn explain(text: &mut String, check: &Check) {
    let family = check.family.map(|f| format!("{f}: ")).unwrap_or_default();
    match &check.outcome {
        Outcome::Pass => {}
        Outcome::Skipped { reason } => {
            let _ = writeln!(text, "      {SKIPPED}{family}{reason}{SKIPPED:#}");
        }
        Outcome::Fail { failures } => {
            for failure in failures.iter().take(SHOWN) {
                let _ = writeln!(text, "      {FAILED}{family}{}{FAILED:#}", failure.subject);
                let _ = writeln!(text, "        saw       {}", failure.saw);
                let _ = writeln!(text, "        expected  {}", failure.expected);
                if let Some(stopped) = &failure.stopped_at {
                    let _ = writeln!(text, "        stopped   {stopped}");
                }
            }
            let more = failures.len().saturating_sub(SHOWN);
            if more > 0 {
                let _ = writeln!(text, "      {family}and {more} more");
            }
        }
    }
}

/// Where packets stopped, each place once, the most frequent first.
fn places(report: &Report) -> Vec<(&str, usize)> {
    let mut places: Vec<(&str, usize)> = Vec::new();
    let failures = report.checks.iter().flat_map(|c| match &c.outcome {
        Outcome::Fail { failures } => failures.as_slice(),
        _ => &[],
    });
    for place in failures.filter_map(|f| f.stopped_at.as_deref()) {
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, count)) => *count += 1,
            None => places.push((place, 1)),
        }
    }
    places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    places
}

fn summary(text: &mut String, report: &Report) {
    let count =
        |wanted: fn(&Outcome) -> bool| report.checks.iter().filter(|c| wanted(&c.outcome)).count();
    let passed = count(|o| matches!(o, Outcome::Pass));
    let failed = count(|o| matches!(o, Outcome::Fail { .. }));
    let skipped = count(|o| matches!(o, Outcome::Skipped { .. }));
    if report.checks.iter().any(|c| c.retries > 0) {
        let _ = writeln!(
            text,
            "\n* not at the first attempt: pods and Services were a moment old"
        );
    }
    let places = places(report);
    if !places.is_empty() {
        let _ = writeln!(text, "\n{HEADING}Where packets stopped{HEADING:#}");
        for (place, count) in places {
            let _ = writeln!(text, "  {count:>3}× {place}");
        }
    }
    let style = if failed == 0 { PASSED } else { FAILED };
    let verdict = match (failed, passed) {
        (0, 0) => "nothing could be checked",
        (0, _) => "the network works",
        _ => "the network does not work as it should",
    };
    let _ = writeln!(
        text,
        "\n{style}{verdict}{style:#}: {passed} passed, {failed} failed, {skipped} skipped in {:.1} s",
        report.duration.as_secs_f64()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_report_for_people() {
        let text = anstream::adapter::strip_str(&table(&sample())).to_string();
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn one_reason_for_both_families_is_said_once() {
        let check = |family, reason: &str| Check {
            family: Some(family),
            outcome: Outcome::Skipped {
                reason: reason.into(),
            },
            ..sample().checks[0].clone()
        };
        use kindnet_api::node::Family::{V4, V6};
        let mut report = sample();
        report.checks = vec![
            check(V4, "needs a second node"),
            check(V6, "needs a second node"),
        ];
        assert_eq!(table(&report).matches("needs a second node").count(), 1);
        report.checks[1] = check(V6, "no IPv6");
        let text = table(&report);
        assert!(text.contains("IPv4: needs a second node") && text.contains("IPv6: no IPv6"));
    }

    #[test]
    fn a_report_in_colour() {
        assert!(table(&sample()).contains("\u{1b}[32m✓"));
    }
}
