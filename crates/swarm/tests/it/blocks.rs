//! Getting, checking and giving blocks.

use swarm::{FaultKind, Input, Output, Peer, PeerConfig, Restored, Time};
use wire::message::BLOCKS_PER_ANSWER_MAX;
use wire::{Block, Hash, Message, PROTOCOL_VERSION};

use crate::world::{World, identity, sends};

/// The blocks of a finished run, and a fresh follower of it that is connected with the validator and one more peer.
fn follower(peers: usize, rounds: u64) -> (World, Vec<Block>, Peer) {
    let mut world = World::new(peers, rounds);
    world.run("the run ends", World::all_finished);
    let blocks = world.peer(0).blocks().to_vec();
    let mut config = PeerConfig::new(world.charter.clone(), vec![identity(0).id(), identity(1).id()]);
    config.trains = false;
    let mut peer = Peer::new(config, identity(30), Restored::default(), Time::default());
    let mut out = Vec::new();
    peer.handle(Time::default(), Input::Start, &mut out);
    for place in 0..2 {
        peer.handle(Time::default(), Input::Connected(identity(place).id()), &mut out);
    }
    (world, blocks, peer)
}

fn give(peer: &mut Peer, from: usize, message: Message) -> Vec<Output> {
    let mut out = Vec::new();
    let input = Input::Received { from: identity(from).id(), message };
    peer.handle(Time::from_micros(1), input, &mut out);
    out
}

fn hello(world: &World, height: u64) -> Message {
    Message::Hello { version: PROTOCOL_VERSION, run: world.charter.body.run_id(), height, open: None }
}

fn wanted(out: &[Output]) -> Vec<(wire::PeerId, u64)> {
    let asks = sends(out).into_iter();
    asks.filter_map(|(to, message)| match message {
        Message::BlocksWanted { from_height } => Some((to, *from_height)),
        _ => None,
    })
    .collect()
}

fn fault_kinds(out: &[Output]) -> Vec<(wire::PeerId, FaultKind)> {
    let faults = out.iter();
    faults
        .filter_map(
            |output| if let Output::Fault(fault) = output { Some((fault.peer, fault.kind.clone())) } else { None },
        )
        .collect()
}

#[test]
fn whoever_is_behind_asks_and_catches_up_in_parts() {
    let (world, blocks, mut peer) = follower(3, 80);
    assert!(blocks.len() > BLOCKS_PER_ANSWER_MAX);
    let height = blocks.len() as u64;
    let mut asked = wanted(&give(&mut peer, 0, hello(&world, height)));
    let mut answers = 0;
    let mut server = world;
    server.give(0, Input::Connected(identity(30).id()));
    while let Some((to, from_height)) = asked.pop() {
        assert_eq!(to, identity(0).id());
        let out = server.tell(0, identity(30).id(), Message::BlocksWanted { from_height });
        let answer = sends(&out).into_iter().find_map(|(_, message)| match message {
            Message::Blocks(blocks) => Some(blocks.clone()),
            _ => None,
        });
        let answer = answer.unwrap();
        assert!(answer.len() <= BLOCKS_PER_ANSWER_MAX);
        answers += 1;
        asked = wanted(&give(&mut peer, 0, Message::Blocks(answer)));
    }
    assert_eq!(peer.ledger().root(), server.peer(0).ledger().root());
    assert_eq!(answers, blocks.len().div_ceil(BLOCKS_PER_ANSWER_MAX));
}

#[test]
fn blocks_in_any_order_and_twice_give_the_same_ledger() {
    let (world, blocks, mut peer) = follower(2, 4);
    let mut out = Vec::new();
    for block in blocks.iter().rev().chain(&blocks) {
        out.extend(give(&mut peer, 0, Message::Block(block.clone())));
    }
    assert_eq!(fault_kinds(&out), []);
    assert!(!wanted(&out).is_empty(), "the gap is asked for");
    assert_eq!(peer.ledger().root(), world.peer(0).ledger().root());
    let persisted = out.iter().filter(|output| matches!(output, Output::Persist(_))).count();
    assert_eq!(persisted, blocks.len(), "each block is stored once");
}

#[test]
fn a_bad_block_is_its_senders_fault_and_others_are_asked() {
    let (world, blocks, mut peer) = follower(2, 4);
    let mut bad = blocks[0].clone();
    bad.header.body.ledger_root = Hash::of(b"lie");
    bad.header = identity(0).sign(bad.header.body);
    let forged = {
        let mut block = blocks[0].clone();
        block.header.signature.0[3] ^= 1;
        block
    };
    let out = give(&mut peer, 1, Message::Block(forged));
    assert_eq!(fault_kinds(&out), [(identity(1).id(), FaultKind::BadSignature)]);
    let out = give(&mut peer, 1, Message::Block(bad));
    assert!(
        matches!(&fault_kinds(&out)[..], [(liar, FaultKind::BadBlock { height: 0, .. })] if *liar == identity(1).id())
    );
    assert_eq!(peer.ledger().height(), 0);
    let asked = wanted(&give(&mut peer, 0, hello(&world, blocks.len() as u64)));
    assert_eq!(asked, [(identity(0).id(), 0)]);
    give(&mut peer, 0, Message::Blocks(blocks.clone()));
    assert_eq!(peer.ledger().height(), blocks.len() as u64);
}

#[test]
fn two_signed_blocks_of_one_height_are_the_validators_fault() {
    let (_, blocks, mut peer) = follower(2, 4);
    give(&mut peer, 0, Message::Blocks(blocks.clone()));
    let mut second = blocks[1].header.body.clone();
    second.time_us += 1;
    let second = Block { header: identity(0).sign(second), transactions: blocks[1].transactions.clone() };
    let out = give(&mut peer, 1, Message::Block(second));
    assert_eq!(fault_kinds(&out), [(identity(0).id(), FaultKind::Equivocation)]);
    let mut foreign = blocks[1].header.body.clone();
    foreign.time_us += 1;
    let foreign = Block { header: identity(1).sign(foreign), transactions: Vec::new().into() };
    assert_eq!(fault_kinds(&give(&mut peer, 1, Message::Block(foreign))), [], "no validator, no equivocation");
}

#[test]
fn a_request_that_is_not_answered_goes_to_another_peer() {
    let (world, blocks, mut peer) = follower(2, 4);
    let first = wanted(&give(&mut peer, 1, hello(&world, u64::MAX)));
    assert_eq!(first, [(identity(1).id(), 0)]);
    assert_eq!(wanted(&give(&mut peer, 0, hello(&world, blocks.len() as u64))), [], "one request at a time");
    let (at, _) = peer.poll_timeout().unwrap();
    let mut out = Vec::new();
    peer.handle(at.after(2_000_000), Input::Tick, &mut out);
    assert_eq!(wanted(&out), [(identity(0).id(), 0)]);
}

#[test]
fn a_lost_connection_frees_the_request() {
    let (world, blocks, mut peer) = follower(2, 4);
    give(&mut peer, 0, hello(&world, blocks.len() as u64));
    give(&mut peer, 1, hello(&world, blocks.len() as u64));
    let mut out = Vec::new();
    peer.handle(Time::from_micros(2), Input::Disconnected(identity(0).id()), &mut out);
    assert_eq!(wanted(&out), [(identity(1).id(), 0)]);
}

#[test]
fn blocks_reach_a_peer_that_cannot_reach_the_validator() {
    let (world, blocks, mut peer) = follower(2, 4);
    let mut out = Vec::new();
    peer.handle(Time::from_micros(1), Input::Disconnected(identity(1).id()), &mut out);
    give(&mut peer, 0, hello(&world, blocks.len() as u64));
    peer.handle(Time::from_micros(3), Input::Connected(identity(1).id()), &mut out);
    give(&mut peer, 1, hello(&world, 0));
    give(&mut peer, 0, Message::Blocks(blocks.clone()));
    out.clear();
    peer.handle(Time::from_micros(5_000_000), Input::Tick, &mut out);
    let height = blocks.len() as u64;
    assert!(sends(&out).contains(&(identity(1).id(), &hello(&world, height))), "the new height is announced");
    let out = give(&mut peer, 1, Message::BlocksWanted { from_height: 0 });
    assert!(
        sends(&out).iter().any(|(_, message)| matches!(message, Message::Blocks(given) if given.len() == blocks.len()))
    );
}
