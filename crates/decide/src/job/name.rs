//! The name of a pod: a function of job, index and attempt, so that a create can be repeated without harm.
//!
//! `etl-3-2-k8x2q` is attempt 2 of index 3 of job `etl`. The last five characters are hashed from the job's uid (and
//! one day from its run), so that a job made again under the same name never meets the pods of the one before it.

use sha2::{Digest, Sha256};

use crate::observed::Job;
use crate::plan::AttemptId;

/// What Kubernetes itself makes names from: no vowels, so no words, and nothing that looks like something else.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The run of a job whose pods are meant. Jobs have one run until re-runs exist.
const RUN: u32 = 1;

/// The names of a job's pods.
#[derive(Clone, Debug)]
pub struct PodNames {
    prefix: String,
    suffix: String,
}

impl PodNames {
    pub fn of(job: &Job) -> PodNames {
        let digest = Sha256::digest(format!("{}/{RUN}", job.uid));
        let hash: String =
            digest.iter().take(5).map(|byte| ALPHABET[*byte as usize % ALPHABET.len()] as char).collect();
        PodNames { prefix: format!("{}-", job.name), suffix: format!("-{hash}") }
    }

    pub fn write(&self, id: AttemptId) -> String {
        format!("{}{}-{}{}", self.prefix, id.index, id.attempt, self.suffix)
    }

    /// None for a name that [`write`](PodNames::write) does not make.
    pub fn read(&self, name: &str) -> Option<AttemptId> {
        let (index, attempt) = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?.split_once('-')?;
        let id = AttemptId { index: index.parse().ok()?, attempt: attempt.parse().ok()? };
        // "+3" and "03" are numbers too, but not ours.
        // The last index must leave room for the one after it.
        let is_possible = (1..=AttemptId::LAST).contains(&id.attempt) && id.index < u32::MAX;
        (is_possible && self.write(id) == name).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, uid: &str) -> PodNames {
        PodNames::of(&Job { name: name.to_owned(), uid: uid.to_owned(), ..Job::default() })
    }

    #[test]
    fn what_it_writes_it_reads_back() {
        let names = names("etl-2", "7d1f8a0e");
        let id = AttemptId { index: 3, attempt: 12 };
        let name = names.write(id);
        assert!(name.starts_with("etl-2-3-12-") && name.len() == "etl-2-3-12-".len() + 5, "{name}");
        assert_eq!(names.read(&name), Some(id));
    }

    #[test]
    fn a_job_made_again_has_other_names() {
        let id = AttemptId { index: 0, attempt: 1 };
        let (before, after) = (names("etl", "uid-1"), names("etl", "uid-2"));
        assert_ne!(before.write(id), after.write(id));
        assert_eq!(after.read(&before.write(id)), None);
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_read() {
        let names = names("etl", "uid-1");
        let ours = names.write(AttemptId { index: 3, attempt: 1 });
        let hash = &ours[ours.len() - 5..];
        for name in
            [format!("etl-03-1-{hash}"), format!("etl-3-0-{hash}"), format!("etl-+3-1-{hash}"), format!("etl-{hash}")]
        {
            assert_eq!(names.read(&name), None, "{name}");
        }
    }
}
