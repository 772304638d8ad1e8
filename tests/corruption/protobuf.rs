//! A protobuf message as a tree that can be changed and written again: of the few messages that the API server stores pods
//! and Jobs as, so much of the schema as is to be broken. What has no name here is kept as it is.
//!
//! The numbers are those of `generated.proto` in `k8s.io/api` and `k8s.io/apimachinery`.

use anyhow::{Context, Result, bail};

/// What a field is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Number,
    Text,
    Message(&'static [Field]),
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    number: u64,
    pub name: &'static str,
    kind: Kind,
}

const fn number(number: u64, name: &'static str) -> Field {
    Field { number, name, kind: Kind::Number }
}

const fn text(number: u64, name: &'static str) -> Field {
    Field { number, name, kind: Kind::Text }
}

const fn message(number: u64, name: &'static str, fields: &'static [Field]) -> Field {
    Field { number, name, kind: Kind::Message(fields) }
}

const TIME: &[Field] = &[number(1, "seconds"), number(2, "nanos")];
const ENTRY: &[Field] = &[text(1, "key"), text(2, "value")];
const OWNER: &[Field] = &[
    text(5, "apiVersion"),
    text(1, "kind"),
    text(3, "name"),
    text(4, "uid"),
    number(6, "controller"),
    number(7, "blockOwnerDeletion"),
];
const METADATA: &[Field] = &[
    text(1, "name"),
    text(2, "generateName"),
    text(3, "namespace"),
    text(5, "uid"),
    number(7, "generation"),
    message(8, "creationTimestamp", TIME),
    message(9, "deletionTimestamp", TIME),
    number(10, "deletionGracePeriodSeconds"),
    message(11, "labels", ENTRY),
    message(12, "annotations", ENTRY),
    message(13, "ownerReferences", OWNER),
    text(14, "finalizers"),
];

const TERMINATED: &[Field] = &[
    number(1, "exitCode"),
    number(2, "signal"),
    text(3, "reason"),
    text(4, "message"),
    message(5, "startedAt", TIME),
    message(6, "finishedAt", TIME),
];
const STATE: &[Field] = &[message(3, "terminated", TERMINATED)];
const CONTAINER_STATUS: &[Field] = &[
    text(1, "name"),
    message(2, "state", STATE),
    message(3, "lastState", STATE),
    number(4, "ready"),
    number(5, "restartCount"),
];
const POD_CONDITION: &[Field] = &[
    text(1, "type"),
    text(2, "status"),
    message(4, "lastTransitionTime", TIME),
    text(5, "reason"),
    text(6, "message"),
];
const POD_STATUS: &[Field] = &[
    text(1, "phase"),
    message(2, "conditions", POD_CONDITION),
    text(3, "message"),
    text(4, "reason"),
    message(7, "startTime", TIME),
    message(8, "containerStatuses", CONTAINER_STATUS),
];
const POD_SPEC: &[Field] = &[
    text(3, "restartPolicy"),
    number(4, "terminationGracePeriodSeconds"),
    number(5, "activeDeadlineSeconds"),
    text(10, "nodeName"),
    text(16, "hostname"),
];
/// A Pod.
pub const POD: &[Field] =
    &[message(1, "metadata", METADATA), message(2, "spec", POD_SPEC), message(3, "status", POD_STATUS)];

const SELECTOR: &[Field] = &[message(1, "matchLabels", ENTRY)];
const TEMPLATE: &[Field] = &[message(1, "metadata", METADATA), message(2, "spec", POD_SPEC)];
const JOB_SPEC: &[Field] = &[
    number(1, "parallelism"),
    number(2, "completions"),
    number(3, "activeDeadlineSeconds"),
    message(4, "selector", SELECTOR),
    number(5, "manualSelector"),
    message(6, "template", TEMPLATE),
    number(7, "backoffLimit"),
    text(9, "completionMode"),
    number(10, "suspend"),
    text(14, "podReplacementPolicy"),
    text(15, "managedBy"),
];
const JOB_CONDITION: &[Field] = &[
    text(1, "type"),
    text(2, "status"),
    message(4, "lastTransitionTime", TIME),
    text(5, "reason"),
    text(6, "message"),
];
const JOB_STATUS: &[Field] = &[
    message(1, "conditions", JOB_CONDITION),
    message(2, "startTime", TIME),
    message(3, "completionTime", TIME),
    number(4, "active"),
    number(5, "succeeded"),
    number(6, "failed"),
    text(7, "completedIndexes"),
    number(9, "ready"),
    text(10, "failedIndexes"),
    number(11, "terminating"),
];
/// A batch/v1 Job.
pub const JOB: &[Field] =
    &[message(1, "metadata", METADATA), message(2, "spec", JOB_SPEC), message(3, "status", JOB_STATUS)];

/// What the API server wraps each in (`runtime.Unknown`); `raw` is the object.
pub const fn wrapped(object: &'static [Field]) -> Field {
    message(2, "raw", object)
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Number(u64),
    Text(Vec<u8>),
    /// Eight bytes, or four.
    Fixed(Vec<u8>),
    Message(Message),
}

/// Fields by their numbers, in the order in which they are written.
pub type Message = Vec<(u64, Node)>;

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

pub fn field(fields: &'static [Field], number: u64) -> Option<&'static Field> {
    fields.iter().find(|field| field.number == number)
}

/// The fields of a message in a field.
pub fn fields_of(field: &'static Field) -> &'static [Field] {
    match field.kind {
        Kind::Message(fields) => fields,
        Kind::Number | Kind::Text => &[],
    }
}

pub fn parse(mut bytes: &[u8], fields: &'static [Field]) -> Result<Message> {
    let mut message = Message::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let number = tag >> 3;
        let node = match tag & 7 {
            VARINT => Node::Number(take_varint(&mut bytes)?),
            EIGHT_BYTES => Node::Fixed(take(&mut bytes, 8)?.to_vec()),
            FOUR_BYTES => Node::Fixed(take(&mut bytes, 4)?.to_vec()),
            LENGTH => {
                let length = take_varint(&mut bytes)?;
                let content = take(&mut bytes, usize::try_from(length)?)?;
                match field(fields, number).map(|field| field.kind) {
                    Some(Kind::Message(fields)) => Node::Message(parse(content, fields)?),
                    _ => Node::Text(content.to_vec()),
                }
            }
            other => bail!("field {number} has wire type {other}"),
        };
        message.push((number, node));
    }
    Ok(message)
}

pub fn write(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, node) in message {
        let tag = |wire| number << 3 | wire;
        match node {
            Node::Number(value) => {
                put_varint(&mut bytes, tag(VARINT));
                put_varint(&mut bytes, *value);
            }
            Node::Fixed(content) => {
                put_varint(&mut bytes, tag(if content.len() == 8 { EIGHT_BYTES } else { FOUR_BYTES }));
                bytes.extend(content);
            }
            Node::Text(content) => put_text(&mut bytes, tag(LENGTH), content),
            Node::Message(message) => put_text(&mut bytes, tag(LENGTH), &write(message)),
        }
    }
    bytes
}

fn put_text(bytes: &mut Vec<u8>, tag: u64, content: &[u8]) {
    put_varint(bytes, tag);
    put_varint(bytes, content.len() as u64);
    bytes.extend(content);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number of more than ten bytes")
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n).context("the message ends too early")?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() -> Result<()> {
        // metadata { name: "a", labels { "k": "v" } }, spec { 99: 8 bytes }, status { phase: "Running", 99: 300 }
        let bytes = [
            b"\x0a\x0b\x0a\x01a\x5a\x06\x0a\x01k\x12\x01v".as_slice(),
            b"\x12\x0a\x99\x06\x01\x02\x03\x04\x05\x06\x07\x08",
            b"\x1a\x0d\x0a\x07Running\x98\x06\xac\x02",
        ]
        .concat();
        let message = parse(&bytes, POD)?;
        assert_eq!(write(&message), bytes);
        let [(1, Node::Message(metadata)), (2, Node::Message(spec)), (3, Node::Message(status))] = &*message else {
            panic!("{message:?}");
        };
        let label = vec![(1, Node::Text(b"k".to_vec())), (2, Node::Text(b"v".to_vec()))];
        assert_eq!(*metadata, [(1, Node::Text(b"a".to_vec())), (11, Node::Message(label))]);
        assert_eq!(*spec, [(99, Node::Fixed(vec![1, 2, 3, 4, 5, 6, 7, 8]))]);
        assert_eq!(*status, [(1, Node::Text(b"Running".to_vec())), (99, Node::Number(300))]);
        Ok(())
    }

    #[test]
    fn a_message_that_is_cut_is_an_error() {
        assert!(parse(b"\x0a\x0b\x0a\x01a", POD).is_err());
        assert!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", POD).is_err());
    }
}
