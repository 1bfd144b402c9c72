//! The whole model against those of Hugging Face transformers (Llama, Qwen2, Qwen3); `golden/make.py` made the files.

use model::{Config, IGNORED, Lora, Stage, TensorInfo, Trainer, TrainerOptions};
use safetensors::{Dtype, SafeTensors};
use tensor::{AdamwStep, Context, adamw_update};

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

/// Loss, gradients and parameters after one step of AdamW, with targets that do not count.
#[test]
fn a_step_of_fine_tuning_of_all_parameters() {
    check_step(include_bytes!("../golden/full_step.safetensors"));
}

#[test]
fn a_step_of_fine_tuning_of_adapters() {
    check_step(include_bytes!("../golden/lora.safetensors"));
}

fn check_step(bytes: &[u8]) {
    let golden = SafeTensors::deserialize(bytes).unwrap();
    let metadata = SafeTensors::read_metadata(bytes).unwrap().1;
    let about = metadata.metadata().as_ref().unwrap();
    let config: Config = serde_json::from_str(&about["config"]).unwrap();
    let (rank, alpha): (usize, f32) = (about["rank"].parse().unwrap(), about["alpha"].parse().unwrap());
    let lora = (rank > 0).then(|| Lora { alpha, ..Lora::all(rank) });
    let stage = Stage::whole(config).unwrap();
    let [sequences, length] = golden.tensor("tokens").unwrap().shape()[..] else { panic!("tokens are a matrix") };
    let options = TrainerOptions { recompute: true, lora };
    let mut trainer = Trainer::with_options(stage.clone(), sequences, length, options).unwrap();
    let read = |tensors: &[TensorInfo], prefix: &str| -> Vec<f32> {
        tensors.iter().flat_map(|tensor| floats(&golden, &format!("{prefix}{}", tensor.name))).collect()
    };
    let layout = stage.layout();
    let params = read(layout.tensors(), "");
    // PyTorch's target that does not count is -100.
    let targets = ids(&golden, "targets").into_iter().map(|id| if id as i32 == -100 { IGNORED } else { id });
    let (tokens, targets): (Vec<u32>, Vec<u32>) = (ids(&golden, "tokens"), targets.collect());
    assert!(targets.contains(&IGNORED));
    let ctx = Context::new(1);
    let adapters = trainer.adapters().cloned();
    let trained = adapters.as_ref().map_or(layout.tensors(), |adapters| adapters.tensors());
    let mut values = adapters.as_ref().map_or_else(|| params.clone(), |adapters| read(adapters.tensors(), ""));
    let mut grads = vec![0.0; values.len()];
    let loss = match adapters {
        Some(_) => trainer.adapted_loss_and_grads(&ctx, &params, &values, &tokens, &targets, &mut grads),
        None => trainer.loss_and_grads(&ctx, &params, &tokens, &targets, &mut grads),
    };
    let expected = f64::from_le_bytes(golden.tensor("loss").unwrap().data().try_into().unwrap());
    assert!((loss - expected).abs() < LOSS, "loss is {loss} instead of {expected}");
    let (expected, after) = (read(trained, "grad."), read(trained, "after."));
    for tensor in trained {
        let range = tensor.range();
        let largest = expected[range.clone()].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = difference(&grads[range.clone()], &expected[range.clone()]);
        assert!(worst < GRADIENT * largest, "the gradient of {} differs by {worst}, largest {largest}", tensor.name);
        let decay = if tensor.shape.len() == 2 { 0.1 } else { 0.0 };
        let step = AdamwStep::new(1, 1e-2, 0.9, 0.95, 1e-8, decay);
        let (mut m, mut v) = (vec![0.0; range.len()], vec![0.0; range.len()]);
        adamw_update(&ctx, &mut values[range.clone()], &grads[range.clone()], &mut m, &mut v, step);
        // The first step goes by the gradient's sign: where a gradient is next to nothing its rounding decides.
        for at in range.filter(|at| expected[*at].abs() > 1e-4 * largest) {
            assert!(
                (values[at] - after[at]).abs() < 1e-5,
                "{} after the step: {} {}",
                tensor.name,
                values[at],
                after[at]
            );
        }
    }
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
