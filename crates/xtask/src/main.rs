//! `cargo xtask`: set-up, demo, tests, bench, fuzzing, mutations, the check of libraries and the book, so that a fresh machine
//! needs one command for each.
//!
//! It builds with nothing but Rust: it must run before the tools that the daemon's own build needs are there.
//! It drives the programs of the project from outside, as a user would, and depends on none of its crates.

mod bench;
mod book;
mod cargo;
mod clips;
mod demo;
mod deny;
mod fuzz;
mod missing;
mod mutants;
mod python;
mod setup;
#[cfg(test)]
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  setup   check for the Debian packages that build and tests need; as root, install what is missing; fetch test clips
  demo    build, then show a crash that hurts nobody: real jobs, kill -9, retry, quarantine
  test [python [ARGUMENT ...]]
          set up, build everything, run every test; with `python` those of the Python package alone, with arguments for pytest
  wheel   build the wheel of the Python package, with all optimisations, and the source package that says where it does not fit
  bench [--json FILE] [--attack NAME] [SECTION ...]
          build with all optimisations, then measure beside what people use today; of `neighbours` this attack alone
  bench python [--turns N] [--others] [--json FILE] [VERB ...]
          the Python package beside the process pools of Python; python/bench/faults.py prints what faults do to each
  fuzz TARGET [SECONDS]
          run a fuzz target with libFuzzer: frames, lane, ring or config; a minute unless told
  deny    check the libraries by deny.toml, known security faults too, where cargo-deny is installed
  mutants link | core ROOM | --in-diff [OPTION ...]
          change the code in small ways and say which change no test notices, where cargo-mutants is installed
  book    build the manual in docs/ as a web site, where mdbook is installed

exit codes: 0 done; 1 it failed, or found a fault; 2 the command line is wrong; 127 the program that it needs
(cargo-deny, cargo-fuzz, cargo-mutants, mdbook) is not installed, and it has said how to install it
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match arguments.as_slice() {
        [verb, rest @ ..]
            if rest.is_empty() || ["bench", "fuzz", "mutants", "test"].contains(&verb.as_str()) =>
        {
            (verb.as_str(), rest)
        }
        _ => ("", [].as_slice()),
    };
    let result = match verb {
        "setup" => setup::run(setup::Purpose::Tests),
        "demo" => demo::run(),
        "test" => test::run(rest),
        "wheel" => python::wheel(),
        "bench" => bench::run(rest),
        "fuzz" => fuzz::run(rest),
        "deny" => deny::run(),
        "mutants" => mutants::run(rest),
        "book" => book::run(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {verb}: {error:#}");
            missing::exit_code(&error)
        }
    }
}
