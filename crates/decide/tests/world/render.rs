//! A plan as one line of a story.

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::{Action, Plan};

use super::World;

pub(super) fn plan(plan: &Plan, world: &World) -> String {
    let names = PodNames::of(&world.job);
    // Without the hash, as people say it.
    let short = |name: &str| name.rsplit_once('-').map_or(name, |(short, _)| short).to_owned();
    let mut parts: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::CreatePod(start) => format!("create {}", short(&names.write(start.id))),
            Action::AdoptPod(pod) => format!("adopt {}", short(&pod.name)),
            Action::DisownPod(pod) => format!("disown {}", short(&pod.name)),
            Action::DeletePod(pod) => format!("delete {}", short(&pod.name)),
            Action::ReleasePod(pod) => format!("release {}", short(&pod.name)),
            Action::WriteStatus(status) => format!("status {}", changes(&world.job.status, status)),
            Action::DeleteJob => "delete the job".to_owned(),
        })
        .collect();
    if parts.is_empty() {
        parts.push("nothing".to_owned());
        if let Some(at) = plan.wake_at {
            parts.push(format!("until {}s", at.as_second()));
        }
        return parts.join(" ");
    }
    let mut line = parts.join("; ");
    if plan.can_wait {
        line += " (can wait)";
    }
    for reason in &plan.reasons {
        line += &format!("\n       {}: {}", reason.reason, reason.note);
    }
    line
}

/// "active=1 phase=Running +Ready=False(Running)": what differs, and nothing of what is the same in every story.
fn changes(before: &BatchJobStatus, after: &BatchJobStatus) -> String {
    let fields = |status: &BatchJobStatus| match serde_json::to_value(status) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => panic!("a status is an object"),
    };
    let (old, new) = (fields(before), fields(after));
    let uninteresting = ["conditions", "selector", "observedGeneration", "parallelism", "backoffLimit"];
    let mut words = Vec::new();
    for (field, value) in &new {
        let is_first_zero = *value == 0 && old.get(field).is_none_or(serde_json::Value::is_null);
        if !uninteresting.contains(&field.as_str()) && old.get(field) != Some(value) && !is_first_zero {
            words.push(format!("{field}={}", value.as_str().map_or(value.to_string(), str::to_owned)));
        }
    }
    for condition in &after.conditions {
        let same = |other: &&_| {
            let other: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition = other;
            (&other.type_, &other.status, &other.reason) == (&condition.type_, &condition.status, &condition.reason)
        };
        if before.conditions.iter().find(same).is_none() {
            words.push(format!("{}={}({})", condition.type_, condition.status, condition.reason));
        } else if condition.type_ == "Reconciling" {
            words.push(format!("\"{}\"", condition.message));
        }
    }
    for condition in &before.conditions {
        if after.conditions.iter().all(|other| other.type_ != condition.type_) {
            words.push(format!("-{}", condition.type_));
        }
    }
    words.join(" ")
}
