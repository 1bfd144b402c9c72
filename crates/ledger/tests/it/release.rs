//! When the weights of a run are open.

use wire::Release;

use crate::support::World;

/// Whether the weights are open after 0, 1, 2 and all 3 rounds.
fn opens(release: Release, stages: &[u16]) -> Vec<bool> {
    let mut world = World::staged(stages, |charter| charter.release = release);
    let mut open = vec![world.ledger.weights_are_open()];
    for _ in 0..3 {
        if world.round().round > 0 {
            let attestations = world.peers.iter().map(|peer| world.attest_honestly(peer)).collect();
            world.block(attestations);
        }
        let commits = match stages.len() {
            1 => world.peers.iter().map(|peer| world.commit(peer)).collect(),
            _ => world.peers.iter().map(|peer| world.commit_units(peer, &[0, 1, 2, 3, 4, 5, 6, 7])).collect(),
        };
        assert!(world.block(commits).closed.is_some());
        open.push(world.ledger.weights_are_open());
    }
    open
}

#[test]
fn weights_open_with_the_rounds_that_the_charter_names() {
    assert_eq!(opens(Release::OpenNow, &[4]), [true; 4]);
    assert_eq!(opens(Release::OpenAfter { rounds: 2 }, &[4]), [false, false, true, true]);
    assert_eq!(opens(Release::OpenAfter { rounds: 3 }, &[1, 1]), [false, false, false, true]);
    assert_eq!(opens(Release::Split, &[1, 1]), [false; 4]);
}
