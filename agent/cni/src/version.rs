//! Versions of the [CNI specification](https://www.cni.dev/docs/spec/).

use serde::Serialize;

use crate::error::{Error, Result};

/// A version this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V030,
    /// 0.3.1
    V031,
    /// 0.4.0: adds CHECK
    V040,
    /// 1.0.0: addresses lose their version
    V100,
    /// 1.1.0: adds GC and STATUS
    V110,
}

const NAMES: [(Version, &str); 5] = [
    (Version::V030, "0.3.0"),
    (Version::V031, "0.3.1"),
    (Version::V040, "0.4.0"),
    (Version::V100, "1.0.0"),
    (Version::V110, "1.1.0"),
];

/// The versions, for messages.
pub(crate) const SUPPORTED_TEXT: &str = "0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0";

impl Version {
    /// The newest one.
    pub const LATEST: Self = Self::V110;

    /// Reads the `cniVersion` of a configuration.
    ///
    /// # Errors
    /// [`Error::IncompatibleVersion`]
    pub fn parse(text: &str) -> Result<Self> {
        NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(version, _)| *version)
            .ok_or_else(|| Error::IncompatibleVersion(text.to_owned()))
    }

    /// As it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(version, _)| *version == self)
            .map_or("", |(_, name)| name)
    }
}

/// The answer to VERSION; `requested` is the version of the question.
#[must_use]
pub(crate) fn report(requested: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Report<'a> {
        cni_version: &'a str,
        supported_versions: [&'static str; NAMES.len()],
    }
    let report = Report {
        cni_version: if requested.is_empty() {
            Version::LATEST.as_str()
        } else {
            requested
        },
        supported_versions: NAMES.map(|(_, name)| name),
    };
    serde_json::to_string(&report).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort() {
        for (version, name) in NAMES {
            assert_eq!(Version::parse(name).unwrap(), version);
            assert_eq!(version.as_str(), name);
            assert!(SUPPORTED_TEXT.contains(name));
        }
        assert!(NAMES.is_sorted());
        assert_eq!(Version::parse("0.2.0").unwrap_err().code(), 1);
    }
}
