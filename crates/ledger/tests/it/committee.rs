//! Stages of many members, in which a committee folds for all.

use ledger::COMMITTEE_SIZE;
use wire::{Hash, Identity};

use crate::support::{World, canonical, state_after};

/// A run of 20 members whose round 0 is closed: the committee's members and the others.
fn crowd() -> (World, Vec<Identity>, Vec<Identity>) {
    let mut world = World::with(20, |charter| charter.units_per_round = 20);
    world.join_all();
    let foreseen: Vec<bool> = world.peers.iter().map(|peer| world.round().folds(&peer.id())).collect();
    world.commit_all();
    let (drawn, others): (Vec<Identity>, Vec<Identity>) =
        world.peers.iter().cloned().partition(|peer| world.round().is_in_committee(&peer.id()));
    assert_eq!((drawn.len(), others.len()), (COMMITTEE_SIZE, 3));
    let seen: Vec<bool> = world.peers.iter().map(|peer| world.round().is_in_committee(&peer.id())).collect();
    assert_eq!(seen, foreseen, "they are drawn a round ahead");
    (world, drawn, others)
}

#[test]
fn most_of_a_committee_say_where_a_round_starts_from() {
    let (mut world, drawn, others) = crowd();
    let root = state_after(&world.ledger);
    assert!(world.round().has_committee(0));
    let mut votes: Vec<_> = others.iter().map(|peer| world.attest(peer, Hash([9; 32]))).collect();
    votes.extend(drawn[..8].iter().map(|peer| world.attest(peer, root)));
    assert_eq!(world.block(votes).canonical, [], "eight of seventeen are not most, and the others do not vote");
    let vote = world.attest(&drawn[8], root);
    let applied = world.block(vec![vote]);
    assert_eq!(applied.canonical, canonical(1, root));
    assert_eq!(applied.divergent.len(), 3, "who differs is found out");
}

#[test]
fn from_the_deadline_on_all_votes_count_where_a_committee_is_silent() {
    let (mut world, drawn, others) = crowd();
    let root = state_after(&world.ledger);
    let votes = drawn[..8].iter().chain(&others).map(|peer| world.attest(peer, root)).collect();
    assert_eq!(world.block(votes).canonical, [], "eleven of twenty");
    assert_eq!(world.ledger.closes_at_us(), Some(world.round().deadline_us));
    let applied = world.deadline();
    assert_eq!(applied.canonical, canonical(1, root));
    assert!(!world.round().has_committee(0));
}

#[test]
fn a_committee_that_left_is_not_waited_for() {
    let (mut world, drawn, others) = crowd();
    let root = state_after(&world.ledger);
    let leaves = drawn[..9].iter().map(|peer| world.leave(peer)).collect();
    world.block(leaves);
    assert!(!world.round().has_committee(0), "too few are left");
    let votes = drawn[9..].iter().chain(&others).take(6).map(|peer| world.attest(peer, root)).collect();
    assert_eq!(world.block(votes).canonical, canonical(1, root), "six of eleven that stay");
}

#[test]
fn few_members_all_fold() {
    let mut world = World::with(17, |charter| charter.units_per_round = 17);
    world.join_all();
    assert!(world.peers.iter().all(|peer| world.round().folds(&peer.id())));
    world.commit_all();
    assert!(!world.round().has_committee(0));
    assert!(world.peers.iter().all(|peer| !world.round().is_in_committee(&peer.id())));
}
