//! Connections, greetings, and peers that send rubbish.

use swarm::limits::{ERROR_TEXT_BYTES_MAX, FAULTS_PER_LINK_MAX, NEIGHBOURS_MAX};
use swarm::{FaultKind, Input, Output, Peer, PeerConfig, Restored, Time, TimeoutReason};
use wire::{Hash, Message, PROTOCOL_VERSION, RunId};

use crate::world::{World, charter, identity, sends, verified};

fn lone(place: usize, known: usize) -> Peer {
    let ids = (0..known).map(|place| identity(place).id()).collect();
    let config = PeerConfig::new(verified(charter(2, 3)), ids);
    Peer::new(config, identity(place), Restored::default(), Time::default())
}

fn give(peer: &mut Peer, micros: u64, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    peer.handle(Time::from_micros(micros), input, &mut out);
    out
}

fn dialled(out: &[Output]) -> Vec<wire::PeerId> {
    out.iter().filter_map(|output| if let Output::Connect(peer) = output { Some(*peer) } else { None }).collect()
}

#[test]
fn nothing_happens_before_the_start() {
    let mut peer = lone(1, 4);
    assert!(give(&mut peer, 5, Input::Connected(identity(0).id())).is_empty());
    assert!(give(&mut peer, 5, Input::Tick).is_empty());
    assert_eq!(peer.poll_timeout(), None);
    assert!(!give(&mut peer, 5, Input::Start).is_empty());
}

#[test]
fn validators_are_dialled_at_once_and_again_with_growing_delay() {
    let mut peer = lone(1, 2);
    let validator = identity(0).id();
    assert_eq!(dialled(&give(&mut peer, 0, Input::Start)), [validator]);
    let mut delays = Vec::new();
    let mut now = 0;
    for _ in 0..8 {
        assert!(dialled(&give(&mut peer, now, Input::Disconnected(validator))).is_empty());
        let (at, reason) = peer.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Dial);
        delays.push(at.as_micros() - now);
        now = at.as_micros();
        assert_eq!(dialled(&give(&mut peer, now, Input::Tick)), [validator]);
    }
    assert!(delays[0] >= 1_000_000 && delays[2] > delays[0], "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= 30_000_000 * 5 / 4), "{delays:?}");
}

#[test]
fn only_some_neighbours_are_dialled_and_the_validator_waits() {
    let mut peer = lone(1, 40);
    let first = dialled(&give(&mut peer, 0, Input::Start));
    let later = dialled(&give(&mut peer, 1_000_000, Input::Tick));
    let all: std::collections::BTreeSet<_> = first.iter().chain(&later).collect();
    assert_eq!(all.len(), NEIGHBOURS_MAX + 1);
    assert!(dialled(&give(&mut lone(0, 40), 0, Input::Start)).is_empty());
}

#[test]
fn both_sides_greet_with_their_height() {
    let mut peer = lone(1, 2);
    give(&mut peer, 0, Input::Start);
    let out = give(&mut peer, 1, Input::Connected(identity(0).id()));
    let hello =
        Message::Hello { version: PROTOCOL_VERSION, run: verified(charter(2, 3)).body.run_id(), height: 0, open: None };
    assert!(sends(&out).contains(&(identity(0).id(), &hello)));
}

#[test]
fn another_version_or_run_is_a_fault_and_the_connection_ends() {
    let run = verified(charter(2, 3)).body.run_id();
    let cases = [
        (Message::Hello { version: 9, run, height: 4, open: None }, FaultKind::WrongVersion { version: 9 }),
        (
            Message::Hello { version: PROTOCOL_VERSION, run: RunId(Hash::of(b"other")), height: 0, open: None },
            FaultKind::WrongRun,
        ),
    ];
    for (message, kind) in cases {
        let mut peer = lone(1, 2);
        let other = identity(7).id();
        give(&mut peer, 0, Input::Start);
        give(&mut peer, 1, Input::Connected(other));
        let out = give(&mut peer, 2, Input::Received { from: other, message });
        assert!(
            out.iter()
                .any(|output| matches!(output, Output::Fault(fault) if fault.kind == kind && fault.peer == other))
        );
        assert!(out.contains(&Output::Disconnect(other)));
        let again = give(&mut peer, 3, Input::Connected(other));
        assert_eq!(again, [Output::Disconnect(other)], "it is barred for a while");
        let later = give(&mut peer, 60_000_000, Input::Connected(other));
        assert!(!later.contains(&Output::Disconnect(other)), "and welcome later");
    }
}

#[test]
fn rubbish_is_survived_and_its_sender_barred() {
    let mut world = World::new(3, 2);
    let liar = identity(9).id();
    world.run("the validator starts", |world| !world.log[0].is_empty());
    world.give(0, Input::Connected(liar));
    for times in 1..=FAULTS_PER_LINK_MAX {
        let out = world.give(0, Input::Undecodable { from: liar, error: "é".repeat(500) });
        let fault = out.iter().find_map(|output| if let Output::Fault(fault) = output { Some(fault) } else { None });
        let FaultKind::Undecodable { error } = &fault.unwrap().kind else { panic!("{fault:?}") };
        assert!(error.len() <= ERROR_TEXT_BYTES_MAX);
        assert_eq!(out.contains(&Output::Disconnect(liar)), times == FAULTS_PER_LINK_MAX);
    }
    world.run("the others finish", World::all_finished);
}

#[test]
fn a_newcomer_is_sent_the_charter() {
    let mut world = World::new(2, 2);
    world.run("a round opens", |world| world.round(0) == Some(1));
    let newcomer = identity(9).id();
    world.give(0, Input::Connected(newcomer));
    let run = world.charter.body.run_id();
    let out = world.tell(0, newcomer, Message::Hello { version: PROTOCOL_VERSION, run, height: 0, open: None });
    let charter = Message::Charter((*world.charter).clone());
    assert!(sends(&out).contains(&(newcomer, &charter)));
}

#[test]
fn a_message_without_a_connection_is_ignored() {
    let mut world = World::new(2, 2);
    world.run("a round opens", |world| world.round(0) == Some(1));
    let out = world.tell(0, identity(9).id(), Message::BlocksWanted { from_height: 0 });
    assert!(sends(&out).iter().all(|(to, _)| *to != identity(9).id()));
}
