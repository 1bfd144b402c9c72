//! The life of a round.

use crate::support::{ROUND_US, World, canonical, state_after};
use ledger::{MISSED_ROUNDS_MAX, Rejection, Standing, assignment};
use wire::{Hash, PeerId};

#[test]
fn round_zero_opens_when_enough_have_joined() {
    let mut world = World::new();
    for peer in 0..3 {
        let join = world.join(&world.peers[peer]);
        assert_eq!(world.block(vec![join]).opened, None);
        assert_eq!(world.ledger.account(&world.id(peer)).unwrap().standing, Standing::Joining);
    }
    assert_eq!(world.ledger.round().map(|round| round.round), None);
    let join = world.join(&world.peers[3]);
    let applied = world.block(vec![join]);
    assert_eq!((applied.opened, applied.canonical), (Some(0), canonical(0, Hash::of(b"genesis"))));
    let members: Vec<PeerId> = world.peers.iter().map(|peer| peer.id()).collect();
    assert_eq!(*world.round().members, *members);
    assert_eq!(world.round().deadline_us, world.time_us + ROUND_US);
    assert_eq!(world.round().assignment(), assignment(&members, world.round().beacon, 8));
}

#[test]
fn a_run_of_three_rounds_ends_with_the_last_attestation() {
    let mut world = World::started();
    for round in 0..3 {
        let applied = world.commit_all();
        assert_eq!(applied.closed.as_ref().map(|set| set.round), Some(round));
        assert_eq!(applied.opened, Some(round + 1));
        assert_eq!(world.ledger.committed(round).unwrap().entries.len(), 4);
        assert_eq!(world.ledger.supply(), 1003 * (round + 1));
        let root = state_after(&world.ledger);
        for peer in 0..2 {
            let attestation = world.attest(&world.peers[peer], root);
            let applied = world.block(vec![attestation]);
            assert_eq!((applied.canonical, applied.finished), (vec![], false), "two of four are no majority");
        }
        let attestation = world.attest(&world.peers[2], root);
        let applied = world.block(vec![attestation]);
        assert_eq!(applied.canonical, canonical(round + 1, root));
        assert_eq!(applied.finished, round == 2);
    }
    assert!(world.ledger.finished());
    assert_eq!(world.ledger.accounts().iter().map(|account| account.shares).sum::<u64>(), world.ledger.supply());
    assert_eq!(world.ledger.totals().receipts, 24);
    assert_eq!(world.ledger.totals().tokens, 2400);
    let late = world.attest(&world.peers[3], Hash::of(b"another"));
    assert_eq!(world.block(vec![late]).divergent, vec![world.id(3)]);
    assert_eq!(world.ledger.check(&world.leave(&world.peers[0])), Err(Rejection::Finished));
}

#[test]
fn what_the_division_leaves_goes_to_the_lowest_unit() {
    let mut world = World::started();
    let first = world.round().assignment()[0];
    world.commit_all();
    for account in world.ledger.accounts() {
        // 1003 shares over 8 units: 125 each, 3 left.
        assert_eq!(account.shares, if account.peer == first { 253 } else { 250 });
    }
}

#[test]
fn a_quorum_closes_the_round_only_from_the_deadline_on() {
    let mut world = World::started();
    let commits = world.peers[..3].iter().map(|peer| world.commit(peer)).collect();
    assert_eq!(world.block(commits).closed, None);
    let deadline = world.round().deadline_us;
    assert_eq!(world.ledger.closes_at_us(), Some(deadline));
    assert_eq!(world.ledger.propose(&world.validator, deadline - 1, Vec::new()), None);
    let block = world.ledger.propose(&world.validator, deadline, Vec::new()).unwrap();
    let applied = world.apply(block);
    assert_eq!(applied.closed.unwrap().entries.len(), 3);
    assert_eq!(world.ledger.account(&world.id(3)).unwrap().missed, 1);
}

#[test]
fn below_the_quorum_the_deadline_changes_nothing() {
    let mut world = World::started();
    let commits = world.peers[..2].iter().map(|peer| world.commit(peer)).collect();
    world.block(commits);
    assert_eq!(world.ledger.closes_at_us(), None);
    assert_eq!(world.ledger.propose(&world.validator, u64::MAX, Vec::new()), None);
    world.time_us = world.round().deadline_us + 1;
    let third = world.commit(&world.peers[2]);
    assert!(world.block(vec![third]).closed.is_some());
}

#[test]
fn a_member_that_misses_three_rounds_is_dropped_and_may_join_again() {
    let mut world = World::with(4, |charter| charter.rounds = 10);
    world.join_all();
    for missed in 1..=MISSED_ROUNDS_MAX {
        let commits = world.peers[..3].iter().map(|peer| world.commit(peer)).collect();
        world.time_us = world.round().deadline_us;
        let applied = world.block(commits);
        assert_eq!(applied.dropped.len(), usize::from(missed == MISSED_ROUNDS_MAX));
        let root = state_after(&world.ledger);
        let attestations = world.peers[..3].iter().map(|peer| world.attest(peer, root)).collect();
        world.block(attestations);
    }
    assert_eq!(world.round().members.len(), 3);
    assert_eq!(world.ledger.account(&world.id(3)).unwrap().standing, Standing::Out);
    let join = world.join(&world.peers[3]);
    world.block(vec![join]);
    let commits = world.peers[..3].iter().map(|peer| world.commit(peer)).collect();
    world.block(commits);
    assert_eq!(world.round().members.len(), 4);
    assert_eq!(world.ledger.account(&world.id(3)).unwrap().missed, 0);
    assert!(!world.round().is_voter(&world.id(3)), "it learns the state from the others");
}

#[test]
fn divergent_attestations_are_recorded_whenever_they_come() {
    let mut world = World::started();
    world.commit_all();
    let (root, other) = (state_after(&world.ledger), Hash::of(b"other"));
    let early = world.attest(&world.peers[0], other);
    assert_eq!(world.block(vec![early]).divergent, vec![]);
    let majority = world.peers[1..].iter().map(|peer| world.attest(peer, root)).collect();
    let applied = world.block(majority);
    assert_eq!((applied.canonical, applied.divergent), (canonical(1, root), vec![world.id(0)]));
    assert_eq!(world.round().divergent().collect::<Vec<_>>(), vec![(world.id(0), other)]);
    assert_eq!(world.ledger.account(&world.id(0)).unwrap().divergences, 1);
    let again = world.attest(&world.peers[0], root);
    assert_eq!(world.ledger.check(&again), Err(Rejection::AlreadyAttested { round: 1 }));
}

#[test]
fn a_tie_of_attestations_is_no_majority() {
    let mut world = World::started();
    world.commit_all();
    let (one, two) = (Hash::of(b"one"), Hash::of(b"two"));
    let votes = [(0, one), (1, one), (2, two), (3, two)];
    let votes = votes.map(|(peer, root)| world.attest(&world.peers[peer], root)).to_vec();
    assert_eq!(world.block(votes).canonical, vec![]);
    assert_eq!(world.ledger.state_root(0, 1), None);
    assert_eq!(world.ledger.newest_state(0), Some((0, Hash::of(b"genesis"))));
    let commit = world.commit(&world.peers[0]);
    assert_eq!(world.ledger.check(&commit), Err(Rejection::StateUnknown { round: 1 }));
}
