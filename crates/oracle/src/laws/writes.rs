//! How much is written about one job?

use jiff::SignedDuration;

use crate::event::Change;
use crate::law::Law;
use crate::object::{Job, News};
use crate::state::{JobState, Moment};

/// What a status may hold at most, in bytes: the whole object has 1.5 MiB, and most of it is the user's.
const MAX_STATUS_BYTES: usize = 700 << 10;
/// Statuses about nothing new, in one minute.
const MAX_IDLE: usize = 10;
/// What is told about a job in an hour, beside what is told about its pods.
const MAX_TOLD: usize = 20;
const MAX_NOTE_BYTES: usize = 1 << 10;

pub(crate) fn see_status(state: &mut JobState, new: &Job, moment: &mut Moment<'_>) {
    state.wrote(moment, "a status was written");
    let place = state.place();
    if new.status_bytes > MAX_STATUS_BYTES {
        moment.broken(Law::I15, place.clone(), format!("its status has {} bytes", new.status_bytes));
    }
    if moment.promises.rivals {
        return;
    }
    let written = &mut state.written;
    written.n_statuses += 1;
    // An edit may be answered, and taken back, and answered again.
    let most = 4 + 3 * written.n_pods + 2 * written.n_retries + 4 * written.n_edits + moment.promises.spare_statuses;
    if written.n_statuses == most + 1 {
        let words = format!("the {}th status, with {} pods and {} edits", most + 1, written.n_pods, written.n_edits);
        moment.broken(Law::I14, place.clone(), words);
    }
    if written.n_idle == 0 || written.idle_since.is_none() {
        written.idle_since = Some(moment.at);
    }
    written.n_idle += 1;
    let is_fast =
        written.idle_since.is_some_and(|since| moment.at.duration_since(since) < SignedDuration::from_mins(1));
    if written.n_idle > MAX_IDLE {
        if is_fast {
            moment.broken(
                Law::I14,
                place,
                format!("{} statuses in a minute in which nothing happened", written.n_idle),
            );
        }
        written.n_idle = 0;
    }
}

pub(crate) fn see_news(state: &mut JobState, change: Change, news: &News, moment: &mut Moment<'_>) {
    if change == Change::Deleted {
        return;
    }
    let place = state.place();
    if news.note_bytes > MAX_NOTE_BYTES {
        moment.broken(Law::I16, place.clone(), format!("an event {} of {} bytes", news.reason, news.note_bytes));
    }
    let written = &mut state.written;
    let is_same_hour = |since| moment.at.duration_since(since) < SignedDuration::from_hours(1);
    if !written.told_since.is_some_and(is_same_hour) {
        (written.told_since, written.n_told) = (Some(moment.at), 0);
    }
    // Added or counted up: either is a write.
    written.n_told += 1;
    let most = MAX_TOLD + 3 * written.n_pods;
    if written.n_told == most + 1 {
        moment.broken(Law::I16, place, format!("{} events within an hour, with {} pods", most + 1, written.n_pods));
    }
}
