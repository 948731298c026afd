//! Proxy variables of the nodes: the caller's, or those of Docker's configuration file, with the
//! cluster's own networks and names exempt.

use serde_json::Value;

/// Suffixes of in-cluster names.
const CLUSTER_DOMAINS: [&str; 3] = [".svc", ".svc.cluster", ".svc.cluster.local"];

/// The variables, each in upper and lower case. Empty when no proxy is set anywhere.
///
/// `variable` reads the environment, `docker_config` is `~/.docker/config.json`, `docker_host` the
/// daemon's URL, and `direct` lists what is reached without a proxy.
#[must_use]
pub fn variables(
    variable: impl Fn(&str) -> Option<String>,
    docker_config: &Value,
    docker_host: &str,
    direct: &[String],
) -> Vec<(String, String)> {
    let from_environment = |name: &str| {
        [name.to_owned(), name.to_lowercase()]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()))
    };
    let configured = &docker_config["proxies"];
    let configured = match &configured[docker_host] {
        Value::Null => &configured["default"],
        own => own,
    };
    let from_docker = |key: &str| {
        configured[key]
            .as_str()
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };

    let mut values = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].map(from_environment);
    if values.iter().all(Option::is_none) {
        values = ["httpProxy", "httpsProxy", "noProxy"].map(from_docker);
    }
    if values.iter().all(Option::is_none) {
        return Vec::new();
    }
    let [http, https, no_proxy] = values;
    let mut exempt: Vec<String> = no_proxy.into_iter().collect();
    exempt.extend(direct.iter().cloned());
    exempt.extend(CLUSTER_DOMAINS.map(str::to_owned));

    [
        ("HTTP_PROXY", http),
        ("HTTPS_PROXY", https),
        ("NO_PROXY", Some(exempt.join(","))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .flat_map(|(name, value)| {
        [
            (name.to_owned(), value.clone()),
            (name.to_lowercase(), value),
        ]
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn environment<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            set.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn nothing_set_means_nothing() {
        assert!(variables(environment(&[]), &Value::Null, "", &["10.0.0.0/8".into()]).is_empty());
    }

    #[test]
    fn the_environment_wins_and_the_cluster_is_exempt() {
        let config = json!({"proxies": {"default": {"httpProxy": "http://other:1"}}});
        let set = [
            ("https_proxy", "http://proxy:3128"),
            ("NO_PROXY", "example.test"),
        ];
        let found = variables(environment(&set), &config, "", &["10.96.0.0/16".into()]);
        let exempt = "example.test,10.96.0.0/16,.svc,.svc.cluster,.svc.cluster.local";
        let expected = [
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("https_proxy", "http://proxy:3128"),
            ("NO_PROXY", exempt),
            ("no_proxy", exempt),
        ];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn dockers_file_may_name_a_proxy_per_daemon() {
        let config = json!({"proxies": {
            "default": {"httpProxy": "http://default:1"},
            "tcp://a:2375": {"httpProxy": "http://a:1"},
        }});
        let http = |host: &str| variables(environment(&[]), &config, host, &[])[0].1.clone();
        assert_eq!(http("tcp://a:2375"), "http://a:1");
        assert_eq!(http("unix:///var/run/docker.sock"), "http://default:1");
    }
}
