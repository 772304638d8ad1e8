//! Which outages there are, how each begins and ends, and what shows that it came about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::gate::Gate;
use super::ground::{Ground, Temper};
use super::identity::Identity;
use crate::support::audit::Request;
use crate::support::{Etcd, Namespace, Operator};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Nobody listens.
    Refused,
    /// Connections are accepted, and nothing is answered; in the end what was asked is answered late.
    BlackHole,
    /// The same, but what was sent and what was open is never answered: only new connections are.
    HalfOpen,
    /// No outage: all connections that there are die in silence, new ones are answered.
    DeadConnections,
    /// One connection dies in silence, a watch or not.
    OneDead,
    /// Away and back again, every second or two, in both ways.
    Flapping,
    /// Every connection, and with it every watch, ends after two seconds.
    Breaking,
    /// The token in use is refused; another one is in its file.
    Token,
    /// Away for longer than what has changed is remembered, again and again: every watch is answered 410.
    Gone,
    /// Writes are answered 429: there are too many already.
    Busy,
    /// Writes are answered 500: etcd is full.
    Full,
}

impl Kind {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub fn temper(self) -> Temper {
        match self {
            Kind::Gone | Kind::Busy | Kind::Full => Temper::Harsh,
            _ => Temper::Plain,
        }
    }

    /// How long it may take from the return of the API server until everything is done that is due, the time apart in which
    /// the API server is at work for the operator.
    pub fn acted_within(self) -> Duration {
        match self {
            // Nothing tells it but the silence: until it is noticed, and then as ever.
            Kind::OneDead => Duration::from_secs(65),
            // There is no return, or it leaves dead connections: they show by what is asked every two seconds.
            Kind::DeadConnections | Kind::Flapping => Duration::from_secs(10),
            _ => Duration::from_secs(5),
        }
    }
}

/// Everything that an outage may touch.
pub struct Scene<'a> {
    pub ground: &'a Ground,
    pub namespace: &'a Namespace,
    pub gate: &'a Gate,
    pub identity: &'a mut Identity,
}

impl Scene<'_> {
    /// Lets it happen for so long, and at least until `meanwhile` is done. Where nothing can happen meanwhile it happens as
    /// soon as it can.
    pub async fn play(
        &mut self,
        kind: Kind,
        length: Duration,
        meanwhile: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let gate = self.gate;
        match kind {
            Kind::Refused => {
                gate.close();
                lasts(length, meanwhile).await?;
                gate.open();
            }
            Kind::BlackHole => {
                gate.freeze();
                lasts(length, meanwhile).await?;
                gate.open();
            }
            Kind::HalfOpen => {
                gate.freeze();
                lasts(length, meanwhile).await?;
                gate.forget();
                gate.open();
            }
            Kind::DeadConnections => {
                gate.forget();
                meanwhile.await?;
            }
            Kind::OneDead => {
                // Not so old that it has ended already, most likely.
                let n = gate.n_connections();
                let nth = u64::from(std::process::id()) + n;
                gate.forget_one(n.saturating_sub(1 + nth % 3));
                meanwhile.await?;
            }
            Kind::Flapping => {
                self.again_and_again(length, meanwhile, async || {
                    gate.close();
                    sleep(Duration::from_secs(1)).await;
                    gate.open();
                    sleep(Duration::from_millis(1500)).await;
                    gate.freeze();
                    sleep(Duration::from_secs(1)).await;
                    gate.forget();
                    gate.open();
                })
                .await?;
            }
            Kind::Breaking => {
                self.again_and_again(length, meanwhile, async || {
                    sleep(Duration::from_secs(2)).await;
                    gate.break_all();
                })
                .await?;
            }
            Kind::Token => {
                lasts(length, meanwhile).await?;
                self.identity.replace_token().await?;
            }
            Kind::Gone => {
                let namespace = self.namespace;
                let changes = async {
                    loop {
                        // What is watched from is passed only if there is something after it.
                        create(&namespace.client, &namespace.name).await?;
                        sleep(Duration::from_millis(100)).await;
                    }
                    #[expect(unreachable_code, reason = "it says what the errors are")]
                    anyhow::Ok(())
                };
                let storm = self.again_and_again(length, meanwhile, async || {
                    gate.close();
                    sleep(Duration::from_secs(5)).await;
                    gate.open();
                    sleep(Duration::from_millis(500)).await;
                });
                tokio::select! {
                    storm = storm => storm?,
                    broken = changes => broken?,
                }
            }
            Kind::Busy => {
                let load = Load::start(self).await?;
                lasts(length, meanwhile).await?;
                load.end().await?;
            }
            Kind::Full => {
                fill(&self.ground.etcd).await?;
                let full = async {
                    sleep(length).await;
                    free(&self.ground.etcd).await
                };
                tokio::try_join!(meanwhile, full)?;
            }
        }
        Ok(())
    }

    /// As often as fits, and at least until `meanwhile` is done. All is as usual afterwards.
    async fn again_and_again(
        &self,
        length: Duration,
        meanwhile: impl Future<Output = Result<()>>,
        mut once: impl AsyncFnMut(),
    ) -> Result<()> {
        let began_at = Instant::now();
        let is_done = AtomicBool::new(false);
        let meanwhile = async {
            meanwhile.await?;
            is_done.store(true, Ordering::SeqCst);
            anyhow::Ok(())
        };
        let rounds = async {
            while began_at.elapsed() < length || !is_done.load(Ordering::SeqCst) {
                once().await;
            }
            Ok(())
        };
        tokio::try_join!(meanwhile, rounds).map(drop)
    }
}

async fn lasts(length: Duration, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
    let (_, done) = tokio::join!(sleep(length), meanwhile);
    done
}

/// Why it did not come about, if it did not.
pub fn came_about(kind: Kind, operator: &Operator, asked: &[Request]) -> Result<()> {
    let log = std::fs::read_to_string(&operator.log)?;
    let n_answered = |code| asked.iter().filter(|asked| asked.code == code).count();
    match kind {
        Kind::Refused | Kind::BlackHole | Kind::HalfOpen | Kind::DeadConnections | Kind::Flapping => {
            ensure!(log.contains("the API server does not answer"), "the operator has not noticed it");
        }
        Kind::Breaking | Kind::OneDead => {}
        Kind::Token => ensure!(log.contains("Unauthorized"), "no request was refused"),
        Kind::Gone => {
            let n_lists = asked.iter().filter(|asked| asked.what() == "list pods").count();
            // One at the start, and one when it began to lead.
            ensure!(n_lists > 2, "only {n_lists} lists of pods");
        }
        Kind::Busy => ensure!(n_answered(429) > 0, "nothing was answered 429"),
        Kind::Full => ensure!(n_answered(500) > 0, "nothing was answered 500"),
    }
    Ok(())
}

/// An object that nobody needs.
async fn create(client: &Client, namespace: &str) -> Result<()> {
    let metadata = ObjectMeta { generate_name: Some("noise-".to_owned()), ..ObjectMeta::default() };
    let object = ConfigMap { metadata, ..ConfigMap::default() };
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &object).await?;
    Ok(())
}

/// More writes at a time than the API server takes: each waits for a webhook that does not answer.
struct Load {
    webhooks: Api<ValidatingWebhookConfiguration>,
    name: String,
    _webhook: Gate,
    _clients: JoinSet<()>,
}

/// Twice as many as [`Temper::Harsh`] takes.
const N_CLIENTS: usize = 8;

impl Load {
    async fn start(scene: &Scene<'_>) -> Result<Load> {
        let webhook = Gate::start(scene.ground.server()?).await?;
        webhook.freeze();
        let noise = Namespace::new(&scene.ground.kubernetes, "noise").await?;
        let name = format!("{}.outages.test", noise.name);
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(scene.namespace.client.clone());
        let configuration = serde_json::from_value(json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": name,
                "clientConfig": { "url": format!("https://{}/", webhook.address) },
                "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": noise.name } },
                "failurePolicy": "Ignore", "sideEffects": "None", "timeoutSeconds": 5, "admissionReviewVersions": ["v1"],
            }],
        }))?;
        webhooks.create(&PostParams::default(), &configuration).await?;
        // With the operator's rights: an administrator is never turned away.
        let client = scene.identity.as_operator().await?;
        let mut clients = JoinSet::new();
        let is_busy = Arc::new(tokio::sync::Notify::new());
        for _ in 0..N_CLIENTS {
            let (client, namespace, is_busy) = (client.clone(), noise.name.clone(), is_busy.clone());
            clients.spawn(async move {
                loop {
                    let created = create(&client, &namespace).await;
                    let refused = created.err().and_then(|error| error.downcast::<Error>().ok());
                    if matches!(refused, Some(Error::Api(status)) if status.code == 429) {
                        is_busy.notify_one();
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        tokio::time::timeout(Duration::from_secs(60), is_busy.notified()).await.context("it is too busy")?;
        Ok(Load { webhooks, name, _webhook: webhook, _clients: clients })
    }

    async fn end(self) -> Result<()> {
        let Load { webhooks, name, _webhook, mut _clients } = self;
        _clients.shutdown().await;
        webhooks.delete(&name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// What fills etcd, beside the objects of the API server.
const FILLER: &str = "/outages/filler/";

/// Writes until there is no room.
async fn fill(etcd: &Etcd) -> Result<()> {
    let value = vec![b'x'; 1 << 20];
    for number in 0..200 {
        // Each under a name of its own: of what is overwritten the API server frees the room again.
        match etcd.put(&format!("{FILLER}{number}"), &value).await {
            Ok(()) => {}
            Err(error) if format!("{error:#}").contains("database space exceeded") => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    anyhow::bail!("etcd has room for 200 MiB")
}

/// What an administrator does: deletes what is too much, compacts, defragments, and takes back the alarm.
async fn free(etcd: &Etcd) -> Result<()> {
    // Up to what comes after '/'.
    let (from, to) = (STANDARD.encode(FILLER), STANDARD.encode(FILLER.trim_end_matches('/').to_owned() + "0"));
    etcd.ask("/v3/kv/deleterange", json!({ "key": from, "range_end": to })).await?;
    let status = etcd.ask("/v3/maintenance/status", json!({})).await?;
    let revision = status["header"]["revision"].as_str().context("a revision")?;
    match etcd.ask("/v3/kv/compaction", json!({ "revision": revision, "physical": true })).await {
        // The API server has done it a moment ago.
        Err(error) if format!("{error:#}").contains("compacted") => {}
        other => drop(other?),
    }
    etcd.ask("/v3/maintenance/defragment", json!({})).await?;
    let alarms = etcd.ask("/v3/maintenance/alarm", json!({ "action": "GET" })).await?;
    for alarm in alarms["alarms"].as_array().context("the alarm of a full etcd")? {
        let mut off = alarm.clone();
        off["action"] = "DEACTIVATE".into();
        etcd.ask("/v3/maintenance/alarm", off).await?;
    }
    Ok(())
}
