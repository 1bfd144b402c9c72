//! Replicas that send rubbish or lies: it is recorded, and the units are done without them.

use swarm::pipeline::StageFault;
use wire::{Hash, Message, PeerId, RefusalReason, StageCall, StageRefusal, StageReply};

use super::trainer::{MESSAGE_BYTES, NO_NUMBERS};
use super::world::{Lie, Setup, World, id};

/// Three stages of two replicas, of which one lies in everything that it sends.
fn with_liar(stage: usize, lie: Lie) -> World {
    let mut world = World::new(Setup { seed: 7, ..Setup::even(3, 2, 12) });
    let liar = world.place(stage, 1);
    world.lies.insert(liar, lie);
    world
}

fn change_calls(change: impl Fn(&mut StageCall) + 'static) -> Lie {
    Box::new(move |_, message| match message {
        Message::StageCall(mut call) if !call.input.is_empty() => {
            change(&mut call);
            vec![Message::StageCall(call)]
        }
        other => vec![other],
    })
}

fn change_replies(change: impl Fn(&mut StageReply) + 'static) -> Lie {
    Box::new(move |_, message| match message {
        Message::StageReply(mut reply) => {
            change(&mut reply);
            vec![Message::StageReply(reply)]
        }
        other => vec![other],
    })
}

/// Runs until every unit came back to the first stage, done by the honest.
fn run(world: &mut World, liar: PeerId) {
    world.run_until("all done", 120_000_000, |world| {
        let honest = world.replicas.iter().filter(|replica| replica.stage == 0 && replica.id != liar);
        let count = |index: usize| honest.clone().map(|replica| replica.sums[index]).sum::<u32>();
        let assigned = |index: usize| world.view.assignment[index] != liar;
        (0..world.setup.units as usize).filter(|index| assigned(*index)).all(|index| count(index) >= 1)
    });
}

fn held_against(world: &World, liar: PeerId, test: impl Fn(&StageFault) -> bool) -> usize {
    for (by, peer, kind, _) in &world.faults {
        assert!(*peer == liar || *by == liar || !kind.is_certain(), "{peer:?} is innocent of {kind:?}");
    }
    world.faults.iter().filter(|(_, peer, kind, _)| *peer == liar && test(kind)).count()
}

/// What a member of stage 0 sends into stage 1 for unit 0.
fn first_call(world: &World) -> StageCall {
    StageCall {
        round: 0,
        stage: 1,
        index: 0,
        state_root: world.view.state_root,
        unit: world.view.units[0],
        again: false,
        hint: Vec::new(),
        input: vec![1; MESSAGE_BYTES],
    }
}

#[test]
fn bytes_of_the_wrong_shape_and_no_numbers_are_found() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 3] =
        [|bytes| bytes.truncate(MESSAGE_BYTES - 1), |bytes| bytes[0] = NO_NUMBERS, |bytes| bytes.resize(1000, 1)];
    for damage in damages {
        let lies: [(usize, Lie); 3] = [
            (1, change_replies(move |reply| damage(&mut reply.gradient))),
            (1, change_calls(move |call| damage(&mut call.input))),
            (0, change_calls(move |call| damage(&mut call.input))),
        ];
        for (stage, lie) in lies {
            let mut world = with_liar(stage, lie);
            run(&mut world, id(stage, 1));
            let found = held_against(&world, id(stage, 1), |kind| matches!(kind, StageFault::BadBytes { .. }));
            assert!(found > 0, "a liar in stage {stage}: {:?}", world.faults);
            assert!(world.faults.iter().all(|(_, _, _, evidence)| evidence.is_some()));
        }
    }
}

#[test]
fn a_stale_state_is_found() {
    let stale = Hash::of(b"of the round before");
    let mut world = with_liar(1, change_calls(move |call| call.state_root = stale));
    run(&mut world, id(1, 1));
    let is_stale = |kind: &StageFault| matches!(kind, StageFault::StaleState { got, .. } if *got == stale);
    assert!(held_against(&world, id(1, 1), is_stale) > 0);
}

#[test]
fn a_flood_of_calls_is_no_longer_answered() {
    let flood: Lie = Box::new(|_, message| match message {
        Message::StageCall(_) => vec![message; 60],
        other => vec![other],
    });
    let mut world = with_liar(0, flood);
    run(&mut world, id(0, 1));
    world.run_for(5_000_000);
    assert!(held_against(&world, id(0, 1), |kind| *kind == StageFault::Flood) > 0);
    assert_eq!(world.excess(), 0, "nothing is counted twice for it");
}

#[test]
fn a_flood_of_rubbish_is_no_longer_answered() {
    let mut world = World::new(Setup::even(2, 2, 4));
    world.run_until("all done", 60_000_000, World::is_complete);
    let (liar, place) = (id(0, 1), world.place(1, 0));
    let call = StageCall { round: 99, ..first_call(&world) };
    let mut answers = 0;
    for _ in 0..10_000 {
        let out = world.deliver(liar, place, Message::StageCall(call.clone()));
        answers += usize::from(!out.is_empty());
    }
    assert!(answers < 200, "{answers} answers");
    assert_eq!(held_against(&world, liar, |kind| *kind == StageFault::Flood), 1, "told once");
}

#[test]
fn replies_that_nobody_asked_for_and_paths_that_lead_nowhere_are_found() {
    let unasked: Lie = Box::new(|_, message| match message {
        Message::StageReply(reply) => {
            let other = StageReply { index: (reply.index + 1) % 12, ..reply.clone() };
            vec![Message::StageReply(reply), Message::StageReply(other)]
        }
        other => vec![other],
    });
    let mut world = with_liar(1, unasked);
    run(&mut world, id(1, 1));
    assert!(held_against(&world, id(1, 1), |kind| *kind == StageFault::Unasked) > 0);

    let paths: [fn(&mut StageReply); 3] = [
        |reply| reply.path = vec![id(1, 0), id(2, 0)],
        |reply| reply.path = vec![id(1, 1), id(1, 1)],
        |reply| reply.path.push(id(2, 0)),
    ];
    for path in paths {
        let mut world = with_liar(1, change_replies(path));
        run(&mut world, id(1, 1));
        assert!(held_against(&world, id(1, 1), |kind| *kind == StageFault::BadPath) > 0);
    }
}

#[test]
fn a_lying_gradient_is_found_when_the_unit_is_done_again() {
    let mut world = with_liar(1, change_replies(|reply| reply.gradient[5] ^= 1));
    let liar = id(1, 1);
    world.run_until("all done", 60_000_000, World::is_complete);
    assert_eq!(world.faults, [], "a lie of the right shape is not seen at first");
    let place = world.place(1, 1);
    world.kill(place);
    world.run_until("done anew", 60_000_000, World::is_complete);
    world.run_for(1_000_000);
    let named = world.faults.iter().filter(|(_, peer, kind, evidence)| match kind {
        StageFault::Mismatch { unit, earlier, earlier_from, got } => {
            let index = world.view.units.iter().position(|other| other == unit).unwrap();
            let truth = Hash::of(&world.references[index].gradients[1]);
            *peer == id(1, 0) && *earlier_from == liar && *got == truth && *earlier != truth && *evidence == Some(*got)
        }
        _ => false,
    });
    assert!(named.count() > 0, "{:?}", world.faults);
    assert_eq!(world.counts().lost, 0);
}

#[test]
fn a_lying_output_is_found_when_the_unit_is_done_again() {
    let mut world = with_liar(1, change_calls(|call| call.input[5] ^= 1));
    let liar = id(1, 1);
    world.run_until("given up by all but the liar", 60_000_000, |world| {
        (0..12).all(|index| world.sums(1, index) >= 1) || world.now.as_micros() > 30_000_000
    });
    let place = world.place(1, 1);
    world.kill(place);
    run(&mut world, liar);
    let mismatch = |kind: &StageFault| matches!(kind, StageFault::Mismatch { .. });
    assert!(world.faults.iter().any(|(_, _, kind, _)| mismatch(kind)), "{:?}", world.faults);
    for (_, peer, kind, _) in &world.faults {
        assert!(!kind.is_certain() || *peer == liar || *kind == StageFault::Unasked, "{peer:?}: {kind:?}");
    }
}

#[test]
fn who_always_refuses_is_left_alone() {
    for reason in [RefusalReason::Busy, RefusalReason::Full, RefusalReason::NoRoute, RefusalReason::BadInput] {
        let refuse: Lie = Box::new(move |_, message| match message {
            Message::StageReply(reply) => {
                let StageReply { round, stage, index, .. } = reply;
                vec![Message::StageRefusal(StageRefusal { round, stage, index, reason })]
            }
            other => vec![other],
        });
        let mut world = with_liar(1, refuse);
        run(&mut world, id(1, 1));
        assert_eq!(held_against(&world, id(1, 1), |_| true), 0);
    }
}

#[test]
fn strangers_and_wrong_names_are_refused() {
    let mut world = World::new(Setup::even(3, 2, 4));
    world.run_until("all done", 60_000_000, World::is_complete);
    let place = world.place(1, 0);
    let good = first_call(&world);
    let other_unit = world.view.units[1];
    let cases = [
        (id(2, 0), good.clone(), RefusalReason::WrongStage, 0),
        (id(0, 0), StageCall { stage: 2, ..good.clone() }, RefusalReason::WrongStage, 0),
        (id(0, 0), StageCall { stage: 7, ..good.clone() }, RefusalReason::WrongStage, 1),
        (id(0, 0), StageCall { unit: other_unit, ..good.clone() }, RefusalReason::BadInput, 1),
        (id(0, 0), StageCall { index: 4, ..good.clone() }, RefusalReason::BadInput, 1),
        (id(0, 0), StageCall { input: vec![1; 65], ..good.clone() }, RefusalReason::BadInput, 1),
    ];
    for (from, call, expected, faults) in cases {
        let before = world.faults.len();
        let out = world.deliver(from, place, Message::StageCall(call));
        assert_eq!(world.faults.len(), before + faults, "{expected:?}: a member may have moved");
        let refused = |output: &swarm::pipeline::PipelineOutput| match output {
            swarm::pipeline::PipelineOutput::Send { to, message: Message::StageRefusal(refusal) } => {
                *to == from && refusal.reason == expected
            }
            _ => false,
        };
        assert!(out.iter().any(refused), "{out:?}");
    }
    let early = StageCall { round: 1, ..good };
    let before = world.faults.len();
    world.deliver(id(0, 0), place, Message::StageCall(early));
    assert_eq!(world.faults.len(), before, "a caller may be a block ahead");
}

#[test]
fn a_caller_that_gives_two_inputs_for_a_unit_is_served_once() {
    let mut world = World::new(Setup::even(2, 2, 4));
    world.run_until("all done", 60_000_000, World::is_complete);
    let place = world.place(1, 0);
    let index = world.replicas[place].sums.iter().position(|count| *count == 1).unwrap();
    let caller = world.view.assignment[index];
    let call = |byte| StageCall {
        round: 0,
        stage: 1,
        index: index as u32,
        state_root: world.view.state_root,
        unit: world.view.units[index],
        again: false,
        hint: Vec::new(),
        input: vec![byte; MESSAGE_BYTES],
    };
    let (second, third) = (call(1), call(1));
    world.deliver(caller, place, Message::StageCall(second));
    assert!(matches!(&world.faults[..], [(_, peer, StageFault::Mismatch { .. }, _)] if *peer == caller));
    // Another caller may be the honest one: it is served, but the unit is not counted twice.
    let other = world.view.assignment[1 - index % 2];
    assert_ne!(other, caller);
    world.deliver(other, place, Message::StageCall(third));
    world.run_for(1_000_000);
    assert_eq!(world.replicas[place].sums[index], 1);
}
