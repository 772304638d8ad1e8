//! What a user may write in a Job and a BatchJob refuses.
//!
//! A field that is accepted and then not acted on is worse than one that is missing: the job runs, differently from what
//! its author wrote. So these are refused when the manifest is applied. This table is the one place that says so; the
//! CEL rules in the CRD are made from it, and a field is taken into use by deleting its row.

/// A spec field that is refused, wholly or with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The field's name, directly below `spec`.
    pub field: &'static str,
    /// What of it is refused.
    pub what: Refused,
    message: &'static str,
}

/// What of an [`Unsupported`] field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The field, whatever it says.
    Field,
    /// The value true; false is the same as absent.
    True,
}

/// Everything that is refused.
pub const UNSUPPORTED: &[Unsupported] = &[
    Unsupported {
        field: "selector",
        what: Refused::Field,
        message: "the pods of a BatchJob are found by their owner, not by a selector: remove it, and from the labels of \
                  the template controller-uid and batch.kubernetes.io/controller-uid, which `kubectl get job -o yaml` \
                  prints with it",
    },
    Unsupported {
        field: "manualSelector",
        what: Refused::True,
        message: "the pods of a BatchJob are found by their owner, not by a selector: remove manualSelector and selector",
    },
    Unsupported {
        field: "scheduling",
        what: Refused::Field,
        message: "scheduling is not acted on by this version of batchjob, and in a batch/v1 Job only behind the feature \
                  gate WorkloadWithJob: remove it, or keep this work a batch/v1 Job",
    },
];

impl Unsupported {
    /// The CEL rule on `spec` that refuses it.
    pub fn rule(&self) -> String {
        let field = self.field;
        match self.what {
            Refused::Field => format!("!has(self.{field})"),
            Refused::True => format!("!has(self.{field}) || !self.{field}"),
        }
    }

    /// What the user reads.
    pub fn message(&self) -> String {
        self.message.to_owned()
    }
}
