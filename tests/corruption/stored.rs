//! An object as it is stored, and what can be broken in it: BatchJobs are JSON in etcd, Jobs and pods are protobuf.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::protobuf::{self, Field, Message, Node};
use batchjob_sim::random::Random;

/// What the API server puts before protobuf.
const MAGIC: &[u8] = b"k8s\0";

/// Half of all that is broken is one of these: they say whose an object is and what it stands for.
const DEPENDENCIES: [&str; 8] = [
    "ownerReferences",
    "labels",
    "uid",
    "annotations",
    "finalizers",
    "completedIndexes",
    "failedIndexes",
    "openIndexes",
];

/// A kind of object that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    BatchJob,
    Job,
    Pod,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::BatchJob, Kind::Job, Kind::Pod];

    /// Where etcd has it.
    pub fn key(self, namespace: &str, name: &str) -> String {
        let folder = match self {
            Kind::BatchJob => "batchjob.dev/batchjobs",
            Kind::Job => "jobs",
            Kind::Pod => "pods",
        };
        format!("/registry/{folder}/{namespace}/{name}")
    }

    fn fields(self) -> &'static [Field] {
        match self {
            Kind::BatchJob => &[],
            Kind::Job => JOB,
            Kind::Pod => POD,
        }
    }
}

const JOB: &[Field] = &[protobuf::wrapped(protobuf::JOB)];
const POD: &[Field] = &[protobuf::wrapped(protobuf::POD)];

/// What is done to one place of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Damage {
    FlipBit(u32),
    Number(i64),
    /// Another text; none is empty.
    Text(String),
    Drop,
    /// Something of another type, which only JSON can hold.
    Json(Value),
}

/// One place in an object: its name for people, and the way to it.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    way: Vec<usize>,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Number,
    Text,
    /// A boolean, nothing, or something with parts.
    Other,
}

/// An object as it is stored.
#[derive(Clone, Debug)]
pub enum Stored {
    Json(Value),
    Protobuf(Message, &'static [Field]),
}

impl Stored {
    pub fn read(kind: Kind, bytes: &[u8]) -> Result<Stored> {
        if kind == Kind::BatchJob {
            return Ok(Stored::Json(serde_json::from_slice(bytes)?));
        }
        let message = bytes.strip_prefix(MAGIC).context("it is not protobuf")?;
        Ok(Stored::Protobuf(protobuf::parse(message, kind.fields())?, kind.fields()))
    }

    pub fn write(&self) -> Vec<u8> {
        match self {
            Stored::Json(value) => value.to_string().into_bytes(),
            Stored::Protobuf(message, _) => [MAGIC, &protobuf::write(message)].concat(),
        }
    }

    /// Every place that can be broken, but for those that the API server itself does not bear (docs/design/bad-data.md): the
    /// version of a custom resource, and the name and namespace that an object is stored under.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        match self {
            Stored::Json(value) => {
                of_json(value, String::new(), &mut Vec::new(), &mut places);
                places.retain(|place| place.name != ".apiVersion");
            }
            Stored::Protobuf(message, fields) => of_message(message, fields, "", &mut Vec::new(), &mut places),
        }
        places.retain(|place| !matches!(&*place.name, ".metadata" | ".metadata.name" | ".metadata.namespace"));
        places
    }

    /// Chooses what is to be done to it. `uids` are those of others.
    pub fn choose(&self, random: &mut Random, uids: &[String]) -> Result<(Place, Damage)> {
        let wants_dependency = random.below(2) == 0;
        let mut places = self.places();
        let is_dependency = |place: &Place| DEPENDENCIES.iter().any(|word| place.name.contains(word));
        places.retain(|place| is_dependency(place) == wants_dependency);
        let place = random.pick(&places).context("it has such places")?.clone();
        let mut damages = vec![Damage::Drop];
        match place.what {
            What::Number => {
                damages.extend([0, -1, i64::from(i32::MAX), i64::MAX].map(Damage::Number));
                damages.push(Damage::FlipBit(random.below(32) as u32));
            }
            What::Text => {
                // The uid of an object itself is not made that of another one: that there are not two is what a uid is.
                if place.name.ends_with(".uid") && place.name != ".metadata.uid" {
                    damages.extend(random.pick(uids).cloned().map(Damage::Text));
                }
                damages.extend([0, 1].map(|_| Damage::FlipBit(random.number() as u32)));
                damages.push(Damage::Text(String::new()));
                let others = ["Dreaming", "0-4294967295", "-1", "99999999999999999999", "a\0b", "{}"];
                damages.extend(random.pick(&others).map(|&other| Damage::Text(other.to_owned())));
                damages.push(Damage::Text("long ".repeat(2000)));
            }
            What::Other => {}
        }
        if matches!(self, Stored::Json(_)) {
            let others = [Value::Null, Value::Bool(true), 7.into(), 0.5.into(), "text".into(), Value::Array(vec![])];
            damages.extend(random.pick(&others).cloned().map(Damage::Json));
        }
        let damage = random.pick(&damages).context("something can be done to it")?.clone();
        Ok((place, damage))
    }

    /// Does it. Drops, of a list, one part.
    pub fn break_at(&mut self, place: &Place, damage: &Damage) -> Result<()> {
        match self {
            Stored::Json(value) => break_json(value, &place.way, damage),
            Stored::Protobuf(message, _) => break_message(message, &place.way, damage),
        }
    }
}

fn of_json(value: &Value, name: String, way: &mut Vec<usize>, places: &mut Vec<Place>) {
    let what = match value {
        Value::Number(_) => What::Number,
        Value::String(_) => What::Text,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => What::Other,
    };
    if !way.is_empty() {
        places.push(Place { name: name.clone(), way: way.clone(), what });
    }
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (format!("{name}[{i}]"), value)).collect(),
        _ => Vec::new(),
    };
    for (i, (name, part)) in parts.into_iter().enumerate() {
        // Whoever wrote which field is in there, at great length.
        if name.contains("fieldsV1.") {
            continue;
        }
        way.push(i);
        of_json(part, name, way, places);
        way.pop();
    }
}

fn break_json(value: &mut Value, way: &[usize], damage: &Damage) -> Result<()> {
    let (&first, rest) = way.split_first().context("a place is a part")?;
    if rest.is_empty() && *damage == Damage::Drop {
        match value {
            Value::Object(fields) => {
                let key = fields.keys().nth(first).context("the field is there")?.clone();
                fields.remove(&key);
            }
            Value::Array(list) => drop(list.remove(first)),
            other => bail!("{other} has no parts"),
        }
        return Ok(());
    }
    let part = match value {
        Value::Object(fields) => fields.values_mut().nth(first),
        Value::Array(list) => list.get_mut(first),
        _ => None,
    };
    let part = part.context("the part is there")?;
    if !rest.is_empty() {
        return break_json(part, rest, damage);
    }
    *part = match (damage, &*part) {
        (Damage::FlipBit(bit), Value::String(text)) => flip_text(text.as_bytes(), *bit).into(),
        (Damage::FlipBit(bit), Value::Number(n)) => (n.as_i64().unwrap_or_default() ^ 1 << (bit % 63)).into(),
        (Damage::Number(n), _) => (*n).into(),
        (Damage::Text(text), _) => text.as_str().into(),
        (Damage::Json(other), _) => other.clone(),
        (Damage::FlipBit(_) | Damage::Drop, other) => bail!("{damage:?} is not for {other}"),
    };
    Ok(())
}

/// One bit that is another, of a text that stays one: the highest bit of a byte is left alone.
fn flip_text(text: &[u8], bit: u32) -> String {
    let mut bytes = text.to_vec();
    if let Some(n) = (bit as usize).checked_rem(bytes.len()) {
        bytes[n] ^= 1 << (bit % 7);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn of_message(message: &Message, fields: &'static [Field], name: &str, way: &mut Vec<usize>, places: &mut Vec<Place>) {
    for (i, (number, node)) in message.iter().enumerate() {
        let Some(field) = protobuf::field(fields, *number) else { continue };
        let nth = message[..i].iter().filter(|(other, _)| other == number).count();
        let name = match (name, nth, field.name) {
            (_, _, "raw") => String::new(),
            (name, 0, field) => format!("{name}.{field}"),
            (name, nth, field) => format!("{name}.{field}[{nth}]"),
        };
        way.push(i);
        let what = match node {
            Node::Number(_) => What::Number,
            Node::Text(_) => What::Text,
            Node::Fixed(_) | Node::Message(_) => What::Other,
        };
        // Without all of it nothing is left to break.
        if !name.is_empty() {
            places.push(Place { name: name.clone(), way: way.clone(), what });
        }
        if let Node::Message(parts) = node {
            of_message(parts, protobuf::fields_of(field), &name, way, places);
        }
        way.pop();
    }
}

fn break_message(message: &mut Message, way: &[usize], damage: &Damage) -> Result<()> {
    let (&first, rest) = way.split_first().context("a place is a part")?;
    if rest.is_empty() && *damage == Damage::Drop {
        message.remove(first);
        return Ok(());
    }
    let (_, node) = message.get_mut(first).context("the part is there")?;
    match (node, damage) {
        (Node::Message(parts), damage) if !rest.is_empty() => return break_message(parts, rest, damage),
        (Node::Number(value), Damage::FlipBit(bit)) => *value ^= 1 << (bit % 64),
        // As protobuf has a negative number.
        (Node::Number(value), Damage::Number(number)) => *value = number.cast_unsigned(),
        (Node::Text(text), Damage::FlipBit(bit)) => *text = flip_text(text, *bit).into_bytes(),
        (Node::Text(text), Damage::Text(other)) => *text = other.clone().into_bytes(),
        (node, damage) => bail!("{damage:?} is not for {node:?}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(value: &Value, name: &str, damage: &Damage) -> Value {
        let mut stored = Stored::Json(value.clone());
        let place = stored.places().into_iter().find(|place| place.name == name).expect("the place");
        stored.break_at(&place, damage).expect("it can be broken");
        let Stored::Json(value) = stored else { panic!("it stays JSON") };
        value
    }

    #[test]
    fn one_place_of_json_is_broken_and_no_other() {
        let job = json!({ "metadata": { "uid": "u", "finalizers": ["a", "b"] }, "status": { "failed": 1 } });
        let uid = broken(&job, ".metadata.uid", &Damage::FlipBit(7));
        assert_eq!(uid["metadata"]["uid"], "t");
        let finalizers = broken(&job, ".metadata.finalizers[0]", &Damage::Drop);
        assert_eq!(finalizers, json!({ "metadata": { "uid": "u", "finalizers": ["b"] }, "status": { "failed": 1 } }));
        assert_eq!(broken(&job, ".status.failed", &Damage::Number(-1))["status"], json!({ "failed": -1 }));
        assert_eq!(broken(&job, ".status", &Damage::Json(Value::Null))["status"], Value::Null);
    }

    #[test]
    fn what_the_api_server_does_not_bear_is_left_alone() {
        let job = Stored::Json(json!({
            "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": "etl", "uid": "u" },
            "spec": { "apiVersion": "v1" },
        }));
        let names: Vec<String> = job.places().into_iter().map(|place| place.name).collect();
        assert_eq!(names, [".kind", ".metadata.uid", ".spec", ".spec.apiVersion"]);
    }

    #[test]
    fn one_place_of_protobuf_is_broken_and_no_other() -> Result<()> {
        // raw { metadata { uid: "u" }, status { phase: "Running" } }
        let bytes = b"k8s\0\x12\x10\x0a\x03\x2a\x01u\x1a\x09\x0a\x07Running";
        let mut stored = Stored::read(Kind::Pod, bytes)?;
        assert_eq!(stored.write(), bytes);
        let names: Vec<String> = stored.places().into_iter().map(|place| place.name).collect();
        assert_eq!(names, [".metadata.uid", ".status", ".status.phase"]);
        let phase = stored.places().into_iter().next_back().context("the phase")?;
        stored.break_at(&phase, &Damage::Text("Odd".to_owned()))?;
        assert_eq!(stored.write(), b"k8s\0\x12\x0c\x0a\x03\x2a\x01u\x1a\x05\x0a\x03Odd");
        Ok(())
    }

    #[test]
    fn a_seed_chooses_the_same_again() -> Result<()> {
        let stored = Stored::Json(json!({ "metadata": { "uid": "u", "labels": { "a": "b" } }, "spec": { "n": 1 } }));
        let choose = |seed| stored.choose(&mut Random::of(&[seed, 0]), &["v".to_owned()]).map(|it| format!("{it:?}"));
        assert_eq!(choose(7)?, choose(7)?);
        let all: std::collections::BTreeSet<String> = (0..50).map(choose).collect::<Result<_>>()?;
        assert!(all.len() > 10, "{all:?}");
        Ok(())
    }
}
