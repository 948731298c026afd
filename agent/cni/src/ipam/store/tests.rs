use super::*;
use crate::config::HostPorts;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

fn set(subnets: &[&str]) -> RangeSet {
    let range = |subnet: &&str| Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
    RangeSet::new(subnets.iter().map(range).collect()).unwrap()
}

fn draft(id: &str) -> Record {
    Record {
        container_id: id.into(),
        ifname: "eth0".into(),
        netns: "/run/netns/x".into(),
        pod: None,
        link: "kn-x".into(),
        addresses: Vec::new(),
        ports: Vec::new(),
        port_targets: Vec::new(),
        host_ports: HostPorts::Auto,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("net"));
    (folder, store)
}

/// No other plugin was here before.
fn nobody(_: IpAddr) -> Result<bool> {
    Ok(false)
}

fn addresses(lease: &Lease) -> Vec<String> {
    let addresses = lease.record.addresses.iter();
    addresses.map(|a| a.address.addr().to_string()).collect()
}

#[test]
fn a_pod_gets_one_address_per_set() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/24"]), set(&["fd00::/64"])];
    let first = store.allocate(&sets, &[], draft("a"), nobody).unwrap();
    assert_eq!(addresses(&first), ["10.1.2.2", "fd00::2"]);
    let second = store.allocate(&sets, &[], draft("b"), nobody).unwrap();
    assert_eq!(addresses(&second), ["10.1.2.3", "fd00::3"]);
    assert_eq!(store.find("a", "eth0").unwrap().unwrap(), first.record);
}

#[test]
fn a_freed_address_is_the_last_one_to_be_used_again() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/29"])];
    let mut seen = Vec::new();
    for n in 0..7 {
        let id = format!("c{n}");
        seen.extend(addresses(
            &store.allocate(&sets, &[], draft(&id), nobody).unwrap(),
        ));
        assert!(store.release(&id, "eth0").unwrap());
    }
    let expected = [2, 3, 4, 5, 6, 2, 3].map(|n| format!("10.1.2.{n}"));
    assert_eq!(seen, expected);
}

#[test]
fn the_next_range_takes_over_and_then_there_is_none() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/30", "10.1.3.0/30"])];
    let mut held = Vec::new();
    for (id, expected) in [("a", "10.1.2.2"), ("b", "10.1.3.2")] {
        let lease = store.allocate(&sets, &[], draft(id), nobody).unwrap();
        assert_eq!(addresses(&lease), [expected]);
        held.push(lease);
    }
    let error = store.allocate(&sets, &[], draft("c"), nobody).unwrap_err();
    assert_eq!(error.code(), 100);
    assert_eq!(
        error.to_string(),
        "no free address in 10.1.2.0/30, 10.1.3.0/30: all 2 are in use"
    );
}

#[test]
fn a_set_without_an_address_takes_none_of_the_others() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/29"]), set(&["fd00::/126"])];
    for id in ["a", "b"] {
        store.allocate(&sets, &[], draft(id), nobody).unwrap();
    }
    store.allocate(&sets, &[], draft("c"), nobody).unwrap_err();
    let lease = store.allocate(&sets[..1], &[], draft("d"), nobody).unwrap();
    assert_eq!(addresses(&lease), ["10.1.2.4"]);
}

#[test]
fn addresses_of_somebody_else_are_left_out() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/29"])];
    let others = |ip: IpAddr| Ok(["10.1.2.2", "10.1.2.4"].contains(&ip.to_string().as_str()));
    let mut held = Vec::new();
    for id in ["a", "b", "c"] {
        held.extend(addresses(
            &store.allocate(&sets, &[], draft(id), others).unwrap(),
        ));
    }
    assert_eq!(held, ["10.1.2.3", "10.1.2.5", "10.1.2.6"]);
    assert_eq!(
        store
            .allocate(&sets, &[], draft("d"), others)
            .unwrap_err()
            .code(),
        100
    );
    // They were never taken, so they can be had once they are free.
    assert!(store.allocate(&sets, &[], draft("d"), nobody).is_ok());
}

#[test]
fn an_attachment_is_made_once() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/24"])];
    store.allocate(&sets, &[], draft("a"), nobody).unwrap();
    let error = store.allocate(&sets, &[], draft("a"), nobody).unwrap_err();
    assert_eq!(error.code(), 102);
    assert!(store.release("a", "eth0").unwrap());
    assert!(!store.release("a", "eth0").unwrap());
}

#[test]
fn requested_addresses() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/24"]), set(&["fd00::/64"])];
    let ip = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    let lease = store
        .allocate(&sets, &ip("10.1.2.9"), draft("a"), nobody)
        .unwrap();
    assert_eq!(addresses(&lease), ["10.1.2.9", "fd00::2"]);
    for refused in ["10.1.2.9", "10.1.2.1", "10.1.2.0", "10.1.2.255", "10.1.3.1"] {
        let error = store
            .allocate(&sets, &ip(refused), draft("b"), nobody)
            .unwrap_err();
        assert_eq!(error.code(), 101, "{refused}");
    }
}

#[test]
fn an_attachment_in_the_making_is_not_settled() {
    let (_folder, store) = store();
    let lease = store
        .allocate(&[set(&["10.1.2.0/24"])], &[], draft("a"), nobody)
        .unwrap();
    assert!(store.settled().unwrap().is_empty());
    assert_eq!(store.records().unwrap().len(), 1);
    drop(lease);
    assert_eq!(store.settled().unwrap().len(), 1);
}

#[test]
fn a_record_nobody_can_read_gives_its_address_back() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/30"])];
    store.allocate(&sets, &[], draft("a"), nobody).unwrap();
    fs::write(store.record_path("a", "eth0"), "{").unwrap();
    assert!(store.find("a", "eth0").is_err());
    assert!(store.records().unwrap().is_empty());
    assert!(store.release("a", "eth0").unwrap());
    store.allocate(&sets, &[], draft("b"), nobody).unwrap();
}

#[test]
fn state_of_an_index_that_is_behind_is_made_again() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/29"])];
    store.allocate(&sets, &[], draft("a"), nobody).unwrap();
    // As if a process had died after it took an address and before it wrote the record.
    let range = sets[0].ranges().next().unwrap();
    Bitmap::open(&store.range_path(&range.key()))
        .unwrap()
        .set(2)
        .unwrap();
    store.lock().unwrap().mark().unwrap();
    fs::write(store.folder.join("attachments/.new"), "{\"containerID\":").unwrap();
    let mut held = HashSet::new();
    for id in ["b", "c", "d", "e"] {
        held.extend(addresses(
            &store.allocate(&sets, &[], draft(id), nobody).unwrap(),
        ));
    }
    assert_eq!(held.len(), 4);
    assert!(!held.contains("10.1.2.2"));
    assert!(!store.folder.join("attachments/.new").exists());
}

#[test]
fn many_threads_never_get_the_same_address() {
    let (_folder, store) = store();
    let sets = [set(&["10.1.2.0/24"]), set(&["fd00::/64"])];
    let results: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (store, sets) = (&store, &sets);
                scope.spawn(move || {
                    (0..20)
                        .flat_map(|n| {
                            let id = format!("c{thread}-{n}");
                            addresses(&store.allocate(sets, &[], draft(&id), nobody).unwrap())
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let all: HashSet<&String> = results.iter().flatten().collect();
    assert_eq!(all.len(), 8 * 20 * 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model: every address is held once, addresses come round in order, and a lost index
    /// changes nothing.
    #[test]
    fn addresses_are_held_once(steps in prop::collection::vec((0u8..4, any::<u8>()), 1..60)) {
        let (_folder, store) = store();
        let sets = [set(&["10.1.2.0/28"])];
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        for (number, (step, choice)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => match store.allocate(&sets, &[], draft(&format!("c{number}")), nobody) {
                    Ok(lease) => {
                        let address = addresses(&lease).remove(0);
                        prop_assert!(!held.values().any(|other| *other == address));
                        held.insert(format!("c{number}"), address);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.code(), 100);
                        prop_assert_eq!(held.len(), 13);
                    }
                },
                2 => {
                    let id = held.keys().nth(choice as usize % held.len().max(1)).cloned();
                    if let Some(id) = id {
                        prop_assert!(store.release(&id, "eth0").unwrap());
                        held.remove(&id);
                    }
                }
                _ => store.lock().unwrap().mark().unwrap(),
            }
        }
        prop_assert_eq!(store.records().unwrap().len(), held.len());
    }
}
