//! Payloads that are fetched before their commitments are in a block.

use swarm::{Output, Record};
use wire::{Hash, Message, PayloadMade, PeerId};

use crate::world::{ROUND_US, STATE_BYTES, World, identity, position, sends};

fn fetches(out: &[Output]) -> Vec<(Hash, &[PeerId])> {
    let fetches = out.iter().filter_map(|output| match output {
        Output::Fetch { hash, providers, .. } => Some((*hash, &providers[..])),
        _ => None,
    });
    fetches.collect()
}

fn is_announcement(message: &Message) -> bool {
    matches!(message, Message::PayloadMade(_))
}

#[test]
fn members_hear_at_once_of_a_payload_and_fetch_it() {
    let mut world = World::new(3, 2);
    world.busy = [1].into();
    world.run("peer 1 trains", |world| world.jobs.contains_key(&1));
    world.run_for(1_000_000);
    world.cut_off(0);
    let before = world.log[2].len();
    let out = world.finish_job(1);
    let told: Vec<PeerId> = sends(&out).iter().filter(|(_, said)| is_announcement(said)).map(|(to, _)| *to).collect();
    assert_eq!(told, [world.id(2)], "the validator learns it from the commitment");
    let stored = position(&out, |output| matches!(output, Output::Persist(Record::Outgoing(_))));
    assert!(
        stored < position(&out, |output| matches!(output, Output::Send { message, .. } if is_announcement(message)))
    );
    world.run_for(1_000_000);
    let maker = world.id(1);
    let fetched = fetches(&world.log[2][before..]);
    assert!(fetched.iter().any(|(_, providers)| *providers == [maker]), "without a block that says so: {fetched:?}");
}

#[test]
fn what_is_announced_is_bounded_and_given_up_when_its_round_is_over() {
    let mut world = World::new(3, 3);
    world.busy = [1].into();
    world.run("peer 1 trains", |world| world.jobs.contains_key(&1));
    world.run_for(1_000_000);
    let (liar, round, payload) = (world.id(1), world.round(2).unwrap(), Hash([9; 32]));
    let made = |round: u64, payload: Hash, payload_bytes: u64| {
        Message::PayloadMade(PayloadMade { round, payload, payload_bytes })
    };
    let others = [made(round + 1, payload, 10), made(round, payload, STATE_BYTES + 1)];
    for message in others {
        assert_eq!(fetches(&world.tell(2, liar, message)), vec![]);
    }
    let held = world.peer(2).model().unwrap().state_root;
    assert_eq!(fetches(&world.tell(2, liar, made(round, held, 10))), vec![], "it is here, and says nothing");
    assert_eq!(fetches(&world.tell(2, identity(8).id(), made(round, payload, 10))), vec![], "a stranger");
    assert_eq!(fetches(&world.tell(2, liar, made(round, payload, 10))), vec![(payload, &[liar][..])]);
    assert_eq!(fetches(&world.tell(2, liar, made(round, Hash([8; 32]), 10))), vec![], "it may say so once");
    world.give(2, swarm::Input::Fetched { hash: payload, bytes: 10 });
    let before = world.log[2].len();
    world.run_for(2 * ROUND_US);
    assert!(world.round(2).unwrap() > round);
    let forgot = |output: &Output| matches!(output, Output::Forget { hashes } if hashes.contains(&payload));
    assert_eq!(world.log[2][before..].iter().filter(|output| forgot(output)).count(), 1);
}
