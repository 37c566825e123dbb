//! Some runs in every test of the workspace: a fixed corpus, fresh seeds, and the mutants.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use coco_sim::{Mutant, play};

/// Seeds that failed once, each for another reason.
const CORPUS: &str = include_str!("corpus.txt");

#[test]
fn seeds_that_failed_once_pass() {
    let seeds = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let seed = line.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(play(seed, None).violation, None, "coco-sim --seed {seed}");
    }
}

/// Seeds that no other version of the crate has played, so that a change is not tried on the same
/// ones for ever. In four parts, which the test runner plays side by side.
fn play_fresh_seeds(part: u64) {
    let sources = [
        include_str!("../src/world/mod.rs"),
        include_str!("../src/world/faults.rs"),
        include_str!("../src/node/mod.rs"),
        include_str!("../src/node/effects.rs"),
        include_str!("../../consensus/src/raft/mod.rs"),
        include_str!("../../consensus/src/raft/turn.rs"),
        include_str!("../../consensus/src/raft/receive.rs"),
    ];
    let first = sources.concat().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    for seed in (part * 250..(part + 1) * 250).map(|more| first.wrapping_add(more)) {
        assert_eq!(play(seed, None).violation, None, "coco-sim --seed {seed}");
    }
}

#[test]
fn fresh_seeds_pass_first_part() {
    play_fresh_seeds(0);
}

#[test]
fn fresh_seeds_pass_second_part() {
    play_fresh_seeds(1);
}

#[test]
fn fresh_seeds_pass_third_part() {
    play_fresh_seeds(2);
}

#[test]
fn fresh_seeds_pass_fourth_part() {
    play_fresh_seeds(3);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..5 {
        let (one, other) = (play(seed, None), play(seed, None));
        assert_eq!(format!("{one}"), format!("{other}"));
    }
}

/// Each within as many runs as the book says.
#[test]
fn every_mutant_is_caught() {
    let escapes = |mutant: &Mutant| {
        mutant.caught_within().all(|seed| play(seed, Some(*mutant)).violation.is_none())
    };
    let escaped: Vec<_> = Mutant::ALL.into_iter().filter(escapes).collect();
    assert_eq!(escaped, []);
}
