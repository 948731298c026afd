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
/// The library writes YAML 1.2, but kubectl and kubeadm read 1.1, where a plain `on` or `2020-01-01`
/// is no string. Such strings are quoted here.
///
/// # Errors
/// The value cannot be represented in YAML.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    let mut value = serde_yaml::to_value(value)?;
    let mut quoted = Vec::new();
    replace_ambiguous(&mut value, &mut quoted);
    let mut text = serde_yaml::to_string(&value)?;
    // Backwards, so that the tenth placeholder is not taken for the first.
    for (number, string) in quoted.iter().enumerate().rev() {
        text = text.replace(&placeholder(number), &format!("'{string}'"));
    }
    Ok(text)
}

/// A word no document has and every version of YAML takes for a string.
fn placeholder(number: usize) -> String {
    format!("kindnet\u{e000}quoted\u{e000}{number}")
}

fn replace_ambiguous(value: &mut serde_yaml::Value, quoted: &mut Vec<String>) {
    match value {
        serde_yaml::Value::String(string) if is_ambiguous(string) => {
            let number = quoted.len();
            quoted.push(std::mem::replace(string, placeholder(number)));
        }
        serde_yaml::Value::Sequence(items) => {
            items
                .iter_mut()
                .for_each(|item| replace_ambiguous(item, quoted));
        }
        serde_yaml::Value::Mapping(entries) => {
            for (mut key, mut entry) in std::mem::take(entries) {
                replace_ambiguous(&mut key, quoted);
                replace_ambiguous(&mut entry, quoted);
                entries.insert(key, entry);
            }
        }
        serde_yaml::Value::Tagged(tagged) => replace_ambiguous(&mut tagged.value, quoted),
        _ => {}
    }
}

/// Strings that YAML 1.1 takes for something else and YAML 1.2 does not. None of them has a quote.
/// See <https://yaml.org/type/>: bool, int, timestamp, merge, value.
fn is_ambiguous(string: &str) -> bool {
    let lower = string.to_ascii_lowercase();
    if ["y", "n", "yes", "no", "on", "off", "<<", "="].contains(&lower.as_str()) {
        return true;
    }
    let number = lower.trim_start_matches(['+', '-']);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let only = |allowed: &str| {
        number
            .chars()
            .all(|c| c.is_ascii_digit() || allowed.contains(c))
    };
    let grouped = number.contains('_') && only("_.,abcdefox:");
    let binary = number.starts_with("0b") && only("b_");
    let base_60 = number.contains(':') && only(":._");
    let year =
        number.as_bytes().get(4) == Some(&b'-') && number[..4].bytes().all(|b| b.is_ascii_digit());
    let timestamp = year && only("-:.tz +");
    grouped || binary || base_60 || timestamp
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
    fn strings_stay_strings_for_readers_of_yaml_1_1() {
        for string in ["on", "Yes", "n", "2020-01-01", "1_000", "0b1", "1:20", "<<"] {
            let value = serde_json::json!({"a": [string], string: {"b": string}});
            let text = to_string(&value).unwrap();
            assert_eq!(text.matches(&format!("'{string}'")).count(), 3, "{text}");
            assert_eq!(from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        let many: Vec<String> = (10..40).map(|minute| format!("1:{minute}")).collect();
        assert_eq!(
            from_str::<Vec<String>>(&to_string(&many).unwrap()).unwrap(),
            many
        );
    }

    #[test]
    fn other_strings_stay_plain() {
        for string in [
            "one",
            "kind-on",
            "10.0.0.1",
            "10.244.0.0/16",
            "fd00:10:244::/56",
            "5m0s",
        ] {
            assert_eq!(to_string(&string).unwrap(), format!("{string}\n"));
        }
    }

    #[test]
    fn an_error_names_its_line() {
        let error = from_str::<serde_json::Value>("a: 1\nb: [\n").unwrap_err();
        assert!(error.line().is_some(), "{error}");
    }
}
