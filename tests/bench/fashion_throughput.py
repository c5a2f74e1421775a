#!/usr/bin/env python3
"""Images per second of `vitrine evaluate` on Fashion-MNIST beside PyTorch with the model that was trained, in one
interleaved run: A B C A B C, so that drift of the machine hits all alike.

  PYTHON tests/bench/fashion_throughput.py [--shared ../shared] [--rounds 5] [--threads N] [--dtype f32]

PYTHON is an interpreter with torch and safetensors (see the peers' requirements in the shared folder). PyTorch runs the
definition of shared/training/nat.py, eagerly and compiled, in inference mode, with the resize and normalization of
shared/training/train_classifier.py inside the timing, as ours are; reading the data set is outside of PyTorch's timing and
inside ours.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pytorch_runners(shared, batch, threads, dtype):
    sys.path.insert(0, str(shared / "training"))
    import torch
    from safetensors.torch import load_file

    import data
    from nat import NAT
    from train_classifier import CONFIG, prepare

    torch.set_num_threads(threads)
    images, labels = data.load("t10k")
    model = NAT(**CONFIG).eval()
    model.load_state_dict(load_file(shared / "weights" / "nat_fashion.safetensors"))
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = model.to(kind)

    def run(m):
        with torch.inference_mode():
            start, hits = time.perf_counter(), 0
            for i, l in zip(images.split(batch), labels.split(batch)):
                hits += (m(prepare(i).to(kind)).argmax(1) == l).sum().item()
            return len(images) / (time.perf_counter() - start), hits / len(images)

    compiled = torch.compile(model, dynamic=False)
    return {"PyTorch eager": lambda: run(model), "PyTorch compiled": lambda: run(compiled)}


def ours(batch, threads, dtype):
    command = [str(ROOT / "build" / "vitrine"), "evaluate", "--model", "nat_fashion", "--dataset", "fashion-mnist", "--batch-size", str(batch),
               "--threads", str(threads), "--dtype", dtype, "--json"]
    row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row["images_per_second"], row["top1"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    a = p.parse_args()
    runners = {"vitrine": lambda: ours(a.batch_size, a.threads, a.dtype), **pytorch_runners(a.shared, a.batch_size, a.threads, a.dtype)}
    for run in runners.values():  # compilation and first use
        run()
    rates = {name: [] for name in runners}
    top1 = {}
    for _ in range(a.rounds):
        for name, run in runners.items():
            rate, top1[name] = run()
            rates[name].append(rate)
    base = statistics.median(rates["vitrine"])
    print(f"{'':18} {'images/s':>10} {'min':>8} {'max':>8} {'top-1':>7}  ours is faster by")
    for name, values in rates.items():
        m = statistics.median(values)
        print(f"{name:18} {m:10.0f} {min(values):8.0f} {max(values):8.0f} {top1[name]:7.4f}  {base / m:.2f}x")


if __name__ == "__main__":
    main()
