//! `kindnetctl verify`

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use kindnet_api::node::Family;
use kindnet_ui::{ExitCode, OutputFormat, Table, Ui, UserError, WithHint as _, emit, emit_text};
use kindnet_verify::{NodeChoice, Options, Outside, Report, catalogue};
use tokio_util::sync::CancellationToken;

use crate::args::duration;
use crate::commands::Target;

/// Prove that the network of a cluster works
///
/// Check pods are placed on the nodes and send each other packets; afterwards they are removed,
/// also on Ctrl-C. Any cluster will do; kindnet's own configuration is checked where kindnet is
/// installed. Exit codes: 0 every check passed, 1 a check failed, 2 the checks could not be run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl verify
  kindnetctl verify --name test --family ipv6
  kindnetctl verify --only pod.cross-node --only '*.mtu'
  kindnetctl verify --list
  kindnetctl verify -o json
  kindnetctl verify --junit report.xml
  kindnetctl verify --context prod --nodes 4 --outside 192.0.2.1:7100

The outside host runs `kindnet-probe serve --port 7100`, which says whom it sees. On a cluster of
the local Docker Engine one is started in a container; elsewhere that check is skipped without
--outside.")]
pub struct VerifyArgs {
    #[command(flatten)]
    pub target: Target,
    /// Families to check [default: all the cluster has]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAMILY")]
    pub family: Vec<FamilyArg>,
    /// Checks to run, with * and ?; may be repeated [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Number of nodes whose pods talk to each other, or their names
    #[arg(long, default_value = "2", value_name = "N|NAME,...")]
    pub nodes: NodeChoice,
    /// Deadline of the run
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
    /// How long a probe is repeated before it counts as failed
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub probe_timeout: Duration,
    /// Image of the check pods [default: that of the agent]
    #[arg(long)]
    pub image: Option<String>,
    /// A `kindnet-probe serve` outside of the cluster; twice for both families
    #[arg(long, value_name = "HOST:PORT")]
    pub outside: Vec<String>,
    /// Format of the report
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
    /// Also write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Leave the check pods behind, to look into a failure
    #[arg(long)]
    pub keep: bool,
    /// List the checks and do nothing
    #[arg(long)]
    pub list: bool,
}

/// `--family`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
    /// Both
    Dual,
}

/// `-o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// JUnit XML, for CI systems
    Junit,
}

pub async fn run(args: VerifyArgs, ui: &Ui, cancel: &CancellationToken) -> Result<ExitCode> {
    if args.list {
        list(args.output)?;
        return Ok(ExitCode::Success);
    }
    let options = Options {
        families: families(&args.family),
        only: args.only,
        timeout: args.timeout,
        probe_timeout: args.probe_timeout,
        image: args.image,
        outside: outside(&args.outside)?,
        nodes: args.nodes,
        keep: args.keep,
    };
    let client = args.target.connect().await?;
    let report = kindnet_verify::run(client, options, ui, cancel.clone()).await?;
    // The file first: a reader of standard output may be gone.
    if let Some(path) = &args.junit {
        let text = kindnet_verify::junit(&report).context("write the JUnit report")?;
        fs_err::write(path, text).or_fail(
            "the JUnit report cannot be written",
            "name a file in a folder that exists with --junit",
        )?;
    }
    print(&report, args.output)?;
    Ok(match report.passed() {
        true => ExitCode::Success,
        false => ExitCode::Failure,
    })
}

fn print(report: &Report, output: Output) -> Result<()> {
    match output {
        Output::Table => emit_text(&kindnet_verify::table(report)),
        Output::Junit => {
            emit_text(&kindnet_verify::junit(report).context("write the JUnit report")?)
        }
        Output::Json => emit(OutputFormat::Json, report, || Table::new([])),
        Output::Yaml => emit(OutputFormat::Yaml, report, || Table::new([])),
    }
}

fn list(output: Output) -> Result<()> {
    let format = match output {
        Output::Json => OutputFormat::Json,
        Output::Yaml => OutputFormat::Yaml,
        Output::Table | Output::Junit => OutputFormat::Table,
    };
    let data: Vec<_> = catalogue::CHECKS
        .iter()
        .map(|c| serde_json::json!({"id": c.id, "group": c.group, "title": c.title}))
        .collect();
    emit(format, &data, || {
        let mut table = Table::new(["id", "group", "title"]);
        for check in catalogue::CHECKS {
            table.row([check.id, check.group, check.title]);
        }
        table
    })
}

fn families(wanted: &[FamilyArg]) -> Vec<Family> {
    if wanted.contains(&FamilyArg::Dual) {
        return Family::ALL.to_vec();
    }
    let has = |family| match family {
        Family::V4 => wanted.contains(&FamilyArg::Ipv4),
        Family::V6 => wanted.contains(&FamilyArg::Ipv6),
    };
    Family::ALL.into_iter().filter(|f| has(*f)).collect()
}

/// A name may have an address in each family; the first of each is taken.
fn outside(hosts: &[String]) -> Result<Option<Outside>, UserError> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for host in hosts {
        let found = host.to_socket_addrs().map_err(|error| {
            UserError::usage(format!("--outside {host} has no address"))
                .hint("give a host and a port, such as 192.0.2.1:7100 or [2001:db8::1]:7100")
                .source(error)
        })?;
        for address in found {
            if !addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4()) {
                addresses.push(address);
            }
        }
    }
    Ok((!addresses.is_empty()).then_some(Outside { addresses }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dual_is_both_families_and_nothing_is_all() {
        assert_eq!(families(&[FamilyArg::Dual]), Family::ALL);
        assert_eq!(families(&[FamilyArg::Ipv6]), [Family::V6]);
        assert!(families(&[]).is_empty());
    }

    #[test]
    fn an_outside_host_needs_a_port() {
        let found = outside(&["192.0.2.1:7100".into(), "[2001:db8::1]:7100".into()]);
        assert_eq!(found.unwrap().unwrap().addresses.len(), 2);
        assert!(outside(&["192.0.2.1".into()]).is_err());
        assert!(outside(&[]).unwrap().is_none());
    }
}
