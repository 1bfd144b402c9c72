//! Who runs a peer, and what an operator may hold of a run whose weights are split.

use ledger::Rejection;
use wire::{Action, Hash, Identity, OperatorCertificate, Release, RunId};

use crate::support::{World, identity};

/// Six peers: the first four are in stages 0, 0, 1, 1 of a run whose weights are split.
fn split() -> World {
    let mut world = World::with(6, |charter| {
        charter.stages = (0..2).map(crate::support::stage_terms).collect();
        charter.start_members = 4;
        charter.rounds = 9;
        charter.release = Release::Split;
    });
    let joins = [0, 0, 1, 1].iter().zip(&world.peers).map(|(stage, peer)| world.join_stage(peer, *stage)).collect();
    assert_eq!(world.block(joins).opened, Some(0));
    world
}

fn elsewhere(operator: &Identity, stage: u16, got: u16) -> Result<(), Rejection> {
    Err(Rejection::OperatorElsewhere { operator: operator.id(), stage, got })
}

#[test]
fn a_peer_of_a_split_run_stays_in_its_stage() {
    let mut world = split();
    let peer = world.peers[0].clone();
    assert_eq!(world.ledger.check(&world.join_stage(&peer, 1)), elsewhere(&peer, 0, 1), "a move");
    let leave = world.leave(&peer);
    world.block(vec![leave]);
    assert_eq!(world.ledger.check(&world.join_stage(&peer, 1)), elsewhere(&peer, 0, 1), "a change of mind");
    let rest = world.peers[1..4].iter().map(|peer| world.commit_units(peer, &[0, 1, 2, 3, 4, 5, 6, 7])).collect();
    assert!(world.block(rest).closed.is_some());
    assert_eq!(world.ledger.account(&peer.id()).unwrap().standing, ledger::Standing::Out);
    assert_eq!(world.ledger.check(&world.join_stage(&peer, 1)), elsewhere(&peer, 0, 1), "after it left");
    assert_eq!(world.ledger.check(&world.join_stage(&peer, 0)), Ok(()));
    assert_eq!(world.ledger.check_operator(peer.id(), 0), Ok(()));
    assert_eq!(world.ledger.check_operator(peer.id(), 1), elsewhere(&peer, 0, 1));
}

#[test]
fn an_operator_of_a_split_run_has_peers_in_one_stage_only() {
    let mut world = split();
    let operator = identity(90);
    let [fifth, sixth] = [world.peers[4].clone(), world.peers[5].clone()];
    let join = world.join_by(&operator, &fifth, 1);
    world.block(vec![join]);
    assert_eq!(world.ledger.account(&fifth.id()).unwrap().operator, operator.id());
    assert_eq!(world.ledger.check(&world.join_by(&operator, &sixth, 0)), elsewhere(&operator, 1, 0));
    assert_eq!(world.ledger.check(&world.join_by(&operator, &sixth, 1)), Ok(()), "two replicas of one stage are fine");
    assert_eq!(
        world.ledger.check(&world.join_stage(&operator, 0)),
        elsewhere(&operator, 1, 0),
        "its own key as a peer"
    );
    let of_a_peer = world.peers[0].clone();
    assert_eq!(world.ledger.check(&world.join_by(&of_a_peer, &sixth, 1)), elsewhere(&of_a_peer, 0, 1));
    // Within one block, too.
    let other = identity(91);
    let both = vec![world.join_by(&other, &sixth, 0)];
    world.block(both);
    let seventh = identity(92);
    assert_eq!(world.ledger.check(&world.join_by(&other, &seventh, 1)), elsewhere(&other, 0, 1));
}

#[test]
fn two_joins_of_one_operator_in_one_block_are_held_against_each_other() {
    let world = split();
    let operator = identity(90);
    let joins = vec![world.join_by(&operator, &world.peers[4], 0), world.join_by(&operator, &world.peers[5], 1)];
    let block = world.ledger.propose(&world.validator, 5, joins).unwrap();
    assert_eq!(block.transactions.len(), 1, "the second is left out");
}

#[test]
fn a_certificate_is_for_one_peer_and_one_run_and_an_operator_is_for_good() {
    let mut world = split();
    let (operator, peer) = (identity(90), world.peers[4].clone());
    let forged = [
        OperatorCertificate { run: world.run(), peer: world.id(5) },
        OperatorCertificate { run: RunId(Hash::of(b"another")), peer: peer.id() },
    ];
    for body in forged {
        let join = Action::Join { sequence: 0, stage: 0, operator: Some(operator.sign(body)) };
        assert_eq!(world.ledger.check(&world.sign(&peer, join)), Err(Rejection::ForeignCertificate));
    }
    let join = world.join_by(&operator, &peer, 0);
    world.block(vec![join]);
    let leave = world.leave(&peer);
    world.block(vec![leave]);
    let expected = operator.id();
    for (join, got) in
        [(world.join_by(&identity(91), &peer, 0), identity(91).id()), (world.join_stage(&peer, 0), peer.id())]
    {
        assert_eq!(world.ledger.check(&join), Err(Rejection::OperatorChanged { expected, got }));
    }
    assert_eq!(world.ledger.check(&world.join_by(&operator, &peer, 0)), Ok(()));
}

#[test]
fn a_run_whose_weights_are_not_split_lets_peers_move() {
    let mut world = World::staged(&[2, 2], |charter| charter.release = Release::OpenAfter { rounds: 2 });
    let (operator, stranger) = (identity(90), identity(91));
    let moved = vec![world.join_stage(&world.peers[0], 1), world.join_by(&operator, &stranger, 0)];
    world.block(moved);
    assert_eq!(world.ledger.check(&world.join_by(&operator, &identity(92), 1)), Ok(()));
}
