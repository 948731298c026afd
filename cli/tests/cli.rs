//! The program as a user runs it, without a cluster.

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};

/// kindnetctl in an environment where nothing can be reached or changed.
fn kindnetctl() -> (Command, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindnetctl"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env(
            "DOCKER_HOST",
            format!("unix://{}/no.sock", home.path().display()),
        )
        .env("NO_COLOR", "1");
    (command, home)
}

#[test]
fn without_arguments_it_shows_help() {
    let (mut command, _home) = kindnetctl();
    command
        .assert()
        .code(2)
        .stderr(contains("Usage: kindnetctl").and(contains("Examples:")));
}

#[test]
fn help_goes_to_standard_output() {
    for arguments in [
        &["--help"][..],
        &["up", "--help"],
        &["down", "--help"],
        &["get", "nodes", "--help"],
        &["load", "image", "--help"],
        &["export", "kubeconfig", "--help"],
        &["install", "--help"],
        &["uninstall", "--help"],
        &["verify", "--help"],
        &["logs", "--help"],
        &["version", "--help"],
        &["completion", "--help"],
    ] {
        let (mut command, _home) = kindnetctl();
        command
            .args(arguments)
            .assert()
            .success()
            .stdout(contains("Examples:"))
            .stderr(is_empty());
    }
}

#[test]
fn the_help_of_up_is_stable() {
    let (mut command, _home) = kindnetctl();
    let output = command.args(["up", "-h"]).output().expect("it runs");
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout));
}

/// Bad input: the exact error, exit code 2, nothing touched.
fn refused(arguments: &[&str], expected: &str) {
    let (mut command, home) = kindnetctl();
    command
        .args(arguments)
        .assert()
        .code(2)
        .stdout(is_empty())
        .stderr(expected.to_owned());
    let left = std::fs::read_dir(home.path())
        .expect("the folder is there")
        .count();
    assert_eq!(left, 0, "something was written");
}

#[test]
fn bad_settings_are_refused_before_docker_is_asked() {
    refused(
        &["up", "--pod-subnet", "fd00::/56"],
        "error: --pod-subnet: fd00::/56 is IPv6, but --ipfamily is ipv4\n",
    );
    refused(
        &[
            "up",
            "--ipfamily",
            "dual",
            "--service-subnet",
            "10.96.0.0/16,10.97.0.0/16",
        ],
        "error: --service-subnet: \"10.96.0.0/16,10.97.0.0/16\" has more than one IPv4 prefix\n",
    );
    refused(
        &["up", "--pod-subnet", "10.96.0.0/12"],
        "error: --pod-subnet 10.96.0.0/12 overlaps with --service-subnet 10.96.0.0/16\n",
    );
    refused(
        &["up", "--name", "No_Name", "--pod-subnet", "x"],
        "error: --name: \"No_Name\" is not a cluster name: use lower-case letters, digits, `.` and `-`
       --pod-subnet: \"x\" is not a prefix such as 10.244.0.0/16\n",
    );
}

#[test]
fn clap_refuses_the_rest() {
    let cases: [(&[&str], &str); 5] = [
        (&["up", "--ipfamily", "ipv5"], "invalid value 'ipv5'"),
        (
            &["up", "--wait", "5"],
            "\"5\" is not a duration such as 90s or 5m",
        ),
        (&["up", "--workers", "-1"], "unexpected argument '-1'"),
        (&["load", "image"], "required arguments were not provided"),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (arguments, message) in cases {
        let (mut command, _home) = kindnetctl();
        command
            .args(arguments)
            .assert()
            .code(2)
            .stderr(contains(message));
    }
}

#[test]
fn a_missing_daemon_is_named_with_a_cure() {
    for arguments in [
        &["up"][..],
        &["down"],
        &["get", "clusters"],
        &["get", "kubeconfig"],
        &["load", "image", "a"],
        &["logs"],
    ] {
        let (mut command, _home) = kindnetctl();
        command
            .args(arguments)
            .assert()
            .code(2)
            .stdout(is_empty())
            .stderr(
                starts_with("error: the socket of the Docker daemon does not exist\n")
                    .and(contains("hint: install Docker Engine and start it")),
            );
    }
}

#[test]
fn unsupported_transports_are_named() {
    let (mut command, _home) = kindnetctl();
    command
        .env("DOCKER_HOST", "ssh://somewhere")
        .args(["get", "clusters"])
        .assert()
        .code(2)
        .stderr(starts_with("error: DOCKER_HOST: ssh:// is not supported\n"));
}

#[test]
fn a_missing_context_is_named() {
    let (mut command, _home) = kindnetctl();
    command
        .env_remove("DOCKER_HOST")
        .env("DOCKER_CONTEXT", "nowhere")
        .args(["get", "clusters"])
        .assert()
        .code(2)
        .stderr(starts_with(
            "error: the Docker context \"nowhere\" does not exist\n",
        ));
}

#[test]
fn a_daemon_that_hangs_up_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = folder.path().join("docker.sock");
    // A socket nobody listens on any more refuses connections.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket can be bound"));
    let (mut command, _home) = kindnetctl();
    command
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .args(["get", "clusters"])
        .assert()
        .code(2)
        .stderr(starts_with("error: the Docker daemon does not answer\n"));
}

/// A daemon that gives every request the same answer, until the test ends.
fn daemon(socket: &std::path::Path, status: &'static str, body: &'static str) {
    use std::io::{Read as _, Write as _};
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket can be bound");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let _ = connection.read(&mut [0; 4096]);
            let length = body.len();
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
        }
    });
}

#[test]
fn an_old_daemon_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = folder.path().join("docker.sock");
    daemon(
        &socket,
        "200 OK",
        r#"{"ApiVersion": "1.40", "Version": "19.03"}"#,
    );
    let (mut command, _home) = kindnetctl();
    command
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .arg("up")
        .assert()
        .code(2)
        .stderr(starts_with(
            "error: the Docker daemon speaks API 1.40, but 1.41 is needed\n",
        ));
}

#[test]
fn a_daemon_that_fails_is_quoted() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = folder.path().join("docker.sock");
    daemon(
        &socket,
        "500 Internal Server Error",
        r#"{"message": "disk on fire"}"#,
    );
    let (mut command, _home) = kindnetctl();
    command
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .args(["get", "clusters"])
        .assert()
        .code(1)
        .stderr(contains("cannot use the Docker daemon at unix://").and(contains("disk on fire")));
}

#[test]
fn a_missing_kubeconfig_is_named() {
    let (mut command, home) = kindnetctl();
    let missing = home.path().join("missing");
    command
        .args(["install", "--kubeconfig"])
        .arg(&missing)
        .assert()
        .code(2)
        .stderr(contains("there is no kubeconfig ").and(contains("--kubeconfig")));
}

#[test]
fn versions() {
    let (mut command, _home) = kindnetctl();
    command
        .arg("version")
        .assert()
        .success()
        .stdout(starts_with("kindnetctl v"));
    let (mut command, _home) = kindnetctl();
    let output = command
        .args(["version", "-o", "json"])
        .output()
        .expect("it runs");
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(
        version["nodeImage"]
            .as_str()
            .expect("it is there")
            .starts_with("kindest/node:v1.")
    );
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (mut command, _home) = kindnetctl();
        command
            .args(["completion", shell])
            .assert()
            .success()
            .stdout(contains("ipfamily"));
    }
}

#[test]
fn the_name_comes_from_the_environment_kind_reads() {
    let (mut command, _home) = kindnetctl();
    command
        .env("KIND_CLUSTER_NAME", "Not_A_Name")
        .arg("up")
        .assert()
        .code(2)
        .stderr(contains("\"Not_A_Name\" is not a cluster name"));
}

/// A kubeconfig for a server of this machine that nobody listens on.
fn kubeconfig_of_nobody(home: &tempfile::TempDir, host: &str) -> std::path::PathBuf {
    let path = home.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters:\n- name: c\n  cluster: {{server: 'https://{host}:1'}}\n\
         users:\n- name: u\n  user: {{token: t}}\n\
         contexts:\n- name: a\n  context: {{cluster: c, user: u}}\n"
    );
    std::fs::write(&path, text).expect("the kubeconfig can be written");
    path
}

#[test]
fn a_proxy_of_the_environment_is_not_for_clusters_of_this_machine() {
    // One case: the rules have tests of their own, and a server that is not there is waited for.
    let (mut command, home) = kindnetctl();
    command
        .env("HTTPS_PROXY", "http://192.0.2.1:3128")
        .env("NO_PROXY", ",")
        .arg("verify")
        .arg("--kubeconfig")
        .arg(kubeconfig_of_nobody(&home, "127.0.0.1"))
        .assert()
        .code(2)
        .stderr(contains("does not answer").and(contains("proxy").not()));
}

#[test]
fn a_proxy_that_would_be_needed_is_named_with_a_way_around_it() {
    let (mut command, home) = kindnetctl();
    command
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .arg("verify")
        .arg("--kubeconfig")
        .arg(kubeconfig_of_nobody(&home, "kubernetes.invalid"))
        .assert()
        .code(2)
        .stderr(contains("NO_PROXY"));
}
