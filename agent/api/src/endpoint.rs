//! The address of the API server that works before kube-proxy does.
//!
//! kubeadm publishes it in the ConfigMap `kube-public/cluster-info`, readable by everybody, for
//! nodes that join: <https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/>.

use std::net::IpAddr;

use crate::yaml;

/// Namespace of kubeadm's public ConfigMap.
pub const CLUSTER_INFO_NAMESPACE: &str = "kube-public";

/// Name of kubeadm's public ConfigMap.
pub const CLUSTER_INFO_NAME: &str = "cluster-info";

/// Key in it that holds a kubeconfig without credentials.
pub const CLUSTER_INFO_KEY: &str = "kubeconfig";

/// Environment variable that hands the endpoint to agent and controller.
pub const ENDPOINT_ENV: &str = "CONTROL_PLANE_ENDPOINT";

/// `https://host:port` from the kubeconfig in kubeadm's ConfigMap. `None` where it names no server,
/// or one that only works on the host it was written on.
#[must_use]
pub fn from_cluster_info(kubeconfig: &str) -> Option<String> {
    let document: serde_json::Value = yaml::from_str(kubeconfig).ok()?;
    let server = document
        .pointer("/clusters/0/cluster/server")?
        .as_str()?
        .trim_end_matches('/');
    let authority = server.strip_prefix("https://")?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let endpoint = if has_port {
        server.to_owned()
    } else {
        format!("{server}:443")
    };
    (is_endpoint(&endpoint) && !is_local(&endpoint)).then_some(endpoint)
}

/// Whether the text is `https://host:port` with nothing behind the port.
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = split(text) else {
        return false;
    };
    let host_ok = match host.strip_prefix('[') {
        Some(v6) => v6
            .strip_suffix(']')
            .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("https://")?.rsplit_once(':')
}

fn is_local(endpoint: &str) -> bool {
    let Some((host, _)) = split(endpoint) else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "https://kind-control-plane:6443",
        Some("https://kind-control-plane:6443")
    )]
    #[case("https://[fc00::2]:6443/", Some("https://[fc00::2]:6443"))]
    #[case("https://[fc00::2]", Some("https://[fc00::2]:443"))]
    #[case("https://api.example.test", Some("https://api.example.test:443"))]
    #[case("https://127.0.0.1:6443", None)]
    #[case("https://[::1]:6443", None)]
    #[case("https://localhost:6443", None)]
    #[case("https://api.example.test/path", None)]
    #[case("http://10.0.0.1:6443", None)]
    fn cluster_info(#[case] server: &str, #[case] expected: Option<&str>) {
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: ''\n  cluster:\n    server: {server}\n"
        );
        assert_eq!(from_cluster_info(&text).as_deref(), expected);
    }

    #[rstest]
    #[case("")]
    #[case("clusters: []")]
    #[case("}")]
    fn no_cluster(#[case] text: &str) {
        assert_eq!(from_cluster_info(text), None);
    }
}
