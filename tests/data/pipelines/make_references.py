"""Small pipelines of diffusers with synthetic weights, and the pictures that diffusers draws with them.

  python make_references.py GOLDENS [--keep FOLDER] [NAME...]

GOLDENS is the folder with generate/synthetic.py. Writes NAME.json (the parts' configurations and parameters, what was asked for)
and NAME.png beside this file; tests/pipelines/diffusion_folders.cpp makes the same folders from NAME.json. The noise is that of
pipelines/noise.h. Needs torch, diffusers 0.42, transformers 5.23, tokenizers, numpy, Pillow.
"""
import argparse
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

HERE = Path(__file__).parent
SEED = 5


def philox_normal(seed, shape):
    """Standard normal noise of one picture, channels last."""
    n = int(np.prod(shape))
    blocks = (n + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64), np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)]
    key, mask = [seed & 0xFFFFFFFF, seed >> 32], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & mask, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    out = np.empty((blocks, 4))
    for i in (0, 2):
        r = np.sqrt(-2 * np.log((c[i].astype(np.float64) + 0.5) / 2**32))
        angle = 2 * np.pi * (c[i + 1].astype(np.float64) + 0.5) / 2**32
        out[:, i], out[:, i + 1] = r * np.cos(angle), r * np.sin(angle)
    return torch.from_numpy(out.reshape(-1)[:n].reshape(shape).astype(np.float32))


VAE = dict(in_channels=3, out_channels=3, latent_channels=4, layers_per_block=1, norm_num_groups=8, block_out_channels=[16, 32],
           down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, sample_size=32)
FLUX_VAE = dict(VAE, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
CLIP = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
            hidden_act="quick_gelu", projection_dim=24, bos_token_id=538, eos_token_id=539, pad_token_id=539, vocab_size=540)
T5 = dict(vocab_size=18, d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
          is_encoder_decoder=False, use_cache=False, tie_word_embeddings=False)
UNET = dict(sample_size=16, block_out_channels=[16, 32], down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
            up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"], layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
            norm_num_groups=8)
SD_BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
DIFF, TR = "diffusers", "transformers"

# name: (pipeline, {folder: (library, class, configuration)}, call's arguments)
PIPELINES = {
    "sd": ("StableDiffusionPipeline", {
        "unet": (DIFF, "UNet2DConditionModel", UNET), "vae": (DIFF, "AutoencoderKL", VAE),
        "text_encoder": (TR, "CLIPTextModel", CLIP), "tokenizer": (TR, "CLIPTokenizer", "clip"),
        "scheduler": (DIFF, "PNDMScheduler", dict(SD_BETAS, skip_prk_steps=True)),
    }, dict(prompt="A photo of the cat, 2 hats!", negative_prompt="at the dog", num_inference_steps=5, guidance_scale=7.5)),
    "inpaint": ("StableDiffusionInpaintPipeline", {
        "unet": (DIFF, "UNet2DConditionModel", dict(UNET, in_channels=9)), "vae": (DIFF, "AutoencoderKL", VAE),
        "text_encoder": (TR, "CLIPTextModel", CLIP), "tokenizer": (TR, "CLIPTokenizer", "clip"),
        "scheduler": (DIFF, "DDIMScheduler", dict(SD_BETAS, clip_sample=False, set_alpha_to_one=False)),
    }, dict(prompt="A hat at the dog", negative_prompt="cats", num_inference_steps=5, guidance_scale=7.5)),
    "sdxl": ("StableDiffusionXLPipeline", {
        "unet": (DIFF, "UNet2DConditionModel", dict(
            UNET, cross_attention_dim=64, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 48)),
        "vae": (DIFF, "AutoencoderKL", dict(VAE, scaling_factor=0.13025)),
        "text_encoder": (TR, "CLIPTextModel", CLIP), "tokenizer": (TR, "CLIPTokenizer", "clip"),
        "text_encoder_2": (TR, "CLIPTextModelWithProjection", dict(CLIP, hidden_act="gelu")), "tokenizer_2": (TR, "CLIPTokenizer", "clip"),
        "scheduler": (DIFF, "EulerDiscreteScheduler", dict(SD_BETAS, timestep_spacing="leading")),
    }, dict(prompt="the cat", num_inference_steps=4, guidance_scale=5.0)),
    "sd3": ("StableDiffusion3Pipeline", {
        "transformer": (DIFF, "SD3Transformer2DModel", dict(
            sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=80, caption_projection_dim=32, pooled_projection_dim=48, pos_embed_max_size=12, qk_norm="rms_norm",
            dual_attention_layers=[0])),
        "vae": (DIFF, "AutoencoderKL", FLUX_VAE),
        "text_encoder": (TR, "CLIPTextModelWithProjection", CLIP), "tokenizer": (TR, "CLIPTokenizer", "clip"),
        "text_encoder_2": (TR, "CLIPTextModelWithProjection", dict(CLIP, hidden_act="gelu")), "tokenizer_2": (TR, "CLIPTokenizer", "clip"),
        "text_encoder_3": (TR, "T5EncoderModel", dict(T5, d_model=80, d_kv=20)), "tokenizer_3": (TR, "T5TokenizerFast", "t5"),
        "scheduler": (DIFF, "FlowMatchEulerDiscreteScheduler", dict(shift=3.0)),
    }, dict(prompt="the cats", negative_prompt="hats", num_inference_steps=4, guidance_scale=4.0)),
    "flux": ("FluxPipeline", {
        "transformer": (DIFF, "FluxTransformer2DModel", dict(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=48, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=[8, 12, 12])),
        "vae": (DIFF, "AutoencoderKL", FLUX_VAE),
        "text_encoder": (TR, "CLIPTextModel", CLIP), "tokenizer": (TR, "CLIPTokenizer", "clip"),
        "text_encoder_2": (TR, "T5EncoderModel", T5), "tokenizer_2": (TR, "T5TokenizerFast", "t5"),
        "scheduler": (DIFF, "FlowMatchEulerDiscreteScheduler", dict(shift=3.0, use_dynamic_shifting=True)),
    }, dict(prompt="the cats at hats", num_inference_steps=3, guidance_scale=3.5)),
    "pixart": ("PixArtSigmaPipeline", {
        "transformer": (DIFF, "PixArtTransformer2DModel", dict(
            sample_size=16, num_layers=2, patch_size=2, attention_head_dim=16, num_attention_heads=2, cross_attention_dim=32,
            caption_channels=48, in_channels=4, out_channels=8, norm_type="ada_norm_single", interpolation_scale=1.0,
            use_additional_conditions=False)),
        "vae": (DIFF, "AutoencoderKL", VAE),
        "text_encoder": (TR, "T5EncoderModel", T5), "tokenizer": (TR, "T5TokenizerFast", "t5"),
        "scheduler": (DIFF, "DPMSolverMultistepScheduler", dict(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)),
    }, dict(prompt=" The CAT ", negative_prompt="hats", num_inference_steps=5, guidance_scale=4.5)),
    "dit": ("DiTPipeline", {
        "transformer": (DIFF, "DiTTransformer2DModel", dict(
            sample_size=16, num_layers=2, patch_size=2, attention_head_dim=16, num_attention_heads=2, in_channels=4, out_channels=8,
            num_embeds_ada_norm=1000)),
        "vae": (DIFF, "AutoencoderKL", VAE),
        "scheduler": (DIFF, "DDIMScheduler", dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False)),
    }, dict(class_labels=[2], num_inference_steps=5, guidance_scale=4.0)),
}
# What in-painting begins from, as tests/pipelines/diffusion_folders.cpp makes it, too.
PICTURE = np.fromiter((i * 7 % 251 for i in range(32 * 32 * 3)), np.uint8).reshape(32, 32, 3)
MASK = np.zeros((32, 32), np.uint8)
MASK[9:22, 7:30] = 255
LABELS = {"0": "hat", "1": "cat, tabby", "2": "dog"}


def make(name, synthetic, folder):
    pipeline, parts, call = PIPELINES[name]
    components, entry = {}, {"class": pipeline, "parts": {}, "call": call, "seed": SEED}
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    torch.manual_seed(0)
    for part, (library, cls, config) in parts.items():
        index[part] = [library, cls]
        if isinstance(config, str):
            components[part] = getattr(transformers, cls).from_pretrained(HERE / config)
            entry["parts"][part] = {"library": library, "class": cls, "tokenizer": config}
            continue
        kind = getattr(importlib.import_module(library), cls)
        if part == "scheduler":
            components[part] = kind(**config)
            entry["parts"][part] = {"library": library, "class": cls, "config": {
                k: v for k, v in components[part].config.items() if not isinstance(v, float) or np.isfinite(v)}}
            continue
        if library == TR:
            config_class = transformers.T5Config if cls.startswith("T5") else transformers.CLIPTextConfig
            model = kind(config_class(**config)).eval()
            stored = json.loads(json.dumps(dict(config, architectures=[cls], model_type="t5" if cls.startswith("T5") else "clip_text_model")))
        else:
            model = kind(**config).eval()
            stored = dict(config, _class_name=cls)
        # Under the names of the stored file, which has what the model shares only once.
        model.save_pretrained(folder / part)
        file = next((folder / part).glob("*.safetensors"))
        from safetensors.torch import load_file, save_file
        tensors = load_file(file)
        filled = {n: torch.from_numpy(synthetic.parameter(n, t.shape)) for n, t in tensors.items() if n != "pos_embed.pos_embed"}
        filled |= {n: t for n, t in tensors.items() if n not in filled}
        save_file(filled, file, metadata={"format": "pt"})
        components[part] = kind.from_pretrained(folder / part).eval()
        entry["parts"][part] = {"library": library, "class": cls, "config": stored,
                                "parameters": [[n, list(t.shape)] for n, t in tensors.items() if n != "pos_embed.pos_embed"]}
    if pipeline == "DiTPipeline":
        index["id2label"] = LABELS
    entry["index"] = index
    cls = getattr(diffusers, pipeline)
    extra = {"id2label": {int(k): v for k, v in LABELS.items()}} if pipeline == "DiTPipeline" else {}
    if pipeline in ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"):
        extra |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = cls(**components, **extra)
    pipe.set_progress_bar_config(disable=True)
    noise = philox_normal(SEED, (16, 16, 4)).permute(2, 0, 1)[None]
    kwargs = dict(call, output_type="np")
    if pipeline == "DiTPipeline":
        module = importlib.import_module(cls.__module__)
        module.randn_tensor = lambda *a, **k: noise
    else:
        kwargs |= dict(height=32, width=32, latents=cls._pack_latents(noise, 1, 4, 16, 16) if pipeline == "FluxPipeline" else noise)
    if pipeline == "PixArtSigmaPipeline":
        kwargs |= dict(use_resolution_binning=False, clean_caption=False)
    if pipeline == "StableDiffusionInpaintPipeline":
        kwargs |= dict(image=Image.fromarray(PICTURE), mask_image=Image.fromarray(MASK), strength=1.0)
        # The encoder's mean: a sample of its distribution would need noise of its own.
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
        DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean
    with torch.no_grad():
        picture = pipe(**kwargs).images[0]
    if pipeline == "StableDiffusionInpaintPipeline":  # what is not drawn anew stays as it is
        picture = np.where(MASK[..., None] >= 128, picture, PICTURE / 255)
    Image.fromarray((picture * 255).round().astype("uint8")).save(HERE / f"{name}.png")
    (HERE / f"{name}.json").write_text(json.dumps(entry) + "\n")
    print(name, picture.shape, picture.min(), picture.mean(), picture.max())
    pipe.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("goldens", type=Path)
    parser.add_argument("names", nargs="*", help="of pipelines; none: all")
    parser.add_argument("--keep", type=Path, help="leave the folders here")
    a = parser.parse_args()
    sys.path.insert(0, str(a.goldens / "generate"))
    import synthetic
    for name in a.names or PIPELINES:
        root = a.keep or Path(tempfile.mkdtemp())
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(name, synthetic, folder)
        if not a.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
