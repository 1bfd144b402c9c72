//! Joining, leaving, and rounds whose members go.

use ledger::{Ledger, RoundOpen, Standing, UNITS_PER_MEMBER_MAX, assignment};
use wire::{Hash, PeerId};

use crate::support::{World, canonical, state_after};

fn members(ledger: &Ledger) -> Vec<PeerId> {
    ledger.round().map_or_else(Vec::new, |round| round.members.to_vec())
}

#[test]
fn joins_and_leaves_take_effect_with_the_next_round() {
    let mut world = World::with(5, |charter| charter.rounds = 9);
    let joins = world.peers[..4].iter().map(|peer| world.join(peer)).collect();
    world.block(joins);
    let changes = vec![world.join(&world.peers[4]), world.leave(&world.peers[0])];
    world.block(changes);
    assert_eq!(members(&world.ledger).len(), 4);
    assert_eq!(world.ledger.account(&world.id(0)).unwrap().standing, Standing::Leaving);
    let commits = world.peers[1..4].iter().map(|peer| world.commit(peer)).collect();
    assert!(world.block(commits).closed.is_some(), "a member that leaves is not waited for");
    assert_eq!(members(&world.ledger), [1, 2, 3, 4].map(|peer| world.id(peer)));
    assert_eq!(world.ledger.account(&world.id(0)).unwrap().standing, Standing::Out);
}

#[test]
fn a_leaving_member_may_still_commit_and_may_change_its_mind() {
    let mut world = World::started();
    let leave = world.leave(&world.peers[0]);
    world.block(vec![leave]);
    let commit = world.commit(&world.peers[0]);
    world.block(vec![commit]);
    let stay = world.join(&world.peers[0]);
    world.block(vec![stay]);
    let rest = world.peers[1..].iter().map(|peer| world.commit(peer)).collect();
    assert_eq!(world.block(rest).closed.unwrap().entries.len(), 4);
    assert_eq!(members(&world.ledger).len(), 4);
}

#[test]
fn newcomers_do_not_count_in_the_first_majority() {
    let mut world = World::with(6, |charter| {
        charter.start_members = 2;
        charter.quorum = 2;
    });
    let joins = world.peers[..2].iter().map(|peer| world.join(peer)).collect();
    world.block(joins);
    let more = world.peers[2..].iter().map(|peer| world.join(peer)).collect();
    world.block(more);
    let commits = world.peers[..2].iter().map(|peer| world.commit(peer)).collect();
    world.block(commits);
    assert_eq!(members(&world.ledger).len(), 6);
    let lies = world.peers[2..].iter().map(|peer| world.attest(peer, Hash::of(b"lie"))).collect();
    assert_eq!(world.block(lies).canonical, vec![]);
    let root = state_after(&world.ledger);
    let honest = world.peers[..2].iter().map(|peer| world.attest(peer, root)).collect();
    let applied = world.block(honest);
    assert_eq!((applied.canonical, applied.divergent.len()), (canonical(1, root), 4));
}

#[test]
fn a_leave_can_complete_a_majority() {
    let mut world = World::started();
    world.commit_all();
    let root = state_after(&world.ledger);
    let half = world.peers[..2].iter().map(|peer| world.attest(peer, root)).collect();
    assert_eq!(world.block(half).canonical, vec![]);
    let leave = world.leave(&world.peers[2]);
    assert_eq!(world.block(vec![leave]).canonical, canonical(1, root), "two of the three that stay");
}

#[test]
fn a_round_that_all_have_left_opens_again_for_those_who_come() {
    let mut world = World::started();
    world.commit_all();
    let beacon = world.round().beacon;
    let leaves = world.peers.iter().map(|peer| world.leave(peer)).collect();
    assert_eq!(world.block(leaves).opened, None);
    let back = world.peers[..1].iter().map(|peer| world.join(peer)).collect();
    world.block(back);
    assert_eq!(world.ledger.account(&world.id(0)).unwrap().standing, Standing::Member, "it took its leave back");
    let leave = world.leave(&world.peers[0]);
    world.block(vec![leave]);
    let newcomer = crate::support::identity(77);
    let join = world.join(&newcomer);
    assert_eq!(world.block(vec![join]).opened, Some(1));
    assert_eq!((members(&world.ledger), world.round().beacon), (vec![newcomer.id()], beacon));
    let attest = world.attest(&newcomer, state_after(&world.ledger));
    assert_eq!(world.block(vec![attest]).canonical.len(), 1, "with no voter left, every member votes");
    let commit = world.commit(&newcomer);
    assert_eq!(world.block(vec![commit]).closed.unwrap().entries.len(), 1);
}

#[test]
fn assignment_goes_round_the_members_and_is_bounded() {
    let peers: Vec<PeerId> = (0..5).map(|number| PeerId([number; 32])).collect();
    let beacon = Hash::of(b"beacon");
    let assigned = assignment(&peers, beacon, 12);
    assert_eq!(assigned.len(), 12);
    for window in assigned.windows(5) {
        let mut window = window.to_vec();
        window.sort();
        assert_eq!(window, peers, "any five consecutive units go to five members");
    }
    assert_eq!(assignment(&peers, beacon, u32::MAX).len(), 5 * UNITS_PER_MEMBER_MAX);
    assert_eq!(assignment(&[], beacon, 12), Vec::<PeerId>::new());
    let starts: std::collections::BTreeSet<PeerId> =
        (0..64u8).map(|byte| assignment(&peers, Hash::of(&[byte]), 1)[0]).collect();
    assert_eq!(starts.len(), 5, "the beacon moves the start over all members");
}

#[test]
fn units_of_agrees_with_the_assignment() {
    let mut world = World::with(7, |charter| {
        charter.start_members = 7;
        charter.units_per_round = 23;
    });
    world.join_all();
    let round: &RoundOpen = world.round();
    let assigned = round.assignment();
    for peer in &world.peers {
        let own: Vec<u32> = (0..23).filter(|index| assigned[*index as usize] == peer.id()).collect();
        assert_eq!(round.units_of(&peer.id()), own);
    }
}

#[test]
fn who_commits_earlier_gets_more_units_and_every_unit_has_one_owner() {
    let mut world = World::with(3, |charter| {
        charter.start_members = 3;
        charter.units_per_round = 14;
        charter.rounds = 10;
    });
    world.join_all();
    for _ in 0..6 {
        let round = world.round();
        let opened_us = round.opened_us;
        let assigned = round.assignment();
        assert_eq!(assigned.len(), 14);
        let mut due = Vec::new();
        for (place, peer) in world.peers.iter().enumerate() {
            let own: Vec<u32> = (0..14).filter(|index| assigned[*index as usize] == peer.id()).collect();
            assert_eq!(round.units_of(&peer.id()), own);
            // A unit takes 40, 20 and 10 ms.
            due.push((opened_us + own.len() as u64 * (40_000 >> place), place));
        }
        due.sort_unstable();
        for (at_us, place) in due {
            let commit = world.commit(&world.peers[place]);
            world.time_us = at_us;
            world.block(vec![commit]);
        }
        world.attest_all();
    }
    let units: Vec<usize> = world.peers.iter().map(|peer| world.round().units_of(&peer.id()).len()).collect();
    assert_eq!(units, [2, 4, 8]);
}
