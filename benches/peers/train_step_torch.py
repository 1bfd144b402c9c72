"""A Llama-style training step in PyTorch eager on the CPU, timed on request.

The peer of `cargo bench -p model --bench train_step` and `finetune_step`, which start it as `train_step_torch.py THREADS SHAPE`. It prints one
line when it is ready; then for each line `N` on its standard input it runs N steps and prints their wall-clock seconds.
The shapes are those of the benches. It uses the fastest eager parts of PyTorch: its fused attention, rms_norm and cross_entropy, and the fused
AdamW.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# Width, layers, heads, key heads, feed-forward, vocabulary, batch, tokens, whether the head is the embedding.
SHAPES = {
    "10M": (256, 6, 8, 8, 768, 8192, 8, 256, False),
    "SmolLM2-135M": (576, 30, 9, 3, 1536, 49152, 2, 512, True),
}
WIDTH, LAYERS, HEADS, KV_HEADS, FF, VOCAB, BATCH, TOKENS, TIED = SHAPES[sys.argv[2]]
HEAD_DIM = WIDTH // HEADS


def rope_table():
    frequencies = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
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
        y = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=True, enable_gqa=KV_HEADS < HEADS)
        x = x + self.o(y.transpose(1, 2).reshape(BATCH, TOKENS, WIDTH))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if TIED:
            self.head.weight = self.embedding.weight

    def forward(self, tokens, targets, cos, sin):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, VOCAB), targets.view(-1))


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    model = Decoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
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
