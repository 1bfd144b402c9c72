//! The shape of the model that is planned: a preset, or sizes as people write them.

use model::{Attention, Config, ConfigError};

/// Names of the presets.
pub const PRESETS: [&str; 5] = ["default", "1b", "8b", "32b", "70b"];

/// A text names no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Neither a preset nor sizes.
    #[error("`{text}` is no model")]
    Unknown {
        /// The text.
        text: String,
    },
    /// A size is not a number, unknown, or given twice.
    #[error("`{part}` is no size of a model")]
    Part {
        /// The part.
        part: String,
    },
    /// The sizes do not fit together.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

impl ShapeError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        "name default, 1b, 8b, 32b or 70b, or sizes such as `layers=64,width=5120,heads=40,kv_heads=8,head_dim=128,ff=27648,vocab=152064`"
    }
}

/// Reads a preset's name, or sizes: `layers` and `width`; `heads`, `kv_heads`, `head_dim`, `ff`, `vocab` and `context` follow from them
/// unless they are given.
///
/// # Errors
/// [`ShapeError`] when the text is neither, or the sizes are not those of a model.
pub fn model_shape(text: &str) -> Result<Config, ShapeError> {
    let config = match text.trim().to_ascii_lowercase().as_str() {
        // That of `cairn up --stages`, whose head has a table of its own.
        "default" => Config { tied_head: false, ..learn::Recipe::default_run().model },
        // Llama 3.2 1B, Llama 3.1 8B and 70B, and Qwen2.5 32B, with heads that are not tied.
        "1b" => sizes(16, 2048, 8192, 128_256, [32, 8, 64]),
        "8b" => sizes(32, 4096, 14_336, 128_256, [32, 8, 128]),
        "32b" => sizes(64, 5120, 27_648, 152_064, [40, 8, 128]),
        "70b" => sizes(80, 8192, 28_672, 128_256, [64, 8, 128]),
        text if text.contains('=') => read(text)?,
        _ => return Err(ShapeError::Unknown { text: text.to_owned() }),
    };
    config.validate()?;
    Ok(config)
}

fn sizes(layers: usize, width: usize, ff: usize, vocab: usize, [heads, kv_heads, head_dim]: [usize; 3]) -> Config {
    Config {
        vocab,
        width,
        layers,
        heads,
        kv_heads,
        head_dim,
        ff,
        context: 1 << 17,
        rope_theta: 500_000.0,
        norm_eps: 1e-5,
        tied_head: false,
        attention: Attention::PLAIN,
    }
}

fn read(text: &str) -> Result<Config, ShapeError> {
    const NAMES: [&str; 8] = ["layers", "width", "heads", "kv_heads", "head_dim", "ff", "vocab", "context"];
    let mut given = [None; NAMES.len()];
    for part in text.split(',').map(str::trim) {
        let wrong = || ShapeError::Part { part: part.to_owned() };
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        let place = NAMES.iter().position(|known| *known == name.trim()).ok_or_else(wrong)?;
        let value: usize = value.trim().parse().map_err(|_| wrong())?;
        if given[place].replace(value).is_some() {
            return Err(wrong());
        }
    }
    let [layers, width, heads, kv_heads, head_dim, ff, vocab, context] = given;
    let missing = |name: &str| ShapeError::Part { part: format!("{name}=") };
    let (layers, width) = (layers.ok_or_else(|| missing("layers"))?, width.ok_or_else(|| missing("width"))?);
    let head_dim = head_dim.unwrap_or(if width >= 4096 { 128 } else { 32 });
    let heads = heads.unwrap_or((width / head_dim.max(1)).max(1));
    let kv_heads = kv_heads.unwrap_or(if heads.is_multiple_of(4) { heads / 4 } else { heads });
    let config = sizes(
        layers,
        width,
        ff.unwrap_or(width.saturating_mul(3)),
        vocab.unwrap_or(128_256),
        [heads, kv_heads, head_dim],
    );
    Ok(Config { context: context.unwrap_or(config.context), ..config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_parameters_that_their_names_say() {
        for (name, low, high) in [("1b", 1.4, 1.6), ("8b", 7.9, 8.1), ("32b", 32.7, 32.8), ("70b", 70.4, 70.7)] {
            let parameters = model_shape(name).unwrap().parameters() as f64 / 1e9;
            assert!((low..high).contains(&parameters), "{name}: {parameters} billion");
        }
        PRESETS.iter().for_each(|name| assert!(model_shape(name).is_ok(), "{name}"));
    }

    #[test]
    fn sizes_are_read_and_completed() {
        let text = "layers=64, width=5120, heads=40, kv_heads=8, head_dim=128, ff=27648, vocab=152064";
        assert_eq!(model_shape(text), model_shape("32B"));
        let small = model_shape("layers=4,width=512").unwrap();
        assert_eq!((small.heads, small.kv_heads, small.ff), (16, 4, 1536));
    }

    #[test]
    fn what_is_no_model_is_told() {
        for (text, said) in [
            ("", "`` is no model"),
            ("33b", "`33b` is no model"),
            ("layers=4", "`width=` is no size"),
            ("layers=4,width=x", "`width=x` is no size"),
            ("layers=4,width=512,width=512", "`width=512` is no size"),
            ("layers=4,width=512,depth=3", "`depth=3` is no size"),
            ("layers=0,width=512", "`layers` is 0"),
            ("layers=4,width=512,heads=3,kv_heads=2", "multiple"),
            ("layers=4,width=99999999999999999999", "is no size"),
        ] {
            let error = model_shape(text).unwrap_err();
            assert!(error.to_string().contains(said), "`{text}`: {error}");
            assert!(error.hint().contains("32b"));
        }
    }
}
