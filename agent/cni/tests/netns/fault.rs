//! kill -9 after every step: nothing is lost and nothing is handed out twice.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::support::*;

/// Runs a command that dies after its n-th step; whether it got there.
fn dies(host: &Host, command: &str, id: &str, pod: &Netns, config: &Value, step: u32) -> bool {
    let (path, step) = (pod.path(), step.to_string());
    let env = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", id),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "eth0"),
        ("KINDNET_CNI_DIE_AT", step.as_str()),
    ];
    let answer = host.call(&env, config);
    assert!(answer.ok || answer.output.is_empty(), "{}", answer.output);
    !answer.ok
}

/// Addresses of eth0 in the kernel.
fn addresses(pod: &Netns) -> Vec<String> {
    let shown = pod.ip("addr show eth0");
    let infos = shown[0]["addr_info"].as_array().unwrap().iter();
    infos
        .filter(|info| info["scope"] == "global")
        .map(|info| info["local"].as_str().unwrap().to_owned())
        .collect()
}

/// Rounds of ADD and DEL that die after step 1, 2, 3, ... of either, then of the one after that.
#[test]
#[ignore = "needs root"]
fn add_and_del_die_anywhere_500_times() {
    let host = Host::new(&["10.77.1.0/28", "fd00:77:1::/124"]);
    // Two pods live through all of it.
    let living: BTreeMap<&str, Netns> = ["x", "y"].map(|id| (id, Netns::new("pod"))).into();
    for (port, (id, pod)) in living.iter().enumerate() {
        host.add_with(
            id,
            pod,
            &host.with_ports(&[&format!("tcp {}:80", 9000 + port)]),
        );
    }
    let config = host.with_ports(&["tcp 8080:80", "udp 5353:53"]);
    let (pod, other) = (Netns::new("pod"), Netns::new("pod"));
    let (mut add_step, mut del_step) = (1, 1);
    let (mut deaths, mut most) = (0, (0, 0));
    for round in 0..500 {
        let id = format!("c{round}");
        if dies(&host, "ADD", &id, &pod, &config, add_step) {
            deaths += 1;
            most.0 = most.0.max(add_step);
            add_step += 1;
        } else {
            add_step = 1;
        }
        // Somebody else comes while the dead one's traces are there.
        let neighbour = format!("n{round}");
        host.add("n", &other);
        let mut held: HashSet<String> = HashSet::new();
        for pod in living.values().chain([&other]) {
            for address in addresses(pod) {
                assert!(
                    held.insert(address.clone()),
                    "round {round}: {address} twice, {neighbour}"
                );
            }
        }
        if dies(&host, "DEL", &id, &pod, &config, del_step) {
            deaths += 1;
            most.1 = most.1.max(del_step);
            del_step += 1;
        } else {
            del_step = 1;
        }
        host.command("DEL", &id, &pod.path(), &config).success();
        host.del("n", &other.path());
        assert_eq!(
            (pod.links(), other.links()),
            (vec![], vec![]),
            "round {round}"
        );
        let mut records = files(&host.state.path().join("net/attachments"));
        records.sort();
        records.retain(|name| name != ".new");
        assert_eq!(records, ["x@eth0", "y@eth0"], "round {round}");
    }
    assert!(
        most.0 >= 12 && most.1 >= 6 && deaths > 400,
        "{most:?}, {deaths} deaths"
    );
    // Every address that nobody has can still be had: 13 of IPv4, two of them living.
    let crowd: Vec<Netns> = (0..11).map(|_| Netns::new("pod")).collect();
    for (n, pod) in crowd.iter().enumerate() {
        host.add(&format!("crowd{n}"), pod);
    }
    assert_eq!(
        host.command("ADD", "late", &other.path(), &host.config)
            .error()
            .0,
        100
    );
    for n in 0..crowd.len() {
        host.del(&format!("crowd{n}"), "");
    }
    let table = host
        .netns
        .run("nft", "list map inet kindnet-hostports ports4");
    assert!(
        table.contains(". 9000") && table.contains(". 9001"),
        "{table}"
    );
    assert!(
        !table.contains(". 8080") && !table.contains(". 5353"),
        "{table}"
    );
    for (id, pod) in &living {
        host.del(id, &pod.path());
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn a_container_that_is_added_again_after_a_death_gets_its_network() {
    let host = Host::dual();
    let config = host.with_ports(&["tcp 8080:80"]);
    let pod = Netns::new("pod");
    let mut refused = 0;
    for step in 1.. {
        let died = dies(&host, "ADD", "a", &pod, &config, step);
        if !died {
            break;
        }
        // Once the link is there the runtime has to call DEL first, as the specification asks for.
        let again = host.command("ADD", "a", &pod.path(), &config);
        if !again.ok {
            assert_eq!(again.error().0, 102);
            refused += 1;
        }
        host.command("DEL", "a", &pod.path(), &config).success();
        host.assert_clean();
    }
    assert!(refused < 8, "{refused}");
}

#[test]
#[ignore = "needs root"]
fn gc_dies_anywhere() {
    let host = Host::dual();
    for step in 1..200 {
        let pods = [Netns::new("pod"), Netns::new("pod")];
        host.add_with("keep", &pods[0], &host.with_ports(&["tcp 8080:80"]));
        host.add_with("drop", &pods[1], &host.with_ports(&["udp 8081:80"]));
        let config = host.with(json!({
            "cni.dev/valid-attachments": [{"containerID": "keep", "ifname": "eth0"}],
        }));
        let number = step.to_string();
        let env = [
            ("CNI_COMMAND", "GC"),
            ("KINDNET_CNI_DIE_AT", number.as_str()),
        ];
        let died = !host.call(&env, &config).ok;
        host.call(&env[..1], &config).success();
        assert_eq!(pods.map(|pod| pod.links().len()), [1, 0], "step {step}");
        host.del("keep", "");
        host.assert_clean();
        if !died {
            assert!(step > 5, "GC has {step} steps");
            return;
        }
    }
}
