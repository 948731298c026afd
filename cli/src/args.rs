//! The command line.

use std::path::PathBuf;

use anstream::ColorChoice;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use kindnet_cluster::{IpFamily, names};

use crate::commands;

/// KIND clusters with the kindnet network plugin: make them, prove them, take them down.
#[derive(Debug, Parser)]
#[command(
    name = "kindnetctl",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  kindnetctl up --ipfamily dual --workers 1     a dual-stack cluster with kindnet in it
  kindnetctl verify                             prove that its network works
  kindnetctl down                               take it down again

Clusters made by kind and by kindnetctl can be managed with either tool.
Exit codes: 0 success, 1 failure, 2 bad usage or something missing, 130 interrupted."
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, ClapArgs)]
pub struct Global {
    /// Show nothing but errors and data
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub quiet: bool,
    /// Show what is done in detail; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Write progress as plain lines, also on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_progress: bool,
    /// When to use colours; NO_COLOR is honoured too
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub color: Color,
}

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Makes every writer of this process follow the choice.
    pub fn apply(self) {
        let choice = match self {
            Self::Auto => return,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(commands::up::UpArgs),
    Down(commands::down::DownArgs),
    Get(commands::get::GetArgs),
    Install(commands::install::InstallArgs),
    Uninstall(commands::uninstall::UninstallArgs),
    Verify(commands::verify::VerifyArgs),
    Load(commands::load::LoadArgs),
    Export(commands::export::ExportArgs),
    Logs(commands::logs::LogsArgs),
    Version(commands::version::VersionArgs),
    Completion(commands::completion::CompletionArgs),
}

/// `--name`, shared by everything that works on one cluster.
#[derive(Debug, Clone, ClapArgs)]
pub struct ClusterName {
    /// Name of the cluster
    #[arg(short, long, env = "KIND_CLUSTER_NAME", default_value = names::DEFAULT_CLUSTER, hide_env_values = true)]
    pub name: String,
}

/// `--kubeconfig` of what writes entries.
#[derive(Debug, Clone, ClapArgs)]
pub struct KubeconfigFile {
    /// Kubeconfig to change [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `--ipfamily`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4 only
    Ipv4,
    /// IPv6 only
    Ipv6,
    /// Both, IPv4 first
    Dual,
}

impl From<Family> for IpFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
            Family::Dual => Self::Dual,
        }
    }
}

/// Reads `90s`, `5m`, `1h`, `1m30s` or `0`.
///
/// # Errors
/// The text is no duration.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s or 5m");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let (mut seconds, mut digits) = (0u64, String::new());
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                digits.push(character);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
        digits.clear();
    }
    if text.is_empty() || !digits.is_empty() {
        return Err(wrong());
    }
    Ok(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Args::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let nested = command.has_subcommands();
            assert!(
                nested || help.starts_with("Examples:"),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("0"), Ok(0));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1m30s"), Ok(90));
        assert_eq!(seconds("1h"), Ok(3600));
        for wrong in ["", "5", "m", "5 m", "-1s", "99999999999999999999h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
