#!/usr/bin/env python3
"""Checkpoints that PyTorch and timm write, through `vitrine classify`, against PyTorch itself.

    tests/roundtrip/roundtrip.py build/vitrine [IMAGE FOLDER] [--models NAME...]

For each model: seeded random weights are saved as .safetensors and as .pth (as a state_dict, nested as training scripts do, and
in the older stream, in turn); then the five best classes and the log-probabilities of every picture, decoding and resizing
included, must be PyTorch's. Ends with code 77 where PyTorch or timm is not installed: skipped.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

try:
    import safetensors.torch
    import timm
    import torch
    from PIL import Image
except ImportError as error:
    print(f"skipped: {error}; install torch, timm, safetensors and Pillow into the Python that runs this")
    sys.exit(77)

# Of these, the ones that `vitrine models` lists are run.
MODELS = [
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch32_224", "vit_base_patch32_clip_224", "vit_small_patch16_36x1_224",
    "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_336",
    "vit_little_patch16_reg4_gap_256", "vit_relpos_small_patch16_224", "xcit_nano_12_p16_224", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224", "swinv2_tiny_window8_256", "maxvit_tiny_tf_224", "davit_tiny", "focalnet_tiny_srf", "coatnet_0_rw_224",
    "halonet26t", "convnext_tiny", "resnet18", "resnet50", "mixer_s32_224",
]  # fmt: skip
# Of log-probabilities, which spread over 12 here. PNG: measured 1e-5. JPEG: stb_image and libjpeg round the inverse transform
# and the colours differently, a grey level here and there, as any two decoders do: measured 3e-3.
TOLERANCES = {".png": 2e-4, ".jpg": 2e-2}


def randomize(model):
    """Weights under which every layer matters and the logits differ from picture to picture."""
    generator = torch.Generator().manual_seed(1)

    def noise(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
            elif name.endswith("running_mean"):
                tensor.copy_(0.1 * noise(tensor))
            elif "gamma" in name:  # scales of branches
                tensor.copy_(0.3 + 0.05 * noise(tensor))
            elif tensor.ndim < 2 and name.endswith("weight"):
                tensor.copy_(1 + 0.1 * noise(tensor))
            elif tensor.ndim < 2:
                tensor.add_(0.02 * noise(tensor))
            elif tensor.shape[0] == model.num_classes:
                tensor.copy_(noise(tensor) * 2 / math.sqrt(tensor[0].numel()))
            elif tensor.abs().max() == 0:
                tensor.copy_(0.02 * noise(tensor))


def reference(model, images):
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.no_grad():
        rows = [model(transform(Image.open(path).convert("RGB"))[None]) for path in images]
    return torch.log_softmax(torch.cat(rows).double(), dim=1)


def classify(vitrine, name, weights, images):
    command = [vitrine, "classify", *map(str, images), "--model", name, "--weights", str(weights)]
    result = subprocess.run([*command, "--json", "--quiet", "--topk", "1000"], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    return [row["predictions"] for row in json.loads(result.stdout)]


def compare(images, expected, rows):
    """The largest differences of log-probabilities by kind of file, and the pictures whose five best are others (but for ties
    within the tolerance)."""
    worst, wrong = dict.fromkeys(TOLERANCES, 0.0), []
    for path, logs, predictions in zip(images, expected, rows, strict=True):
        best = logs.sort(descending=True).values
        for place, prediction in enumerate(predictions):
            log = logs[prediction["index"]].item()
            if prediction["score"] > 1e-12:
                worst[path.suffix] = max(worst[path.suffix], abs(math.log(prediction["score"]) - log))
            if place < 5 and abs(log - best[place].item()) > TOLERANCES[path.suffix]:
                wrong.append(path.name)
    return worst, wrong


def save(model, folder, number):
    state = model.state_dict()
    tensors, pth = folder / "model.safetensors", folder / "model.pth"
    safetensors.torch.save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, tensors)
    if number % 3 == 0:
        torch.save(state, pth)
    elif number % 3 == 1:
        nested = {"state_dict": {"module." + name: tensor for name, tensor in state.items()}, "epoch": 3}
        torch.save({**nested, "args": argparse.Namespace(lr=0.1)}, pth)
    else:
        torch.save({"model": state}, pth, _use_new_zipfile_serialization=False)
    return tensors, pth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vitrine")
    parser.add_argument("images", nargs="?", default=pathlib.Path(__file__).parents[2] / "examples" / "images")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    images = sorted(p for p in pathlib.Path(options.images).rglob("*") if p.suffix in TOLERANCES)
    listed = json.loads(subprocess.run([options.vitrine, "models", "--json"], capture_output=True, check=True).stdout)
    known = {row["name"] for row in listed}
    failures = done = 0
    for name in options.models:
        if name not in known:
            continue
        model = timm.create_model(name, num_classes=1000).eval()
        randomize(model)
        expected = reference(model, images)
        with tempfile.TemporaryDirectory() as folder:
            for weights in save(model, pathlib.Path(folder), done):
                try:
                    worst, wrong = compare(images, expected, classify(options.vitrine, name, weights, images))
                    right = not wrong and all(worst[kind] <= TOLERANCES[kind] for kind in worst)
                    differences = ", ".join(f"{value:.1e} ({kind})" for kind, value in worst.items())
                    text = f"log-probabilities differ by {differences}; top-5 " + (f"WRONG: {wrong}" if wrong else "equal")
                except RuntimeError as error:
                    right, text = False, str(error)
                failures += not right
                print(f"{'ok    ' if right else 'FAILED'} {name} {weights.suffix}: {text}", flush=True)
        done += 1
    print(f"{done} models, {len(images)} pictures, {failures} failures")
    sys.exit(1 if failures or done == 0 else 0)


if __name__ == "__main__":
    main()
