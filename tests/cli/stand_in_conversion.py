"""The real `panda` on a stand-in for the conversion, which takes torch and real weights.

STAND_IN_LOG          a file that gets one JSON line for what was asked of it
STAND_IN_COPY_BYTES   what a copy is said to take before it is made; else what it does
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from pandacli.checkpoints import resolve
from pandacli.checkpoints.artifacts import artifact_folder, artifacts_of, write_manifest
from pandacli.cli import main

DIGEST = "d" * 64
COPY_BYTES = int(os.environ.get("STAND_IN_COPY_BYTES", "2000"))


def forecast(quant, *_):
    return None if quant == "none" else SimpleNamespace(form="int8", bytes=COPY_BYTES)


def prepare(model, *, quant, engine, device, report):
    with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
        how = {"quant": quant, "engine": engine, "device": device}
        file.write(json.dumps({"model": model, **how}) + "\n")
    if quant == "none":
        return None
    report(0, 100)
    report(100, 100)
    folder = artifact_folder(DIGEST, "int8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"x" * 2000)
    resolved = resolve(model)
    if resolved.kind == "artifact":
        return artifacts_of(model)[0]
    commit = resolved.folder.parent.name if resolved.kind == "cache" else None
    return write_manifest(
        folder, model=model, form="int8", commit=commit, digest=DIGEST, source_files={}
    )


if __name__ == "__main__":
    sys.modules["pandacli.inference.planning.loader"] = SimpleNamespace(prepare=prepare)
    sys.modules["pandacli.inference.planning.planner"] = SimpleNamespace(forecast=forecast)
    main()
