#!/usr/bin/env python3
"""Write cases.json: small plain ViTs, EVAs and BEiTs with synthetic weights, and what timm 1.0.31 answers.

  python make_cases.py FOLDER_OF_SYNTHETIC_PY

Each case has the constructor, its arguments as Vitrine takes them, the input, the parameters of the checkpoint with their
shapes, and outputs: every 11th value of logits, pre_logits and the last block's patch tokens (NHWC).
"""
import json
import os
import sys
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm, RmsNorm, SwiGLU, SwiGLUPacked, GluMlp, set_fused_attn
from timm.models import beit, deit, eva, vision_transformer as vit

sys.path.insert(0, sys.argv[1])
import synthetic

STRIDE = 11
BASE = dict(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=4, num_classes=10)
CLASSES = {"VisionTransformer": vit.VisionTransformer, "VisionTransformerDistilled": deit.VisionTransformerDistilled,
           "Eva": eva.Eva, "Beit": beit.Beit}
BLOCKS = {"ResPostBlock": vit.ResPostBlock, "ParallelScalingBlock": vit.ParallelScalingBlock,
          "ParallelThingsBlock": vit.ParallelThingsBlock, "DiffParallelScalingBlock": vit.DiffParallelScalingBlock}
MLPS = {"GluMlp": GluMlp, "SwiGLUPacked": SwiGLUPacked, "SwiGLU": SwiGLU}


def timm_arguments(arguments):
    """Vitrine's strings to timm's classes."""
    a = dict(arguments)
    eps = a.pop("norm_eps", 1e-6)
    a.pop("pos_embed_interpolation", None)
    norms = {"layernorm": LayerNorm, "rmsnorm": RmsNorm}
    if "norm_layer" in a or eps != 1e-6:
        a["norm_layer"] = partial(norms[a.get("norm_layer", "layernorm")], eps=eps)
    if "embed_norm_layer" in a:
        a["embed_norm_layer"] = partial(norms[a["embed_norm_layer"]], eps=eps)
    if "block_fn" in a:
        a["block_fn"] = BLOCKS[a["block_fn"]]
    if "mlp_layer" in a:
        a["mlp_layer"] = MLPS[a["mlp_layer"]]
    for k in ("img_size", "patch_size", "num_kv_heads", "ref_feat_shape", "rope_mrope_section"):
        if isinstance(a.get(k), list):
            a[k] = tuple(a[k])
    return a


def plain_resize(model, state):
    """transformers' rules: the position table bicubic without antialiasing, BEiT's tables bilinear."""
    grid = model.patch_embed.grid_size
    for name, value in model.state_dict().items():
        old = state[name]
        if name == "pos_embed" and old.shape != value.shape:
            prefix = value.shape[1] - grid[0] * grid[1]
            side = int((old.shape[1] - prefix) ** 0.5)
            table = old[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
            state[name] = torch.cat([old[:, :prefix], table.permute(0, 2, 3, 1).flatten(1, 2)], 1)
        elif name.endswith("relative_position_bias_table") and old.shape != value.shape:
            side = int((old.shape[0] - 3) ** 0.5)
            table = old[:-3].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            table = F.interpolate(table, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear")
            state[name] = torch.cat([table.permute(0, 2, 3, 1).flatten(0, 2), old[-3:]])
    model.load_state_dict(state)


def run(constructor, arguments, size=None, stored=None):
    """size: of the image, where it is not img_size; stored: img_size of the checkpoint, where it is another."""
    a = {**BASE, **arguments}
    cls, ours = CLASSES[constructor], timm_arguments(a)
    model = cls(**{**ours, "img_size": stored} if stored else ours).eval()
    parameters = synthetic.fill(model)
    if getattr(model, "rope_mixed", False):  # learned here, though the name is one of those that fill() leaves out
        with torch.no_grad():
            model.rope.freqs.copy_(torch.from_numpy(synthetic.parameter("rope.freqs", model.rope.freqs.shape)))
        parameters.append(("rope.freqs", list(model.rope.freqs.shape)))
    image = a["img_size"] if isinstance(a["img_size"], list) else [a["img_size"]] * 2
    if stored and a.get("pos_embed_interpolation") == "transformers":
        state = model.state_dict()
        model = cls(**ours).eval()
        plain_resize(model, state)
    elif stored:
        model.set_input_size(tuple(image))
    if size and constructor == "Beit":
        model.set_input_size(tuple(size))
    shape = [2, a.get("in_chans", 3), *(size or image)]
    x = torch.from_numpy(synthetic.tensor("input", shape))
    with torch.no_grad():
        features = model.forward_features(x)
        values = {"logits": model.forward_head(features), "pre_logits": model.forward_head(features, pre_logits=True),
                  "features": model.forward_intermediates(x, indices=[1], intermediates_only=True)[0].permute(0, 2, 3, 1)}
    outputs = {n: {"shape": list(v.shape), "std": float(f"{v.std():.4g}"), "stride": STRIDE,
                   "values": [float(f"{y:.6g}") for y in v.flatten()[::STRIDE].tolist()]} for n, v in values.items()}
    return {"constructor": constructor, "arguments": a, "input": shape, "parameters": parameters, "outputs": outputs}


ROPE = dict(use_rot_pos_emb=True, use_abs_pos_emb=False)
DINOV3 = dict(ROPE, rope_type="dinov3", rope_temperature=100.0, rope_rotate_half=True, num_reg_tokens=2, init_values=1.0)
DYNAMIC = dict(dynamic_img_size=True)
CASES = [
    *(("VisionTransformer", a) for a in (
        {}, {"global_pool": "avg"}, {"global_pool": "avg", "fc_norm": False}, {"global_pool": "max"},
        {"global_pool": "avgmax", "reg_tokens": 2}, {"global_pool": ""}, {"global_pool": "token", "fc_norm": True},
        {"global_pool": "avg", "pool_include_prefix": True},
        {"global_pool": "map"}, {"global_pool": "map", "class_token": False, "reg_tokens": 1, "pool_include_prefix": True},
        {"global_pool": "prr"}, {"global_pool": "prr", "class_token": False}, {"num_classes": 0},
        {"qk_norm": True}, {"qkv_bias": False}, {"scale_attn_norm": True, "scale_mlp_norm": True}, {"proj_bias": False},
        {"init_values": 0.1}, {"class_token": False, "global_pool": "avg"}, {"pos_embed": "none"}, {"no_embed_class": True},
        {"reg_tokens": 3}, {"reg_tokens": 3, "no_embed_class": True}, {"pre_norm": True}, {"final_norm": False},
        {"norm_layer": "rmsnorm", "qk_norm": True}, {"norm_eps": 0.01}, {"embed_norm_layer": "rmsnorm"},
        {"act_layer": "relu"}, {"act_layer": "gelu_tanh"}, {"act_layer": "quick_gelu"}, {"act_layer": "silu"},
        {"block_fn": "ResPostBlock"}, {"block_fn": "ParallelThingsBlock", "init_values": 0.1},
        {"block_fn": "ParallelScalingBlock", "init_values": 0.1},
        {"block_fn": "ParallelScalingBlock", "qkv_bias": False, "qk_norm": True},
        {"block_fn": "DiffParallelScalingBlock", "init_values": 0.1},
        {"block_fn": "DiffParallelScalingBlock", "qkv_bias": False, "proj_bias": False, "qk_norm": True},
        {"attn_layer": "diff"}, {"attn_layer": "diff", "qk_norm": True, "scale_attn_norm": True, "init_values": 0.1},
        {"mlp_layer": "GluMlp"}, {"mlp_layer": "SwiGLUPacked", "scale_mlp_norm": True},
        {"mlp_layer": "SwiGLU", "scale_mlp_norm": True, "proj_bias": False}, {"mlp_ratio": 2.7},
        {"img_size": [24, 40], "patch_size": [8, 4], "in_chans": 1}, {"img_size": 35})),
    ("VisionTransformerDistilled", {}), ("VisionTransformerDistilled", {"num_classes": 0}),
    ("VisionTransformer", DYNAMIC, [48, 40]), ("VisionTransformer", {**DYNAMIC, "no_embed_class": True, "reg_tokens": 2}, [16, 24]),
    ("VisionTransformer", {**DYNAMIC, "dynamic_img_pad": True}, [37, 45]),
    ("VisionTransformerDistilled", DYNAMIC, [24, 56]),
    ("VisionTransformer", {"img_size": [48, 40]}, None, 32), ("VisionTransformer", {"img_size": 16, "reg_tokens": 1}, None, 48),
    ("VisionTransformer", {"img_size": 24, "pos_embed_interpolation": "transformers"}, None, 64),
    ("VisionTransformer", {"img_size": [40, 56], "no_embed_class": True, "pos_embed_interpolation": "transformers"}, None, 32),
    *(("Eva", a) for a in (
        {}, {"qkv_fused": False}, {"qkv_bias": False}, {"qk_norm": True, "scale_attn_inner": True}, {"scale_mlp": True},
        {"swiglu_mlp": True}, {"swiglu_mlp": True, "scale_mlp": True, "mlp_ratio": 8 / 3},
        {"swiglu_mlp": True, "swiglu_align_to": 16, "mlp_ratio": 2.7}, {"init_values": 0.1, "attn_only_layer_scale": True},
        {**ROPE, "ref_feat_shape": [2, 8]}, {**ROPE, "rope_grid_indexing": "xy", "rope_grid_offset": 1.0, "img_size": [24, 40]},
        {**ROPE, "use_abs_pos_emb": True, "no_embed_class": True, "num_reg_tokens": 2, "rope_rotate_half": True},
        {**ROPE, "rope_type": "mixed", "rope_temperature": 10.0, "rope_grid_indexing": "xy", "img_size": [24, 40]},
        {**ROPE, "rope_type": "mrope", "rope_mrope_section": [2, 3, 2], "img_size": [24, 40]}, DINOV3,
        {**DINOV3, "attn_type": "rope", "qkv_fused": False, "qk_norm": True, "num_kv_heads": 2, "norm_layer": "rmsnorm"},
        {"attn_type": "rope", "qkv_fused": False, "num_kv_heads": [4, 1]}, {"attn_type": "rope"},
        {"use_post_norm": True, "swiglu_mlp": True, "swiglu_align_to": 16, "mlp_ratio": 2.7},
        {"use_post_norm": True, "swiglu_mlp": True, "scale_mlp": True, "swiglu_align_to": 16, "mlp_ratio": 2.7},
        {"use_pre_transformer_norm": True}, {"use_post_transformer_norm": True}, {"use_fc_norm": False},
        {"global_pool": "token"}, {"class_token": False}, {"num_classes": 0},
        {"global_pool": "map", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 3.0})),
    ("Eva", {**ROPE, **DYNAMIC, "use_abs_pos_emb": True, "ref_feat_shape": 4}, [48, 24]), ("Eva", {**DINOV3, **DYNAMIC}, [24, 48]),
    ("Eva", {**ROPE, **DYNAMIC, "rope_type": "mixed", "rope_temperature": 10.0}, [24, 48]),
    *(("Beit", a) for a in (
        {}, {"use_rel_pos_bias": True, "init_values": 0.1}, {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": False},
        {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True, "img_size": [24, 40]}, {"qkv_bias": False},
        {"global_pool": "token"}, {"global_pool": "token", "use_fc_norm": True}, {"swiglu_mlp": True, "scale_mlp": True},
        {"scale_mlp": True})),
    ("Beit", {"use_rel_pos_bias": True}, [48, 24]),
    ("Beit", {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True, "img_size": [48, 56]}, None, 32),
    ("Beit", {"use_rel_pos_bias": True, "pos_embed_interpolation": "transformers", "img_size": [48, 24]}, None, 32),
]


def main():
    set_fused_attn(False)
    torch.set_num_threads(1)
    cases = [run(*case) for case in CASES]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
