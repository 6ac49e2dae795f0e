//! The whole daemon in one thread: the real core, and fakes for everything around it.
//!
//! One seed decides everything: the faults, the requests of clients, the order of all steps. Workers crash, hang, break
//! the protocol and answer late between any two steps of the claim word; after every step the oracles (see
//! [`oracle`]) compare what the core decided with what truly happened. The same seed gives the same trace,
//! so a failing seed is a bug that can be looked at as often as it takes.
//!
//! It must never read a clock, a file or an environment, and never share code with the core: a mistake made
//! twice in the same place would not be seen.

pub mod agenda;
mod arenas;
pub mod boxes;
pub mod client;
pub mod clock;
mod crowds;
mod deep;
pub mod disk;
mod hands;
mod hear;
mod inspect;
mod lending;
mod logs;
mod moves;
mod on_demand;
pub mod oracle;
mod outputs;
mod people;
mod phases;
mod pools;
mod programs;
mod registrations;
pub mod report;
mod requests;
pub mod ring;
pub mod rng;
pub mod runner;
pub mod sabotage;
pub mod scenario;
mod slack;
mod strays;
pub mod task;
pub mod trace;
pub mod truth;
mod violations;
pub mod vitals;
pub mod worker;
pub mod world;

pub use runner::run;

#[cfg(test)]
#[path = "../../../tests/src/shells.rs"]
pub mod shells;
