//! Merkle trees: every leaf has a proof, nothing else has.

use proptest::prelude::*;
use wire::merkle::{Proof, Tree, leaf};
use wire::{Hash, decode};

use crate::strategies;

fn leaves(count: u32) -> Vec<Hash> {
    (0..count).map(|number| leaf(&number.to_le_bytes())).collect()
}

#[test]
fn every_leaf_of_every_size_has_a_proof_that_holds_only_there() {
    for count in 0..40 {
        let hashes = leaves(count);
        let tree = Tree::new(hashes.clone());
        assert_eq!((tree.len(), tree.is_empty()), (count as usize, count == 0));
        assert_eq!(tree.proof(count as usize), None);
        for (place, hash) in hashes.iter().enumerate() {
            let proof = tree.proof(place).unwrap();
            assert!(proof.verify(tree.root(), *hash));
            assert!(!proof.verify(tree.root(), leaf(b"another")));
            assert!(!proof.verify(Tree::new(leaves(count + 1)).root(), *hash));
            for index in (0..u64::from(count) + 2).filter(|index| *index != place as u64) {
                assert!(!Proof { index, ..proof.clone() }.verify(tree.root(), *hash), "place {place} as {index}");
            }
            for leaves in (0..2 * u64::from(count) + 2).filter(|leaves| *leaves != u64::from(count)) {
                assert!(!Proof { leaves, ..proof.clone() }.verify(tree.root(), *hash));
            }
        }
    }
}

#[test]
fn an_inner_node_is_no_leaf() {
    let hashes = leaves(4);
    let tree = Tree::new(hashes.clone());
    let proof = tree.proof(0).unwrap();
    let upper = Proof { index: 0, leaves: 2, siblings: proof.siblings[1..].to_vec() };
    let pair = [hashes[0].0, hashes[1].0].concat();
    assert!(!upper.verify(tree.root(), leaf(&pair)));
    assert!(!upper.verify(tree.root(), Hash::of(&pair)));
}

#[test]
fn trees_of_different_lists_have_different_roots() {
    let mut roots: Vec<Hash> = (0..20).map(|count| Tree::new(leaves(count)).root()).collect();
    let mut swapped = leaves(7);
    swapped.swap(2, 3);
    roots.push(Tree::new(swapped).root());
    let mut doubled = leaves(7);
    doubled.push(leaves(7)[6]);
    roots.push(Tree::new(doubled).root());
    let count = roots.len();
    roots.sort();
    roots.dedup();
    assert_eq!(roots.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changing_leaves_gives_the_tree_of_the_changed_list(
        count in 1u32..200,
        changes in prop::collection::vec((any::<prop::sample::Index>(), strategies::hash()), 0..20),
    ) {
        let mut hashes = leaves(count);
        let mut tree = Tree::new(hashes.clone());
        for (place, hash) in changes {
            let place = place.index(count as usize);
            hashes[place] = hash;
            tree.set(place, hash);
        }
        prop_assert_eq!(tree, Tree::new(hashes));
    }

    #[test]
    fn verification_is_total(proof in strategies::proof(), root in strategies::hash(), hash in strategies::hash()) {
        prop_assert!(!proof.verify(root, hash));
    }

    #[test]
    fn decoding_a_proof_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Proof>(&bytes).map(|proof| proof.root(Hash::default()));
    }
}
