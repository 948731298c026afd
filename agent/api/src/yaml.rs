//! The one place that knows which YAML library is in use.
//!
//! serde_yaml is finished and archived; keeping it behind these functions makes a change of library
//! a change of this file.

use serde::{Serialize, de::DeserializeOwned};

/// A document that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("invalid YAML: {0}")]
pub struct YamlError(#[from] serde_yaml::Error);

impl YamlError {
    /// Line of the problem, counted from 1, where the parser knows it.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.0.location().map(|l| l.line())
    }
}

/// Reads one document.
///
/// # Errors
/// The text is not YAML, or does not have the shape of `T`.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_yaml::from_str(text)?)
}

/// Reads every document of a `---` separated stream; empty documents are skipped.
///
/// # Errors
/// As [`from_str`].
pub fn documents<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, YamlError> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = <serde_yaml::Value as serde::Deserialize>::deserialize(document)?;
        if !value.is_null() {
            documents.push(serde_yaml::from_value(value)?);
        }
    }
    Ok(documents)
}

/// Writes one document, without a leading `---`.
///
/// # Errors
/// The value cannot be represented in YAML.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    Ok(serde_yaml::to_string(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stream_and_skips_empty_documents() {
        let documents: Vec<serde_json::Value> =
            documents("a: 1\n---\n# nothing\n---\nb: [true]\n").unwrap();
        assert_eq!(
            documents,
            [
                serde_json::json!({"a": 1}),
                serde_json::json!({"b": [true]})
            ]
        );
    }

    #[test]
    fn an_error_names_its_line() {
        let error = from_str::<serde_json::Value>("a: 1\nb: [\n").unwrap_err();
        assert!(error.line().is_some(), "{error}");
    }
}
