"""Trains dit_fashion, the shipped generator: a class-conditional DiT on Fashion-MNIST, 28x28 grey pixels. CPU, about two and a
half minutes an epoch on two cores.

  python train_generator.py OUT.safetensors [--epochs 25] [--from WEIGHTS.safetensors --done EPOCHS]

Diffusion: 1000 steps, cosine schedule; the network predicts v (arXiv:2202.00512), which gave cleaner pictures after few epochs
than predicting the noise. A tenth of the labels become class 10, "no class", for classifier-free guidance. What is saved after
every epoch is the moving average of the weights.
What ships was begun by an earlier recipe (8 epochs that predicted the noise), then saw 9 epochs of this one.

Pictures are not mirrored: all shoes of the data set point to the left, and mirrored ones count as foreign in its statistics.
"""
import argparse
import gzip
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
CONFIG = dict(input_size=28, patch_size=4, in_channels=1, hidden_size=128, depth=6, num_heads=4, num_classes=10)
STEPS = 1000
COSINE = torch.cos((torch.arange(STEPS + 1, dtype=torch.float64) / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2
ALPHA_BAR = torch.cumprod(1 - (1 - COSINE[1:] / COSINE[:-1]).clamp(max=0.999), 0).float()


def read_idx(path):
    raw = gzip.open(path).read()
    dims = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * len(dims)).reshape(dims).copy())


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class Embedding(nn.Module):
    """A parameter under the name that published DiT checkpoints have: y_embedder.embedding_table.weight."""

    def __init__(self, rows, dim):
        super().__init__()
        self.embedding_table = nn.Embedding(rows, dim)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.dim = heads, dim
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, 1)
        y = modulate(F.layer_norm(x, (self.dim,), eps=1e-6), shift1, scale1)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.attn["qkv"](y).chunk(3, 2))
        x = x + gate1[:, None] * self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = modulate(F.layer_norm(x, (self.dim,), eps=1e-6), shift2, scale2)
        return x + gate2[:, None] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](y), approximate="tanh"))


class DiT(nn.Module):
    """x [B, in_channels, S, S], t [B] in 0..999, y [B] in 0..num_classes -> v."""

    def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes):
        super().__init__()
        self.patch, self.grid, self.dim = patch_size, input_size // patch_size, hidden_size
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(in_channels, hidden_size, patch_size, patch_size)})
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))})
        self.y_embedder = Embedding(num_classes + 1, hidden_size)
        self.pos_embed = nn.Parameter(self.positions(), requires_grad=False)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict({"linear": nn.Linear(hidden_size, patch_size**2 * in_channels),
                                          "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))})
        for name, p in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(p)
            elif name.endswith("weight") and p.dim() == 2:
                nn.init.normal_(p, std=0.02) if "embedder" in name else nn.init.xavier_uniform_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def positions(self):
        """[1, grid * grid, dim]: first half of the channels from the column, second from the row, sines then cosines."""
        omega = 10000.0 ** -(torch.arange(self.dim // 4, dtype=torch.float64) / (self.dim / 4))
        row, column = torch.meshgrid(torch.arange(self.grid), torch.arange(self.grid), indexing="ij")
        angles = [axis.reshape(-1, 1).double() * omega for axis in (column, row)]
        return torch.cat([part for a in angles for part in (a.sin(), a.cos())], 1).float()[None]

    def forward(self, x, t, y):
        angle = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        c = self.t_embedder["mlp"](torch.cat([angle.cos(), angle.sin()], 1)) + self.y_embedder.embedding_table(y)
        x = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_layer["adaLN_modulation"](c).chunk(2, 1)
        x = self.final_layer["linear"](modulate(F.layer_norm(x, (self.dim,), eps=1e-6), shift, scale))
        x = x.unflatten(1, (self.grid, self.grid)).unflatten(3, (self.patch, self.patch, -1))
        return torch.einsum("nhwpqc->nchpwq", x).flatten(4, 5).flatten(2, 3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="Debian: dataset-fashion-mnist")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--from", dest="start", help="go on from these weights")
    parser.add_argument("--done", type=int, default=0, help="epochs that they have seen")
    a = parser.parse_args()
    torch.manual_seed(a.done)
    images, labels = read_idx(a.data / "train-images-idx3-ubyte.gz"), read_idx(a.data / "train-labels-idx1-ubyte.gz").long()
    images = images[:, None].float() / 127.5 - 1
    model = DiT(**CONFIG)
    if a.start:
        model.load_state_dict(load_file(a.start))
    forward = torch.compile(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=a.lr, weight_decay=0.0, betas=(0.9, 0.99))
    steps = len(images) // a.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, a.lr, a.epochs * steps, pct_start=0.05)
    average, step, start = {n: p.clone() for n, p in model.state_dict().items()}, 0, time.time()
    for epoch in range(a.epochs):
        order, total = torch.randperm(len(images)), 0.0
        for b in range(steps):
            pick = order[b * a.batch:(b + 1) * a.batch]
            x, y = images[pick], labels[pick].clone()
            y[torch.rand(len(y)) < 0.1] = CONFIG["num_classes"]
            t = torch.randint(0, STEPS, (len(x),))
            noise, kept = torch.randn_like(x), ALPHA_BAR[t][:, None, None, None]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                predicted = forward(kept.sqrt() * x + (1 - kept).sqrt() * noise, t, y)
            loss = F.mse_loss(predicted.float(), kept.sqrt() * noise - (1 - kept).sqrt() * x)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            total += loss.item()
            with torch.no_grad():
                for n, p in model.state_dict().items():
                    average[n].lerp_(p, max(0.001, 1 / step))
        print(f"epoch {epoch + 1}/{a.epochs} loss {total / steps:.4f} {time.time() - start:.0f}s", flush=True)
        save_file({n: p.contiguous() for n, p in average.items()}, a.out, metadata={
            "architecture": "dit_fashion", "config": json.dumps(CONFIG), "classes": json.dumps(CLASSES),
            "scheduler": json.dumps({"_class_name": "DDIMScheduler", "num_train_timesteps": STEPS, "prediction_type": "v_prediction",
                                     "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing", "clip_sample": False,
                                     "set_alpha_to_one": True}),
            "generation": json.dumps({"steps": 50, "guidance": 3.0}),
            "trained_on": "Fashion-MNIST, training split", "epochs": str(a.done + epoch + 1)})


if __name__ == "__main__":
    main()
