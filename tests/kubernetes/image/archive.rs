//! An image in the form of the OCI image layout, version 1.0: blobs named by their digests, and an index that names the
//! first of them.
//!
//! ```text
//! index.json ──► manifest ──► config
//!                    └──────► layer
//! ```

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType};

use super::{Image, layer};

/// The archive, as one tar.
pub(super) fn bytes(image: &Image) -> Result<Vec<u8>> {
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", image.layer.clone());
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config(image, &layer))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest)?;

    let mut named = manifest.descriptor();
    // The first is what containerd goes by, the second is what the others do.
    named["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    });

    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "oci-layout", &serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?)?;
    add(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
    for blob in [&manifest, &config, &layer] {
        add(&mut tar, &format!("blobs/sha256/{}", blob.digest), &blob.content)?;
    }
    Ok(tar.into_inner()?)
}

fn config(image: &Image, layer: &Blob) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": ["PATH=/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "WorkingDir": "/",
        },
        // The digest of the layer as it is unpacked, which here is as it is packed.
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
    })
}

/// This machine's architecture, by the name that Go and so OCI give it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Blob {
        let digest = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Blob { media_type, digest, content }
    }

    fn json(media_type: &'static str, content: &Value) -> Result<Blob> {
        Ok(Blob::new(media_type, serde_json::to_vec(content)?))
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = layer::header(EntryType::Regular, 0o644, content.len() as u64);
    Ok(tar.append_data(&mut header, path, content)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    #[test]
    fn every_digest_leads_to_the_blob_it_names() {
        let mut files = super::super::Layer::new();
        files.file("/hello", 0o755, b"hello").unwrap();
        let image = Image {
            name: "localhost/hello:1".to_owned(),
            layer: files.finish().unwrap(),
            entrypoint: vec!["/hello".to_owned()],
            command: Vec::new(),
            user: String::new(),
        };
        let archive = bytes(&image).unwrap();
        assert_eq!(archive, bytes(&image).unwrap(), "the same image makes the same bytes");

        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(path, content);
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let content = &found[&format!("blobs/{digest}")];
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let index: Value = serde_json::from_slice(&found["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(blob(&manifest["config"])).unwrap();
        assert_eq!(blob(&manifest["layers"][0]), &image.layer);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Entrypoint"][0], "/hello");
    }
}
