//! Versions of Kubernetes as node images state them in `/kind/version`.

use std::fmt;

/// A version of Kubernetes. Pre-release and build parts are kept for display and ignored in
/// comparisons, as kind does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeVersion {
    text: String,
    numbers: (u32, u32, u32),
}

impl KubeVersion {
    /// Reads `v1.36.1`, `1.36.1` or `v1.37.0-rc.1+build`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.strip_prefix('v').unwrap_or(text);
        let core = bare.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|part| part.parse::<u32>().ok());
        let numbers = (
            parts.next()??,
            parts.next()??,
            parts.next().unwrap_or(Some(0))?,
        );
        parts.next().is_none().then(|| Self {
            text: format!("v{bare}"),
            numbers,
        })
    }

    /// The version an image reference names in its tag, where it names one.
    #[must_use]
    pub fn of_image(reference: &str) -> Option<Self> {
        let name = reference.split('@').next()?;
        let (_, tag) = name.rsplit('/').next()?.rsplit_once(':')?;
        tag.starts_with('v').then(|| Self::parse(tag))?
    }

    /// Whether this is `major.minor` or newer.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.numbers.0, self.numbers.1) >= (major, minor)
    }

    /// Whether this is `major.minor` with any patch level.
    #[must_use]
    pub fn is(&self, major: u32, minor: u32) -> bool {
        (self.numbers.0, self.numbers.1) == (major, minor)
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("v1.20.2\n", "v1.20.2", false)]
    #[case("1.36.1", "v1.36.1", true)]
    #[case("v1.37.0-rc.1", "v1.37.0-rc.1", true)]
    #[case("v1.35.0-alpha.3+abc", "v1.35.0-alpha.3+abc", true)]
    fn versions(#[case] text: &str, #[case] shown: &str, #[case] new: bool) {
        let version = KubeVersion::parse(text).unwrap();
        assert_eq!(version.to_string(), shown);
        assert_eq!(version.at_least(1, 35), new);
    }

    #[rstest]
    #[case("")]
    #[case("latest")]
    #[case("v1")]
    #[case("v1.2.3.4")]
    #[case("v1.x.0")]
    fn no_versions(#[case] text: &str) {
        assert_eq!(KubeVersion::parse(text), None);
    }

    #[rstest]
    #[case("kindest/node:v1.36.1@sha256:00", Some("v1.36.1"))]
    #[case("localhost:5000/node:v1.20.2", Some("v1.20.2"))]
    #[case("localhost:5000/node", None)]
    #[case("kindest/node:latest", None)]
    #[case("kindest/node@sha256:00", None)]
    fn tags(#[case] reference: &str, #[case] version: Option<&str>) {
        let found = KubeVersion::of_image(reference).map(|v| v.to_string());
        assert_eq!(found.as_deref(), version);
    }
}
