"""Everything of the picture that is not the face layer: hair, ears, neck, shoulders and background, on one elastic sheet.

The sheet is a grid over the picture. Each knot follows the head (with the jaw and cheeks under it), the torso, or nothing,
by weights that change smoothly, so that nothing can tear; depth decides where the sheet folds over itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.code import Camera, FaceCode
from models.raster import Fragments
from models.raster.cpu import interpolate, rasterise

KNOTS = 60  # along the longer side
# head frame: where the head may turn on the neck; a nod turns it at the skull, a turn lower down
_NECK = np.array([[0.0, y, z] for y in (0.06, 0.11, 0.16, 0.21) for z in (-0.02, 0.02, 0.06, 0.10)])
_NECK_TEMPERATURE = 0.004  # metres
_CHIN = 152
_PLANT = 0.4  # of the shorter side over which the torso's motion dies out towards the bottom edge
_EASE = 2.5  # knots over which the background's motion is evened out
_BORDER = 0.05  # of the shorter side: knots this near the picture's edge are held, so that no outside shows


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True, eq=False)
class Surround:
    """The sheet of one source picture.

    Attributes:
        rest: K x 2 positions in the picture, pixels.
        cells: T x 3 knots of its triangles.
        local: K x 3 head-frame positions of what lies under the knots.
        corners, weights: K x 3 head vertices each knot rides on, and their barycentrics times the ride's strength.
        head, torso: K shares of following the head and the torso; the rest stays.
        order: K, what covers what where the sheet folds (smaller covers).
        depth: metres from the camera to the head in the picture.
        shape: height, width of the picture.
    """

    rest: np.ndarray
    cells: np.ndarray
    local: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    head: np.ndarray
    torso: np.ndarray
    order: np.ndarray
    depth: float
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, matte: np.ndarray | None, fragments: Fragments, triangles: np.ndarray, skin: np.ndarray,
        code: FaceCode, camera: Camera, chin: np.ndarray, eye_distance: float, content: tuple[int, int, int, int],
    ) -> Surround:  # fmt: skip
        """Lays the sheet over a picture.

        Args:
            matte: H x W float32 in [0, 1], the person; None where there is none.
            fragments: of the whole head over `triangles`.
            skin: T bool, triangles a knot may ride on (outer skin, not eyes or mouth).
            chin: 3, head frame.
            eye_distance: of the outer corners in the picture, pixels.
            content: (left, top, right, bottom) of the picture without plain bars, which stay where they are.
        """
        height, width = fragments.triangle.shape
        step = max(width, height) / KNOTS
        columns, rows = max(2, round(width / step)) + 1, max(2, round(height / step)) + 1
        x, y = np.meshgrid(np.linspace(0, width, columns), np.linspace(0, height, rows))
        rest = np.stack([x.ravel(), y.ravel()], 1)
        number = np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = number[:-1, :-1].ravel(), number[:-1, 1:].ravel(), number[1:, 1:].ravel(), number[1:, :-1].ravel()
        cells = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)

        on_head = (fragments.triangle >= 0) & skin[fragments.triangle]
        px = np.clip(rest[:, 0].astype(int), 0, width - 1)
        py = np.clip(rest[:, 1].astype(int), 0, height - 1)
        # the nearest head pixel of every pixel: depth, triangle and barycentrics are taken from there
        distance, labels = cv2.distanceTransformWithLabels(
            (~on_head).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        where = np.zeros(labels.max() + 1, np.int64)
        flat = np.flatnonzero(on_head.ravel())
        where[labels.ravel()[flat]] = flat
        nearest = where[labels[py, px]]
        away = distance[py, px]
        depth = cv2.blur(np.where(on_head, fragments.depth, 0).astype(np.float32), (9, 9))
        cover = cv2.blur(on_head.astype(np.float32), (9, 9))
        depth = (depth / np.maximum(cover, 1e-6)).ravel()[nearest]
        ray = np.stack([(rest[:, 0] - width / 2) / camera.focal, (rest[:, 1] - height / 2) / camera.focal, np.ones(len(rest))], 1)
        local = (ray * depth[:, None] - code.translation) @ code.rotation

        reach = 1.15 * eye_distance
        subject = on_head | ((matte > 0.5) if matte is not None else (distance < 0.35 * eye_distance))
        outside, labels = cv2.distanceTransformWithLabels(
            (~subject).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        where = np.zeros(labels.max() + 1, np.int64)
        flat = np.flatnonzero(subject.ravel())
        where[labels.ravel()[flat]] = flat
        on_subject = where[labels[py, px]]
        sy, sx = on_subject // width, on_subject % width
        # how far below the chin the nearest bit of the person is, along the head's own axis
        ray = np.stack([(sx - width / 2) / camera.focal, (sy - height / 2) / camera.focal, np.ones(len(sx))], 1)
        below = ((ray * code.translation[2] - code.translation) @ code.rotation)[:, 1] - chin[1]
        # the neck turns with the head over its length; what stands beside it, a collar or shoulders, hardly does
        beside = np.clip(away / (0.3 * eye_distance), 0, 1)
        head = 1 - _smoothstep((below + 0.02 * beside) / (0.085 - 0.045 * beside))
        fall = 1 - _smoothstep(outside[py, px] / reach)
        sides = [rest[:, 0] - content[0], rest[:, 1] - content[1], content[2] - rest[:, 0]]
        short = min(width, height)
        held = _smoothstep(np.minimum.reduce([*sides, content[3] - rest[:, 1]]) / (_BORDER * short))
        # the body is cut off at the bottom: it is drawn out over a long way rather than torn at the edge
        planted = _smoothstep(np.minimum.reduce(sides) / (_BORDER * short)) * np.clip(
            (content[3] - rest[:, 1]) / (_PLANT * short), 0, 1
        )
        head_share, torso_share = head * fall * held, (1 - head) * fall * planted
        # beside the neck the nearest bit of the person jumps from hair to collar: what lies behind them must not
        for share in (head_share, torso_share):
            smooth = cv2.GaussianBlur(share.reshape(rows, columns), (0, 0), _EASE, borderType=cv2.BORDER_REPLICATE).ravel()
            share[:] = np.where(subject[py, px], share, smooth * np.minimum(held, 1))
        order = np.where(subject[py, px], 0.0, 1.0) + np.where(head > 0.5, 0.0, 0.3) + 0.5 * away / max(width, height)
        ride = np.exp(-((away / (0.22 * eye_distance)) ** 2))
        return cls(
            rest.astype(np.float32), cells, local.astype(np.float32),
            triangles[fragments.triangle.ravel()[nearest]],
            (fragments.barycentric.reshape(-1, 3)[nearest] * ride[:, None]).astype(np.float32),
            head_share.astype(np.float32), torso_share.astype(np.float32),
            order.astype(np.float32), float(code.translation[2]), (height, width),
        )  # fmt: skip

    def knots(self, change: np.ndarray, source: FaceCode, target: FaceCode, source_camera: Camera, camera: Camera) -> np.ndarray:
        """K x 2 positions of the knots for a target pose.

        Args:
            change: V x 3, how the head's vertices moved in the head frame against the source's expression.
        """
        ridden = np.einsum("kc,kcd->kd", self.weights, change[self.corners])
        posed = (self.local + ridden) @ target.rotation.T.astype(np.float32) + target.translation.astype(np.float32)
        posed[:, 2] = np.maximum(posed[:, 2], 0.02)
        follow_head = camera.project(posed)[:, :2]
        before, after = (code.translation + _NECK @ code.rotation.T for code in (source, target))
        # the neck turns about whichever point stays most at rest; what that point does, the shoulders do
        moved = np.linalg.norm(after - before, axis=1)
        share = np.exp(-(moved - moved.min()) / _NECK_TEMPERATURE)
        share /= share.sum()
        before, after = source_camera.project(share @ before), camera.project(share @ after)
        scale = (camera.focal / after[2]) / (source_camera.focal / before[2])
        follow_torso = after[:2] + scale * (self.rest - before[:2])
        head, torso = self.head[:, None], self.torso[:, None]
        return (self.rest + head * (follow_head - self.rest) + torso * (follow_torso - self.rest)).astype(np.float32)

    def motion(self, knots: np.ndarray) -> np.ndarray:
        """H x W x 2 float32: how far from its own place in the picture each output pixel looks, for moved knots."""
        height, width = self.shape
        half = (height + 1) // 2, (width + 1) // 2
        scale = np.array([half[1] / width, half[0] / height], np.float32)
        # depth only orders the folds: kept nearly flat, so that interpolation stays affine
        points = np.concatenate([knots * scale, 1 + 1e-3 * self.order[:, None]], 1)
        fragments = rasterise(points, self.cells, *half)
        # inside a triangle both are affine: what lies between the knots' rest and place is the motion itself
        coarse = interpolate(fragments, self.cells, self.rest - knots)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
