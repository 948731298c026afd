//! Attributes: type, length, value, padded to four bytes.

const NLA_F_NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// Attributes being written.
#[derive(Default, Clone)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An attribute of bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A string, ended by a zero byte.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A number in network order, as nfnetlink wants them.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes in an attribute.
    pub(crate) fn nest(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    /// Appends more attributes.
    pub(crate) fn extend(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }
}

impl AsRef<[u8]> for Attributes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes of a message: type and value.
pub(crate) fn iter(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    iter(bytes)
        .find(|(k, _)| *k == kind)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::new().string(1, "ab").be32(2, 7);
        let outer = Attributes::new().nest(3, inner).bytes(4, &[9]);
        let nested = find(outer.as_ref(), 3).unwrap();
        assert_eq!(find(nested, 1), Some(&b"ab\0"[..]));
        assert_eq!(find(nested, 2), Some(&[0, 0, 0, 7][..]));
        assert_eq!(find(outer.as_ref(), 4), Some(&[9][..]));
        assert_eq!(find(outer.as_ref(), 5), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(iter(&bytes).count() <= bytes.len());
        }
    }
}
