"""What the scripts of this folder that time `vitrine benchmark` beside the shared peers have in common."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def add_shared(parser):
    """The option --shared; the workers, which run the script again, find it in the environment."""
    parser.add_argument("--shared", type=Path, default=os.environ.get("VITRINE_SHARED", ROOT.parent / "shared"))


def run(doc, script, cases, build, shared, rest, batch):
    """Times `cases`, with the options `rest` of the shared scripts; build/vitrine takes its turns, unless they name programs."""
    os.environ["VITRINE_SHARED"] = str(shared)
    sys.path.insert(0, str(shared / "peers"))
    import peerbench
    command = f"{ROOT}/build/vitrine benchmark {{case}} --dtype {{dtype}} --batch-size {{batch}} --threads {{threads}} --seconds {{seconds}} --json"
    if not any(a == "--exec" for a in rest) and "--worker" not in rest:
        rest = [*rest, "--exec", command, "--exec-name", "vitrine"]
    sys.argv = [sys.argv[0], *rest]
    return peerbench.main(doc, script, cases, build, peerbench.COMMON_PEERS, ["eager", "compile", "onnxruntime", "openvino"],
                          default_batch=batch)
