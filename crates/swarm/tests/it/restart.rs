//! Any moment is a safe moment to crash.

use swarm::{HaltReason, Input, Job, Output, Peer, PeerConfig, Record, Restored};
use wire::Hash;

use crate::world::{ROUND_US, World, commits, identity, submits};

fn works(out: &[Output]) -> Vec<&Job> {
    let works = out.iter().filter_map(|output| match output {
        Output::Compute { work, .. } if matches!(work, Job::Work { .. }) => Some(work),
        _ => None,
    });
    works.collect()
}

/// A world in which peer 1 trains round 0 and its job is not answered.
fn training() -> (World, Job) {
    let mut world = World::new(2, 2);
    world.busy = [1].into();
    world.run("peer 1 trains", |world| world.jobs.contains_key(&1));
    let work = world.jobs[&1].1.clone();
    (world, work)
}

#[test]
fn a_commitment_that_was_stored_is_submitted_again_without_training() {
    let (mut world, _) = training();
    world.cut_off(1);
    world.finish_job(1);
    let stored = world.disks[1].outbox.iter().rfind(|transaction| commits(transaction)).unwrap().clone();
    world.kill(1);
    world.cut.clear();
    world.boot(1);
    let mark = world.log[1].len();
    world.run("round 0 closes", |world| world.round(0) == Some(1));
    let log = &world.log[1][mark..];
    assert!(submits(log).contains(&&stored));
    assert!(works(log).iter().all(|work| work.round() != 0), "round 0 is not trained again");
    assert!(world.peer(0).ledger().committed(0).unwrap().entries.iter().any(|entry| entry.peer == identity(1).id()));
}

#[test]
fn work_that_was_not_stored_is_asked_for_again_and_gives_the_same_transaction() {
    let (mut world, work) = training();
    world.finish_job(1);
    let (mut other, _) = training();
    other.kill(1);
    other.boot(1);
    other.run("it trains again", |world| world.jobs.contains_key(&1));
    assert_eq!(other.jobs[&1].1, work);
    other.finish_job(1);
    let commitment = |world: &World| world.disks[1].outbox.iter().rfind(|transaction| commits(transaction)).cloned();
    assert!(commitment(&world).is_some());
    assert_eq!(commitment(&world), commitment(&other));
}

#[test]
fn a_validator_that_crashed_between_storing_and_sending_sends_by_being_asked() {
    let (mut world, _) = training();
    world.finish_job(1);
    let height = world.peer(0).ledger().height();
    world.run("the validator orders it", |world| world.peer(0).ledger().height() > height);
    let stored = world.disks[0].blocks.len();
    assert!(world.peer(1).ledger().height() < stored as u64);
    world.kill(0);
    world.boot(0);
    world.run("the block arrives", |world| world.peer(1).ledger().height() >= stored as u64);
    assert_eq!(world.peer(1).blocks()[..stored], world.disks[0].blocks[..stored]);
    world.busy.clear();
    world.jobs.clear();
    world.kill(1);
    world.boot(1);
    world.run("the run ends", World::all_finished);
    assert_eq!(world.faults(1), []);
}

#[test]
fn every_prefix_of_the_outputs_is_a_safe_place_to_crash() {
    let mut reference = World::new(3, 3);
    reference.run("the run ends", World::all_finished);
    let steps = reference.log[1].iter().filter(|output| matches!(output, Output::Persist(_))).count();
    for crash_at in 0..steps {
        let mut world = World::new(3, 3);
        let persisted =
            |world: &World| world.log[1].iter().filter(|output| matches!(output, Output::Persist(_))).count();
        world.run("the record is stored", |world| persisted(world) > crash_at);
        world.kill(1);
        world.boot(1);
        world.run("the run ends", World::all_finished);
        assert_eq!(world.faults(0), [], "crash after record {crash_at}");
        assert_eq!(world.peer(1).model(), world.peer(0).model());
        assert_eq!(world.peer(0).ledger().totals().receipts, 9, "nothing is lost or paid twice");
    }
}

#[test]
fn a_validator_with_a_damaged_store_halts_and_another_peer_gets_the_blocks_again() {
    let mut world = World::new(3, 2);
    world.run("the run ends", World::all_finished);
    for place in [0, 1] {
        world.disks[place].blocks[2].header.body.ledger_root = Hash::of(b"rotten");
    }
    world.kill(1);
    world.boot(1);
    world.run("peer 1 is level", |world| world.peers[1].is_some() && world.peer(1).is_finished());
    assert_eq!(world.halts(1), []);
    world.kill(0);
    world.boot(0);
    let out = world.give(0, Input::Start);
    assert!(matches!(&out[..], [Output::Halt(HaltReason::DamagedStore { height: 2, .. }), ..]), "{out:?}");
}

#[test]
fn equal_inputs_give_equal_outputs() {
    let run = || {
        let mut world = World::new(4, 4);
        world.run("the run ends", World::all_finished);
        world.log
    };
    assert_eq!(run(), run());
}

#[test]
fn a_foreign_outbox_is_ignored() {
    let world = World::new(2, 2);
    let run = world.charter.body.run_id();
    let action = wire::Action::Join { sequence: 0, stage: 0, operator: None };
    let foreign = identity(5).sign(wire::Transaction { run, action });
    let restored = Restored { outbox: vec![foreign], ..Restored::default() };
    let config = PeerConfig::new(world.charter.clone(), Vec::new());
    let mut peer = Peer::new(config, identity(1), restored, world.now);
    let mut out = Vec::new();
    peer.handle(world.now, Input::Start, &mut out);
    peer.handle(world.now, Input::Connected(identity(0).id()), &mut out);
    assert!(submits(&out).is_empty());
    assert!(!out.iter().any(|output| matches!(output, Output::Persist(Record::Outgoing(_)))));
}

#[test]
fn a_pause_longer_than_a_round_shuts_out_no_finished_work() {
    let mut world = World::new(3, 3);
    world.busy = [0, 1, 2].into();
    world.run("all train", |world| world.jobs.len() == 3);
    // Peer 1 is done and its commitment durable, but no block has it yet when the whole machine is killed.
    world.cut_off(1);
    world.finish_job(1);
    for place in 0..3 {
        world.kill(place);
    }
    world.now = world.now.after(50 * ROUND_US);
    world.cut.clear();
    world.busy.clear();
    for place in [0, 2, 1] {
        world.boot(place);
    }
    world.run("the round closes", |world| world.round(0) == Some(1));
    let committed = world.peer(0).ledger().committed(0).unwrap();
    assert_eq!(committed.entries.len(), 3, "everybody's work is in the set");
    world.run("the run ends", World::all_finished);
    assert!(world.peer(0).ledger().time_us() > 50 * ROUND_US, "the clock went on with the next round");
}
