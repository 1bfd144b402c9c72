//! A peer's part in the rounds, and catching up.

use swarm::{Activity, Event, FaultKind, HaltReason, Input, Job, JobResult, Output, TimeoutReason};
use wire::{Action, Hash, Message};

use crate::world::{ROUND_US, World, charter, commits, identity, position, sends, submits};

fn computed(out: &[Output]) -> Vec<&Job> {
    out.iter().filter_map(|output| if let Output::Compute { work, .. } = output { Some(work) } else { None }).collect()
}

#[test]
fn four_peers_train_to_the_end() {
    let mut world = World::new(4, 6);
    world.run("the run ends", World::all_finished);
    let root = world.peer(0).model().unwrap().state_root;
    for place in 0..4 {
        assert_eq!(world.peer(place).model().unwrap().round, 6);
        assert_eq!(world.peer(place).model().unwrap().state_root, root);
        assert_eq!(world.peer(place).activity(), Activity::Finished);
        assert_eq!((world.faults(place), world.halts(place)), (vec![], vec![]));
        let ends = world.log[place].iter().filter(|output| matches!(output, Output::Event(Event::Finished { .. })));
        assert_eq!(ends.count(), 1);
    }
    assert_eq!(world.peer(0).ledger().supply(), 6_000);
    assert_eq!(world.peer(0).ledger().totals().receipts, 24);
    let account = *world.peer(0).ledger().account(&identity(2).id()).unwrap();
    assert_eq!((account.shares, account.receipts), (1_500, 6));
}

#[test]
fn after_the_end_a_peer_serves_blocks_and_rests() {
    let mut world = World::new(2, 2);
    world.run("the run ends", World::all_finished);
    world.run_for(5_000_000);
    let before = world.log[1].len();
    let newcomer = identity(9).id();
    world.give(1, Input::Connected(newcomer));
    let out = world.tell(1, newcomer, Message::BlocksWanted { from_height: 0 });
    assert!(sends(&out).iter().any(|(to, message)| *to == newcomer && matches!(message, Message::Blocks(_))));
    world.run_for(60_000_000);
    assert_eq!(computed(&world.log[1][before..]), Vec::<&Job>::new());
    assert!(submits(&world.log[1][before..]).is_empty());
}

#[test]
fn own_transactions_are_stored_before_they_are_sent_and_sent_until_they_are_in_a_block() {
    let mut terms = charter(2, 2);
    (terms.round_us_first, terms.round_us_max) = (3_600_000_000, 3_600_000_000);
    let mut world = World::with(2, terms);
    world.busy = [1].into();
    world.run("peer 1 trains", |world| world.jobs.contains_key(&1));
    let out = world.finish_job(1);
    let stored = position(&out, |output| matches!(output, Output::Persist(swarm::Record::Outgoing(_))));
    let sent = position(&out, |output| matches!(output, Output::Send { message: Message::Submit(_), .. }));
    assert!(stored < sent);
    let transaction = submits(&out)[0].clone();
    world.kill(0);
    world.peers[0] = None;
    let mut times = Vec::new();
    for _ in 0..20 {
        let (at, reason) = world.peer(1).poll_timeout().unwrap();
        world.now = world.now.max(at);
        world.give(1, Input::Tick);
        if reason == TimeoutReason::Submit {
            times.push(at.as_micros());
        }
    }
    let delays: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(delays[0] < delays[1] && delays[1] < delays[2], "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= 30_000_000 * 5 / 4), "{delays:?}");
    world.boot(0);
    let mark = world.log[1].len();
    world.run("the round closes", |world| world.peers[0].is_some() && world.round(0) == Some(1));
    assert!(submits(&world.log[1][mark..]).contains(&&transaction), "the very same transaction");
}

#[test]
fn a_late_result_of_a_closed_round_is_ignored_and_the_residual_keeps_its_mass() {
    let mut world = World::new(3, 3);
    world.busy = [2].into();
    world.run("peer 2 trains", |world| world.jobs.contains_key(&2));
    let (job, work) = world.jobs[&2].clone();
    world.run("round 0 closes without it", |world| world.round(2) == Some(1));
    assert!(world.now.as_micros() >= ROUND_US);
    assert!(world.log[2].contains(&Output::Cancel(job)));
    let steps: Vec<&Job> =
        computed(&world.log[2]).into_iter().filter(|job| matches!(job, Job::OuterStep { .. })).collect();
    assert!(matches!(&steps[..], [Job::OuterStep { round: 0, own_committed: false, .. }]), "{steps:?}");
    let result = world.compute(2, &work);
    let out = world.give(2, Input::Computed { job, result });
    assert!(submits(&out).iter().all(|transaction| !commits(transaction)));
    world.busy.clear();
    world.jobs.clear();
    assert_eq!(world.halts(2), []);
}

#[test]
fn a_job_that_fails_is_tried_again_and_a_fatal_failure_halts() {
    let mut world = World::new(2, 2);
    world.busy = [1].into();
    world.run("peer 1 trains", |world| world.jobs.contains_key(&1));
    let (job, work) = world.jobs.remove(&1).unwrap();
    let failed = |fatal| JobResult::Failed { reason: "no memory".to_owned(), fatal };
    let out = world.give(1, Input::Computed { job, result: failed(false) });
    assert_eq!(computed(&out), Vec::<&Job>::new(), "not at once");
    assert_eq!(world.peer(1).last_failure(), Some("no memory"));
    world.run("it is tried again", |world| world.jobs.contains_key(&1));
    let (again, same) = world.jobs.remove(&1).unwrap();
    assert!(again != job && same == work);
    world.give(1, Input::Computed { job: again, result: failed(true) });
    assert_eq!(world.halts(1), [HaltReason::JobFailed { round: 0, reason: "no memory".to_owned() }]);
    assert_eq!(world.peer(1).activity(), Activity::Halted);
}

#[test]
fn a_peer_whose_state_differs_halts_and_the_others_record_nothing_false() {
    let mut world = World::new(4, 4);
    world.broken = [3].into();
    world.run("it halts", |world| !world.halts(3).is_empty());
    assert!(matches!(world.halts(3)[0], HaltReason::StateDivergence { round: 1, .. }));
    world.run("the others finish", |world| (0..3).all(|place| world.peer(place).is_finished()));
    let accused: Vec<_> = world.faults(0).iter().map(|fault| fault.peer).collect();
    assert!(accused.iter().all(|peer| *peer == identity(3).id()), "{accused:?}");
    let mark = world.log[3].len();
    world.run_for(30_000_000);
    assert_eq!(computed(&world.log[3][mark..]), Vec::<&Job>::new());
    assert!(submits(&world.log[3][mark..]).is_empty());
}

#[test]
fn a_divergent_attestation_is_recorded_by_everybody() {
    let mut world = World::new(4, 4);
    world.run("round 1 opens", |world| world.round(0) == Some(1));
    world.cut_off(3);
    let run = world.charter.body.run_id();
    let attestation = wire::Attestation { round: 1, stage: 0, state_root: Hash::of(b"mine") };
    let lie = identity(3).sign(wire::Transaction { run, action: Action::Attest(attestation) });
    world.give(0, Input::Connected(identity(3).id()));
    world.tell(0, identity(3).id(), Message::Submit(lie));
    let divergent = |world: &World, place: usize| {
        let kind =
            |fault: &swarm::Fault| matches!(fault.kind, FaultKind::Divergent { got, .. } if got == Hash::of(b"mine"));
        world.faults(place).iter().any(|fault| fault.peer == identity(3).id() && kind(fault))
    };
    world.run("all know", |world| (0..3).all(|place| divergent(world, place)));
}

#[test]
fn a_peer_far_behind_takes_the_cheaper_way() {
    for (state_bytes, loads) in [(2_500, true), (100_000, false)] {
        let mut terms = charter(3, 6);
        terms.stages[0].state_bytes = state_bytes;
        let mut world = World::with(3, terms);
        world.run("round 1 opens", |world| world.round(2) == Some(1));
        world.cut_off(2);
        world.run("two rounds pass", |world| world.round(0) == Some(3));
        let mark = world.log[2].len();
        world.cut.clear();
        world.run("it is level", |world| world.peer(2).model().is_some_and(|model| model.round >= 3));
        let jobs = computed(&world.log[2][mark..]);
        let loaded = jobs.iter().any(|job| matches!(job, Job::LoadState { round, .. } if *round >= 2));
        assert_eq!(loaded, loads, "state of {state_bytes} bytes: {jobs:?}");
        let caught =
            world.log[2][mark..].iter().any(|output| matches!(output, Output::Event(Event::CatchingUp { .. })));
        assert!(caught);
        world.run("the run ends", World::all_finished);
        assert_eq!(world.peer(2).model(), world.peer(0).model());
    }
}

#[test]
fn a_peer_that_missed_three_rounds_joins_again() {
    let mut world = World::new(3, 12);
    world.run("round 1 opens", |world| world.round(2) == Some(1));
    world.cut_off(2);
    world.run("it is dropped", |world| {
        world.peer(0).ledger().account(&identity(2).id()).unwrap().standing == ledger::Standing::Out
    });
    world.cut.clear();
    world.kill(2);
    world.boot(2);
    world.run("it is a member again", |world| world.peer(0).ledger().round().unwrap().is_member(&identity(2).id()));
    world.run("the run ends", World::all_finished);
}

#[test]
fn with_too_few_members_the_run_waits_and_resumes() {
    let mut terms = charter(3, 3);
    terms.quorum = 3;
    let mut world = World::with(3, terms);
    world.run("round 1 opens", |world| world.round(0) == Some(1));
    world.kill(2);
    world.run_for(5 * ROUND_US);
    assert_eq!(world.round(0), Some(1), "two of a quorum of three");
    world.boot(2);
    world.run("the run ends", World::all_finished);
}

#[test]
fn stopping_leaves_and_training_ends() {
    let mut world = World::new(3, 4);
    world.busy = [2].into();
    world.run("peer 2 trains", |world| world.jobs.contains_key(&2));
    let out = world.give(2, Input::Stop);
    assert!(out.iter().any(|output| matches!(output, Output::Cancel(_))));
    assert!(submits(&out).iter().any(|transaction| matches!(transaction.body.action, Action::Leave { .. })));
    world.run("the others finish", |world| (0..2).all(|place| world.peer(place).is_finished()));
    assert!(world.now.as_micros() < ROUND_US, "nobody waited for it");
    assert!(!world.peer(0).ledger().round().unwrap().is_member(&identity(2).id()));
}

#[test]
fn a_follower_applies_all_rounds_and_never_trains() {
    let mut world = World::new(3, 3);
    let known = (0..3).map(|place| identity(place).id()).collect();
    let mut config = swarm::PeerConfig::new(world.charter.clone(), known);
    config.trains = false;
    world.peers.push(Some(swarm::Peer::new(config, identity(3), swarm::Restored::default(), world.now)));
    world.disks.push(swarm::Restored::default());
    world.log.push(Vec::new());
    world.give(3, Input::Start);
    world.run("the run ends", World::all_finished);
    assert!(computed(&world.log[3]).iter().all(|job| !matches!(job, Job::Work { .. })));
    assert!(submits(&world.log[3]).is_empty());
    assert_eq!(world.peer(3).model(), world.peer(0).model());
}

#[test]
fn old_blobs_are_given_up() {
    let mut world = World::new(2, 8);
    world.run("the run ends", World::all_finished);
    let forgotten: Vec<Hash> = world.log[1]
        .iter()
        .filter_map(|output| if let Output::Forget { hashes } = output { Some(hashes.clone()) } else { None })
        .flatten()
        .collect();
    let state_of = |round: u64| world.peer(0).ledger().state_root(0, round).unwrap();
    assert!((0..5).all(|round| forgotten.contains(&state_of(round))), "states of old rounds");
    assert!((6..=8).all(|round| !forgotten.contains(&state_of(round))), "the newest states stay");
    let payloads = world.peer(0).ledger().recent().flat_map(|set| set.entries.iter());
    assert!(payloads.into_iter().all(|entry| !forgotten.contains(&entry.payload)), "listed payloads stay");
}
