//! The machine, driven through `step` by a small shell that does as tests say. One file for each part.
//!
//! No test looks inside: what the machine decides shows in its actions, records and replies.

mod ask;
mod blame;
mod clients;
mod drain;
mod files;
mod grants;
mod keep;
mod kinds;
mod limits;
mod logs;
mod part_ends;
mod part_turns;
mod parts;
mod pools;
mod prefetch;
mod progress;
mod quarantine;
mod queue;
mod recycle;
mod restart;
mod rig;
mod shortage;
mod speed;
mod suspend;
mod unwanted;
mod watch;
mod why;
mod why_waiting;
