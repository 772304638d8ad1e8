//! Is what came of a plan what comes without faults, and does every law hold in its history?
//!
//! What comes without faults is found by three runs: where they differ nothing is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchjob_oracle::{Change, End, Event, Law, Object, Oracle, Promises, Violation};
use serde_json::Value;

use super::fault::Kind;
use super::plan::{Operators, Plan};
use super::proxy::Told;
use super::run::Played;
use super::workload::{Does, of_name};
use super::world::{Happened, pod_names};

/// How much later than without faults all must have come to its end, counted from the last fault. On a machine with nothing
/// else to do it is a third of that: reports tell the slowest.
const CONVERGES_WITHIN: Duration = Duration::from_secs(30);

/// What a workload comes to without faults.
pub struct Reference {
    /// From the beginning to the end of everything, in the slowest run: it depends on what else the machine does.
    took: Duration,
    account: Account,
    /// What is not the same in every run.
    unsteady: BTreeSet<String>,
    /// How many writes it takes at least: so many there are in every run.
    pub n_writes: usize,
    /// What the operator is told, in the run with the least.
    pub told: Vec<Told>,
    /// What was wrong even without faults.
    pub complaints: Vec<String>,
}

/// Each fact of a run by its place: the fields of what is there at the end, and of each job as it was at last; and how
/// often each object was made and deleted.
type Account = BTreeMap<String, String>;

impl Reference {
    pub fn of(runs: &[Played]) -> Reference {
        let accounts: Vec<Account> = runs.iter().map(|run| account(&run.happened)).collect();
        let account = accounts.first().cloned().unwrap_or_default();
        let unsteady = accounts.iter().flat_map(|other| differences(&account, other)).map(|(place, _)| place).collect();
        let shortest = runs.iter().min_by_key(|run| run.told.len());
        let complaints = runs.iter().flat_map(|run| run.complaints.iter().cloned().chain(broken_laws(run)));
        Reference {
            took: runs.iter().map(|run| run.converged_after).max().unwrap_or_default(),
            account,
            unsteady,
            n_writes: runs.iter().map(|run| run.writes.len()).min().unwrap_or_default(),
            told: shortest.map(|run| run.told.clone()).unwrap_or_default(),
            complaints: complaints.collect(),
        }
    }

    /// What differs from run to run even without faults.
    pub fn unsteady(&self) -> impl Iterator<Item = &str> {
        self.unsteady.iter().map(String::as_str)
    }

    /// Everything that is wrong with it, a sentence each.
    pub fn violations(&self, played: &Played) -> Vec<String> {
        let mut violations = played.complaints.clone();
        if played.converged_after > self.took + CONVERGES_WITHIN {
            let (late, took) = (played.converged_after, self.took);
            violations.push(format!(
                "it came to its end only {late:.1?} after the last fault; without faults all takes {took:.1?}"
            ));
        }
        violations.extend(broken_laws(played));
        let different = differences(&self.account, &account(&played.happened));
        // Of two leaders the slower one may still do what was right before the other one's last word: a pod that was stopped
        // is made again, and stopped again. That it is not counted is in the jobs' ledgers, and asked by the laws.
        let is_asked = |place: &str| {
            !self.unsteady.contains(place)
                && (played.plan.operators != Operators::Two
                    || !(place.ends_with(" created") || place.ends_with(" deleted")))
        };
        violations.extend(
            different.into_iter().filter(|(place, _)| is_asked(place)).map(|(place, how)| format!("{place}: {how}")),
        );
        violations
    }
}

fn differences(expected: &Account, found: &Account) -> Vec<(String, String)> {
    let places: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let none = String::new();
    let differ = places.into_iter().filter_map(|place| {
        let (expected, found) = (expected.get(place).unwrap_or(&none), found.get(place).unwrap_or(&none));
        (expected != found).then(|| (place.clone(), format!("{found:?} instead of {expected:?}")))
    });
    differ.collect()
}

fn broken_laws(played: &Played) -> Vec<String> {
    let mut oracle = Oracle::new(promises(&played.plan));
    for happened in &played.happened {
        oracle.see(&Event {
            revision: happened.revision,
            at: happened.at,
            change: happened.change,
            object: Object::read(&happened.object),
            writer: None,
        });
    }
    let end = End::Settled { quiet_since: played.quiet_since, at: played.ended_at };
    let broken = oracle.finish(end);
    broken.iter().filter(|violation| !is_allowed(&played.plan, violation)).map(ToString::to_string).collect()
}

/// What the laws do not know of, and is no fault.
fn is_allowed(plan: &Plan, violation: &Violation) -> bool {
    match (&*plan.workload, violation.law) {
        // A job that is being deleted lets its pods go as it sees them. One that has ended since is not counted: nobody
        // is left who could ask.
        ("deletion", Law::I3) => violation.what.ends_with("is let go before it is counted"),
        // Each restart of a container is told in the status, and the law does not know of restarts.
        ("restarts", Law::I14) => !violation.what.contains("nothing happened"),
        _ => false,
    }
}

/// What the users of a workload do, its plan need not make up for.
fn promises(plan: &Plan) -> Promises {
    let steps = of_name(&plan.workload).map(|workload| workload.steps).unwrap_or_default();
    Promises {
        deletions: steps.iter().any(|step| matches!(step.does, Does::DeletePod { .. } | Does::Delete { .. })),
        tampering: steps.iter().any(|step| matches!(step.does, Does::ChangePod { .. })),
        late_creates: plan.operators == Operators::Two,
        ..Promises::default()
    }
}

fn account(happened: &[Happened]) -> Account {
    let scrub = Scrub::of(happened);
    let mut account = Account::new();
    let mut ends: BTreeMap<String, &Value> = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for Happened { kind, change, object, .. } in happened {
        let name = scrub.text(object["metadata"]["name"].as_str().unwrap_or_default());
        let place = format!("{} {name}", kind.plural());
        match change {
            Change::Added => *counts.entry(format!("{place} created")).or_default() += 1,
            Change::Deleted => *counts.entry(format!("{place} deleted")).or_default() += 1,
            Change::Modified => {}
        }
        // How a job was that was over says how it ended, even if it is removed then. How others were when they were
        // removed is a matter of a moment.
        if *change != Change::Deleted {
            ends.insert(place, object);
        } else if *kind == Kind::Pods || !is_over(object) {
            ends.remove(&place);
        }
    }
    account.extend(counts.into_iter().map(|(place, count)| (place, count.to_string())));
    for (place, object) in ends {
        let is_deleted = object["metadata"]["deletionTimestamp"].is_string();
        // A deletion is a new generation, which may or may not have been seen before the object was gone.
        let is_told = |field: &str| !is_deleted || !field.ends_with("eneration");
        let mut fields = Account::new();
        flatten(&place, object, &scrub, &mut fields);
        account.extend(fields.into_iter().filter(|(field, _)| is_told(field)));
    }
    account
}

fn is_over(job: &Value) -> bool {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|found| matches!(found["type"].as_str(), Some("Complete" | "Failed")) && found["status"] == "True")
}

/// Fields that are another one in every run, and say nothing.
const IGNORED: [&str; 6] = ["uid", "namespace", "resourceVersion", "managedFields", "creationTimestamp", "duration"];

fn flatten(place: &str, value: &Value, scrub: &Scrub<'_>, account: &mut Account) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !IGNORED.contains(&name.as_str())) {
                flatten(&format!("{place} .{name}"), value, scrub, account);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                // Conditions are a set: their order says nothing.
                let key = item["type"].as_str().map_or_else(|| i.to_string(), str::to_owned);
                flatten(&format!("{place}[{key}]"), item, scrub, account);
            }
        }
        Value::String(text) => drop(account.insert(place.to_owned(), scrub.text(text))),
        other => drop(account.insert(place.to_owned(), other.to_string())),
    }
}

/// Takes out of texts what is another one in every run: times, uids, the namespace and the ends of pods' names.
struct Scrub<'a> {
    namespace: &'a str,
    uids: BTreeSet<&'a str>,
    suffixes: BTreeSet<&'a str>,
}

impl<'a> Scrub<'a> {
    fn of(happened: &'a [Happened]) -> Scrub<'a> {
        let namespace = happened.first().and_then(|happened| happened.object["metadata"]["namespace"].as_str());
        let uids = happened.iter().filter_map(|happened| happened.object["metadata"]["uid"].as_str()).collect();
        let suffixes =
            pod_names(happened).into_iter().filter_map(|name| name.rfind('-').map(|at| &name[at..])).collect();
        Scrub { namespace: namespace.unwrap_or("in no namespace"), uids, suffixes }
    }

    fn text(&self, text: &str) -> String {
        let mut text = text.replace(self.namespace, "NAMESPACE");
        for uid in &self.uids {
            text = text.replace(uid, "UID");
        }
        for suffix in &self.suffixes {
            text = text.replace(suffix, "");
        }
        without_times(&text)
    }
}

/// "2026-11-25T05:47:00Z" and seconds since 1970, wherever they are, are "TIME".
fn without_times(text: &str) -> String {
    let mut scrubbed = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let is_date = digits == 4 && rest.as_bytes().get(10) == Some(&b'T');
        if is_date && let Some(end) = rest.find('Z') {
            scrubbed.push_str("TIME");
            rest = &rest[end + 1..];
        } else if digits >= 9 {
            scrubbed.push_str("TIME");
            rest = &rest[digits..];
        } else if digits > 0 {
            scrubbed.push_str(&rest[..digits]);
            rest = &rest[digits..];
        } else {
            scrubbed.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    scrubbed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;

    fn happened(kind: Kind, change: Change, object: Value) -> Happened {
        Happened { revision: 1, at: jiff::Timestamp::UNIX_EPOCH, kind, change, object: Arc::new(object) }
    }

    fn pod(suffix: &str, uid: &str, exit_code: i32) -> Vec<Happened> {
        let metadata = json!({ "name": format!("etl-0-1-{suffix}"), "uid": uid });
        let object = json!({ "metadata": metadata, "status": { "exitCode": exit_code, "at": "2026-11-25T05:47:00Z" } });
        vec![happened(Kind::Pods, Change::Added, object)]
    }

    #[test]
    fn runs_that_differ_by_names_and_times_are_equal() {
        assert_eq!(account(&pod("aaaaa", "u-1", 0)), account(&pod("bbbbb", "u-2", 0)));
        let differ = differences(&account(&pod("aaaaa", "u-1", 0)), &account(&pod("bbbbb", "u-2", 1)));
        let expected = ("pods etl-0-1 .status .exitCode".to_owned(), "\"1\" instead of \"0\"".to_owned());
        assert_eq!(differ, [expected]);
    }

    #[test]
    fn a_pod_that_was_made_twice_is_seen() {
        let once = pod("aaaaa", "u-1", 0);
        let twice = [once.clone(), pod("aaaaa", "u-2", 0)].concat();
        assert_eq!(differences(&account(&once), &account(&twice)).len(), 1);
    }

    #[test]
    fn times_are_taken_out_wherever_they_are() {
        assert_eq!(without_times("3:2/1@1764021302,5"), "3:2/1@TIME,5");
        assert_eq!(without_times("attempt 2 starts at 2026-11-25T05:47:00Z (2026)"), "attempt 2 starts at TIME (2026)");
    }
}
