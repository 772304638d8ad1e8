//! Who is who: one certificate authority for a cluster, and what it signs.
//!
//! Kubernetes reads a client's name from its certificate: the common name is the user, the organization the group.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::address::API_SERVICE;
use super::folder::Folder;
use super::kubeconfig;

/// A certificate and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The authority of one cluster.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
    server: String,
}

impl Authority {
    /// Makes the authority, what the API server shows, and the key that signs the tokens of service accounts.
    pub(crate) fn create(folder: &Folder, address: Ipv4Addr, port: u16) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "batchjob test cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("make the authority")?;
        folder.write("pki/ca.crt", issuer.pem())?;
        let authority = Authority { issuer, folder: folder.clone(), server: format!("https://{address}:{port}") };
        authority.write_secret("ca.key", &authority.issuer.key().serialize_pem())?;

        let address = address.to_string();
        let mut names = vec!["localhost", "127.0.0.1", API_SERVICE, &address, "kubernetes", "kubernetes.default"];
        names.extend(["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]);
        authority.write_server("apiserver", &names)?;
        let tokens = KeyPair::generate()?;
        authority.write_secret("service-accounts.key", &tokens.serialize_pem())?;
        folder.write("pki/service-accounts.pub", tokens.public_key_pem())?;
        Ok(authority)
    }

    /// The API server, as its clients call it.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Writes `<name>.crt` and `<name>.key` for something that answers at these names and addresses.
    pub(crate) fn write_server(&self, name: &str, names: &[&str]) -> Result<()> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.write(name, &self.sign(name, None, names)?)
    }

    /// Writes `<name>.crt` and `<name>.key` for a client.
    pub(crate) fn write_client(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        self.write(name, &self.sign(user, group, Vec::new())?)
    }

    /// Writes a kubeconfig for a client.
    pub(crate) fn write_kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let client = self.sign(user, group, Vec::new())?;
        let path = self.folder.write(name, kubeconfig::text(&self.server, &self.issuer.pem(), &client))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    fn sign(&self, user: &str, group: Option<&str>, names: Vec<String>) -> Result<Identity> {
        // rcgen's own validity, 1975 to 4096, outlives any cluster of ours and needs no clock.
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("sign {user}"))?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn write(&self, name: &str, identity: &Identity) -> Result<()> {
        self.folder.write(&format!("pki/{name}.crt"), &identity.certificate)?;
        self.write_secret(&format!("{name}.key"), &identity.key)
    }

    fn write_secret(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.write(&format!("pki/{name}"), text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("close a key to others")
    }
}
