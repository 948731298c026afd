//! What a user meets before and besides a working cluster: bad input, clashes, Ctrl-C.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use kindnet_testenv::{Family, Output, Tool};

use crate::suite::{Stage, Suite};

/// The suite; it makes no cluster that stays.
pub fn suite() -> Suite {
    Suite {
        name: "cli",
        family: Family::Dual,
        tests: vec![
            ("bad_input_touches_nothing", bad_input_touches_nothing),
            ("ctrl_c_leaves_nothing_behind", ctrl_c_leaves_nothing_behind),
        ],
    }
}

/// Containers and volumes of the engine, to compare.
fn inventory() -> Result<String> {
    let docker = Tool::new("docker");
    let containers = docker.run(["ps", "-aq", "--no-trunc"])?.success()?;
    let volumes = docker.run(["volume", "ls", "-q"])?.success()?;
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    Ok(sorted(containers) + "\n" + &sorted(volumes))
}

fn bad_input_touches_nothing(stage: &mut Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kindnetctl = stage
        .environment
        .kindnetctl(&folder.path().join("kubeconfig"));
    let image = stage.environment.kindnet_image.clone();
    let before = inventory()?;
    let cases: &[&[&str]] = &[
        &["--ipfamily", "ipv5"],
        &["--name", "Not_A_Name"],
        &["--pod-subnet", "10.244.0.0/33"],
        &["--pod-subnet", "fd00:10:244::/56"],
        &["--ipfamily", "ipv6", "--service-subnet", "10.96.0.0/16"],
        &["--pod-subnet", "10.96.0.0/12"],
        &[
            "--ipfamily",
            "dual",
            "--pod-subnet",
            "10.244.0.0/16,10.245.0.0/16",
        ],
        &["--kindnet-image", "kindnet.invalid/no/such:image"],
    ];
    for case in cases {
        let mut args = vec!["up", "--name", stage.name()];
        if !case.contains(&"--kindnet-image") {
            args.extend(["--kindnet-image", &image]);
        }
        if let Some(node_image) = &stage.environment.node_image {
            args.extend(["--image", node_image]);
        }
        args.extend(*case);
        // clap lets a later value of the same option replace the default only once.
        if case.contains(&"--name") {
            args.drain(1..3);
        }
        let output = kindnetctl.run(args)?.exit(2)?;
        ensure!(output.stderr.contains("error:"), "{case:?}: {output}");
    }
    ensure!(inventory()? == before, "something was created");
    Ok(())
}

fn ctrl_c_leaves_nothing_behind(stage: &mut Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let kindnetctl = stage.environment.kindnetctl(&kubeconfig);
    let before = inventory()?;
    for pause in [
        Duration::from_millis(300),
        Duration::from_secs(3),
        Duration::from_secs(15),
    ] {
        let mut args = vec![
            "up",
            "--name",
            stage.name(),
            "--ipfamily",
            "dual",
            "--workers",
            "1",
        ];
        args.extend(["--kindnet-image", &stage.environment.kindnet_image]);
        if let Some(image) = &stage.environment.node_image {
            args.extend(["--image", image]);
        }
        let running = kindnetctl.spawn(args)?;
        thread::sleep(pause);
        running.interrupt()?;
        let output: Output = running.wait()?.exit(130)?;
        ensure!(
            inventory()? == before,
            "left behind after {pause:?}: {output}"
        );
        let text = std::fs::read_to_string(&kubeconfig).unwrap_or_default();
        ensure!(
            !text.contains(stage.name()),
            "left in the kubeconfig after {pause:?}:\n{text}"
        );
    }
    Ok(())
}
