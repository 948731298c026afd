//! Masquerading in a real kernel, with real packets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lab;

use kindnet_api::node::{Family, NodeInfo};
use kindnet_core::masquerade::{MasqueradePlan, plan};
use kindnet_net::iptables::{Drift, Flavour, Iptables, Masquerade, Monitor, Repairs};
use lab::Lab;
use rstest::rstest;

fn node(cidrs: &[&str]) -> NodeInfo {
    NodeInfo {
        pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
        ..NodeInfo::default()
    }
}

fn dual() -> MasqueradePlan {
    let own = node(&["10.244.1.0/24", "fd44:1::/64"]);
    let peer = node(&["10.244.2.0/24", "fd44:2::/64"]);
    plan(&own, [&peer], &["203.0.113.0/24".parse().unwrap()])
}

/// A node that forwards and has its routes.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.sh(
        "node",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    lab.ip("node", "route add 10.244.2.0/24 via 172.31.0.3");
    lab.ip("node", "-6 route add fd44:2::/64 via fd31::3");
    lab
}

fn apply(lab: &Lab, backend: &mut Iptables, plan: &MasqueradePlan) -> Repairs {
    lab.within("node", || backend.apply(plan).unwrap())
}

fn sources(lab: &Lab) -> [String; 2] {
    ["172.31.0.9", "fd31::9"].map(|address| lab.source_seen("pod", "outside", address).to_string())
}

const MASKED: [&str; 2] = ["172.31.0.2", "fd31::2"];
const PLAIN: [&str; 2] = ["10.244.1.5", "fd44:1::5"];

fn tool(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Legacy => "legacy",
        _ => "nft",
    }
}

#[rstest]
#[case(Flavour::Nft)]
#[case(Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn pods_are_masqueraded_outside_and_nowhere_else(#[case] flavour: Flavour) {
    let lab = lab();
    let mut backend = Iptables::new(flavour);
    assert_eq!(sources(&lab), PLAIN);
    let repairs = apply(&lab, &mut backend, &dual());
    assert_eq!(
        repairs,
        Family::ALL.map(|family| (family, Drift::ChainMissing))
    );
    assert_eq!(sources(&lab), MASKED);
    assert_eq!(
        lab.source_seen("pod", "peer", "10.244.2.5").to_string(),
        PLAIN[0]
    );
    assert_eq!(
        lab.source_seen("pod", "peer", "fd44:2::5").to_string(),
        PLAIN[1]
    );
    assert_eq!(
        lab.source_seen("pod", "node", "172.31.0.2").to_string(),
        PLAIN[0]
    );
    assert_eq!(
        lab.source_seen("node", "outside", "172.31.0.9").to_string(),
        MASKED[0]
    );
    assert_eq!(
        lab.source_seen("outside", "pod", "10.244.1.5").to_string(),
        "172.31.0.9"
    );
}

#[rstest]
#[case(Flavour::Nft)]
#[case(Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn nothing_is_written_while_nothing_differs(#[case] flavour: Flavour) {
    let lab = lab();
    let mut backend = Iptables::new(flavour);
    apply(&lab, &mut backend, &dual());
    let ns = tool(flavour);
    // Packet counters start anew when a rule is written.
    sources(&lab);
    let counters = format!("iptables-{ns}-save -c -t nat | grep -v '^#'");
    let before = lab.sh("node", &counters);
    assert_eq!(apply(&lab, &mut backend, &dual()), []);
    assert_eq!(apply(&lab, &mut Iptables::new(flavour), &dual()), []);
    assert_eq!(lab.sh("node", &counters), before);
}

#[rstest]
#[ignore = "needs root and network namespaces"]
fn damage_is_repaired(
    #[values(Flavour::Nft, Flavour::Legacy)] flavour: Flavour,
    #[values(
        ("-F KINDNET-MASQ", Drift::ChainChanged),
        ("-F", Drift::ChainChanged),
        ("-F; T -X", Drift::ChainMissing),
        ("-D KINDNET-MASQ 1", Drift::ChainChanged),
        ("-I KINDNET-MASQ -j MASQUERADE", Drift::ChainChanged),
        ("-F POSTROUTING", Drift::JumpMissing),
        ("-A POSTROUTING -j KINDNET-MASQ", Drift::JumpExtra),
        ("-I POSTROUTING -s PODS -j ACCEPT", Drift::JumpShadowed)
    )]
    damage: (&str, Drift),
) {
    let lab = lab();
    let mut backend = Iptables::new(flavour);
    apply(&lab, &mut backend, &dual());
    for (family, pods) in [("iptables", "10.244.1.0/24"), ("ip6tables", "fd44:1::/64")] {
        let tool = format!("{family}-{} -t nat", tool(flavour));
        let command = damage
            .0
            .replace("T ", &format!("{tool} "))
            .replace("PODS", pods);
        lab.sh("node", &format!("{tool} {command}"));
    }
    let expected = Family::ALL.map(|family| (family, damage.1));
    assert_eq!(
        lab.within("node", || backend.verify(&dual()).unwrap()),
        expected
    );
    assert_eq!(apply(&lab, &mut backend, &dual()), expected);
    assert_eq!(lab.within("node", || backend.verify(&dual()).unwrap()), []);
    assert_eq!(sources(&lab), MASKED);
}

#[rstest]
#[case(Flavour::Nft)]
#[case(Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn rules_of_others_survive_and_cleanup_leaves_no_trace(#[case] flavour: Flavour) {
    let lab = lab();
    let tool = format!("iptables-{}", tool(flavour));
    lab.sh(
        "node",
        &format!(
            "{tool} -t nat -N KUBE-POSTROUTING; {tool} -t nat -A KUBE-POSTROUTING -j MASQUERADE; \
             {tool} -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j KUBE-POSTROUTING; \
             {tool} -t nat -A PREROUTING -d 192.0.2.1 -p tcp -j DNAT --to-destination 172.31.0.9"
        ),
    );
    let save = || lab.sh("node", &format!("{tool}-save -t nat | grep -v '^[#:]'"));
    let chains = || lab.sh("node", &format!("{tool}-save -t nat | grep -o '^:[A-Z-]*'"));
    let (rules_before, chains_before) = (save(), chains());
    let mut backend = Iptables::new(flavour);
    apply(&lab, &mut backend, &dual());
    assert_eq!(save().matches("KUBE-POSTROUTING").count(), 2);
    lab.within("node", || backend.cleanup().unwrap());
    assert_eq!((save(), chains()), (rules_before, chains_before));
    assert_eq!(sources(&lab), PLAIN);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn hairpin_marks_of_kube_proxy_still_count() {
    let lab = lab();
    // What kube-proxy does for a pod that reaches itself through a Service.
    lab.sh(
        "node",
        "iptables-nft -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE; \
         iptables-nft -t mangle -A PREROUTING -d 10.244.2.5 -j MARK --set-mark 0x4000",
    );
    apply(&lab, &mut Iptables::new(Flavour::Nft), &dual());
    assert_eq!(
        lab.source_seen("pod", "peer", "10.244.2.5").to_string(),
        MASKED[0]
    );
}

#[rstest]
#[case(Flavour::Nft)]
#[case(Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn a_plan_that_changes_or_ends_is_followed(#[case] flavour: Flavour) {
    let lab = lab();
    let mut backend = Iptables::new(flavour);
    apply(&lab, &mut backend, &dual());
    let own = node(&["10.244.1.0/24", "fd44:1::/64"]);
    let excluded = ["172.31.0.0/24".parse().unwrap()];
    let changed = plan(&own, [], &excluded);
    apply(&lab, &mut backend, &changed);
    assert_eq!(sources(&lab), [PLAIN[0], MASKED[1]]);
    let ipv4 = plan(&node(&["10.244.1.0/24"]), [], &[]);
    assert!(apply(&lab, &mut backend, &ipv4).contains(&(Family::V6, Drift::Unwanted)));
    assert_eq!(sources(&lab), [MASKED[0], PLAIN[1]]);
    apply(&lab, &mut backend, &MasqueradePlan::default());
    assert_eq!(sources(&lab), PLAIN);
    let left = lab.sh("node", &format!("iptables-{}-save", tool(flavour)));
    assert!(!left.contains("KINDNET"), "{left}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_other_flavours_leftovers_are_removed() {
    let lab = lab();
    apply(&lab, &mut Iptables::new(Flavour::Legacy), &dual());
    let mut backend = Iptables::new(Flavour::Nft);
    lab.within("node", || backend.cleanup_other_flavours().unwrap());
    let left = lab.sh("node", "iptables-legacy-save; ip6tables-legacy-save");
    assert!(!left.contains("KINDNET"), "{left}");
}

#[rstest]
#[case("nft", Flavour::Nft)]
#[case("legacy", Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn kubelets_hint_decides_the_flavour(#[case] tool: &str, #[case] expected: Flavour) {
    let lab = lab();
    let other = if tool == "nft" { "legacy" } else { "nft" };
    for _ in 0..3 {
        lab.sh(
            "node",
            &format!("iptables-{other} -A INPUT -s 192.0.2.1 -j ACCEPT"),
        );
    }
    lab.sh(
        "node",
        &format!("iptables-{tool} -t mangle -N KUBE-KUBELET-CANARY"),
    );
    assert_eq!(lab.within("node", Flavour::detect), expected);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn without_a_hint_the_flavour_with_more_rules_wins() {
    let lab = lab();
    assert_eq!(lab.within("node", Flavour::detect), Flavour::Nft);
    lab.sh("node", "iptables-legacy -A INPUT -s 192.0.2.1 -j ACCEPT");
    assert_eq!(lab.within("node", Flavour::detect), Flavour::Legacy);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn changes_to_our_rules_are_heard_of_and_those_of_others_are_not() {
    let lab = lab();
    apply(&lab, &mut Iptables::new(Flavour::Nft), &dual());
    let ns = lab.ns("node");
    let sh = |command: &str| lab::run(&format!("ip netns exec {ns} {command}"));
    lab.block_on("node", async {
        let monitor = Monitor::open().unwrap();
        let heard = async || {
            let limit = std::time::Duration::from_millis(500);
            tokio::time::timeout(limit, monitor.changed()).await.is_ok()
        };
        sh("iptables-nft -t nat -N KUBE-SERVICES");
        sh("iptables-nft -t nat -A KUBE-SERVICES -j RETURN");
        assert!(!heard().await);
        for damage in [
            "iptables-nft -t nat -D KINDNET-MASQ 1",
            "ip6tables-nft -t nat -F POSTROUTING",
            "nft flush ruleset",
        ] {
            sh(damage);
            assert!(heard().await, "{damage}");
            while heard().await {}
        }
    });
}

#[rstest]
#[case(Flavour::Nft)]
#[case(Flavour::Legacy)]
#[ignore = "needs root and network namespaces"]
fn established_flows_outlive_damage_and_repair(#[case] flavour: Flavour) {
    let lab = lab();
    // kube-proxy's. Without any rule that needs it the kernel stops tracking connections, and with it
    // translating them.
    lab.sh(
        "node",
        "iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    );
    let mut backend = Iptables::new(flavour);
    apply(&lab, &mut backend, &dual());
    let mut flow = lab.flow("pod", "outside", "172.31.0.9");
    assert_eq!(flow.source().to_string(), MASKED[0]);
    flow.exchange();
    lab.sh("node", &format!("iptables-{} -t nat -F", tool(flavour)));
    flow.exchange();
    assert!(!apply(&lab, &mut backend, &dual()).is_empty());
    flow.exchange();
    apply(&lab, &mut Iptables::new(flavour), &dual());
    flow.exchange();
}
