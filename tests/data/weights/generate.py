"""Makes the checkpoints of this folder with PyTorch and onnx, and their tensors as f32 in expected.safetensors."""

import argparse
import collections
import pathlib

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent
torch.manual_seed(0)
base = torch.randn(6, 4)
state = collections.OrderedDict(
    {
        "f32": torch.randn(3, 5),
        "bf16": torch.randn(7).to(torch.bfloat16),
        "f16": torch.randn(2, 2).half(),
        "f64": torch.randn(4).double(),
        "i64": torch.arange(5),
        "i16": torch.tensor([1, -2], dtype=torch.int16),
        "u8": torch.tensor([1, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "transposed": base.t(),
        "window": base[2:4, 1:3],
        "expanded": torch.ones(1).expand(4),
        "permuted": torch.randn(2, 3, 4, 5).permute(0, 2, 3, 1),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
    }
)
# What training scripts put beside the model.
checkpoint = {
    "model": {"module." + name: tensor for name, tensor in state.items()},
    "epoch": 3,
    "args": argparse.Namespace(lr=0.1, name="x", size=torch.Size([1, 2]), sets=[1, 2, {3, 4}]),
    "best": np.float64(0.5),
    "optimizer": {"state": {0: {"exp_avg": torch.randn(3)}}, "param_groups": [{"params": [0, 1]}]},
    "none": None,
    "others": (1, 2.0, True, "x", 10**30),
}
averaged = {
    "state_dict": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
    "state_dict_ema": state,
    "arch": "vit_tiny_patch16_224",
}
torch.save(state, folder / "zip.pth")
torch.save(state, folder / "stream.pth", _use_new_zipfile_serialization=False)
torch.save(checkpoint, folder / "nested_zip.pth")
torch.save(checkpoint, folder / "nested_stream.pth", _use_new_zipfile_serialization=False)
torch.save(checkpoint, folder / "protocol4.pth", pickle_protocol=4)
torch.save(checkpoint, folder / "protocol5_stream.pth", pickle_protocol=5, _use_new_zipfile_serialization=False)
torch.save(averaged, folder / "averaged.pth")

expected = {name: tensor.detach().float().contiguous().clone() for name, tensor in state.items()}
save_file(expected, folder / "expected.safetensors")

initializers = [
    numpy_helper.from_array(tensor.detach().numpy().copy(), name) for name, tensor in state.items() if name != "bf16"
]
initializers += [
    helper.make_tensor("bf16", TensorProto.BFLOAT16, [7], state["bf16"].float().numpy().tolist()),
    helper.make_tensor("list_f32", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
    helper.make_tensor("list_f16", TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0]),
    helper.make_tensor("list_i64", TensorProto.INT64, [3], [1, -2, 3]),
    helper.make_tensor("list_i8", TensorProto.INT8, [3], [1, -2, 3]),
    helper.make_tensor("list_bool", TensorProto.BOOL, [2], [1, 0]),
    helper.make_tensor("list_f64", TensorProto.DOUBLE, [2], [1.5, -2]),
]
model = helper.make_model(helper.make_graph([], "graph", [], [], initializer=initializers), producer_name="generate.py")
onnx.save(model, folder / "raw.onnx")
onnx.save(model, folder / "external.onnx", save_as_external_data=True, location="external.data", size_threshold=0)
