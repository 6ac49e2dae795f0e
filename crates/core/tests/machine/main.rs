//! Tests of the machine through `Core::step`. A file here has the name of the core's file that it tests, as far as there
//! is one; `rig` and `rig_requests` are the shell and the clients that the tests drive it with.
//!
//! No test looks inside: each reads the actions, records and replies of a turn.

mod alone_turns;
mod arenas;
mod attachments;
mod cancel_waiting;
mod death;
mod deliver;
mod drain;
mod end_order;
mod grant;
mod kept;
mod kept_by_user;
mod kinds;
mod lend;
mod limits;
mod logs;
mod on_demand;
mod one_user;
mod outputs;
mod own_grace;
mod part_ends;
mod part_turns;
mod parts;
mod pauses;
mod pool;
mod prefetch;
mod program_death;
mod program_stop;
mod progress;
mod quarantine;
mod queue;
mod receipts;
mod recycle;
mod recycle_strict;
mod registrations;
mod reserve;
mod restart;
mod rig;
mod rig_requests;
mod shortage;
mod sight;
mod spares;
mod speed;
mod stack_request;
mod stopped;
mod stuck;
mod survivors;
mod task_watch;
mod turns;
mod unbegun;
mod unclosed;
mod waits;
mod why;
mod why_waiting;
