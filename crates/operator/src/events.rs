//! Events about jobs: queued, grouped, bounded.
//!
//! A pass never waits for an event. What is done to one pod after the other is told together: the first create of a job
//! at once, those of the next 10 s in one event, then of 20 s, up to 5 min. The same words about the same job within ten
//! minutes are one event that is counted up, and the count is written after 10 s, then 20 s, up to 5 min, with the next
//! of them: a job that is refused its pods every few seconds would cost as many events as requests. Troubles have a budget
//! for each job, so that one that goes wrong in a new way every second does not flood etcd. What there is no room for is
//! dropped and counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use batchjob_crd::reason;
use batchjob_decide::plan::{AttemptId, Note, Reason, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{Request, Resource as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::writer::Writer;

const CONTROLLER: &str = "batchjob.dev/operator";
/// How many events may wait to be written.
const QUEUE: usize = 1000;
/// The same words within this time are counted up.
const SAME_FOR: Duration = Duration::from_secs(600);
/// How long what is done to pods, and what is counted up, is gathered: the first time, and at most.
const FIRST_GATHERING: Duration = Duration::from_secs(10);
const LONGEST_GATHERING: Duration = Duration::from_secs(300);
/// How many troubles a job may tell in a row, and how long it takes until it may tell one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(20);
/// The API server's limit for a note, less a little.
const MAX_NOTE: usize = 1000;

/// Takes events; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(ObjectReference, Reason)>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// The recorder, and the task that writes.
    pub fn new(
        writer: Writer,
        metrics: Arc<Metrics>,
        instance: &str,
        clock: Clock,
    ) -> (Recorder, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let scribe = Scribe {
            writer,
            metrics: metrics.clone(),
            instance: instance.to_owned(),
            clock,
            seen: HashMap::new(),
            budgets: HashMap::new(),
            gatherings: BTreeMap::new(),
        };
        (Recorder { queue: sender, metrics }, scribe.run(receiver))
    }

    pub fn publish(&self, regarding: impl Into<ObjectReference>, mut reason: Reason) {
        if let Note::Text(text) = &mut reason.note {
            shorten(text);
        }
        if self.queue.try_send((regarding.into(), reason)).is_err() {
            self.metrics.event_dropped();
        }
    }

    pub fn warn(&self, regarding: impl Into<ObjectReference>, reason: &str, message: String) {
        let note = Note::Text(message);
        self.publish(regarding, Reason { severity: Severity::Warning, reason: reason.to_owned(), note });
    }
}

/// Writes events, one after the other.
struct Scribe {
    writer: Writer,
    metrics: Arc<Metrics>,
    instance: String,
    clock: Clock,
    seen: HashMap<Key, Seen>,
    budgets: HashMap<String, Budget>,
    /// By the job and the reason.
    gatherings: BTreeMap<(String, String), Gathering>,
}

/// What makes two events the same: the job, the reason, the note.
type Key = (String, String, String);

struct Seen {
    /// None: it could not be written.
    name: Option<String>,
    count: i32,
    last: Instant,
    gathering: Gathering,
}

struct Budget {
    left: f64,
    at: Instant,
}

/// What is done to the pods of a job, one after the other.
struct Gathering {
    length: Duration,
    until: Instant,
    gathered: Option<Gathered>,
}

struct Gathered {
    regarding: ObjectReference,
    severity: Severity,
    verb: &'static str,
    attempts: Vec<AttemptId>,
}

impl Scribe {
    /// Writes until nobody can publish any more, and then what is still gathered.
    async fn run(mut self, mut queue: mpsc::Receiver<(ObjectReference, Reason)>) {
        let mut next_tidying = Instant::now() + SAME_FOR;
        loop {
            let due =
                self.gatherings.values().filter(|gathering| gathering.gathered.is_some()).map(|it| it.until).min();
            let wake_up = due.unwrap_or(next_tidying);
            tokio::select! {
                biased;
                published = queue.recv() => match published {
                    Some((regarding, reason)) => self.take(regarding, reason).await,
                    None => return self.flush(|_, _| true).await,
                },
                () = sleep_until(wake_up) => {
                    let now = Instant::now();
                    self.flush(|_, gathering| gathering.until <= now).await;
                }
            }
            if Instant::now() >= next_tidying {
                self.tidy();
                next_tidying = Instant::now() + SAME_FOR;
            }
        }
    }

    async fn take(&mut self, regarding: ObjectReference, reason: Reason) {
        let job = words_for(&regarding);
        match reason.note {
            Note::Pods { verb, attempts } => {
                let key = (job, reason.reason.clone());
                let gathering = self.gatherings.entry(key).or_insert_with(Gathering::new);
                if gathering.gathered.is_none() && gathering.until <= Instant::now() {
                    gathering.begin();
                    self.write(regarding, reason.severity, reason.reason, Note::Pods { verb, attempts }.to_string())
                        .await;
                } else {
                    let gathered = Gathered { regarding, severity: reason.severity, verb, attempts: Vec::new() };
                    gathering.gathered.get_or_insert(gathered).attempts.extend(attempts);
                }
            }
            Note::Text(text) if !is_turn(&reason.reason) => {
                if self.budgets.entry(job).or_insert_with(Budget::full).take() {
                    self.write(regarding, reason.severity, reason.reason, text).await;
                } else {
                    self.metrics.event_dropped();
                }
            }
            // A turn in the job's life: what came before it is told before it.
            Note::Text(text) => {
                self.flush(|(other, _), _| *other == job).await;
                self.write(regarding, reason.severity, reason.reason, text).await;
            }
        }
    }

    /// Writes what is gathered where `is_meant`.
    async fn flush(&mut self, is_meant: impl Fn(&(String, String), &Gathering) -> bool) {
        let mut flushed = Vec::new();
        for (key, gathering) in &mut self.gatherings {
            if gathering.gathered.is_some() && is_meant(key, gathering) {
                gathering.begin();
                flushed.extend(gathering.gathered.take().map(|gathered| (key.1.clone(), gathered)));
            }
        }
        for (reason, Gathered { regarding, severity, verb, attempts }) in flushed {
            self.write(regarding, severity, reason, Note::Pods { verb, attempts }.to_string()).await;
        }
    }

    async fn write(&mut self, regarding: ObjectReference, severity: Severity, reason: String, mut note: String) {
        shorten(&mut note);
        let key = (words_for(&regarding), reason.clone(), note.clone());
        let seen = self.seen.entry(key).or_insert_with(Seen::nothing);
        if seen.last.elapsed() >= SAME_FOR {
            *seen = Seen::nothing();
        }
        seen.count = seen.count.saturating_add(1);
        seen.last = Instant::now();
        if seen.gathering.until > seen.last {
            return;
        }
        seen.gathering.begin();
        let namespace = regarding.namespace.clone().unwrap_or_default();
        let now = self.clock.now();
        let request = match &seen.name {
            Some(name) => count_up(&namespace, name, seen.count, now),
            None => {
                let event = event(regarding, severity, reason, note, &self.instance, now);
                seen.name.clone_from(&event.metadata.name);
                create(&event)
            }
        };
        let result = match request {
            Ok(request) => self.writer.write_event(request).await,
            Err(error) => Err(error.into()),
        };
        // The namespace may be going away, or the event's time was over: nothing depends on them.
        if let Err(error) = result {
            (seen.name, seen.count) = (None, 0);
            self.metrics.event_dropped();
            tracing::debug!(namespace, %error, "failed to write an event");
        }
    }

    fn tidy(&mut self) {
        self.seen.retain(|_, seen| seen.last.elapsed() < SAME_FOR);
        self.budgets.retain(|_, budget| budget.at.elapsed() < SAME_FOR);
        self.gatherings.retain(|_, gathering| gathering.gathered.is_some() || gathering.until.elapsed() < SAME_FOR);
    }
}

impl Seen {
    fn nothing() -> Seen {
        Seen { name: None, count: 0, last: Instant::now(), gathering: Gathering::new() }
    }
}

impl Gathering {
    fn new() -> Gathering {
        Gathering { length: FIRST_GATHERING, until: Instant::now(), gathered: None }
    }

    /// Something is told now, and what follows is gathered, each time for longer.
    fn begin(&mut self) {
        self.until = Instant::now() + self.length;
        self.length = (self.length * 2).min(LONGEST_GATHERING);
    }
}

/// A job, told apart from all others: from one that had its name by its uid; from one that has lost its uid too by its name.
fn words_for(job: &ObjectReference) -> String {
    [&job.uid, &job.kind, &job.namespace, &job.name].map(|word| word.as_deref().unwrap_or_default()).join(" ")
}

/// What a job tells at a turn in its life; anything else it may tell any number of times.
fn is_turn(word: &str) -> bool {
    matches!(word, "Suspended" | "Resumed" | "Completed" | reason::BACKOFF_LIMIT_EXCEEDED | reason::DEADLINE_EXCEEDED)
}

impl Budget {
    fn full() -> Budget {
        Budget { left: BURST, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let refilled = self.at.elapsed().as_secs_f64() / REFILL.as_secs_f64();
        self.left = (self.left + refilled).min(BURST);
        self.at = Instant::now();
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

fn shorten(note: &mut String) {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        note.push('…');
    }
}

fn event(
    regarding: ObjectReference,
    severity: Severity,
    reason: String,
    note: String,
    instance: &str,
    now: Timestamp,
) -> Event {
    let job = regarding.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            // The names that client-go gives: the object's, and the time in nanoseconds.
            name: Some(format!("{job}.{:x}", now.as_nanosecond())),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some(reason.clone()),
        reason: Some(reason),
        type_: Some(match severity {
            Severity::Normal => "Normal".to_owned(),
            Severity::Warning => "Warning".to_owned(),
        }),
        note: Some(note),
        regarding: Some(regarding),
        ..Event::default()
    }
}

fn create(event: &Event) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
    let url = Event::url_path(&(), event.metadata.namespace.as_deref());
    Request::new(url).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)
}

fn count_up(namespace: &str, name: &str, count: i32, now: Timestamp) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let series = EventSeries { count, last_observed_time: MicroTime(now) };
    let patch = Patch::Merge(serde_json::json!({ "series": series }));
    let url = Event::url_path(&(), Some(namespace));
    Request::new(url).patch(name, &PatchParams::default(), &patch).map_err(kube::Error::BuildRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_spent_and_comes_back_slowly() {
        let mut budget = Budget::full();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 25);
        tokio::time::advance(REFILL * 2).await;
        assert_eq!((0..100).filter(|_| budget.take()).count(), 2);
    }
}
