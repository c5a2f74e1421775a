"""Copies a small part of the reference cases, so that a checkout without them passes its golden tests.

  python3 copy.py GOLDENS [FASHION_MNIST]

GOLDENS holds attention/, backbones/, resize/ and fashion/ as the reference folder has them; FASHION_MNIST is the folder of
the data set's files. Only cases that this library runs are taken, the smaller ones of each operator.
"""
import gzip
import json
import math
import pathlib
import shutil
import struct
import sys

HERE = pathlib.Path(__file__).parent
LARGEST = 5500  # values of an attention output
LAYERS = 2  # cases of other operators than the first three, smallest first
BACKBONES = ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224", "nat_mini", "dinat_mini", "dinat_s_tiny")
CLOTHES = 64


def read_tensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]]) for name, t in header.items()}


def write_tensors(path, tensors):
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def write_cases(folder, cases):
    folder.mkdir(exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def attention(goldens):
    every = json.loads((goldens / "attention/cases.json").read_text())["cases"]
    operators = list(dict.fromkeys(c["operator"] for c in every))
    size = lambda case: math.prod(case["output"]["shape"])
    taken = {c["name"] for c in every if c["operator"] in operators[:3] and size(c) <= LARGEST}
    for operator in operators[3:]:
        taken |= {c["name"] for c in sorted((c for c in every if c["operator"] == operator), key=size)[:LAYERS]}
    cases = [c for c in every if c["name"] in taken]
    write_cases(HERE / "attention", {"cases": cases})
    for operator in operators:
        stored = read_tensors(goldens / "attention" / f"{operator}.safetensors")
        keys = [c["output"]["key"] for c in cases if c["operator"] == operator]
        write_tensors(HERE / "attention" / f"{operator}.safetensors", {k: stored[k] for k in keys})


def backbones(goldens):
    cases = [c for c in json.loads((goldens / "backbones/cases.json").read_text()) if c["name"] in BACKBONES]
    write_cases(HERE / "backbones", cases)
    (HERE / "backbones/parameters").mkdir(exist_ok=True)
    for c in cases:
        for file in (c["file"], c["parameters"]):
            (HERE / "backbones" / file).write_bytes((goldens / "backbones" / file).read_bytes())


def resize(goldens):
    everything = json.loads((goldens / "resize/cases.json").read_text())
    everything["cases"] = [c for c in everything["cases"] if c["image"].startswith("synthetic:")]
    write_cases(HERE / "resize", everything)
    stored = read_tensors(goldens / "resize/resize.safetensors")
    write_tensors(HERE / "resize/resize.safetensors", {c["name"]: stored[c["name"]] for c in everything["cases"] if c["name"] in stored})


def fashion(goldens, data):
    folder = HERE / "fashion"
    folder.mkdir(exist_ok=True)
    dtype, shape, logits = read_tensors(goldens / "fashion/nat_fashion.safetensors")["logits"]
    write_tensors(folder / "nat_fashion.safetensors", {"logits": (dtype, [CLOTHES, shape[1]], logits[:CLOTHES * shape[1] * 4])})
    for name, head, item in (("t10k-images-idx3-ubyte", 16, 28 * 28), ("t10k-labels-idx1-ubyte", 8, 1)):
        with gzip.open(data / f"{name}.gz") as file:
            whole = file.read(head + CLOTHES * item)
        with open(folder / f"{name}.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as file:
            file.write(whole[:4] + struct.pack(">I", CLOTHES) + whole[8:])


if __name__ == "__main__":
    source = pathlib.Path(sys.argv[1])
    for name in ("attention", "backbones", "resize", "fashion"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    attention(source)
    backbones(source)
    resize(source)
    fashion(source, pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "/usr/share/datasets/fashion-mnist"))
