//! Images of the local daemon: is it there, get it, read it.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kindnet_ui::UserError;

use super::Engine;
use crate::error::{Doing as _, Result, message, status};

/// Pauses between attempts to pull.
const PULL_PAUSES: [u64; 4] = [1, 2, 3, 4];

/// An image of the local daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Digest of its configuration, or of its manifest where containerd keeps the images.
    pub id: String,
    /// Operating system.
    pub os: String,
    /// Architecture as Go names it.
    pub architecture: String,
    /// Variant of the architecture, if any.
    pub variant: Option<String>,
}

/// Progress of a pull over all layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes downloaded.
    pub done: u64,
    /// Bytes to download, as far as known.
    pub total: u64,
    /// Layers that are unpacked, or were there before.
    pub complete: usize,
    /// Layers.
    pub layers: usize,
}

impl Engine {
    /// Looks an image up.
    ///
    /// # Errors
    /// The daemon refuses for another reason than that the image is missing.
    pub async fn image(&self, reference: &str) -> Result<Option<LocalImage>> {
        match self.docker.inspect_image(reference).await {
            Ok(found) => Ok(Some(LocalImage {
                id: found.id.unwrap_or_default(),
                os: found.os.unwrap_or_default(),
                architecture: found.architecture.unwrap_or_default(),
                variant: found.variant.filter(|variant| !variant.is_empty()),
            })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error).doing(|| format!("cannot look up the image {reference}")),
        }
    }

    /// Pulls an image, with a few attempts where the registry or the line falters.
    ///
    /// # Errors
    /// The image does not exist, may not be read, or could not be had in any attempt.
    pub async fn pull(&self, reference: &str, mut progress: impl FnMut(Progress)) -> Result<()> {
        let name = ImageName::parse(reference);
        let credentials = self.config.credentials(&name.registry).await?;
        let mut pauses = PULL_PAUSES.into_iter();
        loop {
            let options = CreateImageOptionsBuilder::default()
                .from_image(&name.repository())
                .tag(name.version())
                .build();
            let mut layers = Layers::default();
            let mut stream = self
                .docker
                .create_image(Some(options), None, credentials.clone())
                .boxed();
            let mut failure = None;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        layers.update(&event);
                        progress(layers.progress());
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            let Some(error) = failure else { break };
            match pauses.next().filter(|_| may_pass(&error)) {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => return Err(pull_error(reference, error)),
            }
        }
        self.keep_tag(&name).await;
        Ok(())
    }

    /// An image pulled by digest has no tag, and who asks for the tag later would pull again.
    async fn keep_tag(&self, name: &ImageName) {
        let (Some(tag), Some(digest)) = (&name.tag, &name.digest) else {
            return;
        };
        let repository = name.repository();
        if let Ok(None) = self.image(&format!("{repository}:{tag}")).await {
            let source = format!("{repository}@{digest}");
            let options = TagImageOptionsBuilder::default()
                .repo(&repository)
                .tag(tag)
                .build();
            if let Err(error) = self.docker.tag_image(&source, Some(options)).await {
                tracing::debug!(%error, source, "image not tagged");
            }
        }
    }

    /// Streams images as one tar archive.
    ///
    /// From API 1.48 on only one platform is asked for: with images kept by containerd the archive
    /// would otherwise list platforms whose content is not there, and importing it would fail
    /// (kind's #3795).
    pub fn export_images<'a>(
        &'a self,
        references: &'a [&'a str],
        platform: Option<&LocalImage>,
    ) -> impl Stream<Item = Result<Bytes>> + use<'a> {
        let known = |image: &&LocalImage| !image.os.is_empty() && !image.architecture.is_empty();
        let docker = match platform
            .filter(known)
            .filter(|_| self.facts.api_at_least(1, 48))
        {
            Some(image) => {
                let platform = platform_query(image);
                self.docker
                    .clone()
                    .with_request_modifier(move |mut request| {
                        let uri = format!("{}&{platform}", request.uri());
                        if let Ok(uri) = uri.parse() {
                            *request.uri_mut() = uri;
                        }
                        request
                    })
            }
            None => self.docker.clone(),
        };
        docker
            .export_images(references)
            .map(move |chunk| chunk.doing(|| format!("cannot export {}", references.join(", "))))
    }
}

/// `platform={"os":…}`, percent-encoded, for a query that is not empty.
fn platform_query(image: &LocalImage) -> String {
    let mut platform = serde_json::json!({"os": image.os, "architecture": image.architecture});
    if let Some(variant) = &image.variant {
        platform["variant"] = variant.as_str().into();
    }
    let mut query = String::from("platform=");
    for byte in platform.to_string().bytes() {
        if byte.is_ascii_alphanumeric() {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

/// Whether another attempt could succeed.
fn may_pass(error: &bollard::errors::Error) -> bool {
    let text = message(error);
    let lasting = [
        "not found",
        "no such host",
        "manifest unknown",
        "denied",
        "unauthorized",
        "no matching manifest",
        "invalid reference",
    ];
    !matches!(status(error), Some(400 | 401 | 403 | 404))
        && !lasting.iter().any(|l| text.contains(l))
}

fn pull_error(reference: &str, error: bollard::errors::Error) -> UserError {
    let text = message(&error);
    let hint = if text.contains("denied") || text.contains("unauthorized") {
        "log in with `docker login`, or check the name"
    } else if text.contains("toomanyrequests") {
        "log in with `docker login`, or wait until the registry's limit has passed"
    } else if text.contains("not found") || text.contains("manifest unknown") {
        "check the name; the versions of kindest/node are listed on \
         https://github.com/kubernetes-sigs/kind/releases"
    } else {
        "check that the registry can be reached from the Docker daemon, or name an image that is \
         here already with --image"
    };
    UserError::usage(format!("cannot pull {reference}"))
        .hint(hint)
        .source(error)
}

/// An image reference in parts.
/// See <https://github.com/distribution/reference>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Host of the registry.
    pub registry: String,
    /// Path in the registry.
    pub path: String,
    /// Tag, if any.
    pub tag: Option<String>,
    /// Digest, if any.
    pub digest: Option<String>,
}

impl ImageName {
    /// Reads a reference; short names are those of Docker Hub.
    #[must_use]
    pub fn parse(reference: &str) -> Self {
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (reference, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_owned(), path.to_owned()),
            Some(_) => ("docker.io".to_owned(), rest.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{rest}")),
        };
        Self {
            registry,
            path,
            tag,
            digest,
        }
    }

    /// Registry and path.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// Digest, tag or `latest`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The name containerd gives to a tag.
    #[must_use]
    pub fn tagged(&self) -> String {
        format!(
            "{}:{}",
            self.repository(),
            self.tag.as_deref().unwrap_or("latest")
        )
    }
}

#[derive(Debug, Default)]
struct Layers {
    /// Bytes done and to do, and whether the layer is complete.
    layers: BTreeMap<String, (u64, u64, bool)>,
}

impl Layers {
    fn update(&mut self, event: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&event.id, &event.status) else {
            return;
        };
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let count = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
        match status.as_str() {
            "Downloading" => {
                if let Some(detail) = &event.progress_detail {
                    layer.0 = count(detail.current);
                    layer.1 = layer.1.max(count(detail.total));
                }
            }
            "Download complete" | "Extracting" => layer.0 = layer.1,
            "Pull complete" | "Already exists" => {
                layer.0 = layer.1;
                layer.2 = true;
            }
            _ => {}
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            done: self.layers.values().map(|layer| layer.0).sum(),
            total: self.layers.values().map(|layer| layer.1).sum(),
            complete: self.layers.values().filter(|layer| layer.2).count(),
            layers: self.layers.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;
    use rstest::rstest;

    #[rstest]
    #[case(
        "kindest/node:v1@sha256:00",
        "docker.io",
        "kindest/node",
        Some("v1"),
        "sha256:00"
    )]
    #[case("busybox", "docker.io", "library/busybox", None, "latest")]
    #[case("localhost:5000/a/b:c", "localhost:5000", "a/b", Some("c"), "c")]
    #[case("ghcr.io/a/b", "ghcr.io", "a/b", None, "latest")]
    fn names(
        #[case] reference: &str,
        #[case] registry: &str,
        #[case] path: &str,
        #[case] tag: Option<&str>,
        #[case] version: &str,
    ) {
        let name = ImageName::parse(reference);
        assert_eq!(
            (name.registry.as_str(), name.path.as_str()),
            (registry, path)
        );
        assert_eq!(name.tag.as_deref(), tag);
        assert_eq!(name.version(), version);
    }

    #[test]
    fn layers_add_up() {
        let event = |id: &str, status: &str, bytes: Option<(i64, i64)>| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: bytes.map(|(current, total)| ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        layers.update(&event("v1", "Pulling from kindest/node", None));
        layers.update(&event("a", "Downloading", Some((10, 100))));
        layers.update(&event("b", "Downloading", Some((50, 50))));
        layers.update(&event("b", "Pull complete", None));
        layers.update(&event("c", "Already exists", None));
        let expected = Progress {
            done: 60,
            total: 150,
            complete: 2,
            layers: 3,
        };
        assert_eq!(layers.progress(), expected);
    }

    #[test]
    fn the_platform_is_percent_encoded() {
        let image = LocalImage {
            id: String::new(),
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: Some("v8".into()),
        };
        assert_eq!(
            platform_query(&image),
            "platform=%7B%22architecture%22%3A%22arm64%22%2C%22os%22%3A%22linux%22%2C%22variant%22%3A%22v8%22%7D"
        );
    }
}
