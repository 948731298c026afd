//! The report for CI systems.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::report::{Outcome, Report};

/// JUnit XML: a suite per group of checks, a case per check and family.
///
/// # Errors
/// The text cannot be made; only where memory is short.
pub fn junit(report: &Report) -> Result<String, quick_junit::SerializeError> {
    let mut junit = Junit::new("kindnetctl verify");
    junit.set_time(report.duration);
    let mut suites: Vec<TestSuite> = Vec::new();
    for check in &report.checks {
        let name = match check.family {
            Some(family) => format!("{} ({family})", check.title),
            None => check.title.clone(),
        };
        let status = match &check.outcome {
            Outcome::Pass => TestCaseStatus::success(),
            Outcome::Skipped { reason } => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(reason.as_str());
                status
            }
            Outcome::Fail { failures } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let lines: Vec<String> = failures
                    .iter()
                    .map(|f| {
                        let mut line =
                            format!("{}: saw {}, expected {}", f.subject, f.saw, f.expected);
                        if let Some(stopped) = &f.stopped_at {
                            line.push_str(&format!("; {stopped}"));
                        }
                        line
                    })
                    .collect();
                status.set_message(lines.first().map_or("", String::as_str));
                status.set_type(check.id.as_str());
                status.set_description(lines.join("\n"));
                status
            }
        };
        let mut case = TestCase::new(name, status);
        case.set_classname(check.id.as_str());
        case.set_time(check.duration);
        match suites.last_mut() {
            Some(suite) if suite.name.as_str() == check.group => {
                suite.add_test_case(case);
            }
            _ => {
                let mut suite = TestSuite::new(check.group.as_str());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    junit.add_test_suites(suites);
    junit.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_report_for_ci() {
        insta::assert_snapshot!(junit(&sample()).unwrap());
    }
}
