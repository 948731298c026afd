//! Images of the local daemon into the nodes.

use bytes::Bytes;
use futures_util::future::{join, try_join_all};
use futures_util::{Stream, StreamExt as _};
use kindnet_ui::{Child, Ui, UserError};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::docker::{Engine, ImageName, LocalImage};
use crate::error::Result;

/// Chunks in flight to each node; the slowest node sets the pace.
const CHUNKS_IN_FLIGHT: usize = 16;

/// What happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// Node.
    pub node: String,
    /// Whether anything had to be imported.
    pub imported: bool,
}

/// What a node has of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Missing,
    /// The content is there under another name.
    Untagged,
    Present,
}

impl Engine {
    /// Loads images into nodes that do not have them.
    ///
    /// # Errors
    /// An image is not in the local daemon; a node cannot import.
    pub async fn load(&self, nodes: &[String], images: &[String], ui: &Ui) -> Result<Vec<Loaded>> {
        let local = self.local_images(images).await?;
        let step = ui.step(format!("Loading {}", images.join(", ")));
        let checks = nodes.iter().map(|node| self.missing_on(node, &local));
        let missing: Vec<bool> = try_join_all(checks).await?;
        let needy: Vec<String> = nodes
            .iter()
            .zip(&missing)
            .filter(|(_, missing)| **missing)
            .map(|(node, _)| node.clone())
            .collect();
        if !needy.is_empty() {
            let children: Vec<Child> = needy.iter().map(|node| step.child(node)).collect();
            self.import(&needy, &local, |bytes| {
                for child in &children {
                    child.bytes(bytes, 0);
                }
            })
            .await?;
            children.into_iter().for_each(Child::done);
        }
        step.done_with(match needy.len() {
            0 => "every node had it".to_owned(),
            imported => format!("{imported} of {} nodes needed it", nodes.len()),
        });
        let loaded = nodes.iter().zip(missing);
        Ok(loaded
            .map(|(node, imported)| Loaded {
                node: node.clone(),
                imported,
            })
            .collect())
    }

    /// Looks the images up in the local daemon.
    ///
    /// # Errors
    /// One is not there.
    pub async fn local_images(&self, images: &[String]) -> Result<Vec<(String, LocalImage)>> {
        let mut found = Vec::new();
        for name in images {
            let image = self.image(name).await?.ok_or_else(|| {
                UserError::usage(format!(
                    "the image {name} is not in the local Docker Engine"
                ))
                .hint(format!("get it with `docker pull {name}`, or build it"))
            })?;
            found.push((name.clone(), image));
        }
        Ok(found)
    }

    /// Whether a node lacks one of the images. Names that are missing for content that is there
    /// are added on the way.
    async fn missing_on(&self, node: &str, images: &[(String, LocalImage)]) -> Result<bool> {
        let listed = self
            .exec(node, &["crictl", "images", "-o", "json"])
            .await?
            .success(|| format!("cannot list the images of {node}"))?;
        let listed: Value = serde_json::from_slice(&listed).map_err(|error| {
            UserError::failure(format!("cannot list the images of {node}")).source(error)
        })?;
        let mut missing = false;
        for (name, image) in images {
            let tag = ImageName::parse(name).tagged();
            match presence(&listed, &tag, &image.id) {
                Presence::Present => {}
                Presence::Missing => missing = true,
                Presence::Untagged => {
                    let command = [
                        "ctr",
                        "--namespace=k8s.io",
                        "images",
                        "tag",
                        "--force",
                        &image.id,
                        &tag,
                    ];
                    // Where the tag cannot be set the whole image is sent.
                    missing |= self.exec(node, &command).await?.code != 0;
                }
            }
        }
        Ok(missing)
    }

    /// Streams images from the daemon into all nodes at once, without a temporary file.
    /// `progress` hears the bytes sent so far.
    ///
    /// # Errors
    /// The daemon or a node fails.
    pub async fn import(
        &self,
        nodes: &[String],
        images: &[(String, LocalImage)],
        progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut senders = Vec::new();
        let mut imports = Vec::new();
        for node in nodes {
            let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
            senders.push(sender);
            imports.push(self.import_one(node, receiver));
        }
        let names: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
        let platform = images.first().map(|(_, image)| image);
        let archive = self.export_images(&names, platform);
        let (sent, imported) = join(tee(archive, senders, progress), try_join_all(imports)).await;
        // A broken import also breaks the stream; its own message says more.
        imported?;
        sent
    }

    async fn import_one(&self, node: &str, archive: mpsc::Receiver<Bytes>) -> Result<()> {
        let config = self.exec(node, &["containerd", "config", "dump"]).await?;
        let snapshotter = snapshotter(&String::from_utf8_lossy(&config.stdout));
        let snapshotter = format!(
            "--snapshotter={}",
            snapshotter.as_deref().unwrap_or("overlayfs")
        );
        let mut command = vec!["ctr", "--namespace=k8s.io", "images", "import"];
        // An archive of a single platform, or one whose other platforms are not there, must not be
        // imported as if it were whole.
        if !self.facts.containerd_store && !self.facts.api_at_least(1, 48) {
            command.push("--all-platforms");
        }
        command.extend(["--digests", &snapshotter, "-"]);
        self.exec_stdin(node, &command, archive)
            .await?
            .success(|| format!("cannot import the image on {node}"))?;
        Ok(())
    }
}

/// Sends every chunk to every receiver that still listens.
async fn tee(
    archive: impl Stream<Item = Result<Bytes>>,
    mut senders: Vec<mpsc::Sender<Bytes>>,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let mut archive = std::pin::pin!(archive);
    let mut sent = 0;
    while let Some(chunk) = archive.next().await {
        let chunk = chunk?;
        sent += chunk.len() as u64;
        let mut listening = Vec::with_capacity(senders.len());
        for sender in senders {
            if sender.send(chunk.clone()).await.is_ok() {
                listening.push(sender);
            }
        }
        senders = listening;
        if senders.is_empty() {
            break;
        }
        progress(sent);
    }
    Ok(())
}

fn presence(listed: &Value, tag: &str, id: &str) -> Presence {
    let images = listed["images"].as_array().into_iter().flatten();
    let Some(image) = images.into_iter().find(|image| image["id"] == id) else {
        return Presence::Missing;
    };
    let tags = image["repoTags"].as_array().into_iter().flatten();
    if tags.into_iter().any(|known| known == tag) {
        Presence::Present
    } else {
        Presence::Untagged
    }
}

/// The snapshotter of `containerd config dump`, for configuration versions 2, 3 and 4.
fn snapshotter(config: &str) -> Option<String> {
    const SECTIONS: [&str; 2] = [
        "plugins.io.containerd.grpc.v1.cri.containerd",
        "plugins.io.containerd.cri.v1.images",
    ];
    let unquoted = |text: &str| text.replace(['"', '\''], "");
    let mut section = String::new();
    for line in config.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = unquoted(name);
        } else if let Some((key, value)) = line.split_once('=')
            && key.trim() == "snapshotter"
            && SECTIONS.contains(&section.as_str())
        {
            return Some(unquoted(value.trim())).filter(|name| !name.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n",
        Some("native")
    )]
    #[case(
        "version = 3\n[plugins]\n  [plugins.'io.containerd.cri.v1.images']\n    snapshotter = 'overlayfs'\n",
        Some("overlayfs")
    )]
    #[case(
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nsnapshotter = \"other\"\n",
        None
    )]
    #[case("", None)]
    fn snapshotters(#[case] config: &str, #[case] expected: Option<&str>) {
        assert_eq!(snapshotter(config).as_deref(), expected);
    }

    #[test]
    fn presence_by_identifier_then_by_tag() {
        let listed = json!({"images": [
            {"id": "sha256:1", "repoTags": ["docker.io/library/a:latest"]},
            {"id": "sha256:2", "repoTags": []},
        ]});
        let of = |id| presence(&listed, "docker.io/library/a:latest", id);
        assert_eq!(of("sha256:1"), Presence::Present);
        assert_eq!(of("sha256:2"), Presence::Untagged);
        assert_eq!(of("sha256:3"), Presence::Missing);
    }

    #[tokio::test]
    async fn a_receiver_that_stops_does_not_stop_the_others() {
        let chunks = futures_util::stream::iter((0..3).map(|i| Ok(Bytes::from(vec![i; 4]))));
        let (gone, receiver) = mpsc::channel(1);
        drop(receiver);
        let (sender, mut receiver) = mpsc::channel(8);
        let mut last = 0;
        tee(chunks, vec![gone, sender], |bytes| last = bytes)
            .await
            .unwrap();
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        assert_eq!((last, received), (12, 3));
    }
}
