//! Pauses of a peer, and their ends.

use ledger::Standing;
use swarm::{Activity, Input, Job, Output};
use wire::Action;

use crate::world::{ROUND_US, World, identity, submits};

fn standing(world: &World, of: usize) -> Standing {
    world.peer(0).ledger().account(&identity(of).id()).map_or(Standing::Out, |account| account.standing)
}

fn receipts(world: &World, of: usize) -> u64 {
    world.peer(0).ledger().account(&identity(of).id()).map_or(0, |account| account.receipts)
}

fn computes(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Compute { .. }))
}

/// The run is complete, everybody holds the same state, nothing went wrong, and every share was paid.
fn check_complete(world: &World, rounds: u64) {
    let last = world.peer(0).model();
    assert_eq!(last.map(|model| model.round), Some(rounds));
    for place in 0..world.peers.len() {
        assert_eq!(world.peer(place).model(), last, "peer {place}");
        assert_eq!((world.faults(place), world.halts(place)), (vec![], vec![]));
    }
    let ledger = world.peer(0).ledger();
    assert_eq!(ledger.supply(), 1_000 * rounds);
    assert_eq!(ledger.accounts().iter().map(|account| account.shares).sum::<u64>(), ledger.supply());
}

#[test]
fn a_paused_peer_leaves_follows_and_joins_again() {
    let mut world = World::new(3, 40);
    world.busy = [2].into();
    world.run("peer 2 trains", |world| world.jobs.contains_key(&2));
    let out = world.give(2, Input::Pause);
    assert!(out.iter().any(|output| matches!(output, Output::Cancel(_))), "its work is given up at once");
    assert!(submits(&out).iter().any(|transaction| matches!(transaction.body.action, Action::Leave { .. })));
    assert_eq!(world.peer(2).activity(), Activity::Paused);
    assert_eq!(world.give(2, Input::Pause), [], "again is the same as once");
    world.busy.clear();
    world.run("it is out", |world| standing(world, 2) == Standing::Out);
    assert!(world.now.as_micros() < ROUND_US, "nobody waited for it");
    let (mark, model) = (world.log[2].len(), world.peer(2).model());
    world.run("ten rounds without it", |world| world.round(0) >= Some(12));
    world.run("it follows", |world| world.peer(2).ledger().height() == world.peer(0).ledger().height());
    let meanwhile = &world.log[2][mark..];
    assert!(!computes(meanwhile) && !meanwhile.iter().any(|output| matches!(output, Output::Fetch { .. })));
    assert_eq!(world.peer(2).model(), model);
    let before = receipts(&world, 2);
    world.give(2, Input::Resume);
    world.run("the run ends", World::all_finished);
    assert!(receipts(&world, 2) > before + 10, "it took part again");
    check_complete(&world, 40);
}

#[test]
fn a_pause_before_the_start_and_one_that_ends_at_once_lose_nothing() {
    let mut world = World::new(3, 4);
    // Its join may be on its way already: then it is followed by a leave.
    world.run("peer 2 has its state", |world| world.peer(2).model().is_some());
    world.give(2, Input::Pause);
    world.run_for(2 * ROUND_US);
    assert_eq!((world.round(0), standing(&world, 2)), (None, Standing::Out), "three have to be there");
    world.give(2, Input::Resume);
    world.run("the run starts", |world| world.round(0).is_some());
    world.give(1, Input::Pause);
    world.give(1, Input::Resume);
    world.run("the run ends", World::all_finished);
    assert!(world.now.as_micros() < 4 * ROUND_US, "no round had to wait for its deadline");
    check_complete(&world, 4);
}

#[test]
fn a_paused_validator_orders() {
    let mut world = World::new(3, 12);
    world.run("a round", |world| world.round(0) == Some(1));
    world.give(0, Input::Pause);
    world.run("it is out", |world| standing(world, 0) == Standing::Out);
    let mark = world.log[0].len();
    world.run("five rounds", |world| world.round(0) >= Some(7));
    let works =
        |output: &Output| matches!(output, Output::Compute { work: Job::Work { .. } | Job::OuterStep { .. }, .. });
    assert!(!world.log[0][mark..].iter().any(works));
    world.give(0, Input::Resume);
    world.run("the run ends", World::all_finished);
    check_complete(&world, 12);
}

#[test]
fn a_run_of_which_all_pause_goes_on_when_they_resume() {
    let mut world = World::new(3, 8);
    world.run("a round", |world| world.round(0) == Some(2));
    for place in 0..3 {
        world.give(place, Input::Pause);
    }
    world.run_for(10 * ROUND_US);
    let (round, height) = (world.round(0), world.peer(0).ledger().height());
    world.run_for(10 * ROUND_US);
    assert_eq!((world.round(0), world.peer(0).ledger().height()), (round, height), "nothing happens");
    for place in [2, 0, 1] {
        world.give(place, Input::Resume);
    }
    world.run("the run ends", World::all_finished);
    check_complete(&world, 8);
}

#[test]
fn a_run_that_ends_during_a_pause_is_caught_up_with() {
    let mut world = World::new(3, 6);
    world.run("a round", |world| world.round(0) == Some(2));
    world.give(1, Input::Pause);
    world.run("the others finish", |world| [0, 2].iter().all(|place| world.peer(*place).is_finished()));
    assert_eq!(world.peer(1).activity(), Activity::Paused);
    world.give(1, Input::Resume);
    world.run("it has the last state", World::all_finished);
    check_complete(&world, 6);
}

/// Pauses and their ends at moments that a seed draws, at any step of the protocol.
#[test]
fn pauses_at_any_moment_lose_nothing() {
    for seed in 1..=60_u64 {
        let mut world = World::new(4, 12);
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) % bound
        };
        for _ in 0..20 {
            let place = usize::try_from(below(4)).unwrap();
            world.give(place, if below(2) == 0 { Input::Pause } else { Input::Resume });
            world.run_for(below(3_000));
        }
        for place in 0..4 {
            world.give(place, Input::Resume);
        }
        world.run(&format!("the run of seed {seed} ends"), World::all_finished);
        check_complete(&world, 12);
    }
}
