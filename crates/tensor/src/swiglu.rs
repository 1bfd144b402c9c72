//! SwiGLU (Shazeer, arXiv:2002.05202): `out = gate · sigmoid(gate) · up`.

use crate::Context;
use crate::arch::{LANES, lanes_kernel};
use crate::elementwise::CHUNK;
use crate::fault::slip;
use crate::math::sigmoid_lanes;

/// Computes `out = gate · sigmoid(gate) · up` for arrays of any shape.
///
/// # Panics
/// When the lengths differ.
pub fn swiglu_forward(ctx: &Context, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "swiglu_forward of different lengths");
    let work = out.chunks_mut(CHUNK).zip(gate.chunks(CHUNK).zip(up.chunks(CHUNK))).collect();
    ctx.threads().for_each(work, |(out, (gate, up))| forward_chunk(ctx.variant(), gate, up, out));
    slip("swiglu_forward", out);
}

/// Computes the gradients with respect to gate and up, which are overwritten.
///
/// With s = sigmoid(gate): `dup = dout·gate·s`, `dgate = dout·up·s·(1 + gate·(1 − s))`.
///
/// # Panics
/// When the lengths differ.
pub fn swiglu_backward(ctx: &Context, gate: &[f32], up: &[f32], dout: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let len = gate.len();
    let same = up.len() == len && dout.len() == len && dgate.len() == len && dup.len() == len;
    assert!(same, "swiglu_backward of different lengths");
    let inputs = gate.chunks(CHUNK).zip(up.chunks(CHUNK)).zip(dout.chunks(CHUNK));
    let work = dgate.chunks_mut(CHUNK).zip(dup.chunks_mut(CHUNK)).zip(inputs).collect();
    ctx.threads().for_each(work, |((dgate, dup), ((gate, up), dout))| {
        backward_chunk(ctx.variant(), gate, up, dout, dgate, dup);
    });
    slip("swiglu_backward", dgate);
}

lanes_kernel! {
    fn forward_chunk<'a>(s; gate: &'a [f32], up: &'a [f32], out: &'a mut [f32]) {
        for ((gate, up), out) in gate.chunks(LANES).zip(up.chunks(LANES)).zip(out.chunks_mut(LANES)) {
            let gate = s.load_or(gate, 0.0);
            let silu = s.mul(gate, sigmoid_lanes(s, gate));
            s.store_some(s.mul(silu, s.load_or(up, 0.0)), out);
        }
    }
}

lanes_kernel! {
    fn backward_chunk<'a>(
        s; gate: &'a [f32], up: &'a [f32], dout: &'a [f32], dgate: &'a mut [f32], dup: &'a mut [f32]
    ) {
        let one = s.splat(1.0);
        let inputs = gate.chunks(LANES).zip(up.chunks(LANES)).zip(dout.chunks(LANES));
        for ((dgate, dup), ((gate, up), dout)) in dgate.chunks_mut(LANES).zip(dup.chunks_mut(LANES)).zip(inputs) {
            let (gate, up, dout) = (s.load_or(gate, 0.0), s.load_or(up, 0.0), s.load_or(dout, 0.0));
            let sigmoid = sigmoid_lanes(s, gate);
            s.store_some(s.mul(dout, s.mul(gate, sigmoid)), dup);
            let slope = s.mul(sigmoid, s.mul_add(gate, s.sub(one, sigmoid), one));
            s.store_some(s.mul(s.mul(dout, up), slope), dgate);
        }
    }
}
