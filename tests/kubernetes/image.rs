//! Container images from local files: no registry, no Dockerfile, no build tool.
//!
//! | image | holds | runs as |
//! |---|---|---|
//! | `localhost/pause:1` | busybox, asleep: it holds a pod's network | root |
//! | `busybox:1` | busybox with all its commands, the machine's licence texts | root |
//! | one of [`Image::of_binary`] | one static binary | 65532 |
//!
//! An image is written as an OCI archive, which `ctr`, `podman`, `docker load` and `skopeo` read. The same files make
//! the same bytes: nothing in it tells the time.

mod archive;
mod elf;
mod layer;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::machine::output;
use super::prerequisites::static_busybox;
use layer::Layer;

pub(crate) use elf::is_static;

/// The image of a pod's sandbox.
pub const PAUSE: &str = "localhost/pause:1";
/// The image of examples and tests: the full name of what a manifest calls `busybox:1`.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";

/// Nobody in particular, and not root: the number that "nonroot" images have come to share.
const NONROOT: &str = "65532:65532";
const LICENCES: &str = "/usr/share/common-licenses";

/// What an image is made of.
pub struct Image {
    name: String,
    layer: Vec<u8>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: String,
}

impl Image {
    /// An image with one static binary in it, which it runs as a user without rights.
    pub fn of_binary(binary: &Path, name: &str) -> Result<Image> {
        ensure!(
            is_static(binary).with_context(|| format!("read {}", binary.display()))?,
            "{} needs a dynamic linker, which the image has not: build it with --target x86_64-unknown-linux-musl, \
             or with RUSTFLAGS='-C target-feature=+crt-static'",
            binary.display()
        );
        let path = format!("/{}", binary.file_name().context("a binary has a name")?.to_string_lossy());
        let mut layer = Layer::new();
        layer.file(&path, 0o755, &fs::read(binary)?)?;
        layer.folder("/tmp", 0o1777)?;
        Ok(Image {
            name: name.to_owned(),
            layer: layer.finish()?,
            entrypoint: vec![path],
            command: Vec::new(),
            user: NONROOT.to_owned(),
        })
    }

    /// The sandbox of every pod.
    pub fn pause() -> Result<Image> {
        let busybox = static_busybox().context("find a static busybox")?;
        let mut layer = Layer::new();
        layer.file("/bin/busybox", 0o755, &fs::read(busybox)?)?;
        Ok(Image {
            name: PAUSE.to_owned(),
            layer: layer.finish()?,
            entrypoint: ["/bin/busybox", "sleep", "infinity"].map(str::to_owned).to_vec(),
            command: Vec::new(),
            user: String::new(),
        })
    }

    /// A shell and some three hundred commands.
    pub fn busybox() -> Result<Image> {
        let busybox = static_busybox().context("find a static busybox")?;
        let mut layer = Layer::new();
        layer.file("/bin/busybox", 0o755, &fs::read(&busybox)?)?;
        for command in output(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
            layer.link(&format!("/bin/{command}"), "busybox")?;
        }
        layer.folder("/tmp", 0o1777)?;
        layer.file("/etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n")?;
        layer.file("/etc/group", 0o644, b"root:x:0:\nnonroot:x:65532:\n")?;
        if Path::new(LICENCES).is_dir() {
            layer.copy_folder(Path::new(LICENCES))?;
        }
        Ok(Image {
            name: BUSYBOX.to_owned(),
            layer: layer.finish()?,
            entrypoint: Vec::new(),
            command: vec!["sh".to_owned()],
            user: String::new(),
        })
    }

    /// The same under another name: one that a manifest asks for and no registry gives here.
    pub fn named(self, name: &str) -> Image {
        Image { name: name.to_owned(), ..self }
    }

    /// Writes the image as an OCI archive.
    pub fn write(&self, out: &Path) -> Result<()> {
        fs::write(out, archive::bytes(self)?).with_context(|| format!("write {}", out.display()))
    }
}
