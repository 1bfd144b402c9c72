"""Makes the golden files of the whole model: parameters, tokens, logits, loss and every gradient.

The models are those of Hugging Face transformers (Llama, Qwen2, Qwen3) on PyTorch with float64 parameters; norms, rotary angles and the
softmax are float32 inside transformers. Run it where both are installed; it needs no network:

    pip install torch transformers safetensors
    python crates/model/tests/golden/make.py

Made with torch 2.15.0 and transformers 5.24.0. The tests read the files only.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
)

HERE = pathlib.Path(__file__).parent
BATCH, TOKENS = 2, 9


PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}


def make(name, heads, kv_heads, head_dim, tied, kind=(LlamaConfig, LlamaForCausalLM), rope=PLAIN, attention=None):
    config = dict(
        vocab=23, width=12, layers=2, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ff=20, context=16,
        rope_theta=10000.0, norm_eps=1e-5, tied_head=tied,
    )
    if attention:
        config["attention"] = attention
    torch.manual_seed(7)
    config_class, model_class = kind
    biases = dict(attention_bias=False, mlp_bias=False) if config_class is LlamaConfig else {}
    model = model_class(config_class(
        vocab_size=config["vocab"], hidden_size=config["width"], num_hidden_layers=config["layers"],
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=config["ff"],
        max_position_embeddings=config["context"], rms_norm_eps=config["norm_eps"], tie_word_embeddings=tied,
        rope_parameters=rope, attn_implementation="eager", **biases,
    ))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, dtype=torch.float32)
            parameter.copy_(1 + 0.2 * values if parameter.ndim == 1 else 0.3 * values)
    weights = {n: p.detach().float().clone() for n, p in model.named_parameters()}
    model = model.double()
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(0, config["vocab"], (BATCH, TOKENS + 1), generator=generator)
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    logits = model(input_ids=tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.double().reshape(-1, config["vocab"]), targets.reshape(-1))
    loss.backward()
    out = dict(weights)
    out["tokens"], out["targets"] = tokens.to(torch.int32), targets.to(torch.int32)
    out["logits"], out["loss"] = logits.detach().float(), loss.detach().double().reshape(1)
    for parameter_name, parameter in model.named_parameters():
        out["grad." + parameter_name] = parameter.grad.float()
    out = {n: t.contiguous() for n, t in out.items()}
    save_file(out, HERE / f"{name}.safetensors", metadata={"config": json.dumps(config)})
    print(name, "loss", loss.item(), "parameters", sum(w.numel() for w in weights.values()))


make("untied", heads=4, kv_heads=2, head_dim=4, tied=False)
make("tied", heads=2, kv_heads=1, head_dim=6, tied=True)
make("biases", heads=4, kv_heads=2, head_dim=3 * 2, tied=False, kind=(Qwen2Config, Qwen2ForCausalLM), attention={"bias": True})
make("head_norms", heads=2, kv_heads=1, head_dim=8, tied=True, kind=(Qwen3Config, Qwen3ForCausalLM),
     attention={"query_key_norm": True})
make("llama3", heads=4, kv_heads=2, head_dim=4, tied=False, rope=LLAMA3, attention={"rope_scaling": {
    "kind": "llama3", "factor": 8.0, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0, "original_context": 8}})
