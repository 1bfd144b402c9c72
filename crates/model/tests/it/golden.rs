//! The whole model against those of Hugging Face transformers (Llama, Qwen2, Qwen3); `golden/make.py` made the files.

use model::{Config, Stage, Trainer};
use safetensors::{Dtype, SafeTensors};
use tensor::Context;

/// Largest difference of a logit.
const LOGIT: f32 = 2e-5;
/// Largest difference of the loss.
const LOSS: f64 = 2e-6;
/// Largest difference of a gradient, relative to the largest one of its tensor.
const GRADIENT: f32 = 2e-5;

#[test]
fn an_untied_model_with_grouped_heads() {
    check(include_bytes!("../golden/untied.safetensors"));
}

#[test]
fn a_tied_model_with_one_shared_key_head() {
    check(include_bytes!("../golden/tied.safetensors"));
}

#[test]
fn a_qwen2_model_with_biases() {
    check(include_bytes!("../golden/biases.safetensors"));
}

#[test]
fn a_qwen3_model_with_norms_of_heads() {
    check(include_bytes!("../golden/head_norms.safetensors"));
}

#[test]
fn a_llama_model_with_scaled_rotations() {
    check(include_bytes!("../golden/llama3.safetensors"));
}

fn check(bytes: &[u8]) {
    let golden = SafeTensors::deserialize(bytes).unwrap();
    let metadata = SafeTensors::read_metadata(bytes).unwrap().1;
    let config: Config = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["config"]).unwrap();
    let stage = Stage::whole(config).unwrap();
    let layout = stage.layout();
    let mut params = vec![f32::NAN; layout.len()];
    for tensor in layout.tensors() {
        params[tensor.range()].copy_from_slice(&floats(&golden, &tensor.name));
    }
    let (tokens, targets) = (ids(&golden, "tokens"), ids(&golden, "targets"));
    let [sequences, length] = golden.tensor("tokens").unwrap().shape()[..] else { panic!("tokens are a matrix") };
    let ctx = Context::new(1);
    let mut trainer = Trainer::new(stage, sequences, length).unwrap();

    let logits = trainer.logits(&ctx, &params, &tokens);
    let worst = difference(&logits, &floats(&golden, "logits"));
    assert!(worst < LOGIT, "logits differ by {worst}");

    let mut grads = vec![0.0; params.len()];
    let loss = trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads);
    let expected = f64::from_le_bytes(golden.tensor("loss").unwrap().data().try_into().unwrap());
    assert!((loss - expected).abs() < LOSS, "loss is {loss} instead of {expected}");

    for tensor in layout.tensors() {
        let expected = floats(&golden, &format!("grad.{}", tensor.name));
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = difference(&grads[tensor.range()], &expected);
        assert!(worst < GRADIENT * largest, "the gradient of {} differs by {worst}, largest {largest}", tensor.name);
    }
}

fn floats(golden: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = golden.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    view.data().as_chunks::<4>().0.iter().map(|&v| f32::from_le_bytes(v)).collect()
}

fn ids(golden: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let view = golden.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::I32, "{name}");
    view.data().as_chunks::<4>().0.iter().map(|&v| u32::from_le_bytes(v)).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}
