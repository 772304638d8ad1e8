//! The garbage collector in memory against the real one: random families of objects, of which some are deleted, in every
//! way. Once all that follows has happened, the same is left on both sides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_sim::apiserver::gc;
use batchjob_sim::random::Random;
use batchjob_tests::support::wait_for;
use bytes::Bytes;
use http::{Method, Request, header};
use kube::Client;
use serde_json::{Value, json};

use super::sequence::Kind;
use super::side::Side;

/// The garbage collector takes up to 30 s until it knows a new kind.
const LIMIT: Duration = Duration::from_secs(120);
const HOLD: &str = "example.com/hold";
/// No object has it.
const NOBODY: &str = "99999999-9999-4999-8999-999999999999";

/// One object of a family.
#[derive(Debug)]
struct Member {
    kind: Kind,
    owners: Vec<Owner>,
    finalizers: Vec<&'static str>,
}

#[derive(Debug)]
struct Owner {
    /// None: one that there is not.
    member: Option<usize>,
    blocks: bool,
}

/// What happens to a family.
#[derive(Debug)]
enum Event {
    Delete {
        member: usize,
        policy: Option<&'static str>,
    },
    /// Its own finalizer is taken off.
    Release {
        member: usize,
    },
}

fn family(random: &mut Random) -> Vec<Member> {
    let n = 3 + random.below(5);
    let mut members = Vec::new();
    for place in 0..n {
        let kind =
            random.one_of(&[Kind::BatchJob, Kind::BatchJob, Kind::Job, Kind::Pod, Kind::Pod, Kind::Pod, Kind::Lease]);
        let mut owners: Vec<Owner> = Vec::new();
        for _ in 0..random.one_of(&[0, 1, 1, 1, 2]) {
            let member = Some(random.below(place.max(1)) as usize).filter(|_| place > 0 && !random.one_in(8));
            if (place > 0 || random.one_in(8)) && !owners.iter().any(|owner| owner.member == member) {
                owners.push(Owner { member, blocks: !random.one_in(3) });
            }
        }
        let finalizers = match random.below(12) {
            0..=2 => vec![HOLD],
            3 => vec!["orphan"],
            4 => vec!["foregroundDeletion"],
            _ => Vec::new(),
        };
        members.push(Member { kind, owners, finalizers });
    }
    members
}

fn event(random: &mut Random, members: &[Member]) -> Event {
    let n = members.len() as u64;
    // Mostly one of the first: they have dependents.
    let member = if random.one_in(2) { random.below(2) } else { random.below(n) } as usize;
    if random.one_in(3) {
        let held: Vec<usize> =
            (0..members.len()).filter(|&member| members[member].finalizers.contains(&HOLD)).collect();
        if !held.is_empty() {
            return Event::Release { member: random.one_of(&held) };
        }
    }
    let policies = [None, Some("Background"), Some("Foreground"), Some("Foreground"), Some("Orphan")];
    Event::Delete { member, policy: random.one_of(&policies) }
}

/// One side's family.
struct Family<'a> {
    side: Side,
    namespace: &'a str,
    seed: u64,
    /// The uid of each member.
    uids: Vec<String>,
    /// How many objects were made only to see them go.
    n_canaries: usize,
}

impl Family<'_> {
    fn name(&self, member: usize) -> String {
        format!("family-{}-{member}", self.seed)
    }

    async fn send(&self, method: Method, path: &str, form: &str, body: &Value) -> Result<(u16, Value)> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, form).body(body)?;
        self.side.answer(&request).await
    }

    /// Makes an object; answers with its uid.
    async fn make(&self, kind: Kind, name: &str, owners: Vec<Value>, finalizers: &[&str]) -> Result<String> {
        let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] });
        let spec = match kind {
            Kind::Pod => pod,
            Kind::BatchJob => json!({ "template": { "spec": pod } }),
            // Nobody runs it.
            Kind::Job => json!({ "managedBy": "example.com/nobody", "template": { "spec": pod } }),
            Kind::Lease => json!({}),
        };
        let object = json!({
            "apiVersion": kind.api_version(), "kind": format!("{kind:?}"), "spec": spec,
            "metadata": {
                "name": name, "labels": { "family": self.seed.to_string() },
                "ownerReferences": owners, "finalizers": finalizers,
            },
        });
        let path = kind.path(self.namespace);
        let (code, answer) = self.send(Method::POST, &path, "application/json", &object).await?;
        ensure!(code == 201, "{answer}");
        Ok(answer["metadata"]["uid"].as_str().context("a uid")?.to_owned())
    }

    async fn make_all(&mut self, members: &[Member]) -> Result<()> {
        for (place, member) in members.iter().enumerate() {
            let owners = member.owners.iter().map(|owner| match owner.member {
                Some(member) => (members[member].kind, self.name(member), &*self.uids[member], owner.blocks),
                None => (Kind::BatchJob, "nobody".to_owned(), NOBODY, owner.blocks),
            });
            let owners = owners.map(|(kind, name, uid, blocks)| {
                json!({
                    "apiVersion": kind.api_version(), "kind": format!("{kind:?}"), "name": name, "uid": uid,
                    "blockOwnerDeletion": blocks,
                })
            });
            let uid = self.make(member.kind, &self.name(place), owners.collect(), &member.finalizers).await?;
            self.uids.push(uid);
        }
        Ok(())
    }

    /// Answers with the code.
    async fn apply(&self, members: &[Member], event: &Event) -> Result<u16> {
        let path = |member: usize| format!("{}/{}", members[member].kind.path(self.namespace), self.name(member));
        let (code, _) = match event {
            Event::Delete { member, policy } => {
                let options = json!({ "propagationPolicy": policy });
                self.send(Method::DELETE, &path(*member), "application/json", &options).await?
            }
            Event::Release { member } => {
                let patch = json!({ "metadata": { "finalizers": null } });
                self.send(Method::PATCH, &path(*member), "application/merge-patch+json", &patch).await?
            }
        };
        Ok(code)
    }

    /// What is left of the family.
    async fn left(&self) -> Result<BTreeMap<String, Value>> {
        let mut left = BTreeMap::new();
        for kind in Kind::ALL {
            let path = format!("{}?labelSelector=family%3D{}", kind.path(self.namespace), self.seed);
            let (code, list) = self.send(Method::GET, &path, "application/json", &Value::Null).await?;
            ensure!(code == 200, "{list}");
            for object in list["items"].as_array().into_iter().flatten() {
                let metadata = &object["metadata"];
                let mut owners: Vec<String> = Vec::new();
                for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
                    let who = self.uids.iter().position(|uid| owner["uid"] == **uid);
                    let who = who.map_or("nobody".to_owned(), |member| self.name(member));
                    owners.push(format!("{who} blocks={}", owner["blockOwnerDeletion"]));
                }
                let what = json!({
                    "owners": owners, "finalizers": metadata["finalizers"],
                    "is going": metadata.get("deletionTimestamp").is_some(),
                });
                left.insert(metadata["name"].as_str().unwrap_or_default().to_owned(), what);
            }
        }
        Ok(left)
    }

    /// Waits until the garbage collector has seen all that there was: of each kind it collects what is made now.
    async fn catch_up(&mut self) -> Result<()> {
        self.n_canaries += 1;
        let name = format!("family-{}-canary-{}", self.seed, self.n_canaries);
        for kind in Kind::ALL {
            let nobody = json!({ "apiVersion": "v1", "kind": "Pod", "name": "nobody", "uid": NOBODY });
            self.make(kind, &name, vec![nobody], &[]).await?;
        }
        if let Side::InMemory(server) = &self.side {
            gc::collect_all(server);
        }
        let what = format!("the garbage collector takes {name}");
        wait_for(&what, LIMIT, async || Ok((!self.left().await?.contains_key(&name)).then_some(()))).await
    }
}

/// Answers with the difference, if there is one.
pub async fn play(client: Client, namespace: &str, seed: u64) -> Result<Option<String>> {
    let mut random = Random::seeded(seed);
    let members = family(&mut random);
    let mut story = format!("BATCHJOB_FAMILY={seed}\n");
    for (place, member) in members.iter().enumerate() {
        writeln!(story, "{place}: {member:?}")?;
    }
    let mut families = [Side::Real(client), Side::in_memory(seed)].map(|side| Family {
        side,
        namespace,
        seed,
        uids: Vec::new(),
        n_canaries: 0,
    });
    for family in &mut families {
        family.make_all(&members).await?;
        family.catch_up().await?;
    }
    if let Some(difference) = difference(&mut families, &story).await? {
        return Ok(Some(difference));
    }
    for _ in 0..1 + random.below(3) {
        let event = event(&mut random, &members);
        writeln!(story, "{event:?}")?;
        let [real, in_memory] = &families;
        let (real, in_memory) = (real.apply(&members, &event).await?, in_memory.apply(&members, &event).await?);
        if real != in_memory {
            return Ok(Some(format!("{story}in memory {in_memory}, real {real}")));
        }
        if let Some(difference) = difference(&mut families, &story).await? {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

/// Waits until the same is left on both sides, and still is when the garbage collector has seen that.
async fn difference(families: &mut [Family<'_>; 2], story: &str) -> Result<Option<String>> {
    let [real, in_memory] = families;
    in_memory.catch_up().await?;
    let wanted = in_memory.left().await?;
    // That it does not come is the difference, which is shown below.
    let came = wait_for("the same", LIMIT, async || Ok((real.left().await? == wanted).then_some(()))).await;
    if came.is_ok() {
        real.catch_up().await?;
    }
    let left = real.left().await?;
    let show = |left: &BTreeMap<String, Value>| {
        left.iter().map(|(name, what)| format!("  {name} {what}\n")).collect::<String>()
    };
    Ok((left != wanted).then(|| format!("{story}in memory:\n{}real:\n{}", show(&wanted), show(&left))))
}
