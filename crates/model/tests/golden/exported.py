"""Makes exported.json and exported_smollm2.json: what others say of models that this program wrote. Hugging Face transformers reads the
directories, llama.cpp the GGUF files (F32); both continue a prompt greedily.

    pip install xllamacpp torch transformers blake3
    CAIRN_EXPORT_TO=DIR CAIRN_SMOLLM2=FILE cargo test --release -p model --test it formats   # writes the models into the new folder DIR
    python crates/model/tests/golden/exported.py DIR

Made with xllamacpp 2026.10.11549, torch 2.15.0 and transformers 5.24.0. The tests check that they still write the same files, by their
hashes, and that our own greedy text is the same; they need no Python.
"""

import json
import pathlib
import sys
import urllib.request

import blake3
import torch
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = [84, 104, 257, 32, 70, 33, 259, 10, 65]
STEPS = 12
SMOLLM2_STEPS = 32
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]

folder = pathlib.Path(sys.argv[1])
golden = pathlib.Path(__file__).parent


def hash_of(path):
    return blake3.blake3(path.read_bytes()).hexdigest()


def by_transformers(directory, tokens, steps):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    said = model.generate(torch.tensor([tokens]), max_new_tokens=steps, do_sample=False, pad_token_id=0)
    return said[0, len(tokens) :].tolist()


def by_llama_cpp(path, tokens, steps):
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = 2
    params.warmup = False
    server = xllamacpp.Server(params)
    wanted = {"prompt": tokens, "n_predict": steps, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    request = urllib.request.Request(
        server.listening_address + "/completion", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))["tokens"]


models = {}
for directory in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "smollm2"):
    file = folder / f"{directory.name}.gguf"
    # The tokenizer must load too, and begin as the model wants.
    ids = AutoTokenizer.from_pretrained(directory)("the").input_ids
    assert ids[-1] == 257 and ids[:-1] in ([], [258]), (directory, ids)
    read = [directory / "config.json", directory / "model.safetensors", directory / "tokenizer.json", file]
    models[directory.name] = {
        "files": {str(path.relative_to(folder)): hash_of(path) for path in read},
        "transformers": by_transformers(directory, PROMPT, STEPS),
        "llama_cpp": by_llama_cpp(file, PROMPT, STEPS),
    }
    print(directory.name, models[directory.name]["transformers"] == models[directory.name]["llama_cpp"])
(golden / "exported.json").write_text(json.dumps({"prompt": PROMPT, "models": models}, indent=1) + "\n")

tokenizer = AutoTokenizer.from_pretrained(folder / "smollm2")
prompt = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
tokens = tokenizer(prompt).input_ids
said = {
    "prompt": prompt,
    "transformers": tokenizer.decode(by_transformers(folder / "smollm2", tokens, SMOLLM2_STEPS), skip_special_tokens=True),
    "llama_cpp": tokenizer.decode(by_llama_cpp(folder / "smollm2.gguf", tokens, SMOLLM2_STEPS), skip_special_tokens=True),
}
print(said)
(golden / "exported_smollm2.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
