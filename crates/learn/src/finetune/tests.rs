use model::{Attention, ChatTemplate, Lora, Pretrained, Stage, Tokenizer};
use tensor::{Context, Isa};

use super::saved::{SavedError, resume, run_id, save};
use super::*;

pub(super) fn config() -> Config {
    Config {
        vocab: 300,
        width: 24,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ff: 40,
        context: 32,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        tied_head: true,
        attention: Attention::PLAIN,
    }
}

pub(super) fn settings(lora: Option<Lora>) -> Settings {
    Settings { lora, steps: 12, batch: BatchShape { sequences: 2, tokens: 16 }, lr: 3e-3, seed: 5 }
}

const CHAT: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>\n{% endfor %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

/// A small model whose tokenizer was trained on `text`, with a template that ends every turn with `<|end|>`.
pub(super) fn model(template: Option<&str>) -> Pretrained {
    let text: String = include_str!("../../../../data/austen/emma.txt").chars().take(20_000).collect();
    let tokenizer = Tokenizer::train([text.as_str()], 300).unwrap();
    Pretrained {
        name: "small".to_owned(),
        short_name: "small".to_owned(),
        stored: "F32".to_owned(),
        special: model::pretrained::SpecialTokens::default(),
        licence: None,
        config: config(),
        params: model::init(&Stage::whole(config()).unwrap(), [1; 32]),
        tokenizer,
        template: template.map(|source| ChatTemplate::new(source, "", "<|end|>").unwrap()),
        begin: None,
        ends: vec![model::END_ID],
    }
}

pub(super) fn chat_model() -> Pretrained {
    model(Some(CHAT))
}

fn examples(model: &Pretrained) -> Examples {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, include_str!("../../../../data/austen/emma.txt").get(..30_000).unwrap()).unwrap();
    Examples::read(&path, model, 16).unwrap()
}

fn tuner(model: &Pretrained, settings: &Settings, recompute: bool) -> Tuner {
    Tuner::new(model.config, model.params.clone(), settings.clone(), recompute).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_heldout_loss_falls() {
    let (model, ctx) = (model(None), Context::new(2));
    let examples = examples(&model);
    for (lora, at_least) in [(None, 0.3), (Some(Lora::all(8)), 0.05)] {
        let settings = Settings { steps: 60, lr: 1e-2, ..settings(lora) };
        let mut tuner = tuner(&model, &settings, false);
        let heldout = examples.heldout(settings.batch);
        let before = tuner.evaluate(&ctx, &heldout);
        for step in 0..settings.steps {
            tuner.step(&ctx, &examples.batch(&settings, step)).unwrap();
        }
        let after = tuner.evaluate(&ctx, &heldout);
        assert!(before - after > at_least, "{:?}: {before} to {after}", settings.lora);
    }
}

#[test]
fn the_result_depends_on_nothing_but_settings_model_and_data() {
    let model = model(None);
    let examples = examples(&model);
    for lora in [None, Some(Lora::all(4))] {
        let settings = settings(lora);
        let run = |ctx: &Context, recompute: bool| {
            let mut tuner = tuner(&model, &settings, recompute);
            for step in 0..4 {
                tuner.step(ctx, &examples.batch(&settings, step)).unwrap();
            }
            let (params, adapters) = tuner.finish(ctx);
            (bits(&params), adapters.map(|(_, values)| bits(&values)))
        };
        let reference = run(&Context::scalar(), false);
        for isa in Isa::available() {
            assert!(run(&Context::new(2).with_isa(isa), true) == reference, "{}", isa.name());
        }
        assert!(run(&Context::single(), false) == reference);
        assert!(reference.0 != bits(&model.params));
    }
}

#[test]
fn a_saved_run_goes_on_with_the_same_bits() {
    let (model, ctx) = (model(None), Context::new(2));
    let examples = examples(&model);
    let folder = tempfile::tempdir().unwrap();
    for lora in [None, Some(Lora::all(4))] {
        let settings = settings(lora);
        let path = folder.path().join("run");
        let root = tensor::slice_root(&model.params);
        let mut whole = tuner(&model, &settings, false);
        let run = run_id(&whole, root, examples.root());
        assert!(resume(&path, &mut whole, run).unwrap().is_none(), "there is no saved run yet");
        for step in 0..settings.steps {
            if step == 5 {
                save(&path, &whole, run, 3.25).unwrap();
            }
            whole.step(&ctx, &examples.batch(&settings, step)).unwrap();
        }
        let mut second = tuner(&model, &settings, true);
        assert_eq!(resume(&path, &mut second, run).unwrap(), Some(3.25));
        assert_eq!(second.steps(), 5);
        for step in second.steps()..settings.steps {
            second.step(&ctx, &examples.batch(&settings, step)).unwrap();
        }
        assert!(bits(second.trained()) == bits(whole.trained()));
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_saved_run_that_is_damaged_or_of_another_run_is_refused() {
    let model = model(None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut tuner = tuner(&model, &settings(Some(Lora::all(2))), false);
    save(&path, &tuner, [1; 32], 3.0).unwrap();
    assert!(matches!(resume(&path, &mut tuner, [2; 32]), Err(SavedError::OtherRun { .. })));
    let sound = std::fs::read(&path).unwrap();
    let mut damaged = vec![sound[..sound.len() - 1].to_vec(), sound[..30].to_vec(), Vec::new()];
    for at in [0, 48, 60, 100, sound.len() - 1] {
        damaged.push(sound.clone());
        damaged.last_mut().unwrap()[at] ^= 4;
    }
    for bytes in damaged {
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(resume(&path, &mut tuner, [1; 32]), Err(SavedError::Damaged { .. })), "{} bytes", bytes.len());
    }
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(resume(&path, &mut tuner, [1; 32]).unwrap(), Some(3.0));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["run"], "nothing is left behind");
}

#[test]
fn each_setting_has_a_range_and_is_named() {
    let sound = settings(None);
    assert_eq!(sound.validate(&config()), Ok(()));
    let batch = |sequences, tokens| BatchShape { sequences, tokens };
    for (field, bad) in [
        ("steps", Settings { steps: 0, ..sound.clone() }),
        ("batch.sequences", Settings { batch: batch(0, 8), ..sound.clone() }),
        ("batch.tokens", Settings { batch: batch(1, 33), ..sound.clone() }),
        ("lr", Settings { lr: f32::NAN, ..sound.clone() }),
        ("seed", Settings { seed: u64::MAX, ..sound.clone() }),
        ("lora.rank", Settings { lora: Some(Lora::all(0)), ..sound.clone() }),
    ] {
        let message = bad.validate(&config()).unwrap_err().to_string();
        assert!(message.contains(field), "`{message}` does not name `{field}`");
    }
}

#[test]
fn a_rate_that_is_too_high_is_an_error() {
    let (mut model, ctx) = (model(None), Context::single());
    model.params.iter_mut().for_each(|value| *value *= 1e30);
    let settings = settings(None);
    let mut tuner = tuner(&model, &settings, false);
    assert_eq!(tuner.step(&ctx, &examples(&model).batch(&settings, 0)), Err(Diverged { step: 1 }));
}
