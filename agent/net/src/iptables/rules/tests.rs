use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn rules() -> Rules {
    Rules::new(
        Family::V4,
        &FamilyMasquerade {
            sources: vec!["10.244.1.0/24".parse().unwrap()],
            exempt: vec![
                "10.244.0.0/16".parse().unwrap(),
                "192.168.7.1/32".parse().unwrap(),
            ],
        },
        true,
    )
}

fn as_desired() -> Present {
    let rules = rules();
    Present {
        postrouting: rules.jumps,
        chain: Some(rules.chain),
    }
}

#[test]
fn the_transaction_is_what_iptables_restore_takes() {
    insta::assert_snapshot!(transaction(&rules(), &as_desired()));
}

#[test]
fn a_prefix_that_is_everything_needs_no_match() {
    let rules = Rules::new(
        Family::V6,
        &FamilyMasquerade {
            sources: vec!["fd00:10:244::/64".parse().unwrap()],
            exempt: vec!["::/0".parse().unwrap()],
        },
        false,
    );
    assert_eq!(rules.chain[0], "-j RETURN");
    assert!(rules.chain.last().unwrap().ends_with("-j MASQUERADE"));
}

#[test]
fn the_desired_state_has_no_drift() {
    assert_eq!(drift(&rules(), &as_desired()), None);
}

#[rstest]
#[case::flushed(|p: &mut Present| p.chain = Some(vec![]), Drift::ChainChanged)]
#[case::chain_gone(|p: &mut Present| p.chain = None, Drift::ChainMissing)]
#[case::reordered(|p: &mut Present| p.chain.as_mut().unwrap().reverse(), Drift::ChainChanged)]
#[case::jump_gone(|p: &mut Present| p.postrouting.clear(), Drift::JumpMissing)]
#[case::doubled(|p: &mut Present| p.postrouting.push(p.postrouting[0].clone()), Drift::JumpExtra)]
#[case::for_all(|p: &mut Present| p.postrouting.push(format!("-j {CHAIN}")), Drift::JumpExtra)]
#[case::behind(
    |p: &mut Present| p.postrouting.insert(0, "-s 10.0.0.0/8 -o eth0 -j MASQUERADE".into()),
    Drift::JumpShadowed
)]
fn damage_is_seen(#[case] damage: fn(&mut Present), #[case] expected: Drift) {
    let mut present = as_desired();
    damage(&mut present);
    assert_eq!(drift(&rules(), &present), Some(expected));
}

#[test]
fn chains_of_others_may_come_first_and_anything_may_come_after() {
    let mut present = as_desired();
    present.postrouting.insert(
        0,
        "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING".into(),
    );
    present
        .postrouting
        .push("-j MASQUERADE --random-fully".into());
    assert_eq!(drift(&rules(), &present), None);
}

#[rstest]
#[case("-s 10.0.0.0/8 -j MASQUERADE --random-fully", Some("MASQUERADE"))]
#[case("-m comment --comment \"see -j DROP\" -j KUBE-X", Some("KUBE-X"))]
#[case("-g OTHER", Some("OTHER"))]
#[case("-s 10.0.0.0/8", None)]
fn targets(#[case] rule: &str, #[case] expected: Option<&str>) {
    assert_eq!(target(rule), expected);
}

/// `POSTROUTING` and the chain after the kernel has run a transaction.
fn run(transaction: &str, present: &Present) -> Present {
    let mut after = present.clone();
    for line in transaction.lines() {
        if line.starts_with(':') {
            after.chain = Some(Vec::new());
        } else if let Some(rule) = line.strip_prefix(&format!("-A {CHAIN} ")) {
            after.chain.as_mut().unwrap().push(rule.to_owned());
        } else if let Some(rule) = line.strip_prefix("-D POSTROUTING ") {
            let at = after.postrouting.iter().position(|r| r == rule).unwrap();
            after.postrouting.remove(at);
        } else if let Some(rule) = line.strip_prefix("-I POSTROUTING 1 ") {
            after.postrouting.insert(0, rule.to_owned());
        }
    }
    after
}

proptest! {
    #[test]
    fn one_transaction_repairs_anything_and_leaves_others_alone(
        order in proptest::collection::vec(0usize..6, 0..8),
        chain in proptest::option::of(proptest::collection::vec("-d 10\\.0\\.0\\.[0-9]/32 -j RETURN", 0..3)),
    ) {
        let pool = [
            rules().jumps[0].clone(),
            format!("-j {CHAIN}"),
            "-j KUBE-POSTROUTING".to_owned(),
            "-o eth0 -j MASQUERADE".to_owned(),
            "-s 10.9.0.0/16 -j ACCEPT".to_owned(),
            "-m mark --mark 0x1/0x1 -j LOG".to_owned(),
        ];
        let present = Present {
            postrouting: order.iter().map(|i| pool[*i].clone()).collect(),
            chain,
        };
        let foreign = |p: &Present| -> Vec<String> {
            p.postrouting.iter().filter(|r| !is_jump(r)).cloned().collect()
        };
        let after = run(&transaction(&rules(), &present), &present);
        prop_assert_eq!(drift(&rules(), &after), None);
        prop_assert_eq!(foreign(&after), foreign(&present));
    }
}
