//! The files of an image, as the tar that its one layer is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

pub(super) struct Layer {
    tar: Builder<Vec<u8>>,
}

impl Layer {
    pub(super) fn new() -> Layer {
        Layer { tar: Builder::new(Vec::new()) }
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, inside(path), &[][..]).with_context(|| format!("add {path}"))
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode, content.len() as u64);
        self.tar.append_data(&mut header, inside(path), content).with_context(|| format!("add {path}"))
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, inside(path), target).with_context(|| format!("add {path}"))
    }

    /// Adds the files and links of a folder, at the same path, in the order of their names.
    pub(super) fn copy_folder(&mut self, folder: &Path) -> Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = path.to_string_lossy();
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.link(&name, &fs::read_link(&path)?.to_string_lossy())?;
            } else if kind.is_file() {
                self.file(&name, 0o644, &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        self.tar.into_inner().context("finish the layer")
    }
}

/// An entry that belongs to root and is from no time: the digest depends on the content alone.
pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Paths in a layer are relative to its root.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}
