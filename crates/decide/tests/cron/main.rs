//! BatchCronJobs, from their creation on: what is started when, and what is said about the rest.

mod backfill;
mod changes;
mod history;
mod missed;
mod random;
mod room;
mod slots;
mod trouble;
mod upstream;
mod world;
