//! How many runs may start, and which end for it: `concurrencyPolicy`, `maxActive` and `concurrencyGroup`.

use batchjob_crd::cron_job::ConcurrencyPolicy;

use super::active;
use super::observed::{Observed, Run};
use super::spec::Spec;

/// The room for runs.
#[derive(Debug)]
pub struct Room<'a> {
    /// The runs that have not ended, the oldest first, without those of a backfill; those that are being deleted, too, for their pods may still be at work.
    pub active: Vec<&'a Run>,
    policy: ConcurrencyPolicy,
    /// How many may be active; None: any number.
    limit: Option<usize>,
    /// It is the group's limit that counts, by its name.
    group: Option<String>,
    /// How many of the group's places a backfill may take that nobody has; None: any number.
    places: Option<usize>,
}

impl<'a> Room<'a> {
    pub fn of(observed: &'a Observed, spec: &Spec) -> Room<'a> {
        let (of_backfill, active): (Vec<&Run>, Vec<&Run>) =
            active(&observed.runs).into_iter().partition(|run| run.is_backfill);
        let of_group = spec.group.as_ref().map(|(name, own)| {
            let limit = observed.group.limit.map_or(*own, |others| others.min(*own));
            (name, limit.saturating_sub(observed.group.n_active + of_backfill.len()))
        });
        let places = of_group.as_ref().map(|(_, limit)| limit.saturating_sub(active.len()));
        let (limit, group) = match (spec.limit, of_group) {
            (own, Some((name, group))) if own.is_none_or(|own| group < own) => (Some(group), Some(name.clone())),
            (own, _) => (own, None),
        };
        Room { active, policy: spec.policy, limit, group, places }
    }

    /// How many may start.
    pub fn free(&self) -> usize {
        let n_in_the_way = match self.policy {
            ConcurrencyPolicy::Replace => 0,
            _ => self.active.len(),
        };
        self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(n_in_the_way))
    }

    /// How many runs of a backfill may start beside so many others, for all that the group says.
    pub fn free_for_backfill(&self, n_starts: usize) -> usize {
        self.places.map_or(usize::MAX, |places| places.saturating_sub(n_starts))
    }

    /// The runs that end because so many start.
    pub fn replaced(&self, n_starts: usize) -> Vec<&'a Run> {
        if self.policy != ConcurrencyPolicy::Replace {
            return Vec::new();
        }
        let live: Vec<&Run> = self.active.iter().copied().filter(|run| !run.is_deleted).collect();
        let n_stay = self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(n_starts));
        let n_over = live.len().saturating_sub(n_stay);
        live.into_iter().take(n_over).collect()
    }

    /// Why nothing more may start.
    pub fn why_not(&self) -> String {
        if let Some(group) = &self.group {
            return format!("concurrencyGroup {group}: as many runs of its members are active as may be");
        }
        match self.active[..] {
            [run] => format!("concurrencyPolicy {:?}: run {} has not ended", self.policy, run.name),
            _ => format!("maxActive: {} runs have not ended", self.active.len()),
        }
    }
}
