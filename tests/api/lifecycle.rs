//! A job as an object among others: what everybody may do with it through the API, while the operator writes it too.

use anyhow::{Context, Result};
use batchjob_crd::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::both::{Both, Door, both_doors};
use crate::door::{owner_of, uid};
use crate::kubelet::End;
use crate::stage::expect;

both_doors!(it_is_made_changed_listed_and_deleted_with_others);

/// `should manage the lifecycle of a job`.
async fn it_is_made_changed_listed_and_deleted_with_others(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({ "suspend": true, "completions": 4, "parallelism": 2 })).await?;
    stage.until("etl", "it is suspended", |job| job.is(condition::SUSPENDED)).await;
    let label = &*stage.stage.namespace.name;
    let patched = stage.change("etl", json!({ "metadata": { "labels": { "job-of": label } } })).await?;
    assert_eq!(patched.labels()["job-of"], label);

    let mut whole = stage.jobs.get("etl").await?;
    whole.data["spec"]["suspend"] = false.into();
    whole.annotations_mut().insert("updated".to_owned(), "true".to_owned());
    let updated = stage.jobs.replace("etl", &PostParams::default(), &whole).await?;
    assert_eq!(updated.annotations()["updated"], "true");
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!((job.succeeded, job.failed), (4, 0));

    stage.create("another", json!({ "suspend": true })).await?;
    let resource = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::try_from(
        &whole.types.clone().context("a kind")?,
    )?);
    let everywhere: Api<kube::api::DynamicObject> = Api::all_with(stage.stage.namespace.client.clone(), &resource);
    let labelled = ListParams::default().labels(&format!("job-of={label}"));
    let found = everywhere.list(&labelled).await?.items;
    assert_eq!(found.iter().map(|job| job.name_any()).collect::<Vec<_>>(), ["etl"]);
    assert_eq!(found[0].annotations()["updated"], "true");
    stage.jobs.delete_collection(&DeleteParams::background(), &labelled).await?;
    stage.until_gone("etl").await;
    stage.stage.until_pods("etl", "they went too", |pods| pods.is_empty()).await;
    assert_eq!(everywhere.list(&labelled).await?.items.len(), 0);
    assert!(stage.jobs.get_opt("another").await?.is_some());
    Ok(())
}

both_doors!(a_condition_of_somebody_else_stays);

/// `should apply changes to a job status`.
async fn a_condition_of_somebody_else_stays(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let made = stage.create("etl", json!({ "completions": 4, "parallelism": 2 })).await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    stage.until("etl", "its pods run", |job| job.ready == 2).await;

    let of = |job: &kube::api::DynamicObject| -> Option<Value> {
        let conditions = job.data["status"]["conditions"].as_array()?;
        conditions.iter().find(|found| found["type"] == "CustomConditionType").cloned()
    };
    let condition = |second: i64| -> Result<Value> {
        let at = Time(jiff::Timestamp::from_second(second)?);
        Ok(json!({ "type": "CustomConditionType", "status": "True", "reason": "Custom", "message": "custom",
            "lastTransitionTime": at }))
    };
    let patch = json!({
        "metadata": { "annotations": { "patchedstatus": "true" } },
        "status": { "conditions": [condition(1_000_000_000)?] },
    });
    let patched = stage.jobs.patch_status("etl", &PatchParams::default(), &Patch::Merge(patch)).await?;
    assert_eq!(of(&patched).context("it is there")?["lastTransitionTime"], "2001-09-09T01:46:40Z");
    // Of a custom resource the status endpoint takes the status alone.
    assert_eq!(patched.annotations().contains_key("patchedstatus"), stage.door == Door::ManagedJob);

    stage.look_again(&operator, "etl").await?;
    stage.until("etl", "the rest is as it was", |job| job.ready == 2 && job.active == 2).await;
    let updated = expect("an update that is not too late", async || {
        let mut whole = stage.jobs.get_status("etl").await?;
        assert_eq!(whole.uid(), made.uid());
        let conditions = whole.data["status"]["conditions"].as_array_mut().context("conditions")?;
        let found = conditions.iter_mut().find(|found| found["type"] == "CustomConditionType");
        *found.context("it has stayed")? = condition(1_000_000_060)?;
        Ok(stage.jobs.replace_status("etl", &PostParams::default(), &whole).await.ok())
    })
    .await;
    assert_eq!(of(&updated).context("it is there")?["lastTransitionTime"], "2001-09-09T01:47:40Z");
    stage.look_again(&operator, "etl").await?;
    assert_eq!(of(&stage.jobs.get("etl").await?), of(&updated));
    Ok(())
}

both_doors!(made_again_while_its_pods_are_being_made_it_starts_anew);

/// `TestJobRecreationClearsPodExpectations`: each time, creates for the one before are on their way.
async fn made_again_while_its_pods_are_being_made_it_starts_anew(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    for (is_suspended, n_pods) in [(true, 0), (false, 1)] {
        for n in 0..5 {
            stage.create("etl", json!({ "completions": 20, "parallelism": 20 })).await?;
            // Some of its pods there are, or none yet: another time each.
            expect("the first pods", async || Ok((stage.stage.pods_of("etl").await?.len() >= n).then_some(()))).await;
            stage.delete("etl", DeleteParams::background()).await?;
        }
        let job = stage.create("etl", json!({ "suspend": is_suspended })).await?;
        let pods = stage.stage.until_pods("etl", "those of the others are gone", |pods| {
            pods.len() == n_pods && pods.iter().all(|pod| owner_of(pod) == uid(&job))
        });
        pods.await;
        let standing = stage
            .until("etl", "its own pods count", |job| {
                (job.ready, job.active) == (n_pods as i32, n_pods as i32)
                    && job.is(condition::SUSPENDED) == is_suspended
            })
            .await;
        assert_eq!((standing.succeeded, standing.failed, standing.terminating), (0, 0, 0));
        stage.look_again(&operator, "etl").await?;
        assert_eq!(stage.standing("etl").await?, standing);
        assert_eq!(stage.stage.pods_of("etl").await?.len(), n_pods);
        stage.delete("etl", DeleteParams::background()).await?;
        stage.until_gone("etl").await;
    }
    Ok(())
}
