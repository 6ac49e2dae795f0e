//! The fuzz targets without libFuzzer: every seed, then mutations of them, the same in every run.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs;
use std::path::PathBuf;

use bulkhead_tests::fuzz::{Mutator, TARGETS, Target, seeds};
use bulkhead_tests::tidy::root;

/// Mutations of each target; the pages of `ring` cost more than the rest.
const ROUNDS: usize = 10_000;

fn folder(target: &str) -> PathBuf {
    root().join("tests/corpus").join(target)
}

/// The corpus as it is checked in, in the order of the names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run((name, target): Target) {
    let corpus = corpus(name);
    assert!(corpus.len() >= seeds(name).len(), "the corpus of {name} is not there");
    corpus.iter().for_each(|input| target(input));
    let mut mutator = Mutator::new(0xb01d);
    for _ in 0..ROUNDS {
        let mut input = corpus[mutator.below(corpus.len())].clone();
        let other = mutator.below(corpus.len());
        mutator.mutate(&mut input, &corpus[other]);
        // Should it fail, this is what made it: put it into the corpus.
        let shown = Shown(name, &input);
        target(&input);
        std::mem::forget(shown);
    }
}

/// Prints an input that made a target panic.
struct Shown<'a>(&'static str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        println!("target {} failed on {:?}", self.0, self.1);
    }
}

#[test]
fn frames() {
    run(TARGETS[0]);
}

#[test]
fn lane() {
    run(TARGETS[1]);
}

#[test]
fn ring() {
    run(TARGETS[2]);
}

#[test]
fn config() {
    run(TARGETS[3]);
}

#[test]
fn every_target_has_its_program() {
    let project = root().join("tests/fuzz");
    let manifest: toml::Table = fs::read_to_string(project.join("Cargo.toml")).unwrap().parse().unwrap();
    let programs: Vec<&str> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    assert_eq!(programs, TARGETS.map(|(name, _)| name));
    for name in programs {
        let text = fs::read_to_string(project.join("targets").join(format!("{name}.rs"))).unwrap();
        assert!(text.contains(&format!("fuzz::{name}(data)")), "{name} runs another target");
    }
}

#[test]
#[ignore = "writes the seeds of the corpus anew: only after they were changed"]
fn write_the_seeds() {
    for (name, _) in TARGETS {
        fs::create_dir_all(folder(name)).unwrap();
        for (number, seed) in seeds(name).into_iter().enumerate() {
            fs::write(folder(name).join(format!("seed-{number:02}")), seed).unwrap();
        }
    }
}
