//! A namespace for one test; when the test fails, everything in it is printed.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace as Object, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};

use super::{Kubectl, wait_for};
use crate::kubernetes::Kubernetes;

/// A namespace for one test.
pub struct Namespace {
    pub name: String,
    pub client: Client,
    pub kubectl: Kubectl,
}

impl Namespace {
    /// Makes one, and waits until pods can be made in it.
    pub async fn new(kubernetes: &Kubernetes, test: &str) -> Result<Namespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", test.replace('_', "-"), COUNT.fetch_add(1, Ordering::Relaxed));
        let client = kubernetes.client().await?;
        let object =
            Object { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, ..Object::default() };
        let namespaces: Api<Object> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await.with_context(|| format!("create namespace {name}"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        wait_for("the default service account", std::time::Duration::from_secs(30), async || {
            Ok(accounts.get_opt("default").await?)
        })
        .await?;
        let kubectl = Kubectl::new(kubernetes, &name);
        Ok(Namespace { name, client, kubectl })
    }

    /// Asks for its deletion and does not wait.
    pub async fn delete(self) -> Result<()> {
        let namespaces: Api<Object> = Api::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::background()).await?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [
                ["get", "batchjobs,jobs,pods", "-o", "wide"].as_slice(),
                &["get", "batchjobs", "-o", "yaml"],
                &["get", "events", "--sort-by", ".metadata.creationTimestamp"],
            ] {
                let said = self.kubectl.say(arguments, "").map_or_else(|error| error.to_string(), |said| said.text);
                eprintln!("--- kubectl {}\n{said}", arguments.join(" "));
            }
        }
    }
}
