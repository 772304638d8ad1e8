//! What a user may write in a Job and this version of batchjob does not act on yet.
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
}

/// What of an [`Unsupported`] field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The field, whatever it says.
    Field,
    /// One value; the other one does what this version does.
    Value {
        /// The value that is refused.
        refused: &'static str,
        /// The value to write instead, which is also what holds when the field is absent.
        instead: &'static str,
    },
}

/// Everything that is refused.
pub const UNSUPPORTED: &[Unsupported] = &[
    field("podFailurePolicy"),
    field("successPolicy"),
    field("backoffLimitPerIndex"),
    field("maxFailedIndexes"),
    Unsupported {
        field: "podReplacementPolicy",
        what: Refused::Value { refused: "Failed", instead: "TerminatingOrFailed" },
    },
];

const fn field(field: &'static str) -> Unsupported {
    Unsupported { field, what: Refused::Field }
}

impl Unsupported {
    /// The CEL rule on `spec` that refuses it.
    pub fn rule(&self) -> String {
        let field = self.field;
        match self.what {
            Refused::Field => format!("!has(self.{field})"),
            Refused::Value { refused, .. } => format!("!has(self.{field}) || self.{field} != '{refused}'"),
        }
    }

    /// What the user reads.
    pub fn message(&self) -> String {
        let field = self.field;
        match self.what {
            Refused::Field => format!(
                "{field} is not acted on by this version of batchjob: remove it, or keep this work a batch/v1 Job"
            ),
            Refused::Value { refused, instead } => format!(
                "{field} {refused} is not acted on by this version of batchjob: write {instead}, or keep this work a \
                 batch/v1 Job"
            ),
        }
    }
}
