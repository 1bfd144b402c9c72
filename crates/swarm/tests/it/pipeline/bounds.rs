//! Bounds, rounds and sealing: what a pipeline does when there is too much, or nothing more to count.

use swarm::Time;
use swarm::pipeline::{Pipeline, PipelineConfig, PipelineInput, PipelineOutput, StageResult, StageTaskKind};
use wire::{Message, PeerId, RefusalReason};

use super::world::{Event, Setup, World, config, id};

#[test]
fn a_full_replica_sends_callers_elsewhere() {
    let mut setup = Setup::even(2, 2, 16);
    setup.config.units_max = 9;
    setup.pass_us[1] = vec![1_000, 50_000];
    let mut world = World::new(setup);
    world.run_until("all done", 60_000_000, World::is_complete);
    assert!(world.replicas.iter().all(|replica| replica.sums.iter().sum::<u32>() <= 9));
    assert_eq!(world.excess(), 0);
}

#[test]
fn memory_is_bounded_and_full_replicas_stop() {
    let mut setup = Setup::even(2, 1, 16);
    // Room for two units that are done, beside one under way.
    setup.config.held_bytes_max = 64 * 5 + 2 * 2 * 40;
    let mut world = World::new(setup);
    world.run_for(20_000_000);
    let done: u32 = (0..16).map(|index| world.sums(1, index)).sum();
    assert!((2..=6).contains(&done), "{done} units done");
    assert_eq!(world.faults, []);
}

#[test]
fn busy_replicas_are_tried_again() {
    let mut setup = Setup::even(2, 4, 24);
    setup.pass_us = vec![vec![1_000; 4], vec![20_000]];
    setup.config.calls_queued_max = 1;
    setup.config.window_max = 8;
    let mut world = World::new(setup);
    world.run_until("all done", 60_000_000, World::is_complete);
    assert!(world.counts().refused > 0);
    assert_eq!((world.excess(), world.counts().lost), (0, 0));
    assert_eq!(world.faults, []);
}

#[test]
fn a_round_may_end_at_any_time() {
    for at_us in (20_000..600_000).step_by(20_000) {
        let mut world = World::new(Setup::even(3, 2, 12));
        world.run_for(at_us);
        world.next_round();
        world.run_until("the next round is done", 60_000_000, |world| world.view.round == 1 && world.is_complete());
        world.run_for(1_000_000);
        assert_eq!((world.excess(), world.counts().redone), (0, 0), "ended after {at_us}");
        assert_eq!(world.faults, []);
    }
}

/// A single stage, driven by hand.
fn alone(units: u32) -> (Pipeline, swarm::pipeline::RoundView) {
    let world = World::new(Setup::even(1, 1, units));
    let pipeline = Pipeline::new(id(0, 0), config(), Time::default());
    (pipeline, world.view)
}

fn give(pipeline: &mut Pipeline, input: PipelineInput) -> Vec<PipelineOutput> {
    let mut out = Vec::new();
    pipeline.handle(Time::from_micros(1), input, &mut out);
    out
}

fn task(out: &[PipelineOutput]) -> &swarm::pipeline::StageTask {
    let task = out.iter().find_map(|output| if let PipelineOutput::Compute(task) = output { Some(task) } else { None });
    task.expect("a task is started")
}

#[test]
fn sealing_waits_for_the_task_that_adds_up() {
    let (mut pipeline, view) = alone(4);
    let out = give(&mut pipeline, PipelineInput::Round(view));
    let first = task(&out).clone();
    assert!(first.counted && matches!(first.kind, StageTaskKind::Turn { input: None }));
    assert!(give(&mut pipeline, PipelineInput::Seal).is_empty(), "the task adds up");
    let result = StageResult::Turn { loss_micronats: 5, gradient: None };
    let out = give(&mut pipeline, PipelineInput::Computed { task: first.id, result });
    let sealed = out.iter().find_map(|output| match output {
        PipelineOutput::Sealed { round: 0, units } => Some(units.clone()),
        _ => None,
    });
    let sealed = sealed.expect("it is sealed now");
    assert_eq!((sealed.len(), sealed[0].index, sealed[0].loss_micronats), (1, first.index, 5));
    assert_ne!(sealed[0].trace_root(), sealed[0].output_root());
    assert!(!out.iter().any(|output| matches!(output, PipelineOutput::Compute(_))), "nothing more is counted");
    assert!(give(&mut pipeline, PipelineInput::Seal).is_empty(), "once");
    assert!(pipeline.is_idle());
}

#[test]
fn a_life_after_the_commitment_counts_nothing() {
    let (mut pipeline, mut view) = alone(4);
    view.sealed = true;
    assert!(give(&mut pipeline, PipelineInput::Round(view)).is_empty());
    assert!(give(&mut pipeline, PipelineInput::Seal).is_empty());
}

#[test]
fn the_end_of_a_round_cancels_what_runs() {
    let (mut pipeline, view) = alone(4);
    let out = give(&mut pipeline, PipelineInput::Round(view));
    let running = task(&out).id;
    let out = give(&mut pipeline, PipelineInput::RoundOver);
    assert_eq!(out, [PipelineOutput::Cancel(running)]);
    let result = StageResult::Turn { loss_micronats: 5, gradient: None };
    assert!(give(&mut pipeline, PipelineInput::Computed { task: running, result }).is_empty());
    assert_eq!((pipeline.poll_timeout(), pipeline.counts().lost), (None, 4));
}

#[test]
fn a_failed_task_is_tried_again() {
    let (mut pipeline, view) = alone(1);
    let out = give(&mut pipeline, PipelineInput::Round(view));
    let failed = task(&out).id;
    let result = StageResult::Failed { reason: "no memory".to_owned() };
    assert!(give(&mut pipeline, PipelineInput::Computed { task: failed, result }).is_empty());
    let at = pipeline.poll_timeout().expect("it is tried again");
    let mut out = Vec::new();
    pipeline.handle(at, PipelineInput::Tick, &mut out);
    assert_ne!(task(&out).id, failed);
}

#[test]
fn calls_between_rounds_are_refused() {
    let mut world = World::new(Setup::even(2, 1, 4));
    world.run_for(50_000);
    let place = world.place(1, 0);
    let call = |world: &World| wire::StageCall {
        round: 0,
        stage: 1,
        index: 3,
        state_root: world.view.state_root,
        unit: world.view.units[3],
        again: false,
        hint: Vec::new(),
        input: vec![1; 40],
    };
    let call = call(&world);
    world.give(place, PipelineInput::RoundOver);
    let out = world.deliver(id(0, 0), place, Message::StageCall(call));
    let refused = |output: &PipelineOutput| match output {
        PipelineOutput::Send { message: Message::StageRefusal(refusal), .. } => {
            refusal.reason == RefusalReason::WrongRound
        }
        _ => false,
    };
    assert!(matches!(&out[..], [one] if refused(one)));
}

#[test]
#[should_panic(expected = "must be five messages")]
fn settings_that_allow_no_work_are_a_mistake() {
    let config = PipelineConfig { held_bytes_max: 4, message_bytes_max: 1, ..PipelineConfig::default() };
    Pipeline::new(id(0, 0), config, Time::default());
}

#[test]
fn a_pipeline_names_whom_it_needs() {
    let mut world = World::new(Setup::even(3, 3, 6));
    let neighbours = |world: &World, stage, replica| {
        let mut peers = world.replicas[world.place(stage, replica)].pipeline.as_ref().unwrap().neighbours();
        peers.sort_unstable();
        peers
    };
    let sorted = |mut peers: Vec<PeerId>| {
        peers.sort_unstable();
        peers
    };
    assert_eq!(neighbours(&world, 1, 0), sorted(vec![id(2, 0), id(2, 1), id(2, 2), id(1, 1), id(1, 2)]));
    assert_eq!(
        neighbours(&world, 2, 0),
        sorted(vec![id(2, 1), id(2, 2)]),
        "members of a stage ask each other for signs of life"
    );
    assert_eq!(neighbours(&world, 0, 1), sorted(vec![id(1, 0), id(1, 1), id(1, 2), id(0, 0), id(0, 2)]));
    let place = world.place(0, 1);
    world.after(0, Event::Kill(place));
    world.run_until("all done", 60_000_000, World::is_complete);
}

#[test]
fn who_is_refused_for_want_of_a_way_on_is_not_taken_for_a_flood() {
    let mut world = World::new(Setup { seed: 3, ..Setup::even(3, 2, 2) });
    // Of the last stage one replica is gone and the other counts no more.
    let (sealed, gone) = (world.place(2, 0), world.place(2, 1));
    world.kill(gone);
    world.give(sealed, PipelineInput::Seal);
    world.run_for(600_000_000);
    assert!(world.counts().refused > 100, "{:?}", world.counts());
    assert_eq!(world.faults, []);
}

#[test]
fn a_stage_that_has_committed_works_on_for_one_that_lost_its_sums() {
    let mut world = World::new(Setup { seed: 4, ..Setup::even(3, 1, 4) });
    let [first, middle, last] = [0, 1, 2].map(|stage| world.place(stage, 0));
    world.give(last, PipelineInput::Seal);
    world.kill(first);
    world.kill(middle);
    world.boot(first);
    world.boot(middle);
    world.run_until("both count all units", 60_000_000, |world| {
        (0..2).all(|stage| (0..4).all(|index| world.sums(stage, index) == 1))
    });
    assert_eq!(world.replicas[last].sums, [0; 4], "the last stage counts nothing any more");
    assert_eq!(world.faults, []);
}
