//! The concurrent part: nodes, kubeadm, images and manifests, each as early as it can be.

use std::time::Duration;

use futures_util::future::try_join_all;
use kindnet_install::{ApplyOptions, InstallOptions};
use kindnet_ui::{Child, Step, Ui, UserError};
use kube::Client;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::boot::{Boot, Booted};
use super::janitor::Janitor;
use super::kubeadm::kubeadm;
use super::{Created, Proof, UpOptions, api, of_role};
use crate::docker::{Engine, Network};
use crate::error::{Doing as _, Result};
use crate::names::{self, Role};
use crate::spec::ClusterSpec;
use crate::{kubeconfig, list};

/// Where kubeadm leaves the administrator's kubeconfig.
const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// Manifest of the storage class that node images bring along.
const STORAGE_MANIFEST: &str = "/kind/manifests/default-storage.yaml";

/// What kind applies where the image brings none.
const FALLBACK_STORAGE: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations:
    storageclass.kubernetes.io/is-default-class: "true"
provisioner: kubernetes.io/host-path
"#;

/// Phases of `kubeadm init` that begin when the administrator's kubeconfig is complete; which of
/// them comes first differs between versions. They only save waiting: what counts is the file.
const LATER_PHASES: [&str; 5] = [
    "kubelet-start",
    "control-plane",
    "etcd",
    "wait-control-plane",
    "apiclient",
];

/// How often the administrator's kubeconfig is looked for while no known phase is heard of, because
/// a version of kubeadm words its output in another way.
const ADMIN_CONF_PAUSE: Duration = Duration::from_secs(3);

/// How long the manifests may take: an API server that has just begun to answer is slow, and on a
/// busy machine very slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the sign that nodes can join may take after the end of `kubeadm init`.
const SIGN_PATIENCE: Duration = Duration::from_secs(10);

/// On a machine with fewer processors, unpacking images would only slow down the API server, which
/// everything waits for. Once it answers there is idle time enough.
const PROCESSORS_TO_SPARE: usize = 4;

struct Run<'a> {
    engine: &'a Engine,
    spec: &'a ClusterSpec,
    ui: &'a Ui,
    cancel: &'a CancellationToken,
    /// The control plane, once it has booted.
    plane: watch::Sender<Option<Booted>>,
    /// Workers that have booted.
    booted: watch::Sender<usize>,
    /// The administrator's kubeconfig can be read on the node.
    admin_conf: watch::Sender<bool>,
    /// `kubeadm init` has ended well.
    initialised: watch::Sender<bool>,
    /// Once the API server answers: a client, and the kubeconfig it was made from.
    api: watch::Sender<Option<(Client, Value)>>,
    /// Nodes can join.
    joinable: watch::Sender<bool>,
    /// The images are in the nodes.
    loaded: watch::Sender<bool>,
}

pub(super) async fn run(
    engine: &Engine,
    spec: &ClusterSpec,
    options: UpOptions,
    ui: &Ui,
    cancel: &CancellationToken,
    janitor: &Janitor,
    network: &Network,
) -> Result<Created> {
    let run = Run {
        engine,
        spec,
        ui,
        cancel,
        plane: watch::Sender::new(None),
        booted: watch::Sender::new(0),
        admin_conf: watch::Sender::new(false),
        initialised: watch::Sender::new(false),
        api: watch::Sender::new(None),
        joinable: watch::Sender::new(false),
        loaded: watch::Sender::new(false),
    };
    let boot = Boot {
        engine,
        spec,
        network,
        janitor,
    };
    let step = ui.step(match spec.workers {
        0 => "Starting the node".to_owned(),
        workers => format!("Starting {} nodes", workers + 1),
    });
    let children: Vec<Child> = spec
        .nodes()
        .iter()
        .map(|(name, _)| step.child(name))
        .collect();
    let mut children = children.into_iter();
    let plane_child = children
        .next()
        .ok_or_else(|| UserError::failure("no control plane"))?;
    let workers: Vec<(String, Child)> = of_role(spec, Role::Worker)
        .into_iter()
        .zip(children)
        .collect();

    let nodes = async {
        let workers = workers
            .into_iter()
            .map(|(name, child)| run.worker(&boot, name, child));
        tokio::try_join!(run.control_plane(&boot, plane_child), try_join_all(workers))?;
        step.done();
        Ok::<(), UserError>(())
    };
    let ((), (), (), (), ready) = tokio::try_join!(
        nodes,
        run.reach_api(),
        run.watch_joinable(),
        run.load_image(),
        run.network(options.wait, options.proof),
    )?;

    let (_, config) = run.wait_api().await?;
    // Before the write: if it is interrupted half-way there may be something to remove.
    janitor.made_kubeconfig().await;
    let written = options.files.merge(&config).await?;
    let plane = received(&run.plane).await?;
    Ok(Created {
        name: spec.name.clone(),
        ip_family: spec.family,
        kubernetes_version: plane.version.to_string(),
        image: spec.image.clone(),
        kindnet_image: spec.kindnet_image.clone(),
        context: names::context(&spec.name),
        kubeconfig: written,
        server: server(&plane)?,
        nodes: engine
            .nodes(&spec.name)
            .await?
            .into_iter()
            .collect::<Vec<list::Node>>(),
        ready,
    })
}

impl Run<'_> {
    /// Boots the control plane and runs `kubeadm init`.
    async fn control_plane(&self, boot: &Boot<'_>, child: Child) -> Result<()> {
        let name = names::control_plane(&self.spec.name);
        let node = boot.node(&name, Role::ControlPlane, &child).await?;
        self.plane.send_replace(Some(node.clone()));
        kubeadm(self.engine, &node, "init", &child, |phase| {
            if LATER_PHASES.contains(&phase) {
                self.admin_conf
                    .send_if_modified(|ready| !std::mem::replace(ready, true));
            }
        })
        .await?;
        self.initialised.send_replace(true);
        self.admin_conf.send_replace(true);
        if self.spec.workers == 0 {
            let (client, _) = self.wait_api().await?;
            api::open_single_node(&client, &name).await?;
        }
        child.done_with(format!("control plane, Kubernetes {}", node.version));
        Ok(())
    }

    /// Boots a worker and joins it as soon as that is possible.
    async fn worker(&self, boot: &Boot<'_>, name: String, child: Child) -> Result<()> {
        let node = boot.node(&name, Role::Worker, &child).await?;
        self.booted.send_modify(|count| *count += 1);
        child.message("waiting for the control plane");
        until(&self.joinable, |joinable| *joinable).await?;
        kubeadm(self.engine, &node, "join", &child, |_| {}).await?;
        child.done_with("worker");
        Ok(())
    }

    /// Connects to the API server as soon as there are credentials for it.
    async fn reach_api(&self) -> Result<()> {
        let plane = received(&self.plane).await?;
        let server = server(&plane)?;
        let mut heard = false;
        let (client, config) = loop {
            tokio::select! {
                ready = until(&self.admin_conf, |ready| *ready), if !heard => {
                    ready?;
                    heard = true;
                }
                () = tokio::time::sleep(ADMIN_CONF_PAUSE) => {}
            }
            // Asked before the file is read: what is missing after the end stays missing.
            let ended = *self.initialised.borrow();
            match self.administrator(&plane.name, &server).await {
                Ok(found) => break found,
                Err(error) if ended => return Err(error),
                // Half of it may be written, or none.
                Err(error) => tracing::debug!(%error, "no credentials yet"),
            }
        };
        api::answers(&client).await?;
        self.api.send_replace(Some((client, config)));
        Ok(())
    }

    /// A client with the rights of the administrator, and the kubeconfig behind it.
    async fn administrator(&self, plane: &str, server: &str) -> Result<(Client, Value)> {
        let admin = self.engine.read_file(plane, ADMIN_CONF).await?;
        let admin =
            admin.ok_or_else(|| UserError::failure(format!("{plane} has no {ADMIN_CONF}")))?;
        let admin = String::from_utf8_lossy(&admin);
        let config = kubeconfig::rename(&admin, &self.spec.name, server)?;
        let text =
            kindnet_api::yaml::to_string(&config).doing(|| "cannot use admin.conf".into())?;
        Ok((api::client(text).await?, config))
    }

    async fn watch_joinable(&self) -> Result<()> {
        let (client, _) = self.wait_api().await?;
        if self.spec.workers > 0 {
            // Whatever keeps the sign from coming: after the end of init, kubeadm on the workers
            // is as good at waiting.
            let late = async {
                until(&self.initialised, |ended| *ended).await?;
                tokio::time::sleep(SIGN_PATIENCE).await;
                Ok(())
            };
            tokio::select! {
                signed = api::joinable(&client) => signed?,
                late = late => late?,
            }
        }
        tracing::debug!("nodes can join");
        self.joinable.send_replace(true);
        Ok(())
    }

    /// Streams the image of agent and controller into all nodes while kubeadm works.
    async fn load_image(&self) -> Result<()> {
        received(&self.plane).await?;
        until(&self.booted, |count| *count == self.spec.workers).await?;
        if self.engine.facts.processors < PROCESSORS_TO_SPARE {
            self.wait_api().await?;
        }
        let step = self.ui.step(format!("Loading {}", self.spec.kindnet_image));
        let images = self
            .engine
            .local_images(std::slice::from_ref(&self.spec.kindnet_image))
            .await?;
        let nodes: Vec<String> = self.spec.nodes().into_iter().map(|node| node.0).collect();
        self.engine
            .import(&nodes, &images, |bytes| step.message(megabytes(bytes)))
            .await?;
        self.loaded.send_replace(true);
        step.done();
        Ok(())
    }

    /// Installs kindnet and the storage class, then waits for everything to be ready. Returns
    /// whether it was waited for.
    async fn network(&self, wait: Duration, proof: Option<Proof>) -> Result<bool> {
        let (client, _) = self.wait_api().await?;
        let step = self.ui.step("Installing kindnet");
        let install = InstallOptions {
            image: Some(self.spec.kindnet_image.clone()),
            control_plane_endpoint: Some(kubeconfig::internal_server(&names::control_plane(
                &self.spec.name,
            ))),
            patience: Some(PATIENCE),
            ..InstallOptions::default()
        };
        let quiet = Ui::hidden();
        let kindnet = async {
            // A kubelet that finds no image waits ten seconds before it looks again.
            until(&self.loaded, |loaded| *loaded).await?;
            kindnet_install::apply(&client, &install, &quiet, self.cancel).await
        };
        tokio::try_join!(kindnet, self.storage(&client))?;
        step.done();
        if wait.is_zero() {
            return Ok(false);
        }
        let nodes: Vec<String> = self.spec.nodes().into_iter().map(|node| node.0).collect();
        let step = self.ui.step("Waiting until everything is ready");
        let ready = async {
            let agents = shown(
                &step,
                "nodes and agents",
                self.agents_ready(&client, &nodes, wait),
            );
            let dns = shown(&step, "CoreDNS", api::dns_ready(&client));
            let proof = async {
                match proof {
                    Some(proof) => {
                        shown(&step, "pods reach each other", proof(client.clone())).await
                    }
                    None => Ok(()),
                }
            };
            tokio::try_join!(agents, dns, proof)
        };
        match tokio::time::timeout(wait, ready).await {
            Ok(result) => result.map(drop)?,
            Err(_) => return Err(self.late(&client, &nodes, wait).await),
        }
        step.done();
        Ok(true)
    }

    async fn agents_ready(&self, client: &Client, nodes: &[String], wait: Duration) -> Result<()> {
        api::registered(client, nodes).await?;
        let quiet = Ui::hidden();
        kindnet_install::wait_ready(client, wait, &quiet, self.cancel).await?;
        Ok(())
    }

    async fn late(&self, client: &Client, nodes: &[String], wait: Duration) -> UserError {
        let mut lines = api::not_ready(client, nodes).await;
        if lines.is_empty() {
            lines.push("everything is ready by now: it was only slow".to_owned());
        }
        UserError::failure(format!(
            "the cluster is not ready after {} seconds:\n    {}",
            wait.as_secs(),
            lines.join("\n    ")
        ))
        .hint("give it more time with --wait; --retain keeps the nodes, to look into them")
    }

    async fn storage(&self, client: &Client) -> Result<()> {
        let plane = names::control_plane(&self.spec.name);
        let manifest = self.engine.read_file(&plane, STORAGE_MANIFEST).await?;
        let text = manifest.map_or_else(
            || FALLBACK_STORAGE.to_owned(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        let options = ApplyOptions {
            patience: PATIENCE,
            ..ApplyOptions::default()
        };
        kindnet_install::apply_yaml(client, &text, &options).await?;
        Ok(())
    }

    async fn wait_api(&self) -> Result<(Client, Value)> {
        received(&self.api).await
    }
}

/// URL of the published API server.
fn server(plane: &Booted) -> Result<String> {
    let published = plane
        .published
        .ok_or_else(|| UserError::failure("no port is published"))?;
    Ok(format!("https://{published}"))
}

/// Shows a piece of work as a part of a step.
async fn shown(step: &Step, name: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    let child = step.child(name);
    work.await?;
    child.done();
    Ok(())
}

/// Waits for a value to be there.
async fn received<T: Clone>(slot: &watch::Sender<Option<T>>) -> Result<T> {
    let mut receiver = slot.subscribe();
    let value = receiver
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|value| value.clone());
    value.ok_or_else(|| UserError::failure("another part of the start broke off"))
}

/// Waits for a condition to hold.
async fn until<T>(slot: &watch::Sender<T>, condition: impl FnMut(&T) -> bool) -> Result<()> {
    match slot.subscribe().wait_for(condition).await {
        Ok(_) => Ok(()),
        Err(_) => Err(UserError::failure("another part of the start broke off")),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}
