use super::*;
use crate::random::Stream;
use crate::scratch::usage;

fn normal(purpose: &str, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new([8; 32], purpose).fill_normal(1.0, &mut values);
    values
}

#[test]
fn long_sequences_take_memory_in_proportion_and_have_the_same_bits_for_every_panel() {
    let (tokens, head_dim) = (4096, 16);
    let shape = AttentionShape { batch: 1, tokens, heads: 1, kv_heads: 1, head_dim };
    let len = shape.q_len();
    let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|purpose| normal(purpose, len));
    let mut expected = None;
    // The portable lanes have AVX2's panel and would take long.
    for isa in Isa::available().into_iter().filter(|isa| ![Isa::Generic, Isa::Scalar].contains(isa)) {
        let ctx = Context::single().with_isa(isa);
        let panel = isa.tile().1;
        let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![0.0; len]);
        let mut stats = vec![0.0; tokens];
        let forward = usage::peak(|| attention_forward(&ctx, shape, &q, &k, &v, &mut out, &mut stats));
        let backward = usage::peak(|| {
            attention_backward(&ctx, shape, &q, &k, &v, &out, &stats, &dout, &mut dq, &mut dk, &mut dv);
        });
        // Scores (weights and their gradients in the backward) and the packed operands, which have gaps of a cache line per group.
        let (forward_max, backward_max) = (tokens * (panel + 2 * head_dim), tokens * 2 * (panel + 2 * head_dim));
        assert!(forward <= forward_max, "{}: the forward takes {forward} values", isa.name());
        assert!(backward <= backward_max, "{}: the backward takes {backward} values", isa.name());
        let bits = [out, stats, dq, dk, dv].concat().into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let expected = expected.get_or_insert_with(|| bits.clone());
        assert!(*expected == bits, "{} with a panel of {panel} has other bits", isa.name());
    }
}
