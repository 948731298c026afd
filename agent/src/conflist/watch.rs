//! Being told at once when somebody touches the file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use kindnet_api::names;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// How often a folder that cannot be watched is looked at.
const POLL: Duration = Duration::from_secs(1);

/// A watch on the folder, renewed when the folder itself is removed.
#[derive(Debug)]
pub struct FolderWatch {
    dir: PathBuf,
    inotify: Option<AsyncFd<Fd>>,
    complained: bool,
}

/// [`AsyncFd`] asks for more than [`Inotify`] offers.
#[derive(Debug)]
struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FolderWatch {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            inotify: None,
            complained: false,
        }
    }

    /// Makes sure the folder exists and is watched. Where it cannot be, it is polled.
    pub fn arm(&mut self) {
        if self.inotify.is_some() {
            return;
        }
        match self.open() {
            Ok(inotify) => {
                self.inotify = Some(inotify);
                self.complained = false;
            }
            Err(error) if !self.complained => {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot watch the folder, looking every second");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    #[allow(
        deprecated,
        reason = "its successor is unsafe; what it asks for holds here: Fd owns its descriptor and \
                  never returns another"
    )]
    fn open(&self) -> io::Result<AsyncFd<Fd>> {
        fs::create_dir_all(&self.dir)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(
            self.dir.as_path(),
            AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR,
        )?;
        AsyncFd::new(Fd(inotify))
    }

    /// Waits until the file may have changed. Cancel safe: a missed event is found by the look that
    /// follows every wake-up.
    pub async fn changed(&mut self) {
        loop {
            let Some(inotify) = &self.inotify else {
                return tokio::time::sleep(POLL).await;
            };
            match concerning(inotify).await {
                Ok(Seen::Nothing) => {}
                Ok(Seen::File) => return,
                Ok(Seen::Folder) => {
                    self.inotify = None;
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "watch of the folder broke");
                    self.inotify = None;
                    return tokio::time::sleep(POLL).await;
                }
            }
        }
    }
}

/// What a batch of events was about.
enum Seen {
    Nothing,
    File,
    /// The folder is no longer the one that is watched.
    Folder,
}

async fn concerning(inotify: &AsyncFd<Fd>) -> io::Result<Seen> {
    let mut ready = inotify.readable().await?;
    let events = match inotify.get_ref().0.read_events() {
        Ok(events) => events,
        Err(Errno::EAGAIN) => {
            ready.clear_ready();
            return Ok(Seen::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let gone = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_UNMOUNT
        | AddWatchFlags::IN_IGNORED;
    if events.iter().any(|event| event.mask.intersects(gone)) {
        return Ok(Seen::Folder);
    }
    let ours = Some(OsStr::new(names::CONFLIST_FILE));
    let touched = events.iter().any(|event| {
        event.name.as_deref() == ours || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
    });
    Ok(if touched { Seen::File } else { Seen::Nothing })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an event came, within a time that only a broken watch needs.
    async fn woke(watch: &mut FolderWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn every_way_to_touch_the_file_wakes_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(names::CONFLIST_FILE);
        let mut watch = FolderWatch::new(dir.path());
        watch.arm();
        fs::write(&file, "a").unwrap();
        assert!(woke(&mut watch).await);
        fs::remove_file(&file).unwrap();
        assert!(woke(&mut watch).await);
        let other = dir.path().join("99-other.conf");
        fs::write(&other, "a").unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(200), watch.changed()).await;
        assert!(silent.is_err());
        fs::rename(&other, &file).unwrap();
        assert!(woke(&mut watch).await);
    }

    #[tokio::test]
    async fn a_folder_that_is_removed_is_made_and_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("net.d");
        let mut watch = FolderWatch::new(&folder);
        watch.arm();
        fs::remove_dir(&folder).unwrap();
        assert!(woke(&mut watch).await);
        watch.arm();
        assert!(folder.is_dir());
        fs::write(folder.join(names::CONFLIST_FILE), "a").unwrap();
        assert!(woke(&mut watch).await);
    }
}
