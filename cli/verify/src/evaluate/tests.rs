use super::*;
use crate::catalogue;
use crate::fixture::{Fate, Network, failed, topology, verify, view};
use kindnet_probe::wire::Problem;

fn healthy(topology: &Topology) -> Network<'_> {
    Network {
        topology,
        views: (0..topology.nodes.len())
            .map(|n| view(topology, n))
            .collect(),
        fate: &|_| Fate::Arrives,
    }
}

fn plan(topology: &Topology, only: &str) -> Plan {
    Plan::new(topology, &catalogue::select(&[only.to_owned()]).unwrap())
}

#[test]
fn an_answer_of_the_wrong_pod_is_a_failure() {
    let topology = topology();
    let plan = plan(&topology, "pod.cross-node.tcp");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    for answer in answers.answers.values_mut() {
        if let Ok(Seen::Echo(echo)) = &mut answer.result {
            echo.pod = "server-0".into();
            echo.node = "alpha".into();
        }
    }
    let evaluated = evaluate(&topology, &plan, &answers);
    let findings = &evaluated[0].findings;
    assert_eq!(findings.len(), 1, "the other direction is right");
    assert_eq!(
        findings[0].failure.saw,
        "an answer of pod server-0 on node alpha"
    );
    assert_eq!(findings[0].failure.subject, "pod on alpha to pod on beta");
}

#[test]
fn a_pod_that_cannot_be_asked_fails_its_checks_and_says_why() {
    let topology = topology();
    let plan = plan(&topology, "pod.same-node.tcp");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    answers.answers.retain(|key, _| key.source.node != 0);
    answers.unreachable.insert(
        Source {
            node: 0,
            role: Role::Client,
        },
        "container not found".into(),
    );
    let evaluated = evaluate(&topology, &plan, &answers);
    let saw = &evaluated[0].findings[0].failure.saw;
    assert_eq!(saw, "the check pod cannot be asked: container not found");
}

#[test]
fn a_pod_that_does_not_start_fails_one_check_and_skips_what_needs_it() {
    let mut topology = topology();
    for node in &mut topology.nodes {
        node.client = PodState::Broken("FailedCreatePodSandBox: no free addresses".into());
        node.server = node.client.clone();
    }
    let evaluated = verify(&healthy(&topology), &["pod"]);
    let ids: Vec<_> = failed(&evaluated).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["pod.start", "pod.start"]);
    assert!(evaluated[2..].iter().all(|e| e.skipped.is_some()));
    // The nodes could ask the Services, but nobody is behind them.
    let services = verify(
        &healthy(&topology),
        &["service.cluster-ip", "service.node-port"],
    );
    assert!(services.iter().all(|e| e.skipped.is_some()));
}

#[test]
fn an_address_outside_of_the_pod_cidr_is_a_failure() {
    let mut topology = topology();
    topology.nodes[1].server = PodState::Running(vec!["10.88.0.5".parse().unwrap()]);
    let evaluated = verify(&healthy(&topology), &["pod.start"]);
    let saw: Vec<_> = evaluated
        .iter()
        .flat_map(|e| &e.findings)
        .map(|f| (f.failure.saw.as_str(), f.failure.expected.as_str()))
        .collect();
    assert_eq!(
        saw,
        [
            (
                "10.88.0.5",
                "a running pod with an address in 10.244.1.0/24"
            ),
            (
                "addresses 10.88.0.5",
                "a running pod with an address in fd00:10:244:1::/64"
            ),
        ]
    );
}

#[test]
fn names_outside_count_only_where_the_node_resolves_them() {
    let topology = topology();
    let plan = plan(&topology, "dns.outside");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    let unknown = || Err(Problem::new(ProblemKind::NoName, "no such name"));
    for (key, answer) in &mut answers.answers {
        if key.source.role == Role::Client {
            answer.result = unknown();
        }
    }
    assert_eq!(evaluate(&topology, &plan, &answers)[0].findings.len(), 2);
    for (key, answer) in &mut answers.answers {
        if matches!(key.action, Action::Dns { .. }) {
            answer.result = unknown();
        }
    }
    let evaluated = evaluate(&topology, &plan, &answers);
    assert!(evaluated[0].findings.is_empty());
    assert!(evaluated[0].skipped.is_some());
}

/// kind on a host whose name server has IPv4: CoreDNS of an IPv6-only cluster cannot ask it.
#[test]
fn names_outside_do_not_count_where_pods_cannot_reach_the_name_server() {
    let mut topology = topology();
    topology.families = vec![Family::V6];
    for node in &mut topology.nodes {
        for pod in [&mut node.client, &mut node.server] {
            let v6 = pod.address(Family::V6).into_iter().collect();
            *pod = PodState::Running(v6);
        }
    }
    let plan = plan(&topology, "dns.outside");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    for (key, answer) in &mut answers.answers {
        match (key.source.role, &mut answer.result) {
            (Role::Client, result) => {
                *result = Err(Problem::new(ProblemKind::ServerFailure, "SERVFAIL"));
            }
            (_, Ok(Seen::Names { server, .. })) => *server = "172.18.0.1".parse().unwrap(),
            _ => {}
        }
    }
    let evaluated = evaluate(&topology, &plan, &answers);
    assert!(evaluated[0].findings.is_empty());
    let reason = evaluated[0].skipped.as_deref().unwrap();
    assert!(
        reason.contains("172.18.0.1") && reason.contains("IPv4"),
        "{reason}"
    );
    // One they can reach has to be reached.
    for answer in answers.answers.values_mut() {
        if let Ok(Seen::Names { server, .. }) = &mut answer.result {
            *server = "fd00::53".parse().unwrap();
        }
    }
    assert_eq!(evaluate(&topology, &plan, &answers)[0].findings.len(), 2);
}

#[test]
fn any_address_of_the_node_will_do_outside() {
    let mut topology = topology();
    let second: IpAddr = "192.168.7.2".parse().unwrap();
    topology.nodes[0].addresses.push(second);
    let plan = plan(&topology, "outside.source");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    for (key, answer) in &mut answers.answers {
        if let (0, Ok(Seen::Echo(echo))) = (key.source.node, &mut answer.result) {
            echo.peer = (second, 40000).into();
        }
    }
    assert!(evaluate(&topology, &plan, &answers)[0].findings.is_empty());
    topology.nodes[0].addresses.pop();
    assert_eq!(evaluate(&topology, &plan, &answers)[0].findings.len(), 2);
}

#[test]
fn a_pod_link_that_differs_from_the_configuration_is_a_failure() {
    let topology = topology();
    let plan = plan(&topology, "pod.cross-node.mtu");
    let mut answers = healthy(&topology).answers(plan.batches(&topology));
    for (key, answer) in &mut answers.answers {
        if let (0, Ok(Seen::Echo(echo))) = (key.source.node, &mut answer.result) {
            echo.bytes = 1400;
        }
    }
    let evaluated = evaluate(&topology, &plan, &answers);
    assert_eq!(
        evaluated[0].findings[0].failure.saw,
        "the pod's link has an MTU of 1400, its node's configuration gives 1500"
    );
}

#[test]
fn a_single_node_skips_what_needs_two() {
    let mut topology = topology();
    topology.nodes.pop();
    let evaluated = verify(&healthy(&topology), &["pod.cross-node.tcp", "host-port"]);
    let skipped: Vec<_> = evaluated
        .iter()
        .filter_map(|e| e.skipped.as_deref())
        .collect();
    assert_eq!(skipped, ["needs a second node"; 4]);
    assert_eq!(failed(&evaluated), []);
}
