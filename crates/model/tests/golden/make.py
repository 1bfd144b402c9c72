"""Makes the golden files of the whole model: parameters, tokens, logits, loss and every gradient.

`lora.safetensors` has adapters of PEFT's form on every linear map, targets that do not count, and one step of AdamW on the
adapters; `full_step.safetensors` one step of AdamW on all parameters.

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


class Adapted(torch.nn.Module):
    """A frozen linear map with the adapter of LoRA: y = Wx + bias + alpha/rank * B A x."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        outs, ins = base.weight.shape
        self.lora_A = torch.nn.Parameter(0.4 * torch.randn(rank, ins))
        self.lora_B = torch.nn.Parameter(0.4 * torch.randn(outs, rank))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.lora_A.T @ self.lora_B.T)


def adapt(model, rank, alpha):
    """Gives every linear map of every layer an adapter, and freezes the rest."""
    model.requires_grad_(False)
    adapters = {}
    for index, layer in enumerate(model.model.layers):
        for part, names in [("self_attn", "q_proj k_proj v_proj o_proj"), ("mlp", "gate_proj up_proj down_proj")]:
            module = getattr(layer, part)
            for name in names.split():
                adapted = Adapted(getattr(module, name), rank, alpha)
                setattr(module, name, adapted)
                path = f"base_model.model.model.layers.{index}.{part}.{name}"
                adapters[path + ".lora_A.weight"] = adapted.lora_A
                adapters[path + ".lora_B.weight"] = adapted.lora_B
    return adapters


ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def make_step(name, rank=None, alpha=None):
    """One optimiser step: of adapters with `rank`, else of everything. A third of the targets does not count (-100)."""
    config = dict(
        vocab=23, width=12, layers=2, heads=4, kv_heads=2, head_dim=4, ff=20, context=16,
        rope_theta=10000.0, norm_eps=1e-5, tied_head=True,
    )
    torch.manual_seed(13)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=23, hidden_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        intermediate_size=20, max_position_embeddings=16, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters=PLAIN, attn_implementation="eager", attention_bias=False, mlp_bias=False,
    ))
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            values = torch.randn(parameter.shape)
            parameter.copy_(1 + 0.2 * values if parameter.ndim == 1 else 0.3 * values)
    out = {n: p.detach().float().clone() for n, p in model.named_parameters()}
    trained = adapt(model, rank, alpha) if rank else dict(model.named_parameters())
    if rank:
        out |= {n: p.detach().float().clone() for n, p in trained.items()}
    model = model.double()
    generator = torch.Generator().manual_seed(17)
    ids = torch.randint(0, 23, (BATCH, TOKENS + 1), generator=generator)
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    targets[torch.rand(targets.shape, generator=generator) < 0.33] = -100
    groups = [
        {"params": [p for p in trained.values() if p.ndim == 2]},
        {"params": [p for p in trained.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, **ADAMW)
    logits = model(input_ids=tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 23), targets.reshape(-1), ignore_index=-100)
    loss.backward()
    for n, p in trained.items():
        out["grad." + n] = p.grad.float().clone()
    optimiser.step()
    for n, p in trained.items():
        out["after." + n] = p.detach().float().clone()
    out["tokens"], out["targets"] = tokens.to(torch.int32), targets.to(torch.int32)
    out["loss"] = loss.detach().double().reshape(1)
    metadata = {"config": json.dumps(config), "rank": str(rank or 0), "alpha": str(alpha or 0)}
    save_file({n: t.contiguous() for n, t in out.items()}, HERE / f"{name}.safetensors", metadata=metadata)
    print(name, "loss", loss.item(), "counted", int((targets != -100).sum()))


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
make_step("lora", rank=3, alpha=5.0)
make_step("full_step")
