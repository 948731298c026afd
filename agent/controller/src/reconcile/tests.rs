use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode};
use kindnet_api::ConfigurationSpec;
use kube::client::Body;
use serde_json::Value;

use super::*;

const CONFIGURATION: &str =
    "/apis/kindnet.io/v1alpha1/namespaces/kube-system/configurations/kindnet";
const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kindnetd";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/kube-system/events";
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// An API server that knows three objects and remembers what was written.
#[derive(Default)]
struct Server {
    configuration: Value,
    daemonset: Value,
    cluster_info: Value,
    /// Status code with which a DaemonSet is refused.
    refuse: Option<u16>,
    /// `METHOD path` of every write, with its body.
    writes: Vec<(String, Value)>,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if *method != Method::GET {
            self.writes.push((format!("{method} {path}"), body.clone()));
        }
        match (method, path) {
            (&Method::GET, CONFIGURATION) => found(&self.configuration),
            (&Method::GET, DAEMONSET) => found(&self.daemonset),
            (&Method::GET, CLUSTER_INFO) => found(&self.cluster_info),
            (&Method::PATCH, DAEMONSET) => match self.refuse {
                Some(code) => failure(code),
                None => {
                    let generation = self.daemonset["metadata"]["generation"].as_i64();
                    let same = self.daemonset["spec"] == body["spec"];
                    let generation = generation.unwrap_or(0) + i64::from(!same);
                    let status = self.daemonset["status"].clone();
                    self.daemonset = body;
                    if !status.is_null() {
                        self.daemonset["status"] = status;
                    }
                    self.daemonset["metadata"]["generation"] = json!(generation);
                    (StatusCode::OK, self.daemonset.clone())
                }
            },
            (&Method::PATCH, path) if path == format!("{CONFIGURATION}/status") => {
                self.configuration["status"] = body["status"].clone();
                (StatusCode::OK, self.configuration.clone())
            }
            (&Method::POST, EVENTS) => (StatusCode::CREATED, body),
            _ => failure(404),
        }
    }

    /// Reasons of the events, in order.
    fn reasons(&self) -> Vec<&str> {
        let events = self
            .writes
            .iter()
            .filter(|(what, _)| what.ends_with(EVENTS));
        events.filter_map(|(_, e)| e["reason"].as_str()).collect()
    }

    fn condition(&self, kind: &str) -> &Value {
        let conditions = self.configuration["status"]["conditions"]
            .as_array()
            .unwrap();
        conditions.iter().find(|c| c["type"] == kind).unwrap()
    }
}

fn found(object: &Value) -> (StatusCode, Value) {
    if object.is_null() {
        failure(404)
    } else {
        (StatusCode::OK, object.clone())
    }
}

fn failure(code: u16) -> (StatusCode, Value) {
    let reason = if code == 404 { "NotFound" } else { "Invalid" };
    let status = json!({ "kind": "Status", "status": "Failure", "code": code,
        "message": "refused", "reason": reason });
    (StatusCode::from_u16(code).unwrap(), status)
}

struct Fixture {
    server: Arc<Mutex<Server>>,
    context: Arc<Context>,
}

impl Fixture {
    fn new(spec: ConfigurationSpec) -> Self {
        let server = Arc::new(Mutex::new(Server::default()));
        let shared = server.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let shared = shared.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                let (code, answer) =
                    shared
                        .lock()
                        .unwrap()
                        .answer(&parts.method, parts.uri.path(), body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        let client = Client::new(service, "default");
        let context = Context::new(client, "test".into(), Arc::new(Metrics::default()));
        let fixture = Self {
            server,
            context: Arc::new(context),
        };
        fixture.configure(&spec, 1);
        fixture
    }

    fn configure(&self, spec: &ConfigurationSpec, generation: i64) {
        let mut server = self.server.lock().unwrap();
        let status = server.configuration["status"].clone();
        server.configuration = json!({
            "apiVersion": "kindnet.io/v1alpha1", "kind": "Configuration",
            "metadata": { "name": "kindnet", "namespace": "kube-system", "uid": "u",
                "generation": generation },
            "spec": spec, "status": status,
        });
    }

    /// What the DaemonSet controller would do.
    fn roll_out(&self) {
        let mut server = self.server.lock().unwrap();
        server.daemonset["status"] = json!({
            "observedGeneration": server.daemonset["metadata"]["generation"],
            "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "updatedNumberScheduled": 2, "numberReady": 2, "numberMisscheduled": 0 });
    }

    async fn reconcile(&self) -> Result<Action, Error> {
        let cached = self.server.lock().unwrap().configuration.clone();
        let cached = serde_json::from_value(cached).unwrap();
        reconcile(Arc::new(cached), self.context.clone()).await
    }
}

fn spec(image: &str) -> ConfigurationSpec {
    ConfigurationSpec {
        kindnetd_image: image.into(),
        ..ConfigurationSpec::default()
    }
}

#[tokio::test]
async fn the_daemonset_is_made_and_the_endpoint_found() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.server.lock().unwrap().cluster_info = json!({ "metadata": { "name": "cluster-info" },
        "data": { "kubeconfig": "clusters:\n- cluster:\n    server: https://10.0.0.9:6443\n" } });
    fixture.reconcile().await.unwrap();
    let server = fixture.server.lock().unwrap();
    let container = &server.daemonset["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "image:1");
    let endpoint = json!({ "name": "CONTROL_PLANE_ENDPOINT", "value": "https://10.0.0.9:6443" });
    assert!(container["env"].as_array().unwrap().contains(&endpoint));
    assert_eq!(server.reasons(), ["Applied"]);
    assert_eq!(server.condition("Progressing")["status"], "True");
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.reconcile().await.unwrap();
    let before = fixture.server.lock().unwrap().writes.len();
    fixture.reconcile().await.unwrap();
    let server = fixture.server.lock().unwrap();
    // Applying is how drift is noticed; it writes nothing where there is none.
    assert_eq!(server.writes.len(), before + 1);
    assert_eq!(server.writes[before].0, format!("PATCH {DAEMONSET}"));
}

#[tokio::test]
async fn drift_and_change_are_told_apart() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.reconcile().await.unwrap();
    fixture.server.lock().unwrap().daemonset["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("somebody:else");
    fixture.reconcile().await.unwrap();
    fixture.configure(&spec("image:2"), 2);
    fixture.reconcile().await.unwrap();
    let server = fixture.server.lock().unwrap();
    assert_eq!(server.reasons(), ["Applied", "Repaired", "Applied"]);
    let container = &server.daemonset["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "image:2");
}

#[tokio::test]
async fn an_invalid_configuration_leaves_the_daemonset_alone() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.reconcile().await.unwrap();
    fixture.configure(&spec("not an image"), 2);
    fixture.reconcile().await.unwrap();
    fixture.reconcile().await.unwrap();
    let server = fixture.server.lock().unwrap();
    assert_eq!(server.reasons(), ["Applied", "InvalidConfiguration"]);
    let container = &server.daemonset["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "image:1");
    assert_eq!(server.condition("Degraded")["status"], "True");
}

#[tokio::test]
async fn a_refusal_is_in_the_status_and_tried_again_later_and_later() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.server.lock().unwrap().refuse = Some(422);
    let error = fixture.reconcile().await.unwrap_err();
    let configuration = Arc::new(Configuration::new("kindnet", spec("image:1")));
    let waits: Vec<_> = (0..8)
        .map(|_| on_error(configuration.clone(), &error, fixture.context.clone()))
        .collect();
    let seconds = [1, 2, 4, 8, 16, 32, 60, 60];
    assert_eq!(
        waits,
        seconds.map(|s| Action::requeue(Duration::from_secs(s)))
    );
    fixture.server.lock().unwrap().refuse = None;
    fixture.reconcile().await.unwrap();
    let after = on_error(configuration, &error, fixture.context.clone());
    assert_eq!(after, Action::requeue(Duration::from_secs(1)));
    let server = fixture.server.lock().unwrap();
    assert_eq!(server.reasons(), ["ApplyFailed", "Applied"]);
    assert_eq!(server.condition("Degraded")["status"], "False");
}

#[tokio::test]
async fn the_end_of_a_rollout_is_told_once() {
    let fixture = Fixture::new(spec("image:1"));
    fixture.reconcile().await.unwrap();
    fixture.roll_out();
    fixture.reconcile().await.unwrap();
    fixture.reconcile().await.unwrap();
    let server = fixture.server.lock().unwrap();
    assert_eq!(server.reasons(), ["Applied", "RolledOut"]);
    assert_eq!(server.condition("Ready")["status"], "True");
    assert_eq!(server.configuration["status"]["readyNodes"], 2);
}
