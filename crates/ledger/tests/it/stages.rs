//! Runs of several stages.

use ledger::{Canonical, MISSED_ROUNDS_MAX, Rejection, Standing, UNITS_PER_MEMBER_MAX};
use wire::{Hash, PeerId, run_root};

use crate::support::{World, stage_state_after, stage_terms};

const ALL: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// The places of the committed set's entries: stage and peer.
fn places(set: &ledger::CommittedSet) -> Vec<(u16, PeerId)> {
    set.entries.iter().map(|entry| (entry.stage, entry.peer)).collect()
}

/// All peers attest what they should.
fn attest_all(world: &mut World) -> ledger::Applied {
    let attestations = world.peers.iter().map(|peer| world.attest_honestly(peer)).collect();
    world.block(attestations)
}

/// Every account's piece verifies and says what the ledger says.
fn check_pieces(world: &World) {
    for account in world.ledger.accounts() {
        let paid = world.ledger.paid_receipts(&account.peer, &world.blocks);
        assert_eq!(paid.len() as u64, account.receipts);
        let piece = world.ledger.piece(&account.peer, paid).expect("it has an account");
        assert_eq!(piece.verify().expect("the ledger's own piece verifies").shares, account.shares);
    }
}

#[test]
fn round_zero_waits_until_every_stage_has_a_member() {
    let mut world = World::with(5, |charter| {
        charter.stages = (0..3).map(stage_terms).collect();
        charter.start_members = 3;
    });
    let joins = [0, 0, 1, 1].iter().zip(&world.peers).map(|(stage, peer)| world.join_stage(peer, *stage)).collect();
    assert_eq!(world.block(joins).opened, None, "enough have joined, but nobody stage 2");
    let nowhere = world.join_stage(&world.peers[4], 3);
    assert_eq!(world.ledger.check(&nowhere), Err(Rejection::NoStage { stages: 3, got: 3 }));
    let same = world.join_stage(&world.peers[3], 1);
    assert_eq!(world.ledger.check(&same), Err(Rejection::AlreadyJoined));
    let instead = world.join_stage(&world.peers[3], 2);
    let applied = world.block(vec![instead]);
    assert_eq!(applied.opened, Some(0));
    let roots: Vec<Hash> = world.ledger.charter().stages.iter().map(|stage| stage.genesis_state).collect();
    let canonical = |(root, stage): (&Hash, u16)| Canonical { round: 0, stage, root: *root };
    assert_eq!(applied.canonical, roots.iter().zip(0..).map(canonical).collect::<Vec<_>>());
    assert_eq!(*world.round().stages, [0, 0, 1, 2]);
    assert_eq!(world.round().run_root(), Some(run_root(&roots)));
    assert_eq!(world.round().members_of(1).copied().collect::<Vec<_>>(), vec![world.id(2)]);
    let assigned = world.round().assignment();
    assert!(assigned.iter().all(|peer| world.round().stage_of(peer) == Some(0)), "units are proposed to stage 0");
    assert_eq!(world.round().units_of(&world.id(2)), Vec::<u32>::new());
}

#[test]
fn a_round_closes_when_every_stage_has_done_every_unit() {
    let mut world = World::staged(&[2, 1], |_| {});
    let first = vec![world.commit_units(&world.peers[1], &[7, 5, 3, 1]), world.commit_units(&world.peers[2], &ALL)];
    assert_eq!(world.block(first).closed, None, "four units are missing in stage 0");
    assert_eq!((world.round().claimed_len(0), world.round().claimed_len(1)), (4, 8));
    assert!(world.round().is_claimed(0, 7) && !world.round().is_claimed(0, 6));
    let rest = world.commit_units(&world.peers[0], &[0, 2, 4, 6]);
    let set = world.block(vec![rest]).closed.unwrap();
    assert_eq!(places(&set), vec![(0, world.id(0)), (0, world.id(1)), (1, world.id(2))], "by stage and peer");
    assert_eq!((set.entries_of(0).len(), set.entries_of(1).len(), set.entries_of(2).len()), (2, 1, 0));
    assert_eq!(set.entries_of(1)[0].tokens, 800);
    assert_eq!(set.state_in, [0, 1].map(|stage| stage_terms(stage).genesis_state));
    check_pieces(&world);
}

#[test]
fn shares_are_split_by_weight_and_then_by_unit() {
    let mut world = World::staged(&[2, 2], |charter| charter.stages[1].weight = 3);
    let commits = [(0, vec![0, 1, 2, 3, 4]), (1, vec![5, 6, 7]), (2, vec![4, 5, 6, 7]), (3, vec![3, 2, 1, 0])];
    let commits = commits.iter().map(|(peer, units)| world.commit_units(&world.peers[*peer], units)).collect();
    world.block(commits);
    let shares = [0, 1, 2, 3].map(|peer| world.ledger.account(&world.id(peer)).unwrap().shares);
    // Of 1003 shares 250 and 752, and one left for stage 0: 251 over 8 units are 31 each, and 3 for unit 0.
    assert_eq!(shares, [5 * 31 + 3, 3 * 31, 4 * 94, 4 * 94]);
    assert_eq!(shares.iter().sum::<u64>(), world.ledger.supply());
    assert_eq!((world.ledger.totals().receipts, world.ledger.totals().tokens), (16, 1600));
}

#[test]
fn the_first_claim_of_a_unit_is_paid_and_later_ones_are_accepted() {
    let mut world = World::staged(&[2, 2], |_| {});
    let first = vec![
        world.commit_units(&world.peers[0], &[0, 1, 2, 3]),
        world.commit_units(&world.peers[2], &ALL),
        world.commit_units(&world.peers[3], &[2, 1]),
    ];
    world.block(first);
    let second = world.commit_units(&world.peers[1], &[3, 4, 5, 6, 7, 0]);
    let set = world.block(vec![second]).closed.unwrap();
    assert_eq!(set.entries_of(0)[1].tokens, 600, "the payload was made from all of them");
    let account = |peer: usize| *world.ledger.account(&world.id(peer)).unwrap();
    let paid = [0, 1, 2, 3].map(|peer| (account(peer).receipts, account(peer).counter));
    assert_eq!(paid, [(4, 4), (4, 6), (8, 8), (0, 2)]);
    assert_eq!((account(3).shares, account(3).tokens, account(3).rounds), (0, 0, 1));
    assert_eq!(account(1).tokens, 400);
    check_pieces(&world);
    attest_all(&mut world);
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
    assert!(world.block(commits).closed.is_some(), "the counters go on after receipts that were not paid");
    check_pieces(&world);
    let mut piece = world.ledger.piece(&world.id(1), world.ledger.paid_receipts(&world.id(1), &world.blocks)).unwrap();
    piece.receipts.swap(1, 2);
    assert!(piece.verify().is_err());
}

#[test]
fn from_the_deadline_on_a_quorum_closes_with_somebody_of_every_stage() {
    let mut world = World::staged(&[3, 2], |charter| charter.quorum = 3);
    let commits = [0, 1, 2].iter().map(|peer| world.commit_units(&world.peers[*peer], &[0, 1])).collect();
    world.block(commits);
    assert_eq!(world.ledger.closes_at_us(), None, "a quorum, but nobody of stage 1");
    let one = world.commit_units(&world.peers[4], &[6]);
    assert_eq!(world.block(vec![one]).closed, None);
    let set = world.deadline().closed.unwrap();
    assert_eq!((set.entries.len(), world.ledger.totals().receipts), (4, 3));
    assert_eq!(world.ledger.supply(), 1003, "what was done is paid as a whole round");
    let mut world = World::staged(&[1, 1], |charter| charter.quorum = 3);
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &[0])).collect();
    world.block(commits);
    assert_eq!(world.ledger.closes_at_us(), None, "somebody of every stage, but no quorum");
}

#[test]
fn a_stage_waits_for_its_own_root_only() {
    let mut world = World::staged(&[2, 3], |charter| charter.quorum = 2);
    let commits = [0, 2].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    assert_eq!(world.block(commits).opened, Some(1));
    let (zero, one) = (stage_state_after(&world.ledger, 0), stage_state_after(&world.ledger, 1));
    let foreign =
        world.sign(&world.peers[0], wire::Action::Attest(wire::Attestation { round: 1, stage: 1, state_root: one }));
    assert_eq!(world.ledger.check(&foreign), Err(Rejection::WrongStage { expected: 0, got: 1 }));
    let votes = [0, 1, 2].map(|peer| world.attest_honestly(&world.peers[peer])).to_vec();
    let applied = world.block(votes);
    assert_eq!(applied.canonical, vec![Canonical { round: 1, stage: 0, root: zero }], "one of three is no majority");
    assert_eq!((world.round().state_root_of(0), world.round().state_root_of(1)), (Some(zero), None));
    assert_eq!((world.round().run_root(), world.round().state_root_of(9)), (None, None));
    let newest = [0, 1].map(|stage| world.ledger.newest_state(stage));
    assert_eq!(newest, [Some((1, zero)), Some((0, stage_terms(1).genesis_state))]);
    let early = world.commit_units(&world.peers[2], &[0]);
    assert_eq!(world.ledger.check(&early), Err(Rejection::StateUnknown { round: 1 }));
    let able = world.commit_units(&world.peers[0], &ALL);
    let lie = world.attest(&world.peers[3], Hash::of(b"lie"));
    world.block(vec![able, lie]);
    let last = world.attest_honestly(&world.peers[4]);
    let applied = world.block(vec![last]);
    assert_eq!(applied.canonical, vec![Canonical { round: 1, stage: 1, root: one }]);
    assert_eq!(applied.divergent, vec![world.id(3)], "it differs from the root of its own stage");
    assert_eq!(world.ledger.state_root(1, 1), Some(one));
    let rest = world.commit_units(&world.peers[2], &ALL);
    assert!(world.block(vec![rest]).closed.is_some());
}

#[test]
fn a_run_with_one_member_in_each_stage_ends_when_every_final_state_is_attested() {
    let mut world = World::staged(&[1, 1, 1], |_| {});
    for round in 0..3 {
        let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
        assert_eq!(world.block(commits).closed.unwrap().round, round);
        for peer in 0..3 {
            let attestation = world.attest_honestly(&world.peers[peer]);
            let applied = world.block(vec![attestation]);
            assert_eq!((applied.canonical.len(), applied.finished), (1, round == 2 && peer == 2));
        }
    }
    assert_eq!(world.ledger.supply(), 3009);
    assert_eq!(world.ledger.totals().receipts, 72);
    let late = world.join_stage(&world.peers[0], 1);
    assert_eq!(world.ledger.check(&late), Err(Rejection::Finished));
    check_pieces(&world);
}

#[test]
fn a_move_takes_effect_with_the_next_round() {
    let mut world = World::staged(&[2, 2], |_| {});
    let moves = world.join_stage(&world.peers[0], 1);
    world.block(vec![moves.clone()]);
    assert_eq!(world.ledger.check(&moves), Err(Rejection::AlreadyJoined));
    assert_eq!((world.stage(&world.peers[0]), world.ledger.account(&world.id(0)).unwrap().stage), (0, 1));
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
    let set = world.block(commits).closed.unwrap();
    assert_eq!(places(&set)[0], (0, world.id(0)), "in its old stage until the round closes");
    assert_eq!(*world.round().stages, [1, 0, 1, 1]);
    let voters = [0, 1, 2, 3].map(|peer| world.round().is_voter(&world.id(peer)));
    assert_eq!(voters, [false, true, true, true], "it learns the state of its new stage from the others");
    attest_all(&mut world);
    let back = world.join_stage(&world.peers[0], 0);
    let again = [back, world.join_stage(&world.peers[2], 0)].to_vec();
    world.block(again);
    let stay = world.join_stage(&world.peers[2], 1);
    world.block(vec![stay]);
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
    world.block(commits);
    assert_eq!(*world.round().stages, [0, 0, 1, 1], "a move can be taken back");
    assert!(world.round().is_voter(&world.id(2)));
    check_pieces(&world);
}

#[test]
fn a_leaving_member_can_come_back_to_another_stage() {
    let mut world = World::staged(&[2, 2], |_| {});
    let leave = world.leave(&world.peers[0]);
    world.block(vec![leave]);
    let back = world.join_stage(&world.peers[0], 1);
    world.block(vec![back]);
    assert_eq!(world.ledger.account(&world.id(0)).unwrap().standing, Standing::Member);
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
    world.block(commits);
    assert_eq!(*world.round().stages, [1, 0, 1, 1]);
}

#[test]
fn a_commitment_claims_only_units_of_the_round_for_its_own_stage() {
    let mut world = World::staged(&[1, 2], |charter| charter.units_per_round = 100);
    assert_eq!(world.round().units, UNITS_PER_MEMBER_MAX as u32, "no more than the smallest stage can claim");
    let beyond = world.commit_units(&world.peers[1], &[3, 64]);
    assert_eq!(world.ledger.check(&beyond), Err(Rejection::NoUnit { units: 64, got: 64 }));
    let mut foreign = world.commitment_of(&world.peers[1], &[3]);
    let receipt = wire::Receipt { stage: 0, ..foreign.receipts[0].body.clone() };
    foreign.receipts[0] = world.peers[1].sign(receipt);
    let foreign = world.sign(&world.peers[1], wire::Action::Commit(foreign));
    let error = Rejection::ReceiptStage { index: 3, expected: 1, got: 0 };
    assert_eq!(world.ledger.check(&foreign), Err(error));
    let commit = world.commit_units(&world.peers[1], &[9, 3]);
    world.block(vec![commit.clone()]);
    assert_eq!(world.ledger.check(&commit), Err(Rejection::AlreadyCommitted { round: 0 }));
}

#[test]
fn only_who_neither_attests_nor_commits_misses_a_round() {
    let mut world = World::staged(&[3, 2], |charter| charter.rounds = 10);
    for missed in 1..=MISSED_ROUNDS_MAX {
        let commits = [0, 3].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
        let applied = world.block(commits);
        let silent = world.ledger.account(&world.id(2)).unwrap().missed;
        assert_eq!((silent, applied.dropped.len()), (missed, usize::from(missed == MISSED_ROUNDS_MAX)));
        let attests = [0, 1, 3, 4].map(|peer| world.attest_honestly(&world.peers[peer])).to_vec();
        world.block(attests);
    }
    let idle = [1, 4].map(|peer| world.ledger.account(&world.id(peer)).unwrap().missed);
    assert_eq!(idle, [0, 0], "a replica without work attests and is no offender");
    assert_eq!(world.ledger.account(&world.id(2)).unwrap().standing, Standing::Out);
}

#[test]
fn half_of_a_stage_is_enough_once_some_time_has_passed() {
    let mut world = World::staged(&[1, 2], |_| {});
    let commits = [0, 1].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    world.block(commits);
    let attests = [0, 1].map(|peer| world.attest_honestly(&world.peers[peer])).to_vec();
    world.block(attests);
    assert_eq!(world.round().state_root_of(1), None, "one of two is no majority");
    let root = stage_state_after(&world.ledger, 1);
    let late = world.round().late_us();
    assert!(late > world.round().opened_us && late < world.round().deadline_us);
    assert_eq!(world.at_time(late).canonical, vec![Canonical { round: 1, stage: 1, root }]);
    let commits = [0, 1].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    assert!(world.block(commits).closed.is_some());
    let votes = vec![
        world.attest_honestly(&world.peers[0]),
        world.attest_honestly(&world.peers[1]),
        world.attest(&world.peers[2], Hash::of(b"another")),
    ];
    world.block(votes);
    assert_eq!(world.ledger.closes_at_us(), None, "one against one stays open");
}

#[test]
fn others_take_over_a_stage_that_all_have_left() {
    let mut world = World::staged(&[2, 1], |charter| charter.rounds = 9);
    let first = world.commit_units(&world.peers[0], &ALL);
    world.block(vec![first]);
    let leave = world.leave(&world.peers[2]);
    world.block(vec![leave]);
    assert_eq!(world.ledger.closes_at_us(), None);
    let (beacon, opened) = (world.round().beacon, world.round().opened_us);
    let moves = world.join_stage(&world.peers[0], 1);
    let applied = world.block(vec![moves]);
    assert_eq!((applied.opened, applied.closed), (Some(0), None), "the same round, with who came");
    assert_eq!((world.round().beacon, world.round().commitments_len()), (beacon, 1), "what was done stays");
    assert!(world.round().opened_us > opened);
    assert_eq!((*world.round().members).to_vec(), vec![world.id(0), world.id(1)]);
    assert_eq!(*world.round().stages, [1, 0]);
    let second = world.commit_units(&world.peers[0], &ALL);
    let set = world.block(vec![second]).closed.unwrap();
    assert_eq!(places(&set), vec![(0, world.id(0)), (1, world.id(0))]);
    let account = *world.ledger.account(&world.id(0)).unwrap();
    assert_eq!((account.receipts, account.counter, account.rounds, account.shares), (16, 16, 1, 1003));
    assert_eq!(world.ledger.account(&world.id(2)).unwrap().standing, Standing::Out);
    check_pieces(&world);
}

#[test]
fn who_comes_back_to_a_round_has_said_already_what_it_said() {
    let mut world = World::staged(&[1, 1], |charter| charter.rounds = 9);
    let commits = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
    world.block(commits);
    let attestation = world.attest_honestly(&world.peers[0]);
    world.block(vec![attestation.clone()]);
    let commit = world.commit_units(&world.peers[0], &[0, 1]);
    world.block(vec![commit.clone()]);
    // Stage 1 is left and taken over by the only member of stage 0, and then the other way round.
    let leave = world.leave(&world.peers[1]);
    world.block(vec![leave]);
    let moves = world.join_stage(&world.peers[0], 1);
    assert_eq!(world.block(vec![moves]).opened, Some(1));
    assert_eq!(world.ledger.check(&attestation), Err(Rejection::WrongStage { expected: 1, got: 0 }));
    assert!(world.ledger.check(&world.attest_honestly(&world.peers[0])).is_ok(), "it has not spoken for stage 1");
    let leave = world.leave(&world.peers[0]);
    world.block(vec![leave]);
    let back = world.join_stage(&world.peers[1], 1);
    assert_eq!(world.block(vec![back]).opened, Some(1));
    let home = world.join_stage(&world.peers[0], 0);
    assert_eq!(world.block(vec![home]).opened, None, "stage 0 has a commitment: it is not deserted");
    let leave = world.leave(&world.peers[1]);
    world.block(vec![leave]);
    let other = crate::support::identity(77);
    let join = world.join_stage(&other, 1);
    assert_eq!(world.block(vec![join]).opened, Some(1));
    assert_eq!(world.stage(&world.peers[0]), 0);
    assert_eq!(world.ledger.check(&attestation), Err(Rejection::AlreadyAttested { round: 1 }));
    assert_eq!(world.ledger.check(&commit), Err(Rejection::AlreadyCommitted { round: 1 }));
}

#[test]
fn a_stage_that_let_the_deadline_pass_is_taken_over_by_who_comes() {
    let mut world = World::staged(&[2, 1], |charter| charter.rounds = 9);
    let commits = [0, 2].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    world.block(commits);
    // The only member of stage 1 vanishes before it attests.
    let attests = [0, 1].map(|peer| world.attest_honestly(&world.peers[peer])).to_vec();
    world.block(attests);
    let commit = world.commit_units(&world.peers[0], &ALL);
    let moves = world.join_stage(&world.peers[1], 1);
    assert_eq!(world.block(vec![commit, moves]).opened, None, "it may still come back");
    let applied = world.deadline();
    assert_eq!((applied.opened, applied.dropped), (Some(1), vec![world.id(2)]));
    assert_eq!(*world.round().stages, [0, 1]);
    assert!(world.round().is_voter(&world.id(1)), "nobody else is left to vote");
    let root = world.attest_honestly(&world.peers[1]);
    assert_eq!(world.block(vec![root]).canonical.len(), 1);
    let rest = world.commit_units(&world.peers[1], &ALL);
    assert_eq!(world.block(vec![rest]).closed.unwrap().entries.len(), 2);
    let back = world.join_stage(&world.peers[2], 1);
    world.block(vec![back]);
    assert_eq!(world.ledger.account(&world.id(2)).unwrap().standing, Standing::Joining);
    check_pieces(&world);
}

#[test]
fn a_stage_without_members_has_no_units_until_somebody_comes() {
    let mut world = World::staged(&[2, 1], |charter| charter.rounds = 9);
    let away = world.join_stage(&world.peers[2], 0);
    world.block(vec![away]);
    let commits = [0, 2].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    assert_eq!(world.block(commits).opened, Some(1));
    assert_eq!((*world.round().stages).to_vec(), vec![0, 0, 0]);
    assert_eq!((world.round().units, world.round().assignment().len()), (0, 0));
    attest_all(&mut world);
    assert_eq!(world.round().state_root_of(1), None);
    let commit = world.commit_units(&world.peers[0], &[0]);
    assert_eq!(world.ledger.check(&commit), Err(Rejection::NoUnit { units: 0, got: 0 }));
    let back = world.join_stage(&world.peers[1], 1);
    assert_eq!(world.block(vec![back]).opened, Some(1));
    assert_eq!((world.round().units, world.round().state_root_of(0).is_some()), (8, true), "its root stays known");
    let attestation = world.attest_honestly(&world.peers[1]);
    assert_eq!(world.block(vec![attestation]).canonical.len(), 1);
    let commits = [0, 1].map(|peer| world.commit_units(&world.peers[peer], &ALL)).to_vec();
    assert!(world.block(commits).closed.is_some());
}

/// How long the open round may take.
fn round_us(world: &World) -> u64 {
    world.round().deadline_us - world.round().opened_us
}

#[test]
fn a_round_that_was_not_done_gives_the_next_one_more_time() {
    let mut world = World::staged(&[1, 1], |charter| {
        (charter.rounds, charter.quorum) = (20, 2);
        charter.round_us_first = 1_000_000;
        charter.round_us_max = 3_000_000;
    });
    let mut times = vec![round_us(&world)];
    for _ in 0..2 {
        let half = world.peers.iter().map(|peer| world.commit_units(peer, &[0, 1, 2])).collect();
        world.block(half);
        assert!(world.deadline().closed.is_some());
        times.push(round_us(&world));
        attest_all(&mut world);
    }
    assert_eq!(times, [1_000_000, 2_000_000, 3_000_000], "twice the time, and no more than the charter allows");
    for _ in 0..3 {
        let all = world.peers.iter().map(|peer| world.commit_units(peer, &ALL)).collect();
        assert!(world.block(all).closed.is_some());
        times.push(round_us(&world));
        attest_all(&mut world);
    }
    assert_eq!(times[3..], [3_000_000, 3_000_000, 1_000_000], "three rounds say how long one takes");
}

/// All units of the open round, shared out among the members of each stage that `works` names; busy for so many percent of the time.
fn work(world: &mut World, works: impl Fn(PeerId) -> Option<u8>) {
    let mut commitments = Vec::new();
    for stage in (0..).take(world.ledger.charter().stages.len()) {
        let members = world.peers.iter().filter(|peer| world.round().stage_of(&peer.id()) == Some(stage));
        let workers: Vec<_> = members.filter_map(|peer| Some((peer, works(peer.id())?))).collect();
        for (place, (peer, busy_percent)) in workers.iter().enumerate() {
            let units: Vec<u32> = ALL.iter().copied().skip(place).step_by(workers.len()).collect();
            let commitment = wire::Commitment { busy_percent: *busy_percent, ..world.commitment_of(peer, &units) };
            commitments.push(world.sign(peer, wire::Action::Commit(commitment)));
        }
    }
    world.block(commitments);
}

/// Who should move, and to which stage.
fn advised(world: &World) -> Vec<(PeerId, u16)> {
    let advised = |peer: &wire::Identity| Some((peer.id(), world.ledger.advised_stage(&peer.id())?));
    world.peers.iter().filter_map(advised).collect()
}

#[test]
fn a_member_of_the_least_loaded_stage_is_advised_to_move_to_the_most_loaded() {
    let mut world = World::staged(&[4, 2], |charter| charter.rounds = 6);
    assert_eq!(advised(&world), [], "nothing is known yet");
    let stage_1 = [world.id(4), world.id(5)];
    work(&mut world, |peer| Some(if stage_1.contains(&peer) { 96 } else { 40 }));
    let advice = advised(&world);
    assert_eq!(advice.len(), 1, "one at a time");
    let (mover, stage) = advice[0];
    assert_eq!((world.round().stage_of(&mover), stage), (Some(0), 1));
    attest_all(&mut world);
    let identity = world.peers.iter().find(|peer| peer.id() == mover).unwrap().clone();
    let moves = world.join_stage(&identity, 1);
    world.block(vec![moves]);
    assert_eq!(advised(&world), [], "it has said that it will");
    assert_eq!(world.round().stage_of(&mover), Some(0), "it ends the round where it is");
    work(&mut world, |_| Some(60));
    assert_eq!(world.round().stage_of(&mover), Some(1));
    attest_all(&mut world);
    work(&mut world, |peer| Some(if world_stage(&stage_1, mover, peer) { 100 } else { 10 }));
    assert_eq!(world.round().members_of(0).count(), 3);
    assert_eq!(advised(&world).len(), 1, "all of stage 1 took part in a whole round: it may get another");
    check_pieces(&world);
}

fn world_stage(first: &[PeerId], mover: PeerId, peer: PeerId) -> bool {
    first.contains(&peer) || peer == mover
}

#[test]
fn a_stage_that_is_down_to_one_member_gets_another_but_none_under_a_split() {
    for (release, expected) in [(wire::Release::OpenNow, 1), (wire::Release::Split, 0)] {
        let mut world = World::staged(&[3, 1], |charter| charter.release = release);
        work(&mut world, |_| Some(5));
        assert_eq!(advised(&world).len(), expected, "{release:?}");
    }
}

#[test]
fn a_newcomer_counts_once_it_has_shown_that_it_has_the_state() {
    let mut world = World::staged(&[2, 2], |charter| charter.rounds = 9);
    let newcomer = crate::support::identity(99);
    let joins = world.join_stage(&newcomer, 1);
    world.block(vec![joins]);
    work(&mut world, |_| Some(50));
    for _ in 0..2 {
        assert_eq!(world.round().stage_of(&newcomer.id()), Some(1));
        assert!(!world.round().is_voter(&newcomer.id()), "it may be fetching the state still");
        attest_all(&mut world);
        assert!(world.round().run_root().is_some(), "nobody waits for it");
        work(&mut world, |_| Some(50));
    }
    attest_all(&mut world);
    let attests = world.attest_honestly(&newcomer);
    world.block(vec![attests]);
    assert!(!world.round().is_voter(&newcomer.id()));
    work(&mut world, |_| Some(50));
    assert!(world.round().is_voter(&newcomer.id()));
}

#[test]
fn who_moves_is_drawn_anew_and_is_never_a_validator() {
    let mut world = World::with(5, |charter| {
        charter.stages = (0..2).map(stage_terms).collect();
        (charter.rounds, charter.start_members) = (24, 5);
    });
    let charter = wire::Charter { validators: vec![world.id(0)], ..world.ledger.charter().clone() };
    world.validator = world.peers[0].clone();
    world.ledger = ledger::Ledger::new(&world.peers[1].sign(charter).verify().unwrap());
    let joins = world.peers.iter().zip([0, 0, 0, 0, 1]).map(|(peer, stage)| world.join_stage(peer, stage)).collect();
    world.block(joins);
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..20 {
        work(&mut world, |_| Some(50));
        drawn.extend(advised(&world));
        attest_all(&mut world);
    }
    let able: Vec<(PeerId, u16)> = (1..4).map(|peer| (world.id(peer), 1)).collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), able);
}
