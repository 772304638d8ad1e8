//! Is the API server in memory (`crates/sim/src/apiserver`) an honest one? Random sequences of the requests that an
//! operator, a kubelet, a scheduler, a user and a garbage collector send are sent to it and to the real one, byte for byte
//! the same but for uids and versions, and both are to answer and to tell their watchers the same.
//!
//! `BATCHJOB_SEQUENCES=5000` plays more of them, `BATCHJOB_SEED=7` plays one and prints it. So do `BATCHJOB_FAMILIES=500` and
//! `BATCHJOB_FAMILY=7` with the garbage collector.

mod garbage;
mod play;
mod seen;
mod sequence;
mod side;

use std::env;
use std::ops::Range;

use anyhow::{Context, Result};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Namespace, serve_batch_jobs};
use futures::StreamExt as _;
use tokio::sync::OnceCell;

use crate::stage;

use play::{Played, play};
use sequence::Kind;

const SEQUENCES: u64 = 200;
const FAMILIES: u64 = 20;
/// How many are played at a time: the real one is what takes the time.
const AT_A_TIME: usize = 8;
/// So many differences are enough to read.
const MAX_SHOWN: usize = 3;

/// A cluster without controllers: what happens in it is what the sequence says.
async fn kubernetes() -> Result<&'static Kubernetes> {
    static SHARED: OnceCell<Kubernetes> = OnceCell::const_new();
    SHARED.get_or_try_init(start).await
}

async fn start() -> Result<Kubernetes> {
    let options = Options {
        controllers: false,
        // Nobody makes the accounts.
        api_server_flags: vec!["--disable-admission-plugins=ServiceAccount".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    // A watch from a version is refused if that is older than the API server's own watch: it begins now, for each kind.
    let client = kubernetes.client().await?;
    for kind in Kind::ALL {
        let watch = http::Request::get(format!("{}?watch=1&timeoutSeconds=1", kind.path("default")));
        client.request_text(watch.body(Vec::new())?).await?;
    }
    Ok(kubernetes)
}

fn variable(name: &str) -> Result<Option<u64>> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name}={text}: write a whole number"))?))
}

/// The one that is asked for, or so many.
fn seeds(one: &str, number: &str, default: u64) -> Result<Range<u64>> {
    Ok(match variable(one)? {
        Some(seed) => seed..seed + 1,
        None => 0..variable(number)?.unwrap_or(default),
    })
}

#[tokio::test]
async fn the_api_server_in_memory_answers_as_the_real_one() -> Result<()> {
    let seeds = seeds("BATCHJOB_SEED", "BATCHJOB_SEQUENCES", SEQUENCES)?;
    let is_single = seeds.end - seeds.start == 1;
    let client = kubernetes().await?.client().await?;
    let mut played: Vec<Played> = Vec::new();
    let mut all = futures::stream::iter(seeds.map(|seed| play(client.clone(), seed))).buffer_unordered(AT_A_TIME);
    while let Some(one) = all.next().await {
        let one = one?;
        if is_single {
            println!("{}", one.told);
        }
        played.push(one);
    }
    let n_requests: usize = played.iter().map(|one| one.n_requests).sum();
    let n_events: usize = played.iter().map(|one| one.n_events).sum();
    let n_refused: usize = played.iter().map(|one| one.n_refused).sum();
    println!("{} sequences, {n_requests} requests ({n_refused} refused), {n_events} watch events", played.len());
    let different: Vec<&Played> = played.iter().filter(|one| one.difference.is_some()).collect();
    let shown: Vec<String> = different.iter().take(MAX_SHOWN).map(|one| one.explain()).collect();
    assert!(different.is_empty(), "{} of {} differ:\n\n{}", different.len(), played.len(), shown.join("\n\n"));
    Ok(())
}

#[tokio::test]
async fn the_garbage_collector_in_memory_leaves_what_the_real_one_leaves() -> Result<()> {
    let seeds = seeds("BATCHJOB_FAMILY", "BATCHJOB_FAMILIES", FAMILIES)?;
    let namespace = Namespace::new(stage::kubernetes().await?, "garbage").await?;
    let play = |seed| garbage::play(namespace.client.clone(), &namespace.name, seed);
    let mut all = futures::stream::iter(seeds.map(play)).buffer_unordered(AT_A_TIME);
    let (mut n_families, mut different) = (0, Vec::new());
    while let Some(difference) = all.next().await {
        n_families += 1;
        different.extend(difference?);
    }
    drop(all);
    println!("{n_families} families of objects");
    different.truncate(MAX_SHOWN);
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    namespace.delete().await
}
