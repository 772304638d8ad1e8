//! An admission webhook of somebody's: it says no to every pod until it is told otherwise, and then yes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// The webhook. Dropping it ends it.
pub struct Webhook {
    pub url: String,
    /// What the API server is to trust, as it wants it.
    pub ca_bundle: String,
    allows: Arc<AtomicBool>,
    _server: JoinSet<()>,
}

impl Webhook {
    pub async fn start() -> Result<Webhook> {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).context("make a certificate")?;
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .context("configure the webhook")?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let allows = Arc::new(AtomicBool::new(false));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, acceptor, allows.clone()));
        Ok(Webhook { url, ca_bundle: STANDARD.encode(own.cert.pem()), allows, _server: server })
    }

    pub fn allow(&self) {
        self.allows.store(true, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, allows: Arc<AtomicBool>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, allows) = (acceptor.clone(), allows.clone());
        connections.spawn(async move {
            // A connection that breaks is opened anew by whoever asks.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| review(request, &allows));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn review(request: Request<Incoming>, allows: &AtomicBool) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": allows.load(Ordering::Relaxed),
            "status": { "message": "not now" },
        },
    });
    let mut response = Response::new(Full::new(answer.to_string().into()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}
