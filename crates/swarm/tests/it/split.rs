//! What a validator, and the members of a stage, do with payloads where the charter splits the weights.

use swarm::{FaultKind, HaltReason, Input, Output};
use wire::{
    Action, Commitment, Hash, Identity, LinkWishes, Message, Receipt, Release, Signed, StageTerms, Transaction,
};

use crate::world::{PAYLOAD_BYTES, STATE_BYTES, World, charter, identity, sends};

fn split_charter(peers: usize) -> wire::Charter {
    let stage =
        |name: &[u8]| StageTerms { genesis_state: Hash::of(name), state_bytes: STATE_BYTES, weight: 1, coarser_max: 0 };
    wire::Charter { stages: vec![stage(b"first"), stage(b"second")], release: Release::Split, ..charter(peers, 3) }
}

/// Peers 0 (the validator) and 1 in stage 0, peers 2 and 3 in stage 1; round 0 is open and nobody computes.
fn world() -> World {
    let mut world = World::staged(&[0, 0, 1, 1], split_charter(4));
    world.busy = (0..4).collect();
    world.run("round 0 opens", |world| (0..4).all(|place| world.round(place) == Some(0)));
    world
}

/// A commitment of a peer to all units of round 0.
fn commitment(world: &World, signer: &Identity, payload: &[u8]) -> Signed<Transaction> {
    let ledger = world.peer(0).ledger();
    let open = ledger.round().unwrap();
    let stage = open.stage_of(&signer.id()).unwrap();
    let receipt = |index| Receipt {
        run: ledger.run(),
        round: 0,
        index,
        stage,
        unit: open.unit_id(index),
        state_in: open.state_root_of(stage).unwrap(),
        data_root: Hash::of(b"data"),
        trace_root: Hash::of(b"trace"),
        output_root: Hash::of(b"output"),
        tokens: 100,
        loss_micronats: 1,
        counter: u64::from(index),
    };
    let receipts = (0..open.units).map(|index| signer.sign(receipt(index))).collect();
    let (payload, residual_root) = (Hash::of(payload), Hash::of(b"residual"));
    let commitment = Commitment {
        round: 0,
        payload,
        payload_bytes: PAYLOAD_BYTES,
        residual_root,
        wishes: LinkWishes::default(),
        busy_percent: 0,
        receipts,
    };
    signer.sign(Transaction { run: ledger.run(), action: Action::Commit(commitment) })
}

fn is_committed(world: &World, place: usize) -> bool {
    world.peer(0).ledger().round().unwrap().commitment(&world.id(place)).is_some()
}

/// Whether a peer ever asked for a blob.
fn fetched(world: &World, place: usize, blob: Hash) -> bool {
    world.log[place].iter().any(|output| matches!(output, Output::Fetch { hash, .. } if *hash == blob))
}

#[test]
fn a_payload_of_another_stage_is_ordered_when_a_member_of_that_stage_holds_it() {
    let mut world = world();
    let (payload, from) = (Hash::of(b"payload"), world.id(2));
    world.withheld.insert(payload);
    let transaction = commitment(&world, &identity(2), b"payload");
    let out = world.tell(0, from, Message::Submit(transaction.clone()));
    let asked: Vec<_> = sends(&out).into_iter().filter(|(_, message)| matches!(message, Message::Submit(_))).collect();
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [world.id(3)], "the other member of the stage");
    world.run_for(3_000_000);
    assert!(!is_committed(&world, 2), "nobody but its signer holds the payload");
    // A word of somebody of another stage counts for nothing, and neither does the signer's own.
    for from in [world.id(1), world.id(2)] {
        world.tell(0, from, Message::Submit(transaction.clone()));
    }
    world.run_for(1_000_000);
    assert!(!is_committed(&world, 2));
    world.withheld.clear();
    world.run("the payload has a second holder", |world| is_committed(world, 2));
    assert!(fetched(&world, 3, payload));
    for place in [0, 1] {
        assert!(!fetched(&world, place, payload), "peer {place} of stage 0 may not hold it");
    }
    assert!((0..4).all(|place| world.faults(place).is_empty()));
}

#[test]
fn a_payload_of_the_own_stage_is_fetched_by_the_validator_as_ever() {
    let mut world = world();
    let transaction = commitment(&world, &identity(1), b"payload");
    let from = world.id(1);
    world.tell(0, from, Message::Submit(transaction));
    world.run("it is ordered", |world| is_committed(world, 1));
    assert!(fetched(&world, 0, Hash::of(b"payload")));
    assert!([2, 3].iter().all(|place| !fetched(&world, *place, Hash::of(b"payload"))));
}

#[test]
fn a_payload_is_ordered_without_a_second_holder_when_nobody_is_there_to_hold_it() {
    let mut world = world();
    world.withheld.insert(Hash::of(b"payload"));
    let transaction = commitment(&world, &identity(2), b"payload");
    let from = world.id(2);
    world.tell(0, from, Message::Submit(transaction));
    world.run_for(1_000_000);
    assert!(!is_committed(&world, 2));
    world.cut_off(3);
    world.run("its stage has nobody else", |world| is_committed(world, 2));
}

#[test]
fn a_member_vouches_for_no_payload_of_another_size_and_for_strangers_not_at_all() {
    let mut world = world();
    let transaction = commitment(&world, &identity(2), b"payload");
    let (payload, validator, signer) = (Hash::of(b"payload"), world.id(0), world.id(2));
    // From somebody who is no validator.
    let out = world.tell(3, world.id(1), Message::Submit(transaction.clone()));
    assert!(!out.iter().any(|output| matches!(output, Output::Fetch { .. })), "{out:?}");
    // Of another stage than its own.
    let foreign = commitment(&world, &identity(1), b"foreign");
    let out = world.tell(3, validator, Message::Submit(foreign));
    assert!(!out.iter().any(|output| matches!(output, Output::Fetch { .. })), "{out:?}");
    world.withheld.insert(payload);
    let out = world.tell(3, validator, Message::Submit(transaction));
    assert!(out.iter().any(|output| matches!(output, Output::Fetch { hash, .. } if *hash == payload)), "{out:?}");
    let out = world.give(3, Input::Fetched { hash: payload, bytes: PAYLOAD_BYTES + 1 });
    assert!(!sends(&out).iter().any(|(_, message)| matches!(message, Message::Submit(_))), "{out:?}");
    let faults = world.faults(3);
    assert!(
        faults.iter().any(|fault| fault.peer == signer && fault.kind == FaultKind::UnavailablePayload),
        "{faults:?}"
    );
}

#[test]
fn a_peer_whose_operator_is_bound_elsewhere_does_not_join_and_says_so() {
    let mut world = World::staged(&[0, 0, 1, 1, 1, 1], split_charter(4));
    world.busy = (0..6).collect();
    for (place, operator) in [(4, 1), (5, 2)] {
        world.kill(place);
        world.operators.insert(place, identity(operator));
    }
    world.run("round 0 opens", |world| (0..4).all(|place| world.round(place) == Some(0)));
    world.boot(4);
    world.boot(5);
    world.run("both have made up their minds", |world| {
        !world.halts(4).is_empty() && world.peer(0).ledger().account(&world.id(5)).is_some()
    });
    let halts = world.halts(4);
    assert!(
        matches!(&halts[..], [HaltReason::MayNotJoin { stage: 1, reason }] if reason.contains("stage 0")),
        "{halts:?}"
    );
    assert_eq!(world.peer(0).ledger().account(&world.id(4)), None);
    let account = world.peer(0).ledger().account(&world.id(5)).unwrap();
    assert_eq!((account.operator, account.stage), (world.id(2), 1));
    assert!(world.halts(5).is_empty());
}
