//! GC.

use serde_json::{Value, json};

use crate::support::*;

fn gc(host: &Host, keep: &[&str]) -> Answer {
    let keep: Vec<Value> = keep
        .iter()
        .map(|id| json!({"containerID": id, "ifname": "eth0"}))
        .collect();
    let config = host.with(json!({"cni.dev/valid-attachments": keep}));
    host.call(&[("CNI_COMMAND", "GC")], &config)
}

#[test]
#[ignore = "needs root"]
fn what_is_valid_stays_and_the_rest_goes() {
    let host = Host::dual();
    let pods: Vec<Netns> = (0..3).map(|_| Netns::new("pod")).collect();
    for (id, pod) in ["a", "b", "c"].iter().zip(&pods) {
        host.add_with(
            id,
            pod,
            &host.with_ports(&[&format!("tcp 80{}:80", id.len())]),
        );
    }
    gc(&host, &["b"]).success();
    assert_eq!(
        files(&host.state.path().join("net/attachments")),
        ["b@eth0"]
    );
    let links: Vec<usize> = pods.iter().map(|pod| pod.links().len()).collect();
    assert_eq!((links, host.netns.links().len()), (vec![0, 1, 0], 1));
    gc(&host, &[]).success();
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn links_without_a_record_go_unless_their_attachment_is_valid() {
    let host = Host::dual();
    let foreign = Netns::new("pod");
    host.netns.run(
        "ip",
        &format!(
            "link add kn-foreign type veth peer name eth0 netns {}",
            foreign.name
        ),
    );
    let pods = [Netns::new("pod"), Netns::new("pod")];
    host.add("a", &pods[0]);
    host.add("b", &pods[1]);
    std::fs::remove_dir_all(host.state.path().join("net")).unwrap();
    gc(&host, &["a"]).success();
    assert_eq!((pods[0].links().len(), pods[1].links().len()), (1, 0));
    assert!(host.netns.links().contains(&"kn-foreign".to_owned()));
}

#[test]
#[ignore = "needs root"]
fn a_question_without_attachments_drops_nothing() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add("a", &pod);
    let env = [("CNI_COMMAND", "GC")];
    assert_eq!(host.call(&env, &host.config).error().0, 7);
    assert_eq!(pod.links(), ["eth0"]);
}
