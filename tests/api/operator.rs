//! The process: its flags, health, metrics, logs and its end.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_tests::support::{Operator, operator_binary};
use serde_json::{Value, json};

use crate::kubelet::End;
use crate::stage::{Stage, expect, is_finished, kubernetes, repository, status};

#[tokio::test]
async fn health_and_metrics_are_served_and_name_no_job() -> Result<()> {
    let stage = Stage::new("metrics").await?;
    let operator = stage.operator().await?;
    for path in ["/healthz", "/readyz"] {
        let answer = operator.get(path).await?;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{path}: {answer}");
    }
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    stage.create("a-name-to-look-for", json!({})).await?;
    stage.until("a-name-to-look-for", "it is over", is_finished).await;
    let metrics = expect("the job is in the metrics", async || {
        let metrics = operator.get("/metrics").await?;
        Ok(metrics.contains("job_controller_jobs_finished_total{").then_some(metrics))
    })
    .await;
    for name in [
        "job_controller_job_sync_duration_seconds_bucket{",
        "job_controller_job_syncs_total{",
        r#"job_controller_jobs_finished_total{completion_mode="NonIndexed",result="succeeded",reason="CompletionsReached"} 1"#,
        r#"job_controller_job_pods_finished_total{completion_mode="NonIndexed",result="succeeded"} 1"#,
        r#"job_controller_job_pods_creation_total{reason="new",status="succeeded"} 1"#,
        r#"batchjob_pod_finalizers_total{event="add"} 1"#,
        "batchjob_jobs 1",
        "batchjob_pods 1",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("a-name-to-look-for") && !metrics.contains(&stage.namespace.name), "{metrics}");
    Ok(())
}

/// More pods than one page of a list has, and than one pass creates.
#[tokio::test]
async fn sigterm_in_the_middle_of_work_is_a_clean_end_and_the_next_one_goes_on() -> Result<()> {
    let stage = Stage::new("sigterm").await?;
    let operator = stage.operator().await?;
    let log = operator.log.clone();
    stage.create("etl", json!({ "completions": 600, "parallelism": 600 })).await?;
    stage.until_pods("etl", "some are there", |pods| !pods.is_empty()).await;
    let ended = operator.terminate(Duration::from_secs(10)).await?;
    assert_eq!(ended.code(), Some(0));
    let log = fs::read_to_string(log)?;
    assert!(log.contains("SIGTERM: finishing what has begun") && log.contains(" stopped"), "{log}");

    let _operator = stage.operator().await?;
    let job = stage.until("etl", "all are there", |job| status(job).active == Some(600)).await;
    assert_eq!((status(&job).failed, status(&job).terminating), (Some(0), Some(0)));
    assert_eq!(stage.pods_of("etl").await?.len(), 600);
    Ok(())
}

#[tokio::test]
async fn an_operator_of_one_namespace_leaves_the_others_alone() -> Result<()> {
    let (stage, other) = (Stage::new("mine").await?, Stage::new("not-mine").await?);
    other.create("etl", json!({})).await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    stage.pod("etl", 0, 1).await;
    assert_eq!(status(&other.jobs.get("etl").await?).observed_generation, Some(-1));
    assert_eq!(other.pods_of("etl").await?.len(), 0);
    Ok(())
}

/// Runs it to its end.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(operator_binary()?);
    command.env_remove("KUBERNETES_SERVICE_HOST").envs(environment.iter().copied()).args(arguments);
    Ok(command.output()?)
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said_in_one_line() -> Result<()> {
    let kubeconfig = kubernetes().await?.kubeconfig().display().to_string();
    let here = ("KUBECONFIG", kubeconfig.as_str());
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let nowhere = ("KUBECONFIG", "/nonexistent/kubeconfig");
    for (arguments, environment, words) in [
        (["--workers", "0"], here, "'0' for '--workers <N>': write 1 or more"),
        (["--max-requests-in-flight", "many"], here, "'many' for '--max-requests-in-flight <N>': write a whole number"),
        (["--request-timeout", "5"], here, "write a number and a unit, such as 500ms, 30s or 1m"),
        (["--log-format", "xml"], here, "invalid value 'xml' for '--log-format <FORMAT>'"),
        (["--log-level", "info,=,x=y=z"], here, "write error, warn, info, debug or trace"),
        (["--listen", "everywhere"], here, "invalid value 'everywhere' for '--listen <ADDRESS>'"),
        (["--no-such-flag", "x"], here, "unexpected argument '--no-such-flag' found"),
        (["--listen", &address], here, "failed to listen on"),
        (["--listen", "127.0.0.1:0"], nowhere, "failed to find a cluster"),
    ] {
        let output = run(&arguments, &[environment])?;
        let said = String::from_utf8(output.stderr)?;
        assert!(!output.status.success(), "{arguments:?}: {said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
    Ok(())
}

/// It may have started before the API server: it waits, and says that it is not ready.
#[tokio::test]
async fn without_a_cluster_it_is_alive_and_not_ready() -> Result<()> {
    let kubernetes = kubernetes().await?;
    // Nobody listens there once the listener is dropped.
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let kubeconfig =
        fs::read_to_string(kubernetes.kubeconfig())?.replace(kubernetes.server(), &format!("https://{dead}"));
    let file = kubernetes.folder().join("dead.kubeconfig");
    fs::write(&file, kubeconfig)?;
    let mut operator = Operator::spawn(kubernetes, &file, &[])?;
    expect("it says that there is none", async || {
        ensure!(operator.is_running()?, "it has ended: {}", operator.tail());
        Ok(operator.tail().contains("the API server does not answer").then_some(()))
    })
    .await;
    let (health, ready) = (operator.get("/healthz").await?, operator.get("/readyz").await?);
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(operator.is_running()?);
    assert_eq!(operator.terminate(Duration::from_secs(10)).await?.code(), Some(0));
    Ok(())
}

/// Each flag of `--help` with the words that explain it.
fn flags() -> Result<Vec<(String, String)>> {
    let help = String::from_utf8(run(&["--help"], &[])?.stdout)?;
    let options = help.split_once("Options:").context("options")?.1;
    let mut flags: Vec<(String, String)> = Vec::new();
    for line in options.lines() {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with('-') && !word.starts_with("--"));
        match words.next() {
            Some(flag) if flag.starts_with("--") => flags.push((flag.to_owned(), line.trim().to_owned())),
            _ => {
                if let Some((_, explained)) = flags.last_mut() {
                    *explained += &format!(" {}", line.trim());
                }
            }
        }
    }
    flags.retain(|(flag, _)| flag != "--help" && flag != "--version");
    ensure!(!flags.is_empty(), "no flags in {help}");
    Ok(flags)
}

#[test]
fn help_tells_every_default() -> Result<()> {
    let flags = flags()?;
    for (flag, explained) in &flags {
        assert!(explained.contains("[default: ") && explained.contains("[env: BATCHJOB_"), "{flag}: {explained}");
    }
    let names: Vec<&str> = flags.iter().map(|(flag, _)| flag.as_str()).collect();
    for name in ["--listen", "--watch-namespace", "--workers", "--max-requests-in-flight", "--request-timeout"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    Ok(())
}

#[test]
fn the_readme_has_every_flag() -> Result<()> {
    let readme = fs::read_to_string(repository("README.md"))?;
    for (flag, _) in flags()? {
        assert!(readme.contains(&format!("`{flag}")), "{flag}");
    }
    Ok(())
}

#[tokio::test]
async fn logs_as_json_are_one_object_a_line() -> Result<()> {
    let stage = Stage::new("json-logs").await?;
    let arguments = ["--watch-namespace", &stage.namespace.name, "--log-format", "json"];
    let operator = Operator::start(kubernetes().await?, &arguments).await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({})).await?;
    stage.until("etl", "it is over", is_finished).await;
    let log = operator.log.clone();
    operator.terminate(Duration::from_secs(10)).await?;
    let lines = fs::read_to_string(log)?;
    let lines = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} is missing in {line}");
        }
    }
    let job = format!("{}/etl", stage.namespace.name);
    let about: Vec<&str> =
        lines.iter().filter(|line| line["job"] == job.as_str()).filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(about, ["SuccessfulCreate", "Completed"]);
    Ok(())
}
