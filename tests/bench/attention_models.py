#!/usr/bin/env python3
"""Times nat_mini, biformer_tiny, agent_deit_tiny and litv2_small beside PyTorch code of the same models, which timm lacks.

  PYTHON tests/bench/attention_models.py [--shared ../shared] --check
  PYTHON tests/bench/attention_models.py [--shared ../shared] [options of the shared peers' scripts: --dtype, --batch, --json ...]

PYTHON is an interpreter with the peers' requirements (see the shared folder). The models below are plain PyTorch written for
speed from the papers' definitions, under the published parameter names; --check compares their logits with the reference
cases. Each peer (eager, compiled, ONNX Runtime, OpenVINO) tries every way of writing a model and keeps its fastest; build/vitrine
takes its turns between them.
"""
import argparse
import json
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

import beside_peers


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


# --- NAT (arXiv:2204.07143), channels last ---------------------------------------------------------------------------


class NeighborhoodAttention(nn.Module):
    """The k x k nearest keys of each query with a relative position bias, by gathering or under a dense mask."""

    def __init__(self, dim, heads, kernel, side, dense):
        super().__init__()
        self.heads, self.dense = heads, dense
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rpb = nn.Parameter(torch.zeros(heads, 2 * kernel - 1, 2 * kernel - 1))
        at = torch.arange(side)
        axis = (at - kernel // 2).clamp(0, side - kernel)[:, None] + torch.arange(kernel)  # [side, kernel]
        keys = axis[:, None, :, None] * side + axis[None, :, None, :]
        offset = axis - at[:, None] + kernel - 1
        bias = offset[:, None, :, None] * (2 * kernel - 1) + offset[None, :, None, :]
        self.register_buffer("keys", keys.reshape(side * side, -1), persistent=False)
        self.register_buffer("bias", bias.reshape(side * side, -1), persistent=False)

    def forward(self, x):
        B, H, W, C = x.shape
        N, D = H * W, C // self.heads
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D).permute(2, 0, 3, 1, 4)  # [B, heads, N, D]
        bias = self.rpb.flatten(1)[:, self.bias]  # [heads, N, k * k]
        if self.dense:
            mask = bias.new_full((self.heads, N, N), float("-inf"))
            mask = mask.scatter(2, self.keys.expand(self.heads, -1, -1), bias)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            logits = torch.einsum("bhnd,bhnkd->bhnk", q * D**-0.5, k[:, :, self.keys]) + bias
            y = torch.einsum("bhnk,bhnkd->bhnd", logits.softmax(-1), v[:, :, self.keys])
        return self.proj(y.transpose(1, 2).reshape(B, H, W, C))


class NatBlock(nn.Module):
    def __init__(self, dim, heads, side, dense):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = NeighborhoodAttention(dim, heads, 7, side, dense), Mlp(dim, 3 * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ConvDown(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.reduction, self.norm = nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False), nn.LayerNorm(2 * dim)

    def forward(self, x):
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Nat(nn.Module):
    def __init__(self, dim=64, depths=(3, 4, 6, 5), heads=(2, 4, 8, 16), side=56, dense_below=0):
        super().__init__()
        self.patch_embed = nn.ModuleDict({
            "proj": nn.Sequential(nn.Conv2d(3, dim // 2, 3, 2, 1), nn.Conv2d(dim // 2, dim, 3, 2, 1)), "norm": nn.LayerNorm(dim)})
        self.levels = nn.ModuleList()
        for i, (depth, h) in enumerate(zip(depths, heads)):
            width, at = dim << i, side >> i
            level = nn.ModuleDict({"blocks": nn.ModuleList(NatBlock(width, h, at, at < dense_below) for _ in range(depth))})
            if i + 1 < len(depths):
                level["downsample"] = ConvDown(width)
            self.levels.append(level)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.patch_embed["norm"](self.patch_embed["proj"](x).permute(0, 2, 3, 1))
        for level in self.levels:
            for block in level["blocks"]:
                x = block(x)
            if "downsample" in level:
                x = level["downsample"](x)
        return self.head(self.norm(x).mean((1, 2)))


# --- BiFormer (arXiv:2303.08810), channels last -----------------------------------------------------------------------


def depthwise(conv, x):  # [B, H, W, C]
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class BiLevelRouting(nn.Module):
    def __init__(self, dim, heads, topk, regions=7):
        super().__init__()
        self.heads, self.topk, self.regions, self.scale = heads, topk, regions, dim**-0.5
        self.qkv = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim)})
        self.lepe, self.wo = nn.Conv2d(dim, dim, 5, 1, 2, groups=dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, H, W, C = x.shape
        P, h, w = self.regions, H // self.regions, W // self.regions
        qkv = self.qkv["qkv"](x)
        cut = qkv.view(B, P, h, P, w, 3, C).permute(5, 0, 1, 3, 2, 4, 6).reshape(3, B, P * P, h * w, C)
        q, k, v = cut.unbind(0)
        route = (q.mean(2) * self.scale @ k.mean(2).transpose(1, 2)).topk(self.topk, dim=-1).indices  # [B, P * P, topk]
        at = route[..., None, None].expand(-1, -1, -1, h * w, C)
        gathered = [t[:, None].expand(-1, P * P, -1, -1, -1).gather(2, at).flatten(2, 3) for t in (k, v)]
        split = [t.unflatten(-1, (self.heads, -1)).transpose(2, 3) for t in (q, *gathered)]  # [B, P * P, heads, tokens, D]
        y = F.scaled_dot_product_attention(*split, scale=self.scale).transpose(2, 3)
        y = y.reshape(B, P, P, h, w, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)
        return self.wo(y + depthwise(self.lepe, qkv[..., 2 * C:]))


class LepeAttention(nn.Module):
    def __init__(self, dim, heads=8):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, 5, 1, 2, groups=dim)

    def forward(self, x):
        B, H, W, C = x.shape
        q, k, v = self.qkv(x).view(B, H * W, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, H, W, C)
        return self.proj(y + depthwise(self.lepe, x))


class BiFormerBlock(nn.Module):
    def __init__(self, dim, topk):
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = BiLevelRouting(dim, dim // 32, topk) if topk > 0 else LepeAttention(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.Identity(), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x):
        x = x + depthwise(self.pos_embed, x)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class BiFormer(nn.Module):
    def __init__(self, dims=(64, 128, 256, 512), depths=(2, 2, 8, 2), topks=(1, 4, 16, -2)):
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, dims[0] // 2, 3, 2, 1), nn.BatchNorm2d(dims[0] // 2), nn.GELU(),
                              nn.Conv2d(dims[0] // 2, dims[0], 3, 2, 1), nn.BatchNorm2d(dims[0]))
        self.downsample_layers = nn.ModuleList([first] + [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in zip(dims, dims[1:])])
        self.stages = nn.ModuleList(nn.Sequential(*[BiFormerBlock(d, t) for _ in range(n)]) for d, n, t in zip(dims, depths, topks))
        self.norm, self.head = nn.BatchNorm2d(dims[-1]), nn.Linear(dims[-1], 1000)

    def forward(self, x):
        for down, stage in zip(self.downsample_layers, self.stages):
            x = stage(down(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.norm(x).mean((2, 3)))


# --- Agent-DeiT (arXiv:2312.08874) ------------------------------------------------------------------------------------


class AgentAttention(nn.Module):
    def __init__(self, dim, heads, agents, side):
        super().__init__()
        self.heads, self.agents, self.side = heads, agents, side
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.dwc = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        for name, shape in {"an_bias": (heads, agents, 7, 7), "na_bias": (heads, agents, 7, 7),
                            "ah_bias": (1, heads, agents, side, 1), "aw_bias": (1, heads, agents, 1, side),
                            "ha_bias": (1, heads, side, 1, agents), "wa_bias": (1, heads, 1, side, agents),
                            "ac_bias": (1, heads, agents, 1), "ca_bias": (1, heads, 1, agents)}.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))

    def biases(self):
        size = (self.side, self.side)
        gather = F.interpolate(self.an_bias, size, mode="bilinear").flatten(2) + (self.ah_bias + self.aw_bias).flatten(3)
        spread = F.interpolate(self.na_bias, size, mode="bilinear").flatten(2).transpose(1, 2)
        spread = spread + (self.ha_bias + self.wa_bias).flatten(2, 3)
        return torch.cat([self.ac_bias, gather], 3), torch.cat([self.ca_bias, spread], 2)

    def forward(self, x):
        B, N, C = x.shape
        s, grid = self.side, int(self.agents**0.5)
        q, k, v = self.qkv(x).view(B, N, 3, C).unbind(2)
        agents = F.adaptive_avg_pool2d(q[:, 1:].transpose(1, 2).reshape(B, C, s, s), grid).flatten(2).transpose(1, 2)
        q4, a4, k4, v4 = (t.reshape(B, -1, self.heads, C // self.heads).transpose(1, 2) for t in (q, agents, k, v))
        gather, spread = self.biases()
        y = F.scaled_dot_product_attention(q4, a4, F.scaled_dot_product_attention(a4, k4, v4, attn_mask=gather), attn_mask=spread)
        y = y.transpose(1, 2).reshape(B, N, C)
        local = self.dwc(v[:, 1:].transpose(1, 2).reshape(B, C, s, s)).flatten(2).transpose(1, 2)
        return self.proj(torch.cat([y[:, :1], y[:, 1:] + local], 1))


class AgentBlock(nn.Module):
    def __init__(self, dim, heads, side):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = AgentAttention(dim, heads, 49, side), Mlp(dim, 4 * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AgentDeit(nn.Module):
    def __init__(self, dim=192, heads=3, depth=12, side=14):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 16, 16)})
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, side * side + 1, dim))
        self.blocks = nn.Sequential(*[AgentBlock(dim, heads, side) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, 1000)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


# --- LITv2 (arXiv:2205.13213), channels last --------------------------------------------------------------------------


class HiLo(nn.Module):
    def __init__(self, dim, heads, window, alpha=0.9):
        super().__init__()
        self.window, d = window, dim // heads
        self.low = heads if window == 1 else int(heads * alpha)
        self.high, self.d = heads - self.low, d
        if self.high:
            self.h_qkv, self.h_proj = nn.Linear(dim, 3 * self.high * d), nn.Linear(self.high * d, self.high * d)
        if self.low:
            self.l_q, self.l_kv = nn.Linear(dim, self.low * d), nn.Linear(dim, 2 * self.low * d)
            self.l_proj = nn.Linear(self.low * d, self.low * d)

    def forward(self, x):
        B, H, W, C = x.shape
        s, parts = self.window, []
        if self.high:
            qkv = self.h_qkv(x).view(B, H // s, s, W // s, s, 3, self.high, self.d).permute(5, 0, 1, 3, 6, 2, 4, 7)
            y = F.scaled_dot_product_attention(*qkv.reshape(3, -1, self.high, s * s, self.d).unbind(0))
            y = y.view(B, H // s, W // s, self.high, s, s, self.d).permute(0, 1, 4, 2, 5, 3, 6)
            parts.append(self.h_proj(y.reshape(B, H, W, -1)))
        if self.low:
            q = self.l_q(x).view(B, H * W, self.low, self.d).transpose(1, 2)
            pooled = x if s == 1 else F.avg_pool2d(x.permute(0, 3, 1, 2), s).permute(0, 2, 3, 1)
            k, v = self.l_kv(pooled).view(B, -1, 2, self.low, self.d).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
            parts.append(self.l_proj(y.reshape(B, H, W, -1)))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


class LitMlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(4 * dim, 4 * dim, 3, 1, 1, groups=4 * dim)})

    def forward(self, x):
        return self.fc2(F.gelu(depthwise(self.dwconv["dwconv"], self.fc1(x))))


class LitBlock(nn.Module):
    def __init__(self, dim, heads, window):
        super().__init__()
        if window:
            self.norm1, self.attn = nn.LayerNorm(dim), HiLo(dim, heads, window)
        self.norm2, self.mlp = nn.LayerNorm(dim), LitMlp(dim)

    def forward(self, x):
        if hasattr(self, "attn"):
            x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeformableMerging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        conv = nn.Conv2d(dim, 2 * dim, 2, 2)
        conv.conv_offset = nn.Conv2d(dim, 8, 2, 2)
        self.dconv, self.norm_layer = conv, nn.BatchNorm2d(2 * dim)

    def forward(self, x):
        from torchvision.ops import deform_conv2d
        x = x.permute(0, 3, 1, 2)
        y = deform_conv2d(x, self.dconv.conv_offset(x), self.dconv.weight, self.dconv.bias, 2)
        return F.gelu(self.norm_layer(y)).permute(0, 2, 3, 1)


class LitV2(nn.Module):
    def __init__(self, dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), windows=(0, 0, 2, 1)):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 4, 4), "norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList()
        for i, (depth, h, window) in enumerate(zip(depths, heads, windows)):
            layer = nn.ModuleDict({"blocks": nn.ModuleList(LitBlock(dim << i, h, window) for _ in range(depth))})
            if i + 1 < len(depths):
                layer["downsample"] = DeformableMerging(dim << i)
            self.layers.append(layer)
        self.norm, self.head = nn.LayerNorm(dim << i), nn.Linear(dim << i, 1000)

    def forward(self, x):
        x = self.patch_embed["norm"](self.patch_embed["proj"](x).permute(0, 2, 3, 1))
        for layer in self.layers:
            for block in layer["blocks"]:
                x = block(x)
            if "downsample" in layer:
                x = layer["downsample"](x)
        return self.head(self.norm(x).mean((1, 2)))


# Ways of writing each model.
MODELS = {
    "nat_mini": {"gather": lambda: Nat(), "dense mask from 14 x 14 on": lambda: Nat(dense_below=15),
                 "dense mask from 28 x 28 on": lambda: Nat(dense_below=29)},
    "biformer_tiny": {"": lambda: BiFormer()},
    "agent_deit_tiny": {"": lambda: AgentDeit()},
    "litv2_small": {"": lambda: LitV2()},
}


def build(case, batch, peer, ctx):
    import peerbench as pb
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 224, 224)
    made, variants = None, []
    for name, make in MODELS[case].items():
        model = make().eval()
        if made is not None:
            model.load_state_dict(made)
        made = model.state_dict()
        variants.append(pb.Variant(model, (x,), name))
    return pb.Workload(variants)


def check(shared):
    from safetensors.torch import load_file
    goldens = shared / "goldens"
    sys.path.insert(0, str(goldens / "generate"))
    import synthetic
    cases = json.loads((goldens / "backbones" / "cases.json").read_text())
    cases = {c["name"]: c for c in (cases["cases"] if isinstance(cases, dict) else cases)}
    for name, ways in MODELS.items():
        case = cases[name]
        expected = load_file(goldens / "backbones" / case["file"])["logits"]
        x = torch.from_numpy(synthetic.tensor(case["input"]["name"], case["input"]["shape"]))
        for way, make in ways.items():
            model = make().eval()
            synthetic.fill(model)
            with torch.inference_mode():
                error = (model(x) - expected).abs().max() / expected.std()
            count = sum(p.numel() for p in model.parameters())
            right = error < 1e-4 and count == case["n_parameters"]
            print(f"{name} {way}: {count} parameters, largest difference {error:.1e} of the logits' deviation: {'ok' if right else 'WRONG'}")
            if not right:
                sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside_peers.add_shared(parser)
    parser.add_argument("--check", action="store_true", help="compare with the reference cases instead of timing")
    options, rest = parser.parse_known_args()
    if options.check:
        check(options.shared)
        sys.exit()
    sys.exit(beside_peers.run(__doc__, __file__, list(MODELS), build, options.shared, rest, "1,8"))
