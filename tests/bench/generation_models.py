#!/usr/bin/env python3
"""Times the U-Net of Stable Diffusion 1.5 beside diffusers', which the shared script of generation lacks.

  PYTHON tests/bench/generation_models.py [--shared ../shared] [options of the shared peers' scripts: --dtype, --batch, --json ...]

PYTHON is an interpreter with the peers' requirements (see the shared folder); build/vitrine takes its turns between the peers.
"""
import argparse
import sys

import torch

import beside_peers

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
    beside_peers.add_shared(parser)
    options, rest = parser.parse_known_args()
    sys.exit(beside_peers.run(__doc__, __file__, CASES, build, options.shared, rest, "1"))
