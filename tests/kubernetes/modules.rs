//! Which binary comes from which Go module, at which version?
//!
//! The pins are `modules/<name>/go.mod`, where Go's own tools and the usual update bots keep them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Size;

/// A go.mod of ours, which requires one upstream module for its commands.
pub(crate) struct Module {
    /// The folder below `modules/`, and below the cache.
    pub(crate) name: &'static str,
    /// The upstream module whose version names the build.
    upstream: &'static str,
    pub(crate) commands: &'static [Command],
}

/// A command of a module.
pub(crate) struct Command {
    /// What the binary is called.
    pub(crate) binary: &'static str,
    pub(crate) package: &'static str,
    /// The smallest size that needs it.
    pub(crate) size: Size,
}

const fn command(binary: &'static str, package: &'static str, size: Size) -> Command {
    Command { binary, package, size }
}

/// In the order of building: what takes longest and is shared most comes first.
pub(crate) const MODULES: &[Module] = &[
    Module {
        name: "kubernetes",
        upstream: "k8s.io/kubernetes",
        commands: &[
            command("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", Size::Api),
            command("kubectl", "k8s.io/kubernetes/cmd/kubectl", Size::Api),
            command("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", Size::Api),
            command("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", Size::Api),
            command("kubelet", "k8s.io/kubernetes/cmd/kubelet", Size::Node),
            command("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", Size::Node),
        ],
    },
    Module {
        name: "etcd",
        upstream: "go.etcd.io/etcd/server/v3",
        commands: &[command("etcd", "go.etcd.io/etcd/server/v3", Size::Api)],
    },
    Module {
        name: "helm",
        upstream: "helm.sh/helm/v4",
        commands: &[command("helm", "helm.sh/helm/v4/cmd/helm", Size::Api)],
    },
    Module {
        name: "kwok",
        upstream: "sigs.k8s.io/kwok",
        commands: &[command("kwok", "sigs.k8s.io/kwok/cmd/kwok", Size::Api)],
    },
    Module {
        name: "containerd",
        upstream: "github.com/containerd/containerd/v2",
        commands: &[
            command("containerd", "github.com/containerd/containerd/v2/cmd/containerd", Size::Node),
            command(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                Size::Node,
            ),
            command("ctr", "github.com/containerd/containerd/v2/cmd/ctr", Size::Node),
        ],
    },
];

impl Module {
    /// The folder with go.mod and go.sum.
    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/modules").join(self.name)
    }

    /// The version that go.mod pins.
    pub(crate) fn version(&self) -> Result<String> {
        let path = self.folder().join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        required_version(&text, self.upstream)
            .with_context(|| format!("{} requires no version of {}", path.display(), self.upstream))
    }

    /// What the linker is told. Kubernetes learns its version only this way: without it clients see v0.0.0.
    pub(crate) fn linker_flags(&self, version: &str) -> String {
        let mut flags = String::from("-s -w");
        if self.name == "kubernetes" {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
            }
        }
        flags
    }
}

/// The pinned version of each upstream, for people.
pub fn versions() -> Result<Vec<(&'static str, String)>> {
    MODULES.iter().map(|module| Ok((module.name, module.version()?))).collect()
}

/// Reads a `require` of go.mod, in a block or on a line of its own. A `replace` of the same module is not one.
fn required_version(go_mod: &str, upstream: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        let (module, version) = (words.next()?, words.next()?);
        (module == upstream && version.starts_with('v')).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_from_either_form_of_require_and_not_from_a_replace() {
        let go_mod = "tool k8s.io/kubernetes/cmd/kubectl\n\nrequire example.com/one v1.2.3\n\nrequire (\n\
                      \tk8s.io/kubernetes/other v9.9.9 // indirect\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n\n\
                      replace (\n\tk8s.io/api => k8s.io/api v0.37.2\n)\n";
        assert_eq!(required_version(go_mod, "example.com/one").as_deref(), Some("v1.2.3"));
        assert_eq!(required_version(go_mod, "k8s.io/kubernetes").as_deref(), Some("v1.37.2"));
        assert_eq!(required_version(go_mod, "k8s.io/api"), None);
    }

    #[test]
    fn every_module_has_its_pin_and_every_command_is_a_tool_of_it() {
        for module in MODULES {
            module.version().unwrap();
            let go_mod = fs::read_to_string(module.folder().join("go.mod")).unwrap();
            for command in module.commands {
                assert!(go_mod.contains(command.package), "{} is no tool of {}", command.package, module.name);
            }
        }
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let kubernetes = &MODULES[0];
        assert!(kubernetes.linker_flags("v1.37.2").ends_with(
            "-X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
             -X k8s.io/component-base/version.gitMinor=37"
        ));
    }
}
