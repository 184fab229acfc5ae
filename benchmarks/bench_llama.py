"""One training step of a Llama: ours against a plain loop as in nanoGPT, and the share of the peak of matrix products.

The plain loop is written here with torch's own layers and AdamW, for the same network: `forward`, cross entropy, `zero_grad`, `backward`,
`step`. Medians of interleaved repetitions, each of several steps; on a CPU processor time by thread, as others may use the machine too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import Bars, heading, interleave, parser, short, table
from workers import training
from workers.layers import num_params, parameter_groups
from workers.models.llama import Llama
from workers.optimizers.adam import Adam

# N sequences; T tokens; V tokens that there are

RATE = 3e-4
# what two equal loops differ by on a machine that others use
NOISE = 0.02


class PlainBlock(nn.Module):
    """Attention and gated units of torch's layers, each after a norm."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.units_norm = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.packed, self.projection = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.inside = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.outside = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        num, length, width = x.shape
        heads = self.packed(self.attention_norm(x)).split(width, dim=2)
        q, k, v = (one.view(num, length, self.num_heads, -1).transpose(1, 2) for one in heads)
        q, k = (rotated(one, cosines, sines) for one in (q, k))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).contiguous().view(num, length, width))
        normed = self.units_norm(x)
        return x + self.outside(functional.silu(self.gate(normed)) * self.inside(normed))


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions on halves of heads."""
    left, right = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-right, left), dim=-1) * sines


class Plain(nn.Module):
    """The network of `Llama`, of the same sizes."""

    def __init__(self, model: Llama, length: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, model.width)
        self.blocks = nn.ModuleList(PlainBlock(model.width, model.width // model.head_dim, model.hidden) for _ in range(model.depth))
        self.norm, self.readout = nn.RMSNorm(model.width, 1e-5), nn.Linear(model.width, vocabulary, bias=False)
        if model.tied:
            self.readout.weight = self.embedding.weight
        for weights in self.parameters():
            if weights.dim() == 2:
                nn.init.normal_(weights, std=0.02)
        speeds = 10000.0 ** (-torch.arange(0, model.head_dim, 2) / model.head_dim)
        angles = torch.outer(torch.arange(length), speeds).repeat(1, 2)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosines, self.sines)
        return self.readout(self.norm(x))


def plain_step(module: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, targets: Tensor) -> None:
    """As a loop by hand has it."""
    for group in optimizer.param_groups:
        group["lr"] = RATE
    logits = module(tokens)
    loss = functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def step_flops(model: Llama, module: nn.Module, num_tokens: int, length: int) -> float:
    """6 N D of the weights that are multiplied by, and of attention's products half, as the other half is masked."""
    _, body = num_params(module)
    readout = module.readout(torch.zeros(1, model.width, device=next(module.parameters()).device), module.embedding.weight).shape[-1]
    multiplied = body + readout * model.width
    return 6.0 * multiplied * num_tokens + 3 * 4 * length * model.width * model.depth * num_tokens / 2


def peak_flops(device: str, size: int = 2048) -> float:
    """Operations a second of a square product in float32, the best of some."""
    one, other = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2.0 * size**3 / min(seconds(lambda: one @ other, device) for _ in range(8))


def seconds(work: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds of a call, the mean of some: wall time of a GPU, processor time of each thread of a CPU."""
    on_gpu = device.startswith("cuda")
    clock, share = (time.perf_counter, 1) if on_gpu else (time.process_time, torch.get_num_threads())
    _wait(device)
    began = clock()
    for _ in range(times):
        work()
    _wait(device)
    return (clock() - began) / times / share


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def steps(asked: argparse.Namespace, model: Llama) -> tuple[dict[str, Callable[[], None]], nn.Module]:
    """A step of each loop on the same tokens, and our network."""
    device, generator = asked.device, torch.Generator().manual_seed(0)
    drawn = torch.randint(asked.vocabulary, (asked.batch, asked.length + 1), generator=generator).to(device)
    batch = drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()
    ours = model.build((asked.length,), asked.vocabulary, 0).to(device)
    adam = Adam(learning_rate=RATE, beta_2=0.95)
    own = adam.build(parameter_groups(ours, normalised=True))
    found: dict[str, Callable[[], None]] = {"ours": partial(training.update, ours, own, RATE, "cross_entropy", *batch)}
    for name, options in {"plain loop": {}, "plain loop, fused AdamW": {"fused": True}}.items():
        torch.manual_seed(0)
        plain = Plain(model, asked.length, asked.vocabulary).to(device)
        optimizer = torch.optim.AdamW(plain.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, **options)
        found[name] = partial(plain_step, plain, optimizer, *batch)
    return found, ours


def main() -> int:
    asked = _asked()
    torch.set_num_threads(asked.threads)
    heading(__doc__.splitlines()[0], asked.folder, ["torch"])
    model = Llama(width=asked.width, depth=asked.depth, head_dim=asked.head_dim, tied=asked.tied)
    cases, ours = steps(asked, model)
    for work in cases.values():
        seconds(work, asked.device, 2)
    timed = {name: partial(seconds, work, asked.device, asked.steps) for name, work in cases.items()}
    timed["peak"] = partial(peak_flops, asked.device)
    found = interleave(timed, asked.repetitions)
    peak, num_tokens = statistics.median(found.pop("peak")), asked.batch * asked.length
    flops = step_flops(model, ours, num_tokens, asked.length)
    # of each repetition by itself: what slows the machine down meets both
    ratios = {name: statistics.median(b / a for a, b in zip(found["ours"], values)) for name, values in found.items()}
    rows = []
    for name, values in found.items():
        median = statistics.median(values)
        share = f"{100 * flops / median / peak:.0f} %"
        rows.append([name, f"{1000 * median:.1f} ms", f"{num_tokens / median:,.0f}", share, short(ratios[name])])
    print(
        f"width {asked.width}, depth {asked.depth}, {asked.batch} x {asked.length} tokens of {asked.vocabulary}, {asked.threads} threads; "
    )
    print(f"{num_params(ours)[0]:,} weights, {flops / 1e9:.1f} GFLOP a step; a square product {peak / 1e9:.0f} GFLOP/s\n")
    table(["step", "median", "tokens/s", "of the peak", "time beside ours"], rows)
    bars = Bars()
    for name in list(ratios)[1:]:
        bars.at_least(f"{name} beside ours", ratios[name], 1 - NOISE, "x")
    return bars.show(check=not asked.no_check)


def _asked() -> argparse.Namespace:
    made = parser(__doc__, repetitions=9)
    for name, default in (
        ("width", 256),
        ("depth", 4),
        ("head-dim", 64),
        ("length", 128),
        ("batch", 8),
        ("vocabulary", 4096),
        ("steps", 3),
    ):
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--tied", action="store_true", help="the readout is the embedding's table")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
