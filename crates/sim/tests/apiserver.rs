//! What random requests to the real API server and to this one cannot compare: the past that is forgotten, bookmarks, and
//! who listens. The rest is asked by `tests/api/in_memory.rs`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchjob_sim::apiserver::{Answer, ApiServer, Change, Cursor, Kind, Refusal, Told};
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

fn server() -> ApiServer {
    ApiServer::new(Arc::new(|| Timestamp::UNIX_EPOCH), 7)
}

fn send(server: &ApiServer, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request =
        Request::builder().method(method).uri(path).header("x-caller", "a test").body(body).expect("a request");
    match server.serve(&request) {
        Answer::Done { code, body } => (code, serde_json::from_slice(&body).expect("JSON")),
        Answer::Watch(_) => panic!("{path}: a watch"),
    }
}

fn get(server: &ApiServer, path: &str) -> (u16, Value) {
    send(server, "GET", path, &Value::Null)
}

fn create(server: &ApiServer, name: &str) -> Value {
    let lease = json!({ "metadata": { "name": name } });
    let (code, lease) = send(server, "POST", LEASES, &lease);
    assert_eq!(code, 201, "{lease}");
    lease
}

fn delete(server: &ApiServer, name: &str) {
    let (code, answer) = send(server, "DELETE", &format!("{LEASES}/{name}"), &Value::Null);
    assert_eq!(code, 200, "{answer}");
}

fn watch(server: &ApiServer, query: &str) -> Cursor {
    let path = format!("{LEASES}?watch=1{query}");
    match server.serve(&Request::get(path).body(Bytes::new()).expect("a request")) {
        Answer::Watch(cursor) => cursor,
        Answer::Done { body, .. } => panic!("no watch: {body:?}"),
    }
}

/// The names that a watch tells until it has no more, each with what has happened to it.
fn told(cursor: &mut Cursor) -> Vec<String> {
    std::iter::from_fn(|| cursor.try_next())
        .map(|event| {
            let event: Value = serde_json::from_slice(&event.line).expect("JSON");
            format!(
                "{} {}",
                event["type"].as_str().unwrap_or("?"),
                event["object"]["metadata"]["name"].as_str().unwrap_or("?")
            )
        })
        .collect()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[test]
fn a_watch_from_what_is_forgotten_is_refused() {
    let server = server();
    let first = create(&server, "a");
    create(&server, "b");
    server.compact(server.revision());
    let version = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let (code, status) = get(&server, &format!("{LEASES}?watch=1&resourceVersion={version}"));
    assert_eq!((code, status["reason"].as_str()), (410, Some("Expired")), "{status}");
    assert_eq!(status["message"], "too old resource version: 2 (3)");
    let mut from_now = watch(&server, "&resourceVersion=3");
    create(&server, "c");
    assert_eq!(told(&mut from_now), ["ADDED c"]);
}

#[test]
fn a_watch_that_is_behind_what_is_forgotten_ends() {
    let server = server();
    let (mut behind, mut ahead) = (watch(&server, "&resourceVersion=1"), watch(&server, "&resourceVersion=1"));
    create(&server, "a");
    assert_eq!(told(&mut ahead), ["ADDED a"]);
    server.compact(server.revision());
    create(&server, "b");
    let last = behind.try_next().expect("an event");
    assert_eq!(last.told, Told::Expired);
    let line: Value = serde_json::from_slice(&last.line).expect("JSON");
    assert_eq!((&line["type"], &line["object"]["code"]), (&json!("ERROR"), &json!(410)));
    create(&server, "c");
    assert!(behind.try_next().is_none(), "it has ended");
    assert_eq!(told(&mut ahead), ["ADDED b", "ADDED c"]);
}

#[test]
fn a_watch_from_no_version_begins_with_what_there_is() {
    let server = server();
    create(&server, "b");
    create(&server, "a");
    let mut cursor = watch(&server, "");
    delete(&server, "a");
    assert_eq!(told(&mut cursor), ["ADDED a", "ADDED b", "DELETED a"]);
}

#[test]
fn a_bookmark_names_the_version_up_to_which_all_is_told() {
    let server = server();
    let mut cursor = watch(&server, "&resourceVersion=1");
    create(&server, "a");
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } });
    let (code, answer) = send(&server, "POST", "/api/v1/namespaces/default/pods", &pod);
    assert_eq!(code, 201, "{answer}");
    assert_eq!(cursor.bookmark().revision, 1, "nothing is told yet");
    assert_eq!(told(&mut cursor), ["ADDED a"]);
    let bookmark = cursor.bookmark();
    assert_eq!(
        (bookmark.told, bookmark.revision),
        (Told::Bookmark, server.revision()),
        "the pod is none of its business"
    );
    let line: Value = serde_json::from_slice(&bookmark.line).expect("JSON");
    assert_eq!(line["object"]["metadata"]["resourceVersion"], server.revision().to_string());
    create(&server, "b");
    assert_eq!(told(&mut watch(&server, &format!("&resourceVersion={}", bookmark.revision))), ["ADDED b"]);
}

#[test]
fn the_pages_of_a_list_are_all_of_one_time() {
    let server = server();
    for name in ["a", "b", "c", "d"] {
        create(&server, name);
    }
    let (_, first) = get(&server, &format!("{LEASES}?limit=2"));
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(2)));
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    delete(&server, "c");
    create(&server, "bb");
    create(&server, "e");
    let (_, second) = get(&server, &format!("{LEASES}?limit=2&continue={token}"));
    assert_eq!(names(&second), ["c", "d"], "as it was");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());

    server.compact(server.revision());
    let (code, status) = get(&server, &format!("{LEASES}?limit=2&continue={token}"));
    assert_eq!((code, status["reason"].as_str()), (410, Some("Expired")), "{status}");
    let (_, now) = get(&server, LEASES);
    assert_eq!(names(&now), ["a", "b", "bb", "d", "e"]);
}

#[test]
fn a_deletion_is_told_with_the_version_of_the_deletion() {
    let server = server();
    create(&server, "a");
    delete(&server, "a");
    let mut cursor = watch(&server, "&resourceVersion=2");
    let event = cursor.try_next().expect("an event");
    let line: Value = serde_json::from_slice(&event.line).expect("JSON");
    assert_eq!((event.revision, &line["object"]["metadata"]["resourceVersion"]), (3, &json!("3")));
}

#[test]
fn a_tap_hears_of_every_change_in_order_and_from_whom() {
    let server = server();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tap = heard.clone();
    server.on_write(Box::new(move |written| {
        let name = written.object["metadata"]["name"].as_str().unwrap_or("?").to_owned();
        tap.lock().expect("no panic").push((written.revision, written.change, name, written.who.to_owned()));
    }));
    create(&server, "a");
    let (code, _) = get(&server, &format!("{LEASES}/a"));
    assert_eq!(code, 200);
    delete(&server, "a");
    let who = "a test".to_owned();
    let wanted = vec![(2, Change::Added, "a".to_owned(), who.clone()), (3, Change::Deleted, "a".to_owned(), who)];
    assert_eq!(*heard.lock().expect("no panic"), wanted);
}

#[test]
fn admission_refuses_a_create_before_anything_is_written() {
    let server = server();
    server.set_admission(Some(Box::new(|kind, object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Err(Refusal::quota_exceeded(kind, name, "the quota"))
    })));
    let (code, status) = send(&server, "POST", LEASES, &json!({ "metadata": { "name": "a" } }));
    assert_eq!((code, status["reason"].as_str()), (403, Some("Forbidden")), "{status}");
    assert_eq!(server.revision(), 1);
    server.set_admission(None);
    create(&server, "a");
    assert!(server.with_object(Kind::Lease, "default", "a", |_| ()).is_some());
}

#[test]
fn the_same_requests_get_the_same_answers() {
    let play = || {
        let server = server();
        let answers = ["a", "b"].map(|name| create(&server, name).to_string());
        delete(&server, "a");
        (answers, get(&server, LEASES).1.to_string())
    };
    assert_eq!(play(), play());
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_client_ends_with_a_bookmark_after_its_time() {
    let server = server();
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    let watch = leases.watch(&WatchParams::default().timeout(20), "1").await.expect("a watch");
    futures::pin_mut!(watch);
    create(&server, "a");
    let began = tokio::time::Instant::now();
    let Some(Ok(WatchEvent::Added(lease))) = watch.next().await else { panic!("a lease") };
    assert_eq!((lease.metadata.name.as_deref(), began.elapsed()), (Some("a"), Duration::ZERO));
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = watch.next().await else { panic!("a bookmark") };
    assert_eq!((&*bookmark.metadata.resource_version, began.elapsed()), ("2", Duration::from_secs(20)));
    assert!(watch.next().await.is_none());
}
