//! Adapters as files of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Source: `LoraConfig` of PEFT. The values are f32; the order of rows is that of Hugging Face, as everywhere in this crate.

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use super::{AdapterLayout, LinearMap};
use crate::files::FileError;

/// The name of the file with the settings.
pub const CONFIG_NAME: &str = "adapter_config.json";

/// The name of the file with the values.
pub const VALUES_NAME: &str = "adapter_model.safetensors";

#[derive(Serialize)]
struct AdapterConfig<'a> {
    peft_type: &'static str,
    task_type: &'static str,
    base_model_name_or_path: &'a str,
    r: usize,
    lora_alpha: f32,
    lora_dropout: f32,
    target_modules: Vec<&'static str>,
    bias: &'static str,
    fan_in_fan_out: bool,
    inference_mode: bool,
}

impl AdapterLayout {
    /// Writes `adapter_config.json` for adapters of the model `base`.
    pub fn peft_config(&self, base: &str) -> String {
        let config = AdapterConfig {
            peft_type: "LORA",
            task_type: "CAUSAL_LM",
            base_model_name_or_path: base,
            r: self.lora.rank,
            lora_alpha: self.lora.alpha,
            lora_dropout: 0.0,
            target_modules: self.lora.targets.iter().copied().map(LinearMap::name).collect(),
            bias: "none",
            fan_in_fan_out: false,
            inference_mode: true,
        };
        serde_json::to_string_pretty(&config).expect("every field is a JSON value") + "\n"
    }

    /// Writes `adapter_model.safetensors`; the same adapters give the same bytes.
    ///
    /// # Errors
    /// A value is not finite.
    ///
    /// # Panics
    /// When the values are not as many as the layout has.
    pub fn peft_values(&self, adapters: &[f32]) -> Result<Vec<u8>, FileError> {
        assert_eq!(adapters.len(), self.len, "adapters of another layout");
        let bad = |error: &dyn std::fmt::Display| FileError::BadHeader { reason: error.to_string() };
        let body: Vec<u8> = adapters.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut views = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let range = tensor.range();
            let values = &adapters[range.clone()];
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(FileError::NotFinite { name: tensor.name.clone(), index, value: values[index] });
            }
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &body[range.start * 4..range.end * 4]);
            views.push((tensor.name.as_str(), view.map_err(|error| bad(&error))?));
        }
        safetensors::serialize(views, None).map_err(|error| bad(&error))
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::lora::Lora;
    use crate::stage::Stage;
    use crate::testing::tiny;

    #[test]
    fn every_matrix_is_in_the_file_under_its_name() {
        let lora = Lora { targets: vec![LinearMap::Key, LinearMap::Down], ..Lora::all(3) };
        let layout = AdapterLayout::new(&Stage::whole(tiny()).unwrap(), lora).unwrap();
        let mut adapters = layout.init([1; 32]);
        let bytes = layout.peft_values(&adapters).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), layout.tensors().len());
        for tensor in layout.tensors() {
            let view = file.tensor(&tensor.name).unwrap();
            assert_eq!(view.shape(), tensor.shape);
            let values: Vec<u8> = adapters[tensor.range()].iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(view.data(), values, "{}", tensor.name);
        }
        assert_eq!(bytes, layout.peft_values(&adapters).unwrap());
        let config: serde_json::Value = serde_json::from_str(&layout.peft_config("base")).unwrap();
        assert_eq!(config["target_modules"], serde_json::json!(["k_proj", "down_proj"]));
        assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(3), Some(6.0)));
        adapters[5] = f32::INFINITY;
        assert!(layout.peft_values(&adapters).unwrap_err().to_string().contains("lora_A"));
    }
}
