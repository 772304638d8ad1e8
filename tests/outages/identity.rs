//! Who the operator is: a service account of its own, which an API server that is too busy does turn away (it does not turn
//! away an administrator), and whose token is in a file that is replaced.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};

use crate::kubernetes::Kubernetes;
use crate::support::{Namespace, wait_for};

/// The service account.
pub const NAME: &str = "operator";

const LIMIT: Duration = Duration::from_secs(30);

/// An operator's credentials.
pub struct Identity {
    client: Client,
    namespace: String,
    server: String,
    authority: String,
    pub kubeconfig: PathBuf,
    token: PathBuf,
    n_tokens: u32,
}

impl Identity {
    /// Makes the account, and waits until it may do what it has to. The API server is found at `gate`.
    pub async fn new(kubernetes: &Kubernetes, namespace: &Namespace, gate: SocketAddr) -> Result<Identity> {
        let (client, name) = (namespace.client.clone(), &namespace.name);
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await?;
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": format!("operator-of-{name}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": name }],
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &binding).await?;

        let admin = fs::read_to_string(kubernetes.kubeconfig())?;
        let authority = admin.lines().find_map(|line| line.trim().strip_prefix("certificate-authority-data: "));
        let folder = kubernetes.folder();
        let mut identity = Identity {
            client,
            namespace: name.clone(),
            server: kubernetes.server().to_owned(),
            authority: authority.context("a certificate authority")?.to_owned(),
            kubeconfig: folder.join(format!("{name}.kubeconfig")),
            token: folder.join(format!("{name}.token")),
            n_tokens: 0,
        };
        fs::write(&identity.kubeconfig, identity.text(&format!("https://{gate}")))?;
        identity.next_token().await?;
        let pods: Api<Secret> = Api::namespaced(identity.as_operator().await?, name);
        wait_for("the operator has its rights", LIMIT, async || Ok(pods.list(&ListParams::default()).await.ok()))
            .await?;
        Ok(identity)
    }

    fn text(&self, server: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": {
                "server": server, "certificate-authority-data": self.authority, "tls-server-name": "localhost",
            } }],
            "users": [{ "name": "it", "user": { "tokenFile": self.token } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": self.namespace } }],
        })
        .to_string()
    }

    /// A client with the same rights and the present token, which no gate cuts off.
    pub async fn as_operator(&self) -> Result<Client> {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&self.text(&self.server))?;
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
        config.proxy_url = None;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// A new token is in the file, and the old one is worth nothing: when that is so, it answers.
    pub async fn replace_token(&mut self) -> Result<()> {
        let old: Api<Secret> = Api::namespaced(self.as_operator().await?, &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let bound_to = secret(self.n_tokens);
        self.next_token().await?;
        secrets.delete(&bound_to, &DeleteParams::default()).await?;
        // The API server believes for ten seconds what it has found out.
        wait_for("the old token is refused", LIMIT, async || match old.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 401 => Ok(Some(())),
            other => other.map(|_| None).map_err(Into::into),
        })
        .await
    }

    async fn next_token(&mut self) -> Result<()> {
        self.n_tokens += 1;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let metadata = ObjectMeta { name: Some(secret(self.n_tokens)), ..ObjectMeta::default() };
        let bound_to = secrets.create(&PostParams::default(), &Secret { metadata, ..Secret::default() }).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": [], "boundObjectRef": {
                "apiVersion": "v1", "kind": "Secret", "name": bound_to.name_any(), "uid": bound_to.uid(),
            } },
        });
        let answer: Value = accounts.create_subresource("token", NAME, &PostParams::default(), &request).await?;
        let token = answer["status"]["token"].as_str().context("a token")?;
        // In one step, as a kubelet does it: nobody reads half a token.
        let unfinished = self.token.with_extension("new");
        fs::write(&unfinished, token)?;
        fs::rename(&unfinished, &self.token).context("replace the token")
    }
}

fn secret(number: u32) -> String {
    format!("token-{number}")
}
