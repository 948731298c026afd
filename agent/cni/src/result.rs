//! The result of ADD, in the form of each version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use crate::version::Version;

/// What ADD made.
#[derive(Debug, Clone)]
pub(crate) struct Success<'a> {
    pub(crate) host: Interface<'a>,
    pub(crate) pod: Interface<'a>,
    pub(crate) sandbox: &'a str,
    pub(crate) mtu: Option<u32>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
    pub(crate) dns: Option<&'a Value>,
}

/// One end of the link.
#[derive(Debug, Clone)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

/// An address of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Ip {
    pub(crate) address: IpNet,
    pub(crate) gateway: IpAddr,
}

#[derive(Serialize)]
struct JsonInterface<'a> {
    name: &'a str,
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonIp {
    // Until 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    interface: usize,
    address: IpNet,
    gateway: IpAddr,
}

#[derive(Serialize)]
struct JsonRoute {
    dst: IpNet,
    gw: IpAddr,
}

impl Success<'_> {
    /// The object for standard output. What a plugin before this one made stays in it.
    pub(crate) fn to_json(&self, version: Version, previous: Option<&Value>) -> Value {
        let list = |name: &str| -> Vec<Value> {
            previous
                .and_then(|result| result.get(name))
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let mut interfaces = list("interfaces");
        let pod_index = interfaces.len() + 1;
        let mtu = self.mtu.filter(|_| version >= Version::V110);
        for (interface, sandbox) in [(&self.host, None), (&self.pod, Some(self.sandbox))] {
            interfaces.push(value(&JsonInterface {
                name: interface.name,
                mac: mac_text(interface.mac),
                mtu,
                sandbox,
            }));
        }
        let mut ips = list("ips");
        ips.extend(self.ips.iter().map(|ip| {
            let number = if ip.gateway.is_ipv4() { "4" } else { "6" };
            value(&JsonIp {
                version: Some(number).filter(|_| version < Version::V100),
                interface: pod_index,
                address: ip.address,
                gateway: ip.gateway,
            })
        }));
        let mut routes = list("routes");
        routes.extend(
            self.routes
                .iter()
                .map(|(dst, gw)| value(&JsonRoute { dst: *dst, gw: *gw })),
        );
        let mut result = json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
        });
        let dns = self
            .dns
            .or_else(|| previous.and_then(|result| result.get("dns")));
        result["dns"] = dns.cloned().unwrap_or_else(|| json!({}));
        result
    }
}

fn value(item: &impl Serialize) -> Value {
    serde_json::to_value(item).unwrap_or_default()
}

/// Addresses of the container in a result: those of an interface in a sandbox, or all of them where
/// the result does not say.
pub(crate) fn container_addresses(result: &Value) -> Vec<IpAddr> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let in_sandbox = |ip: &Value| {
        let index = ip.get("interface").and_then(Value::as_u64);
        let interface = index
            .zip(interfaces)
            .and_then(|(index, interfaces)| interfaces.get(usize::try_from(index).ok()?));
        interface.is_none_or(|i| {
            i.get("sandbox")
                .and_then(Value::as_str)
                .is_some_and(|s| !s.is_empty())
        })
    };
    result
        .get("ips")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|ip| in_sandbox(ip))
        .filter_map(|ip| ip.get("address")?.as_str()?.parse::<IpNet>().ok())
        .map(|net| net.addr())
        .collect()
}

/// `02:42:...`
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn success() -> Success<'static> {
        Success {
            host: Interface {
                name: "kn-0123456789ab",
                mac: [2, 0, 0, 0, 0, 1],
            },
            pod: Interface {
                name: "eth0",
                mac: [2, 0, 0, 0, 0, 2],
            },
            sandbox: "/run/netns/a",
            mtu: Some(1450),
            ips: [("10.1.2.3/24", "10.1.2.1"), ("fd00::3/64", "fd00::1")]
                .map(|(address, gateway)| Ip {
                    address: address.parse().unwrap(),
                    gateway: gateway.parse().unwrap(),
                })
                .into(),
            routes: [("0.0.0.0/0", "10.1.2.1"), ("::/0", "fd00::1")]
                .map(|(dst, gw)| (dst.parse().unwrap(), gw.parse().unwrap()))
                .into(),
            dns: None,
        }
    }

    #[rstest]
    #[case("0.3.1", Version::V031)]
    #[case("0.4.0", Version::V040)]
    #[case("1.0.0", Version::V100)]
    #[case("1.1.0", Version::V110)]
    fn results_of_each_version(#[case] name: &str, #[case] version: Version) {
        insta::assert_json_snapshot!(name, success().to_json(version, None));
    }

    #[test]
    fn what_came_before_is_kept() {
        let previous = json!({
            "interfaces": [{"name": "net1", "sandbox": "/run/netns/a"}],
            "ips": [{"interface": 0, "address": "192.0.2.1/24"}],
            "dns": {"domain": "test"},
        });
        let result = success().to_json(Version::V110, Some(&previous));
        insta::assert_json_snapshot!("chained", result);
        let expected: Vec<IpAddr> = ["192.0.2.1", "10.1.2.3", "fd00::3"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(container_addresses(&result), expected);
    }

    #[test]
    fn addresses_of_the_host_are_no_addresses_of_the_container() {
        let result = json!({
            "interfaces": [{"name": "br0"}],
            "ips": [{"interface": 0, "address": "192.0.2.1/24"}, {"address": "192.0.2.2/24"}],
        });
        assert_eq!(
            container_addresses(&result),
            ["192.0.2.2".parse::<IpAddr>().unwrap()]
        );
    }
}
