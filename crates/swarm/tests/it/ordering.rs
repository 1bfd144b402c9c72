//! The validator's duty.

use swarm::{FaultKind, Input, JobResult, Output, Record};
use wire::{Action, Attestation, Commitment, Hash, Message, Signed, Transaction};

use crate::world::{PAYLOAD_BYTES, ROUND_US, STATE_BYTES, World, commits, identity, position, sent_blocks};

fn fault_kinds(out: &[Output]) -> Vec<FaultKind> {
    out.iter()
        .filter_map(|output| if let Output::Fault(fault) = output { Some(fault.kind.clone()) } else { None })
        .collect()
}

/// A world of three in which everybody trains and nobody is done, and the commitment that peer 1 would send.
fn training() -> (World, Signed<Transaction>) {
    let mut world = World::new(3, 3);
    world.busy = [0, 1, 2].into();
    world.run("all train", |world| world.jobs.len() == 3);
    world.cut_off(1);
    world.run_for(1_000);
    world.finish_job(1);
    let commitment = world.disks[1].outbox.iter().rfind(|transaction| commits(transaction)).unwrap().clone();
    world.give(0, Input::Connected(identity(1).id()));
    (world, commitment)
}

fn commitment(transaction: &Signed<Transaction>) -> Commitment {
    let Action::Commit(commitment) = &transaction.body.action else { panic!("a commitment") };
    commitment.clone()
}

fn sign(world: &World, place: usize, action: Action) -> Signed<Transaction> {
    identity(place).sign(Transaction { run: world.charter.body.run_id(), action })
}

#[test]
fn a_payload_is_fetched_before_its_commitment_is_ordered_and_blocks_are_stored_before_they_are_sent() {
    let (mut world, transaction) = training();
    let payload = commitment(&transaction).payload;
    world.withheld.insert(payload);
    let height = world.peer(0).ledger().height();
    let out = world.tell(0, identity(1).id(), Message::Submit(transaction));
    let asks = |output: &Output| matches!(output, Output::Fetch { hash, providers, .. } if *hash == payload && providers[0] == identity(1).id());
    position(&out, asks);
    world.run_for(500_000);
    assert_eq!(world.peer(0).ledger().height(), height, "not ordered without its payload");
    let out = world.give(0, Input::Fetched { hash: payload, bytes: PAYLOAD_BYTES });
    assert_eq!(world.peer(0).ledger().height(), height + 1);
    let stored = position(&out, |output| matches!(output, Output::Persist(Record::Block(_))));
    let sent = position(&out, |output| matches!(output, Output::Send { message: Message::Block(_), .. }));
    assert!(stored < sent);
}

#[test]
fn a_payload_that_nobody_gives_is_a_fault_and_the_round_goes_on_without_it() {
    let (mut world, transaction) = training();
    let payload = commitment(&transaction).payload;
    world.withheld.insert(payload);
    world.tell(0, identity(1).id(), Message::Submit(transaction));
    world.run("the fault", |world| !world.faults(0).is_empty());
    let fault = &world.faults(0)[0];
    assert_eq!((fault.peer, &fault.kind), (identity(1).id(), &FaultKind::UnavailablePayload));
    world.finish_job(0);
    world.finish_job(2);
    world.run_for(ROUND_US);
    assert_eq!(world.round(0), Some(1), "the deadline closes the round");
    assert!(world.peer(0).ledger().committed(0).unwrap().entries.iter().all(|entry| entry.peer != identity(1).id()));
}

#[test]
fn a_payload_of_another_size_than_stated_is_a_fault() {
    let (mut world, transaction) = training();
    let payload = commitment(&transaction).payload;
    world.withheld.insert(payload);
    world.tell(0, identity(1).id(), Message::Submit(transaction));
    let out = world.give(0, Input::Fetched { hash: payload, bytes: PAYLOAD_BYTES + 1 });
    assert_eq!(fault_kinds(&out), [FaultKind::UnavailablePayload]);
    assert!(sent_blocks(&out).is_empty());
}

#[test]
fn lies_are_faults_and_honest_late_or_double_ones_are_not() {
    let (mut world, transaction) = training();
    let honest = commitment(&transaction);
    let from = identity(1).id();
    let mut forged = transaction.clone();
    forged.signature.0[1] ^= 1;
    let out = world.tell(0, from, Message::Submit(forged));
    assert_eq!(fault_kinds(&out), [FaultKind::BadSignature]);

    let mut huge = honest.clone();
    huge.payload_bytes = STATE_BYTES + 1;
    let out = world.tell(0, from, Message::Submit(sign(&world, 1, Action::Commit(huge))));
    assert!(matches!(&fault_kinds(&out)[..], [FaultKind::RejectedTransaction { .. }]));

    let late = Attestation { round: 0, stage: 0, state_root: Hash::of(b"any") };
    world.tell(0, from, Message::Submit(sign(&world, 1, Action::Attest(late))));
    let out =
        world.tell(0, from, Message::Submit(sign(&world, 1, Action::Join { sequence: 0, stage: 0, operator: None })));
    assert_eq!(fault_kinds(&out), [], "joined long ago");

    world.tell(0, from, Message::Submit(transaction.clone()));
    let out = world.tell(0, from, Message::Submit(transaction));
    assert_eq!(fault_kinds(&out), [], "submitted twice");
}

#[test]
fn two_commitments_of_one_round_are_a_fault() {
    let (mut world, transaction) = training();
    let mut second = commitment(&transaction);
    second.payload = Hash::of(b"another payload");
    let second = sign(&world, 1, Action::Commit(second));
    world.tell(0, identity(1).id(), Message::Submit(transaction.clone()));
    let out = world.tell(0, identity(1).id(), Message::Submit(second.clone()));
    assert_eq!(fault_kinds(&out), [FaultKind::Equivocation], "while the first waits");
    world.run_for(100_000);
    assert_eq!(world.peer(0).ledger().round().unwrap().commitments_len(), 1);
    let out = world.tell(0, identity(1).id(), Message::Submit(second));
    assert_eq!(fault_kinds(&out), [FaultKind::Equivocation], "and when it is in a block");
}

#[test]
fn a_copied_payload_is_refused() {
    let (mut world, transaction) = training();
    let stolen = commitment(&transaction).payload;
    world.tell(0, identity(1).id(), Message::Submit(transaction));
    world.run_for(100_000);
    let (job, work) = world.jobs.remove(&2).unwrap();
    let mut result = world.compute(2, &work);
    let JobResult::Worked { payload, .. } = &mut result else { panic!("{result:?}") };
    *payload = stolen;
    world.give(2, Input::Computed { job, result });
    world.run("the fault", |world| !world.faults(0).is_empty());
    assert!(
        matches!(&world.faults(0)[0].kind, FaultKind::RejectedTransaction { reason } if reason.contains("another peer"))
    );
    assert_eq!(world.peer(0).ledger().round().unwrap().commitments_len(), 1);
}

#[test]
fn a_commitment_waits_for_the_majority_that_makes_its_state_canonical() {
    let mut world = World::new(3, 3);
    world.busy = [1, 2].into();
    world.run("round 0 is trained", |world| world.jobs.len() == 2);
    world.cut_off(2);
    world.finish_job(1);
    world.busy.remove(&1);
    world.run("round 1 opens without peer 2", |world| world.round(0) == Some(1));
    world.run_for(3_000_000);
    let open = world.peer(0).ledger().round().unwrap();
    assert_eq!(open.commitments_len(), 2, "two of three attested, and both committed");
    assert!(open.run_root().is_some());
    assert_eq!(world.faults(0), []);
}

#[test]
fn blocks_keep_their_distance() {
    let mut world = World::new(4, 3);
    world.run("the run ends", World::all_finished);
    let times: Vec<u64> = world.peer(0).blocks().iter().map(|block| block.header.body.time_us).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 50_000), "{times:?}");
}
