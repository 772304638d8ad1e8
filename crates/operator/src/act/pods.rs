//! Deletes pods and lets them go. Both carry the uid: a pod made anew under the same name is never touched.

use batchjob_decide::observed::Door;
use batchjob_decide::plan::PodRef;

use super::{Actor, at_once};
use crate::error::{Error, WriteError};
use crate::observe::wire::PodRecord;

impl Actor {
    pub(super) async fn delete_pods<'a>(
        &self,
        namespace: &str,
        pods: impl Iterator<Item = &'a PodRef>,
    ) -> Result<(), Error> {
        let results = at_once(pods.map(|pod| self.delete_pod(namespace, pod))).await;
        results.into_iter().collect()
    }

    async fn delete_pod(&self, namespace: &str, pod: &PodRef) -> Result<(), Error> {
        match self.writer.delete_pod(namespace, pod).await {
            Ok(Some(record)) => self.pods.wrote(record),
            // The watch tells when it is gone.
            Ok(None) => {}
            Err(error) if error.is_not_found() => self.pods.is_gone(&pod.uid),
            Err(error) => {
                if error.is_conflict() {
                    self.reread_pod(namespace, pod).await;
                }
                return Err(Error::write(format!("delete pod {namespace}/{}", pod.name), error));
            }
        }
        Ok(())
    }

    /// Takes our finalizer off each, the one of jobs of that door; answers with how many.
    pub(crate) async fn release_pods<'a>(
        &self,
        namespace: &str,
        door: Door,
        pods: impl Iterator<Item = &'a PodRef>,
    ) -> Result<usize, Error> {
        let results = at_once(pods.map(|pod| self.release_pod(namespace, door, pod))).await;
        let n_released = results.iter().filter(|result| result.is_ok()).count();
        results.into_iter().collect::<Result<(), Error>>().map(|()| n_released)
    }

    async fn release_pod(&self, namespace: &str, door: Door, pod: &PodRef) -> Result<(), Error> {
        let answer = self.writer.release_pod(namespace, pod, door).await;
        self.learn(namespace, pod, "release", answer).await
    }

    /// Puts the answer to a patch of a pod into the cache.
    pub(super) async fn learn(
        &self,
        namespace: &str,
        pod: &PodRef,
        what: &str,
        answer: Result<PodRecord, WriteError>,
    ) -> Result<(), Error> {
        match answer {
            Ok(record) => self.pods.wrote(record),
            Err(error) if error.is_not_found() => self.pods.is_gone(&pod.uid),
            Err(error) => {
                // 422: the uid in the patch is not that of the pod, so ours is gone; or another controller owns it by now.
                if error.is_conflict() || error.is_invalid() {
                    self.reread_pod(namespace, pod).await;
                }
                return Err(Error::write(format!("{what} pod {namespace}/{}", pod.name), error));
            }
        }
        Ok(())
    }

    /// The pod has changed since it was seen: read it, so that the next pass sees what it is now.
    async fn reread_pod(&self, namespace: &str, pod: &PodRef) {
        match self.writer.pod(namespace, &pod.name).await {
            Ok(record) if record.pod.uid == pod.uid => self.pods.wrote(record),
            Ok(_) => self.pods.is_gone(&pod.uid),
            Err(error) if error.is_not_found() => self.pods.is_gone(&pod.uid),
            // The watch will tell.
            Err(_) => {}
        }
    }
}
