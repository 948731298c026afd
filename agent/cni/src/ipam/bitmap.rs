//! The index of a range: one bit per address and a cursor, in a file.
//!
//! The file is written with writes of at most four bytes that do not cross a page, so a process that
//! is killed leaves every one of them done or not done. What the file says follows from the records
//! and can be made again from them at any time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::{Error, Result};

/// The header: where to look next, and room.
const HEADER: u64 = 64;
const HEADER_BITS: u32 = 512;
const CHUNK: usize = 4096;

/// An open index.
pub(super) struct Bitmap {
    file: File,
    name: String,
    chunk: Box<[u8; CHUNK]>,
    /// Offset of what is in `chunk`.
    loaded: Option<u64>,
}

impl Bitmap {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        Ok(Self {
            file,
            name: path.display().to_string(),
            chunk: Box::new([0; CHUNK]),
            loaded: None,
        })
    }

    /// Opens the file if there is one.
    pub(super) fn open_existing(path: &Path) -> Result<Option<Self>> {
        if path.exists() {
            Self::open(path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The first free address at or after the cursor, going round, that is `usable`.
    pub(super) fn find_free(
        &mut self,
        size: u32,
        mut usable: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Option<u32>> {
        self.load(0)?;
        let cursor =
            u32::from_ne_bytes([self.chunk[0], self.chunk[1], self.chunk[2], self.chunk[3]]);
        let cursor = if cursor < size { cursor } else { 0 };
        for (from, to) in [(cursor, size), (0, cursor)] {
            let mut index = from;
            while index < to {
                let bit = index + HEADER_BITS;
                let byte = self.byte(bit)?;
                if byte == 0xff {
                    index += 8 - bit % 8;
                } else if byte & (1 << (bit % 8)) != 0 || !usable(index)? {
                    index += 1;
                } else {
                    return Ok(Some(index));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn is_set(&mut self, index: u32) -> Result<bool> {
        let bit = index + HEADER_BITS;
        Ok(self.byte(bit)? & (1 << (bit % 8)) != 0)
    }

    pub(super) fn set(&mut self, index: u32) -> Result<()> {
        self.change(index, |byte, mask| byte | mask)
    }

    pub(super) fn clear(&mut self, index: u32) -> Result<()> {
        self.change(index, |byte, mask| byte & !mask)
    }

    /// Where the next search begins.
    pub(super) fn set_cursor(&mut self, index: u32) -> Result<()> {
        let bytes = index.to_ne_bytes();
        if self.loaded == Some(0) {
            self.chunk[..4].copy_from_slice(&bytes);
        }
        self.write(&bytes, 0)
    }

    /// Marks every address free and keeps the cursor.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.loaded = None;
        self.file
            .set_len(HEADER)
            .map_err(Error::io(format!("truncate {}", self.name)))?;
        Ok(())
    }

    fn change(&mut self, index: u32, with: impl Fn(u8, u8) -> u8) -> Result<()> {
        let bit = index + HEADER_BITS;
        let changed = with(self.byte(bit)?, 1 << (bit % 8));
        self.chunk[bit as usize / 8 % CHUNK] = changed;
        self.write(&[changed], u64::from(bit / 8))
    }

    fn byte(&mut self, bit: u32) -> Result<u8> {
        let offset = bit as usize / 8;
        self.load((offset / CHUNK * CHUNK) as u64)?;
        Ok(self.chunk[offset % CHUNK])
    }

    fn load(&mut self, offset: u64) -> Result<()> {
        if self.loaded == Some(offset) {
            return Ok(());
        }
        let mut filled = 0;
        while filled < CHUNK {
            let read = self
                .file
                .read_at(&mut self.chunk[filled..], offset + filled as u64)
                .map_err(Error::io(format!("read {}", self.name)))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        // Behind the end of the file every address is free.
        self.chunk[filled..].fill(0);
        self.loaded = Some(offset);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(Error::io(format!("write {}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn bitmap() -> (tempfile::TempDir, Bitmap) {
        let folder = tempfile::tempdir().unwrap();
        let bitmap = Bitmap::open(&folder.path().join("range")).unwrap();
        (folder, bitmap)
    }

    #[test]
    fn goes_round_and_ends() {
        let (_folder, mut bitmap) = bitmap();
        for expected in [1, 2, 3] {
            assert_eq!(
                bitmap.find_free(4, |index| Ok(index != 0)).unwrap(),
                Some(expected)
            );
            bitmap.set(expected).unwrap();
            bitmap.set_cursor(expected + 1).unwrap();
        }
        assert_eq!(bitmap.find_free(4, |index| Ok(index != 0)).unwrap(), None);
        bitmap.clear(2).unwrap();
        assert_eq!(
            bitmap.find_free(4, |index| Ok(index != 0)).unwrap(),
            Some(2)
        );
    }

    #[test]
    fn reaches_the_end_of_the_largest_range() {
        let (_folder, mut bitmap) = bitmap();
        let last = super::super::range::MAX_SIZE - 1;
        bitmap.set(last).unwrap();
        bitmap.set_cursor(last).unwrap();
        assert!(bitmap.is_set(last).unwrap());
        assert_eq!(bitmap.find_free(last + 1, |_| Ok(true)).unwrap(), Some(0));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            size in 1u32..40_000,
            steps in prop::collection::vec((any::<bool>(), any::<u32>()), 1..60),
        ) {
            let (_folder, mut bitmap) = bitmap();
            let mut model = BTreeSet::new();
            let mut cursor = 0;
            for (take, number) in steps {
                if take {
                    bitmap.set_cursor(number % size).unwrap();
                    cursor = number % size;
                    let expected = (cursor..size).chain(0..cursor).find(|i| !model.contains(i));
                    let found = bitmap.find_free(size, |_| Ok(true)).unwrap();
                    prop_assert_eq!(found, expected);
                    if let Some(index) = found {
                        bitmap.set(index).unwrap();
                        model.insert(index);
                    }
                } else if let Some(index) = model.iter().copied().nth(number as usize % model.len().max(1)) {
                    bitmap.clear(index).unwrap();
                    model.remove(&index);
                }
            }
            bitmap.reset().unwrap();
            prop_assert_eq!(bitmap.find_free(size, |_| Ok(true)).unwrap(), Some(cursor));
        }
    }
}
