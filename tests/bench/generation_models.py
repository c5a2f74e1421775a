#!/usr/bin/env python3
"""Times the U-Net of Stable Diffusion 1.5 beside diffusers', which the shared script of generation lacks.

  PYTHON tests/bench/generation_models.py [--shared ../shared] [options of the shared peers' scripts: --dtype, --batch, --json ...]

PYTHON is an interpreter with the peers' requirements (see the shared folder); build/vitrine takes its turns between the peers.
"""
import argparse
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CASES = ["unet_sd15_64"]


class UNet(torch.nn.Module):
    """One step without guidance, 77 tokens of text."""

    def __init__(self, side):
        super().__init__()
        from diffusers import UNet2DConditionModel
        self.net = UNet2DConditionModel(sample_size=side, cross_attention_dim=768, attention_head_dim=8).eval()

    def forward(self, x, t, text):
        return self.net(x, t, text, return_dict=False)[0]


def build(case, batch, peer, ctx):
    import peerbench as pb
    torch.manual_seed(0)
    side = int(case.rsplit("_", 1)[1])
    inputs = (torch.randn(batch, 4, side, side), torch.full((batch,), 500, dtype=torch.long), torch.randn(batch, 77, 768))
    return pb.Workload([pb.Variant(UNet(side).eval(), inputs)], conv=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--shared", type=Path, default=os.environ.get("VITRINE_SHARED", ROOT.parent / "shared"))
    options, rest = parser.parse_known_args()
    os.environ["VITRINE_SHARED"] = str(options.shared)  # the workers run this file again
    sys.path.insert(0, str(options.shared / "peers"))
    import peerbench
    command = f"{ROOT}/build/vitrine benchmark {{case}} --dtype {{dtype}} --batch-size {{batch}} --threads {{threads}} --seconds {{seconds}} --json"
    if not any(a == "--exec" for a in rest) and "--worker" not in rest:
        rest += ["--exec", command, "--exec-name", "vitrine"]
    sys.argv = [sys.argv[0], *rest]
    sys.exit(peerbench.main(__doc__, __file__, CASES, build, peerbench.COMMON_PEERS, ["eager", "compile", "onnxruntime", "openvino"],
                            default_batch="1"))
