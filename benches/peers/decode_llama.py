"""Decodes with llama.cpp: the peer of `cargo bench -p model --bench decode_pretrained`.

    python benches/peers/decode_llama.py MODEL.gguf THREADS STREAMS

Reads a line per task from standard input and answers with tokens per second, as llama.cpp itself measured them:
    decode N     N tokens after a prompt of a few
    prefill N    a prompt of N tokens
    streams N    N tokens in each of STREAMS requests at once (wall time of all)
"""

import concurrent.futures
import json
import sys
import time

import xllamacpp

path, threads, streams = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_ctx = 1024 * streams
params.n_parallel = streams
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.warmup = True
server = xllamacpp.Server(params)


def complete(prompt, count):
    # Token ids as the prompt: what they say does not matter for the time. Ends of text are ignored so that `count` come.
    task = {"prompt": prompt, "n_predict": count, "max_tokens": count, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
    answer = server.handle_completions(task)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    return answer["timings"], answer["usage"]["completion_tokens"]


def tokens(count, seed=0):
    return [1000 + (37 * i + 101 * seed) % 20000 for i in range(count)]


print("ready", flush=True)
for line in sys.stdin:
    task, count = line.split()
    count = int(count)
    if task == "decode":
        timings, _ = complete(tokens(4), count)
        print(timings["predicted_per_second"], flush=True)
    elif task == "prefill":
        timings, _ = complete(tokens(count), 1)
        print(timings["prompt_per_second"], flush=True)
    elif task == "streams":
        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
            start = time.perf_counter()
            made = sum(made for _, made in pool.map(lambda seed: complete(tokens(4, seed), count), range(streams)))
            print(made / (time.perf_counter() - start), flush=True)
