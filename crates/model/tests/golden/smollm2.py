"""Makes smollm2.json: what others say of SmolLM2-135M-Instruct (Q4_1). llama.cpp: tokens of texts, and greedy continuations with
the log-probabilities of the five likeliest tokens at every step. Hugging Face transformers, in float32 with the weights
dequantised: the log-probabilities of the same tokens.

    pip install xllamacpp torch transformers gguf accelerate
    python crates/model/tests/golden/smollm2.py $(bash benches/peers/fetch_smollm2.sh)

Made with xllamacpp 2026.10.11549, torch 2.15.0 and transformers 5.24.0. The tests read the file only.
"""

import json
import pathlib
import sys
import urllib.request

import torch
import xllamacpp
from transformers import AutoModelForCausalLM

TEXTS = [
    "Once upon a time, in a small village",
    "It cost £12.50 in 1813, didn't it?\n\n  naïve café; THE END.",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "def add(a, b):\n    return",
]
STEPS = 16

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 1024
params.n_parallel = 1
params.cpuparams.n_threads = 2
params.warmup = False
server = xllamacpp.Server(params)


def tokenize(text):
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def continuation(text):
    answer = server.handle_completions(
        {"prompt": text, "max_tokens": STEPS, "temperature": 0, "logprobs": 5, "cache_prompt": False}
    )
    if isinstance(answer, str):
        answer = json.loads(answer)
    steps = answer["choices"][0]["logprobs"]["content"]
    return [[step["id"], [[top["id"], round(top["logprob"], 5)] for top in step["top_logprobs"]]] for step in steps]


def add_exact(model, entry):
    """Appends transformers' log-probability to every token of every step."""
    ids = entry["tokens"] + [token for token, _ in entry["steps"]]
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    for place, (_, likeliest) in enumerate(entry["steps"]):
        for top in likeliest:
            top.append(round(float(rows[len(entry["tokens"]) - 1 + place][top[0]]), 5))


golden = [{"text": text, "tokens": tokenize(text), "steps": continuation(text)} for text in TEXTS]
file = pathlib.Path(sys.argv[1])
exact = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
for entry in golden:
    add_exact(exact, entry)
path = pathlib.Path(__file__).parent / "smollm2.json"
path.write_text("[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in golden) + "\n]\n")
print(path, [len(entry["tokens"]) for entry in golden])
