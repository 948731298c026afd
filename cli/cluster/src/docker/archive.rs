//! Files into and out of a container, as tar streams.

use std::io::Read as _;

use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use kindnet_ui::UserError;

use super::Engine;
use crate::error::{Doing as _, Result};

/// A file to put into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

impl Engine {
    /// Writes files into a container, running or not, owned by root. Directories are made. Nothing
    /// below a tmpfs may be written to a container that does not run yet.
    ///
    /// # Errors
    /// The daemon refuses.
    pub async fn put_files(&self, container: &str, files: &[File]) -> Result<()> {
        let archive = pack(files).doing(|| format!("cannot pack files for {container}"))?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.docker
            .upload_to_container(container, Some(options), bollard::body_full(archive.into()))
            .await
            .doing(|| format!("cannot write files to {container}"))
    }

    /// Reads one file of a container, running or not; none when it does not exist.
    ///
    /// # Errors
    /// The daemon refuses, or the path is not a file.
    pub async fn read_file(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(path)
            .build();
        let chunks: Result<Vec<Bytes>, _> = self
            .docker
            .download_from_container(container, Some(options))
            .try_collect()
            .await;
        let archive = match chunks {
            Ok(chunks) => chunks.concat(),
            Err(error) if crate::error::status(&error) == Some(404) => return Ok(None),
            Err(error) => {
                return Err(error).doing(|| format!("cannot read {path} of {container}"));
            }
        };
        first_file(&archive)
            .map(Some)
            .ok_or_else(|| UserError::failure(format!("{path} of {container} is not a file")))
    }
}

fn pack(files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut folders: Vec<&str> = Vec::new();
    for file in files {
        let path = file.path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if !folders.contains(&folder) {
                folders.push(folder);
                let mut header = header(0o755, 0, tar::EntryType::Directory);
                builder.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
            }
        }
        let mut header = header(
            file.mode,
            file.content.len() as u64,
            tar::EntryType::Regular,
        );
        builder.append_data(&mut header, path, file.content.as_slice())?;
    }
    builder.into_inner()
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn first_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    if entry.header().entry_type() != tar::EntryType::Regular {
        return None;
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_root_owned_and_their_folders_come_first() {
        let file = |path: &str| File {
            path: path.into(),
            mode: 0o600,
            content: b"x".to_vec(),
        };
        let archive = pack(&[file("/kind/a"), file("/kind/b/c")]).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let entries: Vec<(String, u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let header = entry.header();
                (
                    path,
                    header.mode().unwrap(),
                    header.uid().unwrap() + header.gid().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("kind/", 0o755),
            ("kind/a", 0o600),
            ("kind/b/", 0o755),
            ("kind/b/c", 0o600),
        ];
        assert_eq!(
            entries,
            expected.map(|(path, mode)| (path.to_owned(), mode, 0))
        );
    }

    #[test]
    fn a_single_file_is_read_back() {
        let file = File {
            path: "/version".into(),
            mode: 0o644,
            content: b"v1.36.1\n".to_vec(),
        };
        assert_eq!(first_file(&pack(&[file]).unwrap()).unwrap(), b"v1.36.1\n");
    }
}
