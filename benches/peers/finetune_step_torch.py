"""A full fine-tuning step of SmolLM2-135M in PyTorch eager on the CPU, timed on request.

The peer of `cargo bench -p model --bench finetune_step`, which starts it as `finetune_step_torch.py THREADS`. It prints one line when it is
ready; then for each line `N` on its standard input it runs N steps and prints their wall-clock seconds.
Same shapes as ours: width 576, 30 layers, 9 heads over 3 key heads, feed-forward 1536, vocabulary 49152, batch 2 x 512, tied head.
It uses the fastest eager parts of PyTorch: its fused attention, rms_norm and cross_entropy, and the fused AdamW.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, LAYERS, HEADS, KV_HEADS, FF, VOCAB, BATCH, TOKENS = 576, 30, 9, 3, 1536, 49152, 2, 512
HEAD_DIM = WIDTH // HEADS


def rope_table():
    frequencies = 100000.0 ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.outer(torch.arange(TOKENS, dtype=torch.float64), frequencies)
    return angles.cos().float().repeat(1, 2), angles.sin().float().repeat(1, 2)


def rope(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda n, m: nn.Linear(n, m, bias=False)
        self.q, self.o = linear(WIDTH, WIDTH), linear(WIDTH, WIDTH)
        self.k, self.v = (linear(WIDTH, KV_HEADS * HEAD_DIM) for _ in range(2))
        self.gate, self.up, self.down = linear(WIDTH, FF), linear(WIDTH, FF), linear(FF, WIDTH)
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH, eps=1e-5), nn.RMSNorm(WIDTH, eps=1e-5)

    def forward(self, x, cos, sin):
        n = self.norm1(x)
        heads = lambda y: y.view(BATCH, TOKENS, -1, HEAD_DIM).transpose(1, 2)
        q, k, v = heads(self.q(n)), heads(self.k(n)), heads(self.v(n))
        y = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(BATCH, TOKENS, WIDTH))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens, targets, cos, sin):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.cross_entropy(F.linear(self.norm(x), self.embedding.weight).view(-1, VOCAB), targets.view(-1))


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    model = Decoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    cos, sin = rope_table()
    text = torch.randint(VOCAB, (BATCH, TOKENS + 1))
    tokens, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def step():
        loss = model(tokens, targets, cos, sin)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    for _ in range(2):
        loss = step()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PyTorch {torch.__version__} eager, {parameters} parameters, loss {loss:.3f}", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


main()
