"""What a camera sees of a lit person, pixel by pixel: the head's own surface, and what can be guessed around it.

The head is the prior's. Hair, neck, clothes and hands have no mesh: their normals are carried on smoothly from the head's rim to
the matte's outline, where a surface turns away sideways (Johnston 2002, "Lumo").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from scipy.spatial import Delaunay, cKDTree

from models.code import Camera
from models.head import Head
from models.portrait.shade import outward
from models.portrait.topology import INNER
from models.prior.face import LEFT_EYE, RIGHT_EYE, AnnyPrior
from models.raster.cpu import PARALLEL, interpolate, rasterise

BEHIND = 0.6  # of unit length: how much an outline's normals look at the camera
SOFTENINGS = 1  # rounds in which normals are averaged once more with their neighbours': light spreads below skin
RIM = 0.035  # of the head's width on the picture over which the guess around goes over into the head
JUMP, STEEP = 0.012, 6.0  # metres, and of a pixel's width, from one pixel to the next at which a chin ends before a neck
MESH = 468  # landmarks on the skin
_OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136,
         172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]  # fmt: skip
_NOSE = 4
_OVAL_RIM = 0.015  # metres inside of the oval over which the landmarks' surface sets in
_EDGE_ON = 0.08  # cosine below which a triangle between landmarks is a fold, not skin
_OFF = 0.012  # metres off it, where a vertex lies behind or before it
_GLOSSY = {"scalp": 0.25, "mouth_interior": 0.3, "tongue": 0.5, "teeth": 0.5}
NECK_GOES_ON = 0.12  # metres
FLAT = 0.06  # weight of a body's facing the camera, against 1 of its outline's turning away
COARSE = 64  # pixels of the longer side of what is guessed
# regions under hair or clothes, and metres before and behind their borders between which a head is less and less believed
_COVERED = ("scalp", 0.03, 0.0), ("ears", 0.02, 0.0), ("neck", 0.0, 0.02)


OWN = 5  # normal, depth, openness


@dataclass(frozen=True)
class Surface:
    """One frame's surface.

    Attributes:
        normal: H x W x 3 unit, camera axes.
        position: H x W x 3 metres, camera axes.
        values: H x W x (OWN + C + 1), what the head's vertices carry, between OWN channels of the surface's own and how far it is
            believed: not at all beyond it, and where its neck goes on.
        head: H x W in [0, 1]: 1 on the head, fading before its rim.
        wanted: H x W bool, where anybody is: the rest need not be shaded.
        around_normal: h x w x 3 unit, coarse, of what is around the head.
        around_open: h x w x 1, how much of the light from all around reaches it.
    """

    normal: np.ndarray
    position: np.ndarray
    values: np.ndarray
    head: np.ndarray
    wanted: np.ndarray
    around_normal: np.ndarray
    around_open: np.ndarray


@lru_cache(2)
def _neighbours(vertices: int, triangles: bytes) -> sp.csr_matrix:
    cells = np.frombuffer(triangles, np.int32).reshape(-1, 3)
    i, j = cells[:, [0, 1, 2]].ravel(), cells[:, [1, 2, 0]].ravel()
    edges = sp.coo_matrix((np.ones(len(i)), (i, j)), (vertices, vertices)).tocsr()
    edges = ((edges + edges.T) > 0).astype(np.float32) + sp.eye(vertices, dtype=np.float32)
    return (sp.diags(1 / np.asarray(edges.sum(1)).ravel()) @ edges).astype(np.float32).tocsr()


class LitHead:
    """A head whose skin is lit: its softened normals, and which of its triangles throw shadows."""

    def __init__(self, head: Head, softened: bool = True):
        """Args:
        softened: normals as a fitted head's ought to be, believed on the face; without, those of its triangles, for a shape
            that is known.
        """
        self.head, prior = head, head.prior
        self.is_softened = softened
        self.triangles = np.ascontiguousarray(prior.triangles, np.int32)
        inner = [prior.regions.index(name) for name in INNER]
        #: T' x 3, what keeps light out; and what throws lamps' shadows: of a fitted head without ears, which nobody has there
        self.outside = np.ascontiguousarray(self.triangles[~np.isin(prior.region, inner)])
        self.throwing = _without_ears(prior, inner) if softened else self.outside
        self.average = _neighbours(len(prior.mean), self.triangles.tobytes())
        of = lambda numbers: np.unique(prior.triangles[np.isin(prior.region, numbers)])
        self.lips = of([prior.regions.index("lips")])
        self.inner = np.setdiff1d(of(inner), self.lips)
        #: V, how much of skin's gloss there is
        self.glossy = np.ones(len(prior.mean), np.float32)
        for name, share in _GLOSSY.items():
            self.glossy[of([prior.regions.index(name)])] = share
        self.balls = (prior.part == LEFT_EYE) | (prior.part == RIGHT_EYE)
        self.cells, self.corners, self.weights, self.share = _facets(head)
        #: T bool, which triangles a face's rim lies before: the neck's, the ears', and skin beyond its landmarks, below a nose
        low = (self.share == 0) & (head.neutral[:, 1] > prior.at_landmarks(head.neutral)[_NOSE, 1])
        self.beyond = low[prior.triangles].all(1) & (prior.region == prior.regions.index("skin"))
        self.beyond |= np.isin(prior.region, [prior.regions.index(name) for name in ("neck", "ears")])
        #: R, vertices where a neck ends; N, those of the neck; and T + 2 R triangles, the head's and those of a neck that goes on
        self.neck_end, strip = _goes_on(prior) if softened else (np.zeros(0, int), np.zeros((0, 3), np.int32))
        self.neck = of([prior.regions.index("neck")])
        self.with_neck = np.ascontiguousarray(np.concatenate([self.triangles, strip]), np.int32)
        self.beyond = np.concatenate([self.beyond, np.ones(len(strip), bool)])
        #: V, how far its surface is believed
        self.believed = _believed(prior) if softened else np.ones(len(prior.mean), np.float32)

    @property
    def prior(self) -> AnnyPrior:
        return self.head.prior

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """V x 3 float32 unit, out of the surface, softened on skin."""
        sharp = unit(outward(vertices, self.triangles))
        if not self.is_softened:
            return sharp
        smooth = unit(outward(np.ascontiguousarray(self.prior.at_landmarks(vertices)[:MESH]), self.cells))
        average = self.average
        out = _softened(
            sharp, smooth, average.indptr, average.indices, average.data, self.corners, self.weights, self.share, self.balls
        )
        out[self.inner] = unit(out[self.lips].mean(0))
        return out

    def neck_below(self, posed: np.ndarray) -> np.ndarray:
        """R x 3: where a neck goes on to below its end, which a lowered chin hides."""
        end = posed[self.neck_end]
        return end + NECK_GOES_ON * unit(end.mean(0) - posed[self.neck].mean(0)) if len(end) else end

    def centre(self, posed: np.ndarray) -> np.ndarray:
        """3 float64: the head's middle, from which lamps' places are told, of V x 3 in any axes."""
        return posed[self.prior.part == 0].mean(0).astype(np.float64)

    def lit_depths(self, posed: np.ndarray) -> np.ndarray:
        """V x 1: depths that light is worked out at; the inside of the mouth is lit as at the lips' front."""
        depth = posed[:, 2:].copy()
        depth[self.inner] = np.percentile(posed[self.lips, 2], 20)
        return depth


def _believed(prior: AnnyPrior) -> np.ndarray:
    """V float32 in [0, 1]: how far a fitted head's surface is a person's: on the face, less towards hair, ears and collars.

    A skull turns away where hair goes on, so that a ridge of light stood on its outline; nobody's ears lie where the prior's do.
    """
    share = np.ones(len(prior.mean), np.float32)
    for name, before, behind in _COVERED:
        there = prior.region == prior.regions.index(name)
        own = np.unique(prior.triangles[there])
        others = np.unique(prior.triangles[~there])
        into = cKDTree(prior.mean[np.intersect1d(own, others)]).query(prior.mean)[0]
        inside = np.isin(np.arange(len(prior.mean)), own)
        share = np.minimum(share, np.clip((behind - np.where(inside, into, -into)) / (before + behind), 0, 1))
    return share.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _softened(sharp, smooth, starts, neighbours, weights, corners, shares, share, balls):
    """V x 3 unit: normals averaged with their neighbours', on the face those of the surface through the landmarks."""
    count = len(sharp)
    mixed, other = sharp.copy(), np.empty_like(sharp)
    for step in range(2 + SOFTENINGS):
        for v in range(count):
            x, y, z = np.float32(0), np.float32(0), np.float32(0)
            for k in range(starts[v], starts[v + 1]):
                n, w = neighbours[k], weights[k]
                x, y, z = x + w * mixed[n, 0], y + w * mixed[n, 1], z + w * mixed[n, 2]
            other[v, 0], other[v, 1], other[v, 2] = x, y, z
        mixed, other = other, mixed
        if step != 1:
            continue
        for v in range(count):
            scale = (1 - share[v]) / (np.sqrt(mixed[v, 0] ** 2 + mixed[v, 1] ** 2 + mixed[v, 2] ** 2) + np.float32(1e-9))
            x, y, z = np.float32(0), np.float32(0), np.float32(0)
            if share[v] > 0:
                for k in range(3):
                    n, w = corners[v, k], shares[v, k]
                    x, y, z = x + w * smooth[n, 0], y + w * smooth[n, 1], z + w * smooth[n, 2]
                length = share[v] / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-9))
                x, y, z = x * length, y * length, z * length
            mixed[v, 0], mixed[v, 1], mixed[v, 2] = (x + scale * mixed[v, 0], y + scale * mixed[v, 1], z + scale * mixed[v, 2])
    for v in range(count):
        if balls[v]:
            mixed[v] = sharp[v]
            continue
        length = np.sqrt(mixed[v, 0] ** 2 + mixed[v, 1] ** 2 + mixed[v, 2] ** 2) + np.float32(1e-9)
        mixed[v, 0], mixed[v, 1], mixed[v, 2] = mixed[v, 0] / length, mixed[v, 1] / length, mixed[v, 2] / length
    return mixed


def _rim(cells: np.ndarray) -> np.ndarray:
    """R x 2: the edges that one of the triangles (T x 3) alone has, in the order in which it goes round."""
    edges = np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]).astype(np.int64)
    count = edges.max() + 1
    return edges[~np.isin(edges @ [count, 1], edges @ [1, count])]


def _without_ears(prior: AnnyPrior, inner: list[int]) -> np.ndarray:
    """T x 3 of a head's triangles without `inner` regions, with flat places for its ears: through holes light would get."""
    ears = prior.region == prior.regions.index("ears")
    kept, rim = [prior.triangles[~ears & ~np.isin(prior.region, inner)]], _rim(prior.triangles[ears])
    for side in (rim[prior.mean[rim[:, 0], 0] < 0], rim[prior.mean[rim[:, 0], 0] > 0]):
        kept.append(np.concatenate([side, np.full((len(side), 1), side[0, 0])], 1))
    return np.ascontiguousarray(np.concatenate(kept), np.int32)


def _goes_on(prior: AnnyPrior) -> tuple[np.ndarray, np.ndarray]:
    """R vertices where the prior's neck ends, and 2 R x 3 triangles from them to as many that are numbered after all others."""
    neck = np.unique(prior.triangles[prior.region == prior.regions.index("neck")])
    rim = _rim(prior.triangles)
    rim = rim[np.isin(rim, neck).all(1)]
    end = np.unique(rim)
    one, other = (np.searchsorted(end, rim[:, k]) + len(prior.mean) for k in (0, 1))
    strip = [[rim[:, 1], rim[:, 0], one], [rim[:, 1], one, other]]
    return end, np.concatenate([np.stack(three, 1) for three in strip]).astype(np.int32)


def _facets(head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The surface through a face's landmarks: its triangles, and each vertex' place on it.

    Returns:
        triangles (T x 3 landmarks), and for each of V vertices its triangle's corners (V x 3 landmarks), their weights (V x 3),
        and in [0, 1] how much it belongs to that surface: not beyond the face's rim.
    """
    prior = head.prior
    points = prior.at_landmarks(head.neutral)[:MESH].astype(np.float64)
    flat = Delaunay(points[:, :2])
    cells = flat.simplices.astype(np.int32)
    a, b, c = (points[cells[:, k]] for k in range(3))
    away = np.cross(b - a, c - a)
    cells = np.where(away[:, 2:] > 0, cells[:, [0, 2, 1]], cells)  # out of the face, that looks along -z
    cells = cells[np.abs(away[:, 2]) > _EDGE_ON * np.linalg.norm(away, axis=1)]
    flat_at = flat.find_simplex(head.neutral[:, :2])
    found = flat_at >= 0
    at = np.clip(flat_at, 0, None)
    shift = head.neutral[:, :2] - flat.transform[at, 2]
    first = np.einsum("vij,vj->vi", flat.transform[at, :2], shift)
    weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1)
    corners = flat.simplices[at].astype(np.int32)
    rim = np.linalg.norm(head.neutral[:, None, :2] - points[_OVAL][None, :, :2], axis=2).min(1)
    share = np.clip(rim / _OVAL_RIM, 0, 1) * found * (head.prior.part == 0)
    on_it = np.abs(np.einsum("vk,vk->v", weights, points[corners, 2]) - head.neutral[:, 2]) < _OFF
    return np.ascontiguousarray(cells), corners, weights.astype(np.float32), (share * on_it).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return vectors / np.maximum(length, np.float32(1e-9))[..., None]


def surface(
    lit: LitHead, posed: np.ndarray, normals: np.ndarray, openness: np.ndarray, values: np.ndarray, matte: np.ndarray,
    camera: Camera, height: int, width: int,
) -> Surface:  # fmt: skip
    """Args:
    posed, normals: V x 3, camera axes; openness: V; values: V x C, carried to the pixels.
    matte: h x w in [0, 1], 1 on people, of any size.
    """
    below = lit.neck_below(posed)
    points = camera.project(np.concatenate([posed, below])).astype(np.float32)
    points[:, 0] *= width / camera.width
    points[:, 1] *= height / camera.height
    fragments = rasterise(points, lit.with_neck, height, width)
    seen = fragments.triangle >= 0
    drawn = seen & (fragments.triangle < len(lit.triangles))
    attributes = np.concatenate([normals, lit.lit_depths(posed), openness[:, None], values, lit.believed[:, None]], 1)
    going_on = attributes[lit.neck_end]
    going_on[:, 3], going_on[:, -1] = below[:, 2], 0
    there = interpolate(fragments, lit.with_neck, np.concatenate([attributes, going_on]))
    columns = np.flatnonzero(drawn.any(0))
    rim = max(1.0, RIM * (columns[-1] - columns[0])) if len(columns) else 1.0
    focal = camera.focal * width / camera.width
    head, placed = np.zeros((2, height, width), np.float32)
    box = around_of(seen)
    # a chin before a neck has a rim as well, unless it is known just where it ends; where each of both is, is known
    depth, in_box = there[box][..., 3], seen[box]
    apart = _before(depth, in_box, lit.beyond[fragments.triangle[box]] & in_box, focal) if lit.is_softened else False
    head[box] = _fading(drawn[box] & ~apart, rim, there[box][..., -1])
    placed[box] = _fading(in_box, rim, np.float32(1))
    around = _around(there, head, placed, matte)
    beyond = cv2.resize(around[..., :4], (width, height))
    normal, position = np.empty((height, width, 3), np.float32), np.empty((height, width, 3), np.float32)
    wanted = cv2.dilate((cv2.resize(matte, (width, height)) > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    with PARALLEL:
        _mixed(there, head, placed, wanted, beyond, np.float32(focal), normal, position)
    return Surface(normal, position, there, head, wanted, unit(around[..., :3]), around[..., 4:])


def around_of(where: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold an H x W bool, and one more all around where there is one."""
    spans = []
    for axis in (1, 0):
        there = np.flatnonzero(where.any(axis))
        spans.append(slice(max(int(there[0]) - 1, 0), int(there[-1]) + 2) if len(there) else slice(0, 1))
    return spans[0], spans[1]


def _fading(drawn: np.ndarray, rim: float, believed: np.ndarray | np.float32) -> np.ndarray:
    """H x W in [0, 1]: 0 where nothing is drawn, 1 from `rim` pixels inside of it on, as far as it is `believed`."""
    inside = cv2.distanceTransform(np.pad(drawn, 1, "edge").astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    share = np.clip(inside / rim, 0, 1).astype(np.float32) * believed
    return share * share * (3 - 2 * share)


def _before(depth: np.ndarray, drawn: np.ndarray, beyond: np.ndarray, focal: float) -> np.ndarray:
    """H x W bool: pixels of a face beside which what is `beyond` (H x W bool) lies far behind, and those of that."""
    around = np.ones((3, 3), np.uint8)
    farthest = cv2.dilate(np.where(beyond, depth, 0), around)
    nearest = cv2.erode(np.where(drawn, depth, np.float32(np.inf)), around)
    return farthest - nearest > np.maximum(JUMP, STEEP * depth / focal)


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _mixed(there, head, placed, wanted, beyond, focal, normal, position):
    height, width = head.shape
    for y in prange(height):
        for x in range(width):
            if not wanted[y, x]:
                for c in range(3):
                    normal[y, x, c], position[y, x, c] = np.float32(0), np.float32(0)
                continue
            a = head[y, x]
            b = np.float32(1) - a
            nx, ny = a * there[y, x, 0] + b * beyond[y, x, 0], a * there[y, x, 1] + b * beyond[y, x, 1]
            nz = a * there[y, x, 2] + b * beyond[y, x, 2]
            scale = np.float32(1) / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9))
            normal[y, x, 0], normal[y, x, 1], normal[y, x, 2] = nx * scale, ny * scale, nz * scale
            a = placed[y, x]
            depth = a * there[y, x, 3] + (np.float32(1) - a) * beyond[y, x, 3]
            position[y, x, 0] = (x + np.float32(0.5) - np.float32(0.5) * width) * depth / focal
            position[y, x, 1] = (y + np.float32(0.5) - np.float32(0.5) * height) * depth / focal
            position[y, x, 2] = depth


def _around(there: np.ndarray, head: np.ndarray, placed: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """h x w x OWN: normals, depths and openness carried on beyond the head, smoothly, up to the matte's outline."""
    height, width = head.shape
    scale = min(1.0, COARSE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    known, weights = np.empty((size[1], size[0], OWN), np.float32), np.empty((size[1], size[0], OWN), np.float32)
    with PARALLEL:
        _averaged(there, head, placed, known, weights)
    weight = weights[..., 0]
    person = cv2.GaussianBlur(cv2.resize(matte.astype(np.float32), size, interpolation=cv2.INTER_AREA), (0, 0), 1.2)
    right, down = cv2.Sobel(person, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(person, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = np.hypot(right, down)
    free = 1 - np.clip(4 * weight, 0, 1)
    outline = np.clip(slope / 0.15, 0, 1) * free
    sideways = unit(np.stack([-right, -down, -BEHIND * slope], -1)) * outline[..., None]
    # within its outline a body mostly faces the camera, the more so the farther it is from it
    flat = FLAT * np.clip(2 * person - 1, 0, 1) * (1 - np.clip(slope / 0.15, 0, 1)) * free
    facing = np.stack([0 * flat, 0 * flat, -flat], -1)
    # normals are also known along the outline, depth and openness on the head alone
    weights[..., :3] += (outline + flat)[..., None]
    return pulled_and_pushed(np.concatenate([known[..., :3] + sideways + facing, known[..., 3:]], -1), weights)


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _averaged(there, head, placed, known, weights):
    """Means over a coarser grid's cells of what is known for sure, depth (3) where it is `placed`, and of how much is."""
    height, width = head.shape
    rows, columns, channels = known.shape
    for v in prange(rows):
        top, bottom = v * height // rows, (v + 1) * height // rows
        for u in range(columns):
            left, right = u * width // columns, (u + 1) * width // columns
            share = np.float32(1) / np.float32((bottom - top) * (right - left))
            for c in range(channels):
                known[v, u, c], weights[v, u, c] = np.float32(0), np.float32(0)
            for y in range(top, bottom):
                for x in range(left, right):
                    sure = head[y, x] > np.float32(0.98)
                    for c in range(channels):
                        if (placed[y, x] > np.float32(0.98)) if c == 3 else sure:
                            known[v, u, c] += there[y, x, c] * share
                            weights[v, u, c] += share


def pulled_and_pushed(fields: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """H x W x C: scattered values carried everywhere, from near by where some are near (Gortler et al. 1996, pull-push).

    Args:
        fields: H x W x C, weights taken in; weights: H x W x C in [0, 1] or more.
    """
    if min(fields.shape[:2]) <= 2:
        total = weights.sum((0, 1))
        return np.broadcast_to(fields.sum((0, 1)) / np.maximum(total, 1e-6), fields.shape)
    size = (fields.shape[1] + 1) // 2, (fields.shape[0] + 1) // 2
    half = [_shrunk(one, size) for one in (fields, weights)]
    full = np.clip(3 * half[1], 1, None)  # what a quarter of its pixels know, a coarser one knows well enough
    coarse = pulled_and_pushed(half[0] * 3 / full, half[1] * 3 / full)
    coarse = cv2.blur(cv2.resize(coarse, fields.shape[1::-1], interpolation=cv2.INTER_LINEAR), (3, 3))
    return fields / np.maximum(weights, 1) + (1 - np.minimum(weights, 1)) * coarse.reshape(fields.shape)


def _shrunk(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # OpenCV averages areas of four channels at most
    parts = [cv2.resize(field[..., k : k + 4], size, interpolation=cv2.INTER_AREA) for k in range(0, field.shape[2], 4)]
    return np.concatenate([part.reshape(size[1], size[0], -1) for part in parts], -1)
