"""The real `panda` on a fake of the conversion, which takes torch and real weights.

FAKE_LOG          a file that gets one JSON line for what was asked of it
FAKE_COPY_BYTES   what a copy is said to take before it is made; else what it does
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from pandacli.checkpoints.artifacts import artifact_folder, artifacts_of, write_manifest
from pandacli.cli import main

DIGEST = "d" * 64
COPY_BYTES = int(os.environ.get("FAKE_COPY_BYTES", "2000"))


def forecast(spec, *_):
    return None if spec.quant == "none" else SimpleNamespace(form="int8", bytes=COPY_BYTES)


def make_artifact(plan, report):
    spec, resolved = plan
    with Path(os.environ["FAKE_LOG"]).open("a") as file:
        how = {"quant": spec.quant, "engine": spec.backend, "device": spec.device}
        file.write(json.dumps({"model": spec.model, **how}) + "\n")
    if spec.quant == "none":
        return None
    report(0, 100)
    report(100, 100)
    folder = artifact_folder(DIGEST, "int8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"x" * 2000)
    if resolved.kind == "artifact":
        return artifacts_of(spec.model)[0]
    commit = resolved.folder.parent.name if resolved.kind == "cache" else None
    return write_manifest(
        folder, model=spec.model, form="int8", commit=commit, digest=DIGEST, source_files={}
    )


if __name__ == "__main__":
    sys.modules["pandacli.inference.planning.loader"] = SimpleNamespace(make_artifact=make_artifact)
    sys.modules["pandacli.inference.planning.planner"] = SimpleNamespace(
        forecast=forecast, resolve_run=lambda spec, model: (spec, model)
    )
    main()
