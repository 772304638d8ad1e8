//! Plays one sequence to both sides.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use batchjob_sim::random::Random;
use bytes::Bytes;
use http::{Method, Request, header};
use kube::Client;
use serde_json::{Value, json};

use super::seen::{Seen, differences};
use super::sequence::{Kind, Step, Verb, step};
use super::side::{END, Side};

const STEPS: usize = 25;

/// What came of a sequence.
pub struct Played {
    pub seed: u64,
    pub n_requests: usize,
    pub n_refused: usize,
    pub n_events: usize,
    /// Each request with the answer of the one in memory.
    pub told: String,
    pub difference: Option<String>,
}

impl Played {
    pub fn explain(&self) -> String {
        let difference = self.difference.as_deref().unwrap_or_default();
        format!("BATCHJOB_SEED={}\n{}{difference}", self.seed, self.told)
    }
}

fn request(step: &Step, namespace: &str, seen: &Seen) -> Result<Request<Bytes>> {
    let all = step.kind.path(namespace);
    let one = format!("{all}/{}{}", step.name, step.part);
    let json = "application/json";
    let (method, path, form) = match &step.verb {
        Verb::Get => (Method::GET, one, json),
        Verb::List(query) => (Method::GET, format!("{all}?{query}"), json),
        Verb::Continue => match seen.token(step.kind) {
            Some(token) => (Method::GET, format!("{all}?limit=1&continue={token}"), json),
            None => (Method::GET, all, json),
        },
        Verb::Create(_) => (Method::POST, all, json),
        Verb::Replace(_) => (Method::PUT, one, json),
        Verb::Merge(_) => (Method::PATCH, one, "application/merge-patch+json"),
        Verb::Strategic(_) => (Method::PATCH, one, "application/strategic-merge-patch+json"),
        Verb::Delete(_) => (Method::DELETE, one, json),
        Verb::Bind(_) => (Method::POST, format!("{one}/binding"), json),
        Verb::Evict(_) => (Method::POST, format!("{one}/eviction"), json),
    };
    let body = seen.body(step).map(|body| body.to_string()).unwrap_or_default();
    Ok(Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, form).body(body.into())?)
}

pub async fn play(client: Client, seed: u64) -> Result<Played> {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "generateName": format!("in-memory-{seed}-") },
    });
    let create = Request::post("/api/v1/namespaces").body(object.to_string().into_bytes())?;
    let made: Value = client.request(create).await?;
    let namespace = made["metadata"]["name"].as_str().context("a name")?.to_owned();
    let first = made["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();

    let mut sides =
        [(Side::Real(client), Seen::default(), first), (Side::in_memory(seed), Seen::default(), "1".to_owned())];
    let mut random = Random::seeded(seed);
    let mut played = Played { seed, n_requests: 0, n_refused: 0, n_events: 0, told: String::new(), difference: None };
    for _ in 0..STEPS {
        let step = step(&mut random, |kind, name| sides[1].0.has(kind, &namespace, name));
        let mut answers = Vec::new();
        for (side, seen, _) in &mut sides {
            let (code, answer) = side.answer(&request(&step, &namespace, seen)?).await?;
            seen.learn(&step, &answer);
            answers.push((seen.comparable(&step, code, &answer), answer, request(&step, &namespace, seen)?));
        }
        let [(real, real_answer, _), (in_memory, answer, request)] = &answers[..] else { bail!("two sides") };
        played.n_requests += 1;
        played.n_refused += usize::from(real["code"].as_u64() >= Some(400));
        writeln!(played.told, "{step:?}\n    {in_memory}")?;
        if real != in_memory {
            let difference = format!(
                "    {} {}\n{}\n{answer}\n{real_answer}",
                request.method(),
                request.uri(),
                differences(in_memory, real).join("\n"),
            );
            played.difference = Some(difference);
            return Ok(played);
        }
    }
    compare_histories(&mut sides, &namespace, &mut played).await?;
    Ok(played)
}

/// What a watch of everything tells, and one with a selector.
async fn compare_histories(sides: &mut [(Side, Seen, String); 2], namespace: &str, played: &mut Played) -> Result<()> {
    for kind in Kind::ALL {
        let container = json!({ "name": "main", "image": "none" });
        let template = json!({ "spec": { "restartPolicy": "Never", "containers": [container] } });
        let spec = match kind {
            Kind::Pod => template["spec"].clone(),
            Kind::BatchJob | Kind::Job => json!({ "template": template }),
            Kind::Lease => json!({}),
        };
        let last = json!({
            "apiVersion": kind.api_version(), "kind": format!("{kind:?}"),
            "metadata": { "name": END, "labels": { "colour": "red" } }, "spec": spec,
        });
        for (side, ..) in &*sides {
            let request = Request::post(kind.path(namespace)).header(header::CONTENT_TYPE, "application/json");
            let (code, answer) = side.answer(&request.body(last.to_string().into())?).await?;
            ensure!(code == 201, "{answer}");
        }
        for selector in ["", "&labelSelector=colour", "&labelSelector=colour%3Dred"] {
            let mut histories = Vec::new();
            for (side, seen, first) in &mut *sides {
                let path =
                    format!("{}?watch=1&timeoutSeconds=20&resourceVersion={first}{selector}", kind.path(namespace));
                let events = side.history(&path).await?;
                for event in &events {
                    seen.number(&event["object"]);
                }
                let events = events
                    .iter()
                    .map(|event| json!({ "type": event["type"], "object": seen.object(kind, &event["object"]) }));
                histories.push(events.collect::<Vec<_>>());
            }
            let [real, in_memory] = &histories[..] else { bail!("two sides") };
            played.n_events += real.len();
            if real == in_memory {
                continue;
            }
            let n_same = real.iter().zip(in_memory).take_while(|(one, other)| one == other).count();
            let show =
                |history: &[Value]| history.get(n_same).map_or("nothing".to_owned(), |event| format!("{event:#}"));
            played.difference = Some(format!(
                "watch of {kind:?} {selector}: event {n_same} of {} in memory, {} real\nin memory: {}\nreal:      {}",
                in_memory.len(),
                real.len(),
                show(in_memory),
                show(real),
            ));
            return Ok(());
        }
    }
    Ok(())
}
