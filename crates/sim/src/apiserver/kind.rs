//! The kinds that are served, and how the registry of each differs from the others'.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Pod,
    BatchJob,
    Job,
    BatchCronJob,
    Lease,
    /// Counted, not kept: nobody reads them.
    Event,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Pod, Kind::BatchJob, Kind::Job, Kind::BatchCronJob, Kind::Lease, Kind::Event];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::BatchJob => "BatchJob",
            Kind::Job => "Job",
            Kind::BatchCronJob => "BatchCronJob",
            Kind::Lease => "Lease",
            Kind::Event => "Event",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pod => "pods",
            Kind::BatchJob => "batchjobs",
            Kind::Job => "jobs",
            Kind::BatchCronJob => "batchcronjobs",
            Kind::Lease => "leases",
            Kind::Event => "events",
        }
    }

    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Pod => "v1",
            Kind::BatchJob | Kind::BatchCronJob => "batchjob.dev/v1alpha1",
            Kind::Job => "batch/v1",
            Kind::Lease => "coordination.k8s.io/v1",
            Kind::Event => "events.k8s.io/v1",
        }
    }

    /// The kind of an owner, of whatever version.
    pub fn of_owner(api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Kind::ALL.into_iter().find(|known| known.name() == kind && known.group() == group)
    }

    /// As it is named in messages: `pods`, `jobs.batch`.
    pub(super) fn resource(self) -> String {
        qualified(self.plural(), self.group())
    }

    /// As it is named in messages about what is invalid: `Pod`, `Job.batch`.
    pub(super) fn qualified_name(self) -> String {
        qualified(self.name(), self.group())
    }

    pub(super) fn has_status(self) -> bool {
        self.is_custom() || matches!(self, Kind::Pod | Kind::Job)
    }

    /// `AllowUnconditionalUpdate`: whether a PUT may do without a resourceVersion.
    pub(super) fn may_be_replaced_blindly(self) -> bool {
        matches!(self, Kind::Pod | Kind::Job | Kind::Event)
    }

    /// `AllowCreateOnUpdate`: whether a PUT may create.
    pub(super) fn may_be_created_by_put(self) -> bool {
        matches!(self, Kind::Lease | Kind::Event)
    }

    /// Its Go type is generated, so that what is empty is left out, and strategic merge patches are known.
    pub(super) fn is_built_in(self) -> bool {
        !self.is_custom()
    }

    pub(super) fn is_custom(self) -> bool {
        matches!(self, Kind::BatchJob | Kind::BatchCronJob)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}
