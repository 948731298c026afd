use kindnet_api::ConfigurationSpec;
use rstest::rstest;
use serde_json::json;

use super::*;

fn configuration() -> Configuration {
    let mut configuration = Configuration::new("kindnet", ConfigurationSpec::default());
    configuration.metadata.namespace = Some("kube-system".into());
    configuration.metadata.generation = Some(7);
    configuration
}

/// Generation, observed generation, desired, updated, ready.
fn daemonset(numbers: [i32; 5]) -> DaemonSet {
    let [generation, observed, desired, updated, ready] = numbers;
    serde_json::from_value(json!({
        "metadata": { "generation": generation },
        "status": {
            "observedGeneration": observed,
            "desiredNumberScheduled": desired,
            "currentNumberScheduled": desired,
            "updatedNumberScheduled": updated,
            "numberReady": ready,
            "numberMisscheduled": 0,
        },
    }))
    .unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// `Ready Progressing Degraded`, each with its reason.
fn summary(status: &ConfigurationStatus) -> String {
    let texts: Vec<_> = status
        .conditions
        .iter()
        .map(|c| format!("{}={}", c.status, c.reason))
        .collect();
    texts.join(" ")
}

#[rstest]
#[case::just_made(
    [1, 0, 0, 0, 0],
    "False=AgentsNotReady True=RollingOut False=AsExpected"
)]
#[case::some_ready([1, 1, 3, 3, 2], "False=AgentsNotReady True=RollingOut False=AsExpected")]
#[case::all_ready([1, 1, 3, 3, 3], "True=AgentsReady False=RolledOut False=AsExpected")]
#[case::new_image_not_seen(
    [2, 1, 3, 3, 3],
    "False=AgentsNotReady True=RollingOut False=AsExpected"
)]
#[case::new_image_rolling([2, 2, 3, 1, 3], "True=AgentsReady True=RollingOut False=AsExpected")]
#[case::no_nodes([1, 1, 0, 0, 0], "True=AgentsReady False=RolledOut False=AsExpected")]
fn applied_outcomes(#[case] numbers: [i32; 5], #[case] expected: &str) {
    let status = status(
        &configuration(),
        &Outcome::Applied(&daemonset(numbers)),
        at(0),
    );
    assert_eq!(summary(&status), expected);
    assert_eq!(status.observed_generation, Some(7));
    // The schema requires a message, and an empty one is not sent at all.
    assert!(status.conditions.iter().all(|c| !c.message.is_empty()));
    assert_eq!(
        [
            status.desired_nodes,
            status.updated_nodes,
            status.ready_nodes
        ],
        numbers[2..]
    );
}

#[test]
fn times_move_with_the_status_only() {
    let mut configuration = configuration();
    let rolling = daemonset([1, 1, 3, 2, 2]);
    configuration.status = Some(status(&configuration, &Outcome::Applied(&rolling), at(0)));
    let again = status(&configuration, &Outcome::Applied(&rolling), at(60));
    assert_eq!(Some(&again), configuration.status.as_ref());

    let done = daemonset([1, 1, 3, 3, 3]);
    let done = status(&configuration, &Outcome::Applied(&done), at(90));
    let times: Vec<_> = done
        .conditions
        .iter()
        .map(|c| c.last_transition_time.0)
        .collect();
    assert_eq!(times, [at(90), at(90), at(0)]);
}

#[test]
fn a_rollout_that_does_not_end_is_degraded() {
    let mut configuration = configuration();
    let rolling = daemonset([1, 1, 3, 2, 2]);
    configuration.status = Some(status(&configuration, &Outcome::Applied(&rolling), at(0)));
    let early = status(&configuration, &Outcome::Applied(&rolling), at(299));
    assert_eq!(condition(&early, "Degraded").unwrap().status, "False");
    let late = status(&configuration, &Outcome::Applied(&rolling), at(300));
    let degraded = condition(&late, "Degraded").unwrap();
    assert_eq!(degraded.reason, "RolloutStalled");
    assert_eq!(degraded.last_transition_time.0, at(300));
}

#[test]
fn an_agent_that_is_lost_is_no_progress() {
    let mut configuration = configuration();
    let (done, lost) = (daemonset([1, 1, 3, 3, 3]), daemonset([1, 1, 3, 3, 2]));
    configuration.status = Some(status(&configuration, &Outcome::Applied(&done), at(0)));
    let first = status(&configuration, &Outcome::Applied(&lost), at(1000));
    assert_eq!(
        summary(&first),
        "False=AgentsNotReady False=RolledOut False=AsExpected"
    );
    configuration.status = Some(first);
    let later = status(&configuration, &Outcome::Applied(&lost), at(1300));
    assert_eq!(
        summary(&later),
        "False=AgentsNotReady False=RolledOut True=AgentsNotReady"
    );
    // A new configuration is progress again, whatever was before.
    configuration.metadata.generation = Some(8);
    let new = status(&configuration, &Outcome::Applied(&lost), at(1400));
    assert_eq!(
        summary(&new),
        "False=AgentsNotReady True=RollingOut False=AsExpected"
    );
}

#[test]
fn an_invalid_configuration_keeps_what_runs() {
    let running = daemonset([1, 1, 3, 3, 3]);
    let problems = vec![InvalidConfiguration::Cidr("x".into())];
    let status = status(
        &configuration(),
        &Outcome::Invalid(problems, Some(&running)),
        at(0),
    );
    assert_eq!(
        summary(&status),
        "True=AgentsReady False=InvalidConfiguration True=InvalidConfiguration"
    );
    let message = &condition(&status, "Degraded").unwrap().message;
    assert!(message.contains("nonMasqueradeCIDRs"), "{message}");
    assert_eq!(status.ready_nodes, 3);
}

#[rstest]
#[case("kindnet", "default", "WrongNamespace")]
#[case("other", "kube-system", "WrongName")]
fn others_are_ignored(#[case] name: &str, #[case] namespace: &str, #[case] reason: &str) {
    let mut configuration = Configuration::new(name, ConfigurationSpec::default());
    configuration.metadata.namespace = Some(namespace.into());
    let status = status(&configuration, &Outcome::Ignored, at(0));
    assert_eq!(condition(&status, "Ready").unwrap().status, "False");
    assert_eq!(condition(&status, "Degraded").unwrap().reason, reason);
}
