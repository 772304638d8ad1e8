//! Looks at everything that is written: the oracle's laws, and a fingerprint that says whether two runs were the same.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchjob_crd::keys;
use batchjob_oracle::{Change as OracleChange, Event, Leadership, Object, Oracle, Promises, Violation};
use jiff::Timestamp;
use serde_json::Value;

use crate::apiserver::{Change, Kind, Written};
use crate::case::{Case, Deed, Meddling, NAMESPACE, Operators};
use crate::fault::RequestFault;
use crate::schedules::Schedules;

/// Something about an object that others may have to act upon.
#[derive(Clone, Debug)]
pub struct Note {
    pub kind: Kind,
    pub name: String,
    pub uid: String,
    pub is_added: bool,
    pub is_being_deleted: bool,
    pub is_gone: bool,
    /// A pod of a batch/v1 Job that has no owner, and the finalizer of such pods.
    pub is_alone: bool,
}

/// What is told to the judge, and what it has to say.
pub struct Judge {
    oracle: Option<Oracle>,
    notes: Vec<Note>,
    fingerprint: DefaultHasher,
    /// Of anything but a Lease.
    pub last_change: Timestamp,
    /// One line for each change, if somebody wants to read it.
    pub history: Option<Vec<String>>,
    knows_writers: bool,
    schedules: Schedules,
}

pub type Shared = Arc<Mutex<Judge>>;

impl Judge {
    pub fn new(case: &Case, identities: Vec<Arc<str>>, is_told: bool) -> Shared {
        let promises = promises(case, identities);
        let knows_writers = promises.leadership.is_some();
        Arc::new(Mutex::new(Judge {
            oracle: Some(Oracle::new(promises)),
            notes: Vec::new(),
            fingerprint: DefaultHasher::new(),
            last_change: Timestamp::UNIX_EPOCH,
            history: is_told.then(Vec::new),
            knows_writers,
            schedules: Schedules::default(),
        }))
    }

    pub fn see(&mut self, written: &Written<'_>) {
        let Written { revision, at, kind, change, object, who } = *written;
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        if kind != Kind::Lease {
            self.last_change = at;
        }
        (revision, at, text("name"), who).hash(&mut self.fingerprint);
        let event = Event {
            revision,
            at,
            change: match change {
                Change::Added => OracleChange::Added,
                Change::Modified => OracleChange::Modified,
                Change::Deleted => OracleChange::Deleted,
            },
            object: Object::read(object),
            writer: self.knows_writers.then(|| who.into()),
        };
        let n_before = self.oracle.as_ref().map_or(0, |oracle| oracle.violations().len());
        if let Some(oracle) = &mut self.oracle {
            oracle.see(&event);
        }
        self.schedules.see(written);
        if let Some(history) = &mut self.history {
            let line = line(written);
            tracing::info!(target: "history", "{line}");
            history.push(line);
            let broken = self.oracle.iter().flat_map(|oracle| &oracle.violations()[n_before..]);
            history.extend(broken.map(|violation| format!("          ^^^ {violation}")));
        }
        if matches!(kind, Kind::Pod | Kind::BatchJob | Kind::Job | Kind::BatchCronJob) {
            self.notes.push(Note {
                kind,
                name: text("name").to_owned(),
                uid: text("uid").to_owned(),
                is_added: change == Change::Added,
                is_being_deleted: metadata.get("deletionTimestamp").is_some(),
                is_gone: change == Change::Deleted,
                is_alone: metadata["ownerReferences"].as_array().is_none_or(Vec::is_empty)
                    && metadata["finalizers"].as_array().into_iter().flatten().any(|it| it == keys::JOB_POD_FINALIZER),
            });
        }
    }

    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    pub fn n_lives(&self) -> u64 {
        self.oracle.as_ref().map_or(0, Oracle::n_lives)
    }

    /// What became of the schedules.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    pub fn finish(&mut self, end: batchjob_oracle::End) -> Vec<Violation> {
        self.oracle.take().map(|oracle| oracle.finish(end)).unwrap_or_default()
    }
}

/// Whoever panicked while holding it has failed already.
pub fn lock(judge: &Shared) -> MutexGuard<'_, Judge> {
    judge.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the case allows.
fn promises(case: &Case, identities: Vec<Arc<str>>) -> Promises {
    let meddles = |what: &dyn Fn(Meddling) -> bool| {
        case.has(|deed| matches!(deed, Deed::Pod { what: meddling, .. } if what(*meddling)))
    };
    let has_two_leaders = case.operators == Operators::TwoLeaders;
    let drops_lease = case.has(|deed| matches!(deed, Deed::DropLease));
    let is_elected = case.operators == Operators::Elected;
    let tampering =
        meddles(&|what| matches!(what, Meddling::TakeFinalizer | Meddling::TakeOwner | Meddling::TakeLabel));
    let clocks_are_right = !case.has(|deed| matches!(deed, Deed::Skew { .. }));
    Promises {
        // What was sent before a death or the end of a term may come after what the next one does.
        late_creates: has_two_leaders
            || is_elected
            || case.has_fault(RequestFault::makes_late_creates)
            || case.has(|deed| matches!(deed, Deed::Kill { .. } | Deed::Terminate { .. }))
            || case.has_fault(|fault| matches!(fault, RequestFault::KillBefore | RequestFault::KillAfter))
            // Nothing is left of an attempt whose pod nobody owns, and that is deleted.
            || meddles(&|what| what == Meddling::TakeOwner),
        rivals: has_two_leaders,
        unseen_pods: has_two_leaders
            || case.rates.old_lists > 0
            || case.has_fault(RequestFault::makes_late_creates)
            || meddles(&|what| what == Meddling::TakeLabel),
        spare_statuses: 10,
        deletions: !case.crons.is_empty() || meddles(&|_| true) || case.has(|deed| matches!(deed, Deed::Delete { .. })),
        tampering,
        clock_skew: clocks_are_right.then(|| jiff::SignedDuration::from_secs(1)),
        leadership: (is_elected && !drops_lease && !case.has_fault(RequestFault::makes_late_creates)).then(|| {
            Leadership { lease: format!("{NAMESPACE}/{}", crate::world::LEASE).into(), instances: identities }
        }),
        ..Promises::default()
    }
}

fn line(written: &Written<'_>) -> String {
    let Written { revision, at, kind, change, object, who } = written;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let metadata = &object["metadata"];
    let mut words: Vec<String> = Vec::new();
    if metadata.get("deletionTimestamp").is_some() {
        words.push(format!("deleted, grace {}", metadata["deletionGracePeriodSeconds"]));
    }
    if metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
        words.push(format!("{}", metadata["finalizers"]));
    }
    match kind {
        Kind::Pod => {
            words.push(object["status"]["phase"].as_str().unwrap_or("-").to_owned());
            let code = &object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
            if !code.is_null() {
                words.push(format!("exit {code}"));
            }
            if metadata["ownerReferences"].as_array().is_none_or(Vec::is_empty) {
                words.push("alone".to_owned());
            }
        }
        Kind::BatchJob | Kind::Job | Kind::BatchCronJob => {
            let mut status = object["status"].clone();
            if let Value::Object(status) = &mut status {
                let conditions: Vec<String> = status
                    .get("conditions")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter(|condition| condition["status"] == "True")
                    .map(|condition| format!("{}:{}", condition["type"], condition["reason"]).replace('"', ""))
                    .collect();
                status.remove("conditions");
                words.extend(conditions);
            }
            words.push(status.to_string());
            if let Some(ledger) = metadata.get("annotations") {
                words.push(ledger.to_string());
            }
            words.push(format!(
                "generation {} parallelism {} completions {} suspend {}",
                metadata["generation"],
                object["spec"]["parallelism"],
                object["spec"]["completions"],
                object["spec"]["suspend"]
            ));
        }
        Kind::Lease => words.push(object["spec"]["holderIdentity"].to_string()),
        Kind::Event => {}
    }
    let time = at.strftime("%H:%M:%S%.3f");
    format!("{revision:5} {time} {:16} {:8} {} {name}: {}", who, change.word(), kind.name(), words.join(", "))
}
