"""Makes small models of transformers with random weights, each with a picture and what the model makes of it (case.safetensors:
input [1, H, W, 3]; logits or features)."""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitModel,
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

folder = pathlib.Path(__file__).parent
plain = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=28, image_size=32, patch_size=8)
dino = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8)
names = {i: f"kind {i}" for i in range(5)}
labels = dict(id2label=names, label2id={name: i for i, name in names.items()})
models = {
    "vit": ViTForImageClassification(ViTConfig(**plain, **labels)),
    "vit_features": ViTModel(ViTConfig(**plain, qkv_bias=False)),
    "dinov2": Dinov2Model(Dinov2Config(**dino, mlp_ratio=2)),
    "dinov2_swiglu": Dinov2Model(Dinov2Config(**dino, use_swiglu_ffn=True)),
    "beit": BeitForImageClassification(BeitConfig(**plain, **labels, use_relative_position_bias=True)),
    "beit_shared": BeitForImageClassification(BeitConfig(**plain, num_labels=5, use_shared_relative_position_bias=True)),
    "beit_absolute": BeitModel(
        BeitConfig(**plain, use_absolute_position_embeddings=True, use_mean_pooling=False, layer_scale_init_value=0.0)
    ),
    "swin": SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[2, 2, 1], num_heads=[1, 2, 4], window_size=4, **labels)
    ),
}
for name, model in models.items():
    torch.manual_seed(0)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            offset = 1 if "norm" in path and path.endswith("weight") else 0
            parameter.copy_(offset + 0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder / name)
    size = 48 if name.startswith("dinov2") else 32  # another than that of the table of positions
    processor = ViTImageProcessor(size={"height": size, "width": size}, resample=3, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    processor.save_pretrained(folder / name)
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        out = model(images)
    case = {"input": images.permute(0, 2, 3, 1).contiguous()}
    if hasattr(out, "logits"):
        case["logits"] = out.logits
    else:
        case["features"] = out.last_hidden_state
    save_file(case, folder / name / "case.safetensors")
