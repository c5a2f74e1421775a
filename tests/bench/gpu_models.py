#!/usr/bin/env python3
"""Times models on a GPU beside PyTorch (eager and compiled), in turns, and writes a table.

  PYTHON tests/bench/gpu_models.py [--vitrine build/vitrine] [--out FILE.md] [--seconds 2]

PYTHON is an interpreter with torch and timm that sees the GPU. Ours are timed by `vitrine benchmark --device cuda`, PyTorch's by
CUDA events, both with inputs and outputs in place.
"""
import argparse
import json
import statistics
import subprocess

import timm
import torch

CASES = [
    ("vit_base_patch16_224", 1),
    ("vit_base_patch16_224", 64),
    ("swin_tiny_patch4_window7_224", 1),
    ("swin_tiny_patch4_window7_224", 64),
    ("convnext_tiny", 64),
    ("resnet50", 64),
]


def torch_time(model, images, seconds):
    """The median of single passes, in milliseconds."""
    with torch.inference_mode():
        for _ in range(5):
            model(images)
        torch.cuda.synchronize()
        samples, spent = [], 0.0
        while spent < 1000 * seconds and len(samples) < 500:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            model(images)
            end.record()
            end.synchronize()
            samples.append(begin.elapsed_time(end))
            spent += samples[-1]
    return statistics.median(samples)


def our_time(command, case, batch, seconds):
    """Median milliseconds, or None and why there are none."""
    result = subprocess.run(
        [command, "benchmark", case, "--device", "cuda", "--dtype", "bf16", "--batch-size", str(batch), "--seconds", str(seconds), "--json"],
        capture_output=True, text=True)
    try:
        row = json.loads(result.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return None, result.stderr.strip()
    return row.get("median_ms"), row.get("error", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vitrine", default="build/vitrine")
    parser.add_argument("--out")
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()

    lines = [f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bf16, median milliseconds; (x): PyTorch's over ours.", "",
             "| model | batch | ours | eager | compiled |", "|---|---|---|---|---|"]
    for case, batch in CASES:
        ours, error = our_time(options.vitrine, case, batch, options.seconds)
        model = timm.create_model(case).eval().cuda().bfloat16()
        images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
        cells = [f"{ours:.3f}" if ours else f"- ({error})"]
        for peer in (model, torch.compile(model, mode="max-autotune")):
            try:
                time = torch_time(peer, images, options.seconds)
                cells.append(f"{time:.3f}" + (f" ({time / ours:.2f}x)" if ours else ""))
            except Exception as failure:  # a peer that fails is a cell that says so
                cells.append(f"- ({type(failure).__name__})")
        lines.append(f"| {case} | {batch} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
