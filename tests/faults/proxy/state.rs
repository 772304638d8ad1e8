//! What has come through so far, and how far each fault is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::request::Target;
use crate::faults::fault::{Fault, Kind, ViewFault, WriteFault};

/// How long the lists are old ones, from the first one on.
const STALE: Duration = Duration::from_millis(1500);
/// How long events are held back at most: what should end it may wait for them.
const HELD: Duration = Duration::from_secs(2);

/// A write of the operator.
#[derive(Clone, Debug)]
pub struct Written {
    pub seat: usize,
    /// The operator's process.
    pub pid: Option<u32>,
    /// When it came.
    pub at: Instant,
    /// "post pods", "put batchjobs/status".
    pub verb: String,
    /// Empty for a create.
    pub name: String,
    /// What the API server said; None if it was not asked, or not heard.
    pub code: Option<u16>,
    /// The version that it made. None if it has changed nothing, as far as is known.
    pub made: Option<u64>,
    /// It was kept back until the way was open again.
    pub is_late: bool,
    /// The newest version that anybody knew of when it came.
    known: u64,
}

/// What the API server said to a write; nothing, if it was not asked, or not heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answered {
    pub(super) code: Option<u16>,
    /// Of the object in the answer.
    pub(super) version: Option<u64>,
}

/// An event that the API server has told.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: Kind,
    /// Its number among those of its kind.
    pub n: usize,
    pub version: u64,
    /// "ADDED", "MODIFIED", "DELETED".
    pub change: String,
    pub uid: String,
    pub object: Value,
    /// How many writes had come before it.
    pub n_writes: usize,
}

pub(super) struct State {
    faults: Vec<(Fault, Stage)>,
    pub(super) writes: Vec<Written>,
    pub(super) told: Vec<Told>,
    /// Where in `told` the event of that kind, version and change is.
    places: HashMap<(Kind, u64, String), usize>,
    n_of_kind: BTreeMap<Kind, usize>,
    pub(super) killed: Vec<usize>,
    past: Option<Past>,
    /// The newest version that was heard of.
    latest: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting,
    Going { since: Instant },
    Over { at: Instant },
}

/// The lists of some kinds are old ones.
struct Past {
    fault: usize,
    kinds: Kind,
    version: u64,
    /// Since the first old list.
    until: Option<Instant>,
    /// The operator has its cache still, and lists only if its watch cannot go on. One refusal for each kind.
    to_refuse: Vec<Kind>,
}

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    Drop,
}

/// What is to be done after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    Gone,
    Cut,
    Kill,
}

/// Of an object, or of a list.
pub(super) fn version(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

impl State {
    pub(super) fn new(faults: &[Fault]) -> State {
        State {
            faults: faults.iter().map(|&fault| (fault, Stage::Waiting)).collect(),
            writes: Vec::new(),
            told: Vec::new(),
            places: HashMap::new(),
            n_of_kind: BTreeMap::new(),
            killed: Vec::new(),
            past: None,
            latest: 0,
        }
    }

    pub(super) fn not_begun(&self) -> Vec<Fault> {
        let waiting = self.faults.iter().filter(|(_, stage)| matches!(stage, Stage::Waiting));
        waiting.map(|&(fault, _)| fault).collect()
    }

    pub(super) fn is_going(&self) -> bool {
        self.faults.iter().any(|(_, stage)| matches!(stage, Stage::Going { .. }))
    }

    pub(super) fn ended_at(&self) -> Option<Instant> {
        let ends = self.faults.iter().filter_map(|(_, stage)| match stage {
            Stage::Over { at } => Some(*at),
            _ => None,
        });
        ends.max()
    }

    /// The write's number, and what is to go wrong with it.
    pub(super) fn number_write(
        &mut self,
        seat: usize,
        pid: Option<u32>,
        target: Target,
    ) -> (usize, Option<WriteFault>) {
        let Target { verb, name } = target;
        let (at, known) = (Instant::now(), self.latest);
        self.writes.push(Written { seat, pid, at, verb, name, code: None, made: None, is_late: false, known });
        let n = self.writes.len();
        for (fault, stage) in &mut self.faults {
            if let Fault::Write(what, at) = fault
                && *at == n
            {
                *stage = Stage::Going { since: Instant::now() };
                return (n, Some(*what));
            }
        }
        (n, None)
    }

    pub(super) fn kept_back(&mut self, n: usize) {
        self.writes[n - 1].is_late = true;
    }

    /// The newest version that somebody has told of.
    pub(super) fn heard_of(&mut self, version: u64) {
        self.latest = self.latest.max(version);
    }

    pub(super) fn answered(&mut self, n: usize, answered: Answered) {
        let write = &mut self.writes[n - 1];
        write.code = answered.code;
        // What changes nothing is answered with a version that was there before.
        write.made = answered.version.filter(|&version| version > write.known);
        self.heard_of(answered.version.unwrap_or_default());
        for (fault, stage) in &mut self.faults {
            if matches!(fault, Fault::Write(_, at) if *at == n) {
                *stage = Stage::Over { at: Instant::now() };
            }
        }
    }

    /// Notes an event; answers with where it is in `told`, and whether it is new: a watch that begins anew may tell again.
    pub(super) fn number_event(&mut self, kind: Kind, change: &str, object: &Value) -> (usize, bool) {
        let meta = &object["metadata"];
        let version = version(object).unwrap_or_default();
        self.heard_of(version);
        let key = (kind, version, change.to_owned());
        if let Some(&place) = self.places.get(&key) {
            return (place, false);
        }
        let n = self.n_of_kind.entry(kind).or_default();
        *n += 1;
        let told = Told {
            kind,
            n: *n,
            version,
            change: change.to_owned(),
            uid: meta["uid"].as_str().unwrap_or_default().to_owned(),
            object: object.clone(),
            n_writes: self.writes.len(),
        };
        self.told.push(told);
        let place = self.told.len() - 1;
        self.places.insert(key, place);
        (place, true)
    }

    /// The number of the event at `place` as faults of that kind count.
    fn number(&self, place: usize, kind: Kind) -> usize {
        if kind == Kind::All { place + 1 } else { self.told[place].n }
    }

    /// What is to be done with a new event.
    pub(super) fn fate(&mut self, place: usize) -> Fate {
        for at in 0..self.faults.len() {
            let (Fault::View(kind, what), Stage::Waiting) = self.faults[at] else { continue };
            if !kind.covers(self.told[place].kind) {
                continue;
            }
            let n = self.number(place, kind);
            match what {
                ViewFault::Drop(dropped) if dropped == n => {
                    self.faults[at].1 = Stage::Going { since: Instant::now() };
                    return Fate::Drop;
                }
                ViewFault::Hold(from, until) if (from..until).contains(&n) => {
                    self.faults[at].1 = Stage::Going { since: Instant::now() };
                }
                _ => {}
            }
        }
        Fate::Pass
    }

    /// Until when events of that kind are held back.
    pub(super) fn held_until(&self, kind: Kind) -> Option<Instant> {
        self.faults.iter().find_map(|(fault, stage)| match (fault, stage) {
            (Fault::View(held, ViewFault::Hold(..)), Stage::Going { since }) if held.covers(kind) => {
                Some(*since + HELD)
            }
            _ => None,
        })
    }

    /// What is to be done once the new event has come, told or held back.
    pub(super) fn after(&mut self, place: usize) -> After {
        let now = Instant::now();
        for at in 0..self.faults.len() {
            let (Fault::View(kind, what), stage) = self.faults[at] else { continue };
            if !kind.covers(self.told[place].kind) {
                continue;
            }
            let n = self.number(place, kind);
            match (what, stage) {
                (ViewFault::Hold(_, until), Stage::Going { .. }) if n >= until => {
                    self.faults[at].1 = Stage::Over { at: now };
                }
                (ViewFault::Gone(after), Stage::Waiting) if after == n => {
                    self.faults[at].1 = Stage::Over { at: now };
                    return After::Gone;
                }
                (ViewFault::Cut(after), Stage::Waiting) if after == n => {
                    self.faults[at].1 = Stage::Over { at: now };
                    return After::Cut;
                }
                (ViewFault::Stale(as_of, after), Stage::Waiting) if after == n => {
                    self.go_back(at, kind, as_of);
                    return After::Cut;
                }
                (ViewFault::Restart(as_of, after), Stage::Waiting) if after == n => {
                    self.go_back(at, kind, as_of);
                    self.past.iter_mut().for_each(|past| past.to_refuse.clear());
                    return After::Kill;
                }
                _ => {}
            }
        }
        After::Nothing
    }

    fn go_back(&mut self, fault: usize, kinds: Kind, as_of: usize) {
        self.faults[fault].1 = Stage::Going { since: Instant::now() };
        let place = (0..self.told.len())
            .find(|&place| kinds.covers(self.told[place].kind) && self.number(place, kinds) == as_of);
        let version = place.map(|place| self.told[place].version).unwrap_or_default();
        let to_refuse = Kind::WATCHED.into_iter().filter(|&kind| kinds.covers(kind)).collect();
        self.past = Some(Past { fault, kinds, version, until: None, to_refuse });
    }

    /// The list of that kind as it was, if it is time for that.
    pub(super) fn old_list(&mut self, kind: Kind) -> Option<Value> {
        self.look_at_the_clock();
        let past = self.past.as_mut().filter(|past| past.kinds.covers(kind))?;
        past.until.get_or_insert_with(|| Instant::now() + STALE);
        // Whoever lists need not be told to.
        past.to_refuse.retain(|&to_refuse| to_refuse != kind);
        let version = past.version;
        let mut items: BTreeMap<&str, &Value> = BTreeMap::new();
        for told in self.told.iter().filter(|told| told.kind == kind && told.version <= version) {
            match &*told.change {
                "DELETED" => items.remove(&*told.uid),
                _ => items.insert(&told.uid, &told.object),
            };
        }
        let (group, list) = match kind {
            Kind::Pods | Kind::All => ("v1", "PodList"),
            Kind::BatchJobs => ("batchjob.dev/v1alpha1", "BatchJobList"),
            Kind::Jobs => ("batch/v1", "JobList"),
        };
        Some(json!({
            "apiVersion": group, "kind": list, "metadata": { "resourceVersion": version.to_string() },
            "items": items.values().collect::<Vec<_>>(),
        }))
    }

    /// Whether the operator's watch is to be told that it must list.
    pub(super) fn refuses_watch(&mut self, kind: Kind) -> bool {
        let Some(past) = &mut self.past else { return false };
        let n = past.to_refuse.len();
        past.to_refuse.retain(|&to_refuse| to_refuse != kind);
        past.to_refuse.len() < n
    }

    /// Until when a watch from that version on tells nothing.
    pub(super) fn quiet_until(&self, kind: Kind, version: u64) -> Option<Instant> {
        let past = self.past.as_ref().filter(|past| past.kinds.covers(kind) && version <= past.version)?;
        past.until
    }

    /// The event that was dropped is known now, one way or the other.
    pub(super) fn dropped_is_known(&mut self) {
        self.end(|fault| matches!(fault, Fault::View(_, ViewFault::Drop(_))));
    }

    /// Ends what ends by itself.
    pub(super) fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if let Some(past) = self.past.take_if(|past| past.until.is_some_and(|until| until <= now)) {
            self.faults[past.fault].1 = Stage::Over { at: now };
        }
        for (fault, stage) in &mut self.faults {
            if let (Fault::View(_, ViewFault::Hold(..)), Stage::Going { since }) = (fault, *stage)
                && since + HELD <= now
            {
                *stage = Stage::Over { at: now };
            }
        }
    }

    fn end(&mut self, which: impl Fn(&Fault) -> bool) {
        for (fault, stage) in &mut self.faults {
            if which(fault) && matches!(stage, Stage::Going { .. }) {
                *stage = Stage::Over { at: Instant::now() };
            }
        }
    }
}
