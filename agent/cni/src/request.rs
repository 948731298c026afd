//! What the runtime says in the environment.

use crate::config::is_name;
use crate::error::{Error, Result};

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Compare an attachment with what ADD made.
    Check,
    /// Drop what belongs to no attachment any more.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are spoken.
    Version,
}

/// The environment of a command.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: String,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`
    pub netns: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_ARGS`
    pub args: String,
}

impl Environment {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let get = |name| std::env::var(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
        }
    }

    /// The command, with the variables it needs checked.
    ///
    /// # Errors
    /// A variable is missing or invalid.
    pub fn command(&self) -> Result<Command> {
        let command = match self.command.as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            "" => return Err(invalid("CNI_COMMAND", "is missing")),
            other => {
                return Err(invalid(
                    "CNI_COMMAND",
                    &format!("{other:?} is not ADD, DEL, CHECK, GC, STATUS or VERSION"),
                ));
            }
        };
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            // With `@` and the name of an interface it becomes the name of a file.
            if !is_name(&self.container_id) || self.container_id.len() > 200 {
                return Err(invalid(
                    "CNI_CONTAINERID",
                    "must be letters, digits, `_`, `.` and `-`, starting with a letter or digit",
                ));
            }
            if !is_ifname(&self.ifname) {
                return Err(invalid("CNI_IFNAME", "is not a name of an interface"));
            }
            if self.netns.is_empty() && command != Command::Del {
                return Err(invalid("CNI_NETNS", "is missing"));
            }
        }
        Ok(command)
    }
}

fn invalid(name: &'static str, problem: &str) -> Error {
    Error::Environment {
        name,
        problem: problem.to_owned(),
    }
}

/// The kernel's rule (`dev_valid_name`).
fn is_ifname(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.len() <= 15
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn environment(command: &str) -> Environment {
        Environment {
            command: command.into(),
            container_id: "c0ffee".into(),
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            args: String::new(),
        }
    }

    #[rstest]
    #[case("ADD", Command::Add)]
    #[case("DEL", Command::Del)]
    #[case("CHECK", Command::Check)]
    #[case("GC", Command::Gc)]
    #[case("STATUS", Command::Status)]
    #[case("VERSION", Command::Version)]
    fn commands(#[case] text: &str, #[case] command: Command) {
        assert_eq!(environment(text).command().unwrap(), command);
    }

    #[rstest]
    #[case(Environment { command: String::new(), ..environment("ADD") })]
    #[case(environment("add"))]
    #[case(Environment { container_id: String::new(), ..environment("DEL") })]
    #[case(Environment { container_id: "../x".into(), ..environment("ADD") })]
    #[case(Environment { container_id: "a@b".into(), ..environment("ADD") })]
    #[case(Environment { container_id: "a".repeat(201), ..environment("ADD") })]
    #[case(Environment { ifname: String::new(), ..environment("ADD") })]
    #[case(Environment { ifname: "a/b".into(), ..environment("DEL") })]
    #[case(Environment { ifname: "sixteen-letters-".into(), ..environment("ADD") })]
    #[case(Environment { netns: String::new(), ..environment("ADD") })]
    #[case(Environment { netns: String::new(), ..environment("CHECK") })]
    fn invalid_environments(#[case] environment: Environment) {
        assert_eq!(environment.command().unwrap_err().code(), 4);
    }

    #[test]
    fn del_needs_no_netns_and_gc_no_container() {
        let del = Environment {
            netns: String::new(),
            ..environment("DEL")
        };
        assert_eq!(del.command().unwrap(), Command::Del);
        let gc = Environment {
            command: "GC".into(),
            ..Environment::default()
        };
        assert_eq!(gc.command().unwrap(), Command::Gc);
    }
}
