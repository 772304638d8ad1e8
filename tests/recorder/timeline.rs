//! The history of one job, for people: a line for each thing that changed.

use batchjob_oracle::object::{Job, News, Phase, Pod};
use batchjob_oracle::{Change, Event, Object, Violation};
use jiff::Timestamp;

use super::History;

impl History {
    /// All that happened to the job with that uid, and to its pods.
    pub fn timeline(&self, uid: &str) -> String {
        let mut pods: Vec<&str> = Vec::new();
        for event in self.events() {
            if let Object::Pod(pod) = &event.object
                && [&pod.meta.controller, &pod.job].into_iter().flatten().any(|owner| &**owner == uid)
            {
                pods.push(&pod.meta.uid);
            }
        }
        let is_meant = |event: &&Event| match &event.object {
            Object::Pod(pod) => pods.contains(&&*pod.meta.uid),
            Object::News(news) => &*news.about == uid,
            Object::Lease(_) | Object::Other(_) => false,
            Object::BatchJob(job) | Object::Job(job) => &*job.meta.uid == uid,
        };
        let mut lines: Vec<(Timestamp, String)> = Vec::new();
        for event in self.events().filter(is_meant) {
            let words = match &event.object {
                Object::Pod(pod) => format!("pod {} {}", pod.meta.name, of_pod(pod)),
                Object::BatchJob(job) | Object::Job(job) => of_job(job),
                Object::News(news) => of_news(news),
                Object::Lease(_) | Object::Other(_) => continue,
            };
            let change = match event.change {
                Change::Added => "new ",
                Change::Modified => "",
                Change::Deleted => "gone ",
            };
            lines.push((event.at, format!("{:7} {change}{words}", event.revision)));
        }
        lines.extend(self.notes.iter().map(|(at, note)| (*at, format!("--- {note}"))));
        lines.sort_by_key(|(at, _)| *at);
        let began = lines.first().map_or(Timestamp::UNIX_EPOCH, |(at, _)| *at);
        let seconds = |at: Timestamp| at.duration_since(began).as_secs_f64();
        lines.iter().map(|(at, line)| format!("{:8.3} {line}\n", seconds(*at))).collect()
    }

    /// Each violation, and then the histories of the jobs that they are about: of the first few.
    pub fn explain(&self, violations: &[Violation]) -> String {
        const MOST: usize = 3;
        let mut text: String = violations.iter().map(|violation| format!("{violation}\n")).collect();
        let mut uids: Vec<String> = Vec::new();
        for violation in violations {
            let is_meant = |event: &&Event| {
                let object = &event.object;
                violation.object.ends_with(&format!("{} {}", object.kind(), object.meta().place()))
                    && event.revision <= violation.revision
            };
            let Some(event) = self.events().filter(is_meant).last() else { continue };
            let uid = match &event.object {
                Object::Pod(pod) => pod.meta.controller.as_ref().or(pod.job.as_ref()),
                object => Some(&object.meta().uid),
            };
            uids.extend(uid.map(ToString::to_string).filter(|uid| !uids.contains(uid)));
        }
        for uid in uids.iter().take(MOST) {
            text += &format!("==== {uid}\n{}", self.timeline(uid));
        }
        text
    }
}

fn of_pod(pod: &Pod) -> String {
    let mut text = match pod.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
    .to_owned();
    for (is_so, word) in [
        (pod.is_ready, " ready"),
        (!pod.has_node, " without a node"),
        (pod.meta.deletion.is_some(), " told to go"),
        (!pod.is_held, " let go"),
        (pod.meta.controller.is_none(), " without an owner"),
    ] {
        text += if is_so { word } else { "" };
    }
    text
}

fn of_job(job: &Job) -> String {
    let spec = &job.spec;
    let mut text = format!("job parallelism={}", spec.parallelism);
    text += &spec.completions.map(|completions| format!(" completions={completions}")).unwrap_or_default();
    text += if spec.is_suspended { " suspend" } else { "" };
    text += if job.meta.deletion.is_some() { " deleted" } else { "" };
    let it = &job.standing;
    text += &format!(
        " | active={} ready={} terminating={} succeeded={} failed={}",
        it.active, it.ready, it.terminating, it.succeeded, it.failed
    );
    for (name, value) in
        [("completed", &job.ledger.completed), ("failedIndexes", &job.ledger.failed), ("open", &job.ledger.open)]
    {
        text += &if value.is_empty() { String::new() } else { format!(" {name}={value}") };
    }
    for (name, uids) in [("succeeded", &job.uncounted.succeeded), ("failed", &job.uncounted.failed)] {
        text += &if uids.is_empty() { String::new() } else { format!(" uncounted-{name}={}", uids.len()) };
    }
    for condition in it.conditions.iter() {
        text += &format!(" {}{}({})", if condition.is_true { "" } else { "not " }, condition.type_, condition.reason);
    }
    text
}

fn of_news(news: &News) -> String {
    format!("told {} ({} times)", news.reason, news.n_told)
}
