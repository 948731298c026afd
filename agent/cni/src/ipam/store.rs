//! The state of a network: a folder on tmpfs.
//!
//! | File | Content |
//! |---|---|
//! | `attachments/ID@IFNAME` | a [`Record`]: the truth |
//! | `ranges/FIRST-LAST` | a [`Bitmap`]: an index of the truth |
//! | `lock` | locked during every change; one byte that says whether the index may be behind |
//!
//! A change marks the index as possibly behind, changes index and record, and takes the mark away.
//! Whoever finds the mark makes the index again from the records. So a process may be killed between
//! any two steps: as soon as the record is there, its addresses are taken; as soon as it is gone,
//! they are free.
//!
//! While ADD runs, it holds a lock on its own record, so that nobody takes an attachment whose link
//! is not there yet for one whose link is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};

use super::bitmap::Bitmap;
use super::{Address, Range, RangeSet, Record};
use crate::error::{Error, Result};
use crate::fault::step;

/// The state of one network.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A record whose attachment is being made. Locked until dropped.
#[derive(Debug)]
pub struct Lease {
    /// The record.
    pub record: Record,
    _in_progress: Flock<File>,
}

impl Store {
    /// The state in `folder`, which need not exist.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Takes one free address of every set and remembers them with the rest of the draft. Addresses of
    /// `requested` are taken where they belong to a set; others only if nobody has them according to
    /// `in_use`, which knows of more than this state: the pods of a plugin that was here before.
    ///
    /// # Errors
    /// A set has no free address, a requested one cannot be had, the container has this interface
    /// already, or the state cannot be written.
    pub fn allocate(
        &self,
        sets: &[RangeSet],
        requested: &[IpAddr],
        mut draft: Record,
        mut in_use: impl FnMut(IpAddr) -> Result<bool>,
    ) -> Result<Lease> {
        let outside = |ip: &IpAddr| {
            !sets
                .iter()
                .flat_map(RangeSet::ranges)
                .any(|r| r.subnet().contains(ip))
        };
        if let Some(address) = requested.iter().copied().find(|ip| outside(ip)) {
            return Err(Error::Requested {
                address,
                problem: "is not in a range of this network",
            });
        }
        let lock = self.lock()?;
        let path = self.record_path(&draft.container_id, &draft.ifname);
        if path.exists() {
            return Err(Error::AlreadyAttached {
                network: self.network(),
                container: draft.container_id,
                ifname: draft.ifname,
            });
        }
        let mut taken = Vec::with_capacity(sets.len());
        for set in sets {
            let (range, index, bitmap) = self.choose(set, requested, &mut in_use)?;
            draft.addresses.push(Address {
                address: IpNet::new_assert(range.address(index), range.subnet().prefix_len()),
                gateway: range.gateway(),
                range: range.key(),
                index,
            });
            taken.push((bitmap, index, range.size()));
        }
        lock.mark()?;
        for (mut bitmap, index, size) in taken {
            bitmap.set(index)?;
            step!();
            bitmap.set_cursor((index + 1) % size)?;
            step!();
        }
        let in_progress = write_record(&path, &draft)?;
        lock.unmark()?;
        Ok(Lease {
            record: draft,
            _in_progress: in_progress,
        })
    }

    /// What is remembered of an attachment.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn find(&self, container_id: &str, ifname: &str) -> Result<Option<Record>> {
        read_record(&self.record_path(container_id, ifname))
    }

    /// Forgets an attachment; its addresses are free from now on. Whether there was one.
    ///
    /// # Errors
    /// The state cannot be changed.
    pub fn release(&self, container_id: &str, ifname: &str) -> Result<bool> {
        let path = self.record_path(container_id, ifname);
        if !path.exists() {
            return Ok(false);
        }
        let lock = self.lock()?;
        // A record nobody can read must not keep a pod from being deleted; the mark stays, so that the
        // index is made again and its addresses return.
        let record = match read_record(&path) {
            Ok(None) => return Ok(false),
            record => record.ok().flatten(),
        };
        lock.mark()?;
        for address in record.iter().flat_map(|record| &record.addresses) {
            if let Some(mut bitmap) = Bitmap::open_existing(&self.range_path(&address.range))? {
                bitmap.clear(address.index)?;
                step!();
            }
        }
        remove_file(&path)?;
        step!();
        if record.is_some() {
            lock.unmark()?;
        }
        Ok(true)
    }

    /// Every attachment that is not being made right now.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn settled(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in self.record_files()? {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
                records.extend(read_record(&path).ok().flatten());
            }
        }
        Ok(records)
    }

    /// Every attachment whose record can be read.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        let files = self.record_files()?;
        Ok(files
            .iter()
            .filter_map(|path| read_record(path).ok().flatten())
            .collect())
    }

    /// Makes sure that the state can be written.
    ///
    /// # Errors
    /// It cannot.
    pub fn probe(&self) -> Result<()> {
        self.lock().map(drop)
    }

    /// Locks something else of this network, such as the host ports.
    ///
    /// # Errors
    /// The lock cannot be had.
    pub fn lock_named(&self, name: &str) -> Result<impl Drop + use<>> {
        self.lock_file(name)
    }

    /// An address of the set: the requested one, or the next free one.
    fn choose<'a>(
        &self,
        set: &'a RangeSet,
        requested: &[IpAddr],
        in_use: &mut impl FnMut(IpAddr) -> Result<bool>,
    ) -> Result<(&'a Range, u32, Bitmap)> {
        for range in set.ranges() {
            let Some(address) = requested.iter().find(|ip| range.subnet().contains(*ip)) else {
                continue;
            };
            let refused = |problem| Error::Requested {
                address: *address,
                problem,
            };
            let index = range
                .index(*address)
                .filter(|_| *address != range.gateway())
                .ok_or_else(|| refused("is never handed out"))?;
            let mut bitmap = Bitmap::open(&self.range_path(&range.key()))?;
            if bitmap.is_set(index)? {
                return Err(refused("is in use"));
            }
            return Ok((range, index, bitmap));
        }
        for range in set.ranges() {
            let mut bitmap = Bitmap::open(&self.range_path(&range.key()))?;
            let gateway = range.index(range.gateway());
            let usable = |index| Ok(Some(index) != gateway && !in_use(range.address(index))?);
            if let Some(index) = bitmap.find_free(range.size(), usable)? {
                return Ok((range, index, bitmap));
            }
        }
        let names: Vec<String> = set.ranges().map(ToString::to_string).collect();
        Err(Error::Exhausted {
            ranges: names.join(", "),
            size: set.ranges().map(|range| u64::from(range.usable())).sum(),
        })
    }

    /// Makes the index again from the records.
    fn rebuild(&self) -> Result<()> {
        let mut taken: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for path in list(&self.folder.join("ranges"))? {
            if let Some(key) = path.file_name().and_then(|name| name.to_str()) {
                taken.entry(key.to_owned()).or_default();
            }
        }
        for path in list(&self.folder.join("attachments"))? {
            // Records are written under the lock, so a half-written one has no writer any more.
            let whole = !is_temporary(&path);
            match read_record(&path) {
                Ok(Some(record)) if whole => {
                    for address in record.addresses {
                        taken.entry(address.range).or_default().push(address.index);
                    }
                }
                Ok(None) => {}
                _ => remove_file(&path)?,
            }
        }
        for (key, indexes) in taken {
            let mut bitmap = Bitmap::open(&self.range_path(&key))?;
            bitmap.reset()?;
            step!();
            for index in indexes {
                bitmap.set(index)?;
            }
            step!();
        }
        Ok(())
    }

    /// Locks the state, with the index in order.
    fn lock(&self) -> Result<Lock> {
        let lock = Lock(self.lock_file("lock")?);
        match lock.mark_of()? {
            Some(0) => {}
            Some(_) => {
                self.rebuild()?;
                lock.unmark()?;
            }
            None => {
                for folder in ["attachments", "ranges"] {
                    create_folder(&self.folder.join(folder))?;
                    step!();
                }
                lock.unmark()?;
            }
        }
        Ok(lock)
    }

    fn lock_file(&self, name: &str) -> Result<Flock<File>> {
        let path = self.folder.join(name);
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
        };
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_folder(&self.folder)?;
                open()
            }
            other => other,
        };
        let file = file.map_err(Error::io(format!("open {}", path.display())))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::kernel(format!("lock {}", path.display()))(errno))
    }

    fn record_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = list(&self.folder.join("attachments"))?;
        files.retain(|path| !is_temporary(path));
        Ok(files)
    }

    fn record_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let mut path = self.folder.join("attachments");
        path.push(Record::file_name(container_id, ifname));
        path
    }

    fn range_path(&self, key: &str) -> PathBuf {
        let mut path = self.folder.join("ranges");
        path.push(key);
        path
    }

    fn network(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// The locked state.
struct Lock(Flock<File>);

impl Lock {
    /// `None` in a state that is new.
    fn mark_of(&self) -> Result<Option<u8>> {
        let mut mark = [0];
        let read = self
            .0
            .read_at(&mut mark, 0)
            .map_err(Error::io("read the lock file"))?;
        Ok((read == 1).then_some(mark[0]))
    }

    fn mark(&self) -> Result<()> {
        self.write(1)
    }

    fn unmark(&self) -> Result<()> {
        self.write(0)
    }

    fn write(&self, mark: u8) -> Result<()> {
        self.0
            .write_all_at(&[mark], 0)
            .map_err(Error::io("write the lock file"))?;
        step!();
        Ok(())
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(Error::io(format!("create {}", folder.display())))
}

/// A record that is being written. No container ID starts with a dot.
fn is_temporary(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Writes the record under another name and renames it, so that it is there whole or not at all.
fn write_record(path: &Path, record: &Record) -> Result<Flock<File>> {
    let failed = || Error::io(format!("write {}", path.display()));
    let temporary = path.with_file_name(".new");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed())?;
    step!();
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| Error::kernel(format!("lock {}", temporary.display()))(errno))?;
    let json = serde_json::to_vec(record)?;
    file.write_all(&json).map_err(failed())?;
    step!();
    fs::rename(&temporary, path).map_err(failed())?;
    step!();
    Ok(file)
}

fn read_record(path: &Path) -> Result<Option<Record>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| Error::io(format!("read {}", path.display()))(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// The files of a folder; none if there is no folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || Error::io(format!("list {}", folder.display()));
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()).map_err(failed()))
            .collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed()(error)),
    }
}

#[cfg(test)]
mod tests;
