//! The bench: Bulkhead beside what people use today, measured in one run on one machine.
//!
//! Figures are ratios inside the run wherever they can be, since machines differ and are shared; each states the
//! layout it was taken in. A peer that is not installed is said, and its ratios are left out. Nothing is asserted: a
//! figure that misses its aim says so in the table. Run by `cargo xtask bench [--json FILE] [--attack NAME] [SECTION ...]`.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)] // a bench that cannot go on says so by a panic

mod arena;
mod ceiling;
mod chunk;
mod factorial;
mod figures;
mod idle;
mod latency;
mod layout;
mod neighbours;
mod noop;
mod on_demand;
mod payload;
mod peers;
mod queue;
mod recovery;
mod session;
mod transform;

use std::path::PathBuf;

use figures::Figures;

/// A part of the bench.
struct Section {
    name: &'static str,
    what: &'static str,
    run: fn(&mut Figures),
}

const SECTIONS: [Section; 13] = [
    Section { name: "noop", what: "no-op jobs, submitted one by one, results checked", run: noop::run },
    Section { name: "session", what: "no-op jobs that four threads submit, and one", run: session::run },
    Section { name: "latency", what: "one job at a time", run: latency::run },
    Section { name: "recovery", what: "kill -9 in mid-job to the retried job's answer", run: recovery::run },
    Section { name: "queue", what: "a million queued jobs, and a flooding neighbour", run: queue::run },
    Section {
        name: "neighbours",
        what: "a neighbour's ping beside 3000 hostile connections",
        run: neighbours::run,
    },
    Section { name: "payload", what: "64 MiB in, 64 MiB out, checksums of both", run: payload::run },
    Section { name: "on_demand", what: "results whose length nobody knew beforehand", run: on_demand::run },
    Section { name: "arena", what: "results in arenas, and with a descriptor each", run: arena::run },
    Section { name: "chunk", what: "items in chunks of 100, and with a job each", run: chunk::run },
    Section { name: "factorial", what: "8 x 200,000! and 200 x 20,000!", run: factorial::run },
    Section { name: "transform", what: "a 1080p clip, 96 frames", run: transform::run },
    Section { name: "idle", what: "system calls of an idle daemon, and its size", run: idle::run },
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut json, mut wanted, mut figures) = (None, Vec::new(), Figures::default());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "echo" => return layout::echo(),
            "attack" => return neighbours::attacker::attack(&arguments.collect::<Vec<_>>()),
            "bare" => return ceiling::bare(&arguments.collect::<Vec<_>>()),
            "--modules" => peers::look_in(arguments.next().expect("--modules wants a folder")),
            "--attack" => figures.choose(&neighbours::known_attack(arguments.next())),
            "--json" => json = Some(PathBuf::from(arguments.next().expect("--json wants a file"))),
            name => {
                let known = SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>().join(", ");
                assert!(known.split(", ").any(|one| one == name), "no section {name:?}; there are {known}");
                wanted.push(name.to_owned());
            }
        }
    }
    println!("{}", layout::machine());
    for section in &SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|name| name == section.name) {
            figures.section(section.name, section.what);
            (section.run)(&mut figures);
        }
    }
    figures.close(json.as_deref());
}
