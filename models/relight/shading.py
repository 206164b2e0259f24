"""The relit picture: what a surface sends back under one light over what it sent back under another, on the picture's own pixels.

Diffuse light is a ratio of irradiances in linear light, so that the picture keeps its albedo, whatever it is. Gloss is taken
out as the old light's and put in as the new light's: split-sum GGX (Karis 2013) under soft light, GGX (Walter et al. 2007)
under lamps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit, prange

from models.code import Camera, FaceCode
from models.colour import DECODE, ENCODE
from models.light.gloss import brdf_of_environment, gloss_of_lamp
from models.light.harmonics import LUMINANCE
from models.light.lights import Light
from models.light.transport import NO_SHADOW, Transport, shadow_map, unshadowed
from models.raster.cpu import PARALLEL
from models.relight.surface import OWN, LitHead, Surface, around_of, surface, unit

BOUNCE = 0.02  # of a face's mean irradiance that comes back to it from hair, clothes and walls
MOST_GLOSS = 0.5  # of a pixel that can have been gloss
BIAS = 0.0015  # metres a shadow starts behind what throws it
SHADOW_SIDE = 256  # pixels of what a lamp sees, twice that for pictures that are larger than
_LARGE = 320
HAIR, SKIN = 0.25, 0.6  # of the tone of most of a head, from which on it has skin's gloss, and all of it
SURE = 0.9  # of a surface's being the head's own, from which its tone counts
FLOOR = 0.15  # of the mean irradiance: below it, what is divided by is noise


def shadow_side(height: int, width: int) -> int:
    """Pixels of what a lamp sees, for a picture of some size."""
    return SHADOW_SIDE * (1 + (max(height, width) > _LARGE))


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _add_lamp(
    wanted, normal, position, colour, direction, place, near, depth, axes, centre, reach, bias, values, head, glossiness, diffuse,
    gloss,
):  # fmt: skip
    """Adds one lamp to diffuse and gloss (H x W x 3)."""
    height, width = normal.shape[:2]
    for y in prange(height):
        for x in range(width):
            if not wanted[y, x]:
                continue
            nx, ny, nz = normal[y, x, 0], normal[y, x, 1], normal[y, x, 2]
            px, py, pz = position[y, x, 0], position[y, x, 1], position[y, x, 2]
            lx, ly, lz, strength = direction[0], direction[1], direction[2], np.float32(1)
            if near:
                lx, ly, lz = place[0] - px, place[1] - py, place[2] - pz
                square = lx * lx + ly * ly + lz * lz + np.float32(1e-6)
                length = np.sqrt(square)
                lx, ly, lz = lx / length, ly / length, lz / length
                strength = np.float32(1) / max(square, np.float32(1e-3))
            cosine = nx * lx + ny * ly + nz * lz
            if cosine <= 0:
                continue
            seen = unshadowed(depth, axes, centre, near, reach, px + bias * nx, py + bias * ny, pz + bias * nz, bias)
            if seen <= 0:
                continue
            lit = cosine * seen * strength
            for c in range(3):
                diffuse[y, x, c] += colour[c] * lit
            glossy = head[y, x] * values[y, x, values.shape[2] - 2] * glossiness
            if glossy <= 0:
                continue
            far = np.sqrt(px * px + py * py + pz * pz) + np.float32(1e-9)
            vx, vy, vz = -px / far, -py / far, -pz / far
            shine = gloss_of_lamp(nx, ny, nz, vx, vy, vz, lx, ly, lz, cosine) * lit * glossy
            for c in range(3):
                gloss[y, x, c] += colour[c] * shine


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _soft(wanted, values, head, around, first, bounce, glossiness, diffuse, gloss):
    """Soft light on the head by its vertices, beyond it by `around`."""
    height, width = head.shape
    last = values.shape[2] - 2
    for y in prange(height):
        for x in range(width):
            if not wanted[y, x]:
                for c in range(3):
                    diffuse[y, x, c], gloss[y, x, c] = np.float32(0), np.float32(0)
                continue
            a = head[y, x]
            if a <= 0:
                for c in range(3):
                    diffuse[y, x, c], gloss[y, x, c] = around[y, x, c] + bounce[c], np.float32(0)
                continue
            shine = a * values[y, x, last] * glossiness
            for c in range(3):
                diffuse[y, x, c] = a * values[y, x, first + c] + (np.float32(1) - a) * around[y, x, c] + bounce[c]
                gloss[y, x, c] = shine * values[y, x, first + 3 + c]


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _ratio(wanted, before, after, floor, share, out):
    height, width = before.shape[:2]
    for y in prange(height):
        for x in range(width):
            if not wanted[y, x]:
                for c in range(3):
                    out[y, x, c] = np.float32(1)
                continue
            for c in range(3):
                was = before[y, x, c]
                if was < 2 * floor:
                    was = floor + was * was / (4 * floor)
                out[y, x, c] = (after[y, x, c] + (was - before[y, x, c]) * share[c]) / was


@dataclass(frozen=True)
class Shaded:
    """What a white surface sends back, and what gloss does.

    Attributes:
        diffuse, gloss: H x W x 3 linear.
        wanted: H x W bool, where they are worked out: where anybody is.
        head: H x W in [0, 1], how far they are of the head's own surface.
    """

    diffuse: np.ndarray
    gloss: np.ndarray
    wanted: np.ndarray
    head: np.ndarray


@dataclass(frozen=True)
class Change:
    """How a picture changes: linear pixel -> (pixel - was) * ratio + becomes.

    Attributes:
        ratio, was, becomes: H x W x 3 float32.
    """

    ratio: np.ndarray
    was: np.ndarray
    becomes: np.ndarray


def joined(above: Shaded, below: Shaded, share: np.ndarray) -> Shaded:
    """One shading as far as `share` (H, in [0, 1]) says of each row, another for the rest."""
    part = share.astype(np.float32)[:, None, None]
    mix = lambda one, other: other + part * (one - other)
    return replace(above, diffuse=mix(above.diffuse, below.diffuse), gloss=mix(above.gloss, below.gloss))


class Shader:
    """Shades one person's head under any light."""

    def __init__(self, lit: LitHead, transport: Transport | None = None, glossiness: float = 1.0):
        """Args:
        transport: None works it out, in a fifth of a second.
        glossiness: factor on all gloss.
        """
        self.lit = lit
        self.glossiness = glossiness
        self.transport = transport or Transport.of(lit.head.neutral, lit.outside)
        # light gets into a mouth as far as to the lips' front
        open_ = self.transport.seen[lit.lips].mean(1)
        self.transport.seen[lit.inner] = self.transport.seen[lit.lips[open_ > np.median(open_)]].mean(0).astype(np.uint8)

    def __call__(
        self, code: FaceCode, matte: np.ndarray, lights: list[Light], height: int, width: int, camera: Camera | None = None
    ) -> list[Shaded]:  # fmt: skip
        """What each of the `lights` makes of one frame, H x W.

        Args:
            matte: h x w in [0, 1], 1 on people.
            camera: that the frame is seen through; None is the person's.
        """
        camera = camera or self.lit.head.person.camera
        posed = self.lit.head.posed(code)
        normals = self.lit.normals(posed)
        rotation = code.rotation.astype(np.float32)
        own = normals @ rotation  # in the head's frame
        there = self.transport.directions @ rotation.T
        view = unit(-posed)
        cosine = (normals * view).sum(1)
        mirrored = 2 * cosine[:, None] * normals - view
        share = brdf_of_environment(cosine)
        diffuse, openness = self.transport.gathered(own, np.concatenate([light.around(there) for light in lights], 1))
        gloss = [light.reflected(mirrored) * (share * openness)[:, None] for light in lights]
        values = [part for k, shine in enumerate(gloss) for part in (diffuse[:, 3 * k : 3 * k + 3], shine)]
        seen = surface(
            self.lit,
            posed,
            normals,
            openness,
            np.concatenate([*values, self.lit.glossy[:, None]], 1),
            matte,
            camera,
            height,
            width,
        )
        centre = self.lit.centre(posed)
        front = unit(normals[self._facing(cosine)].mean(0)) if (cosine > 0.3).any() else np.array([0.0, 0, -1])
        return [self._finished(seen, k, light, posed, centre, front) for k, light in enumerate(lights)]

    def irradiance(self, code: FaceCode, light: Light) -> np.ndarray:
        """V x 3: what white vertices send back, of lamps as if they cast no shadows."""
        posed = self.lit.head.posed(code)
        normals = self.lit.normals(posed)
        rotation = code.rotation.astype(np.float32)
        diffuse, _ = self.transport.gathered(normals @ rotation, light.around(self.transport.directions @ rotation.T))
        for lamp in light.lamps:
            if lamp.direction is not None:
                diffuse = diffuse + np.maximum(normals @ lamp.direction, 0)[:, None] * lamp.colour
        return diffuse

    @staticmethod
    def _facing(cosine: np.ndarray) -> np.ndarray:
        return cosine > 0.3

    def _finished(self, seen: Surface, k: int, light: Light, posed: np.ndarray, centre: np.ndarray, front: np.ndarray) -> Shaded:
        height, width = seen.head.shape
        around = cv2.resize(light.shaded(seen.around_normal) * seen.around_open, (width, height))
        lamps = [sample for one in light.lamps for sample in one.samples()]
        bounce = bounced(light, front)
        diffuse, gloss = np.empty((height, width, 3), np.float32), np.empty((height, width, 3), np.float32)
        with PARALLEL:
            _soft(
                seen.wanted,
                seen.values,
                seen.head,
                around,
                OWN + 6 * k,
                bounce.astype(np.float32),
                np.float32(self.glossiness),
                diffuse,
                gloss,
            )
        for lamp in lamps:
            self._add(lamp, seen, posed, centre, diffuse, gloss)
        return Shaded(diffuse, gloss, seen.wanted, seen.head)

    def _add(self, lamp, seen: Surface, posed: np.ndarray, centre: np.ndarray, diffuse: np.ndarray, gloss: np.ndarray) -> None:
        side = shadow_side(*seen.head.shape)
        shadow = shadow_map(lamp, posed, self.lit.throwing, centre, side) if lamp.shadows else NO_SHADOW
        f = lambda value: np.ascontiguousarray(value, np.float32)
        near = lamp.position is not None
        nothing = np.zeros(3)
        with PARALLEL:
            _add_lamp(
                seen.wanted, f(seen.normal), f(seen.position), f(lamp.colour), f(nothing if near else lamp.direction),
                f(centre + lamp.position if near else nothing), near, shadow.depth, f(shadow.axes), f(shadow.centre),
                np.float32(shadow.reach), np.float32(BIAS), seen.values, seen.head,
                np.float32(self.glossiness), diffuse, gloss,
            )  # fmt: skip


def skin_like(image: np.ndarray, lit: Shaded) -> np.ndarray:
    """H x W float32 in [0, 1]: how much of skin's gloss a head's pixels have; hair, brows and beards are darker and have none.

    Args:
        image: of any size, H' x W' x 3 uint8 sRGB; lit: as it was taken, H x W.
    """
    height, width = lit.head.shape
    out, box = np.ones((height, width), np.float32), around_of(lit.head > 0)
    small = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), *tone_blur(image.shape[1] / width, width))
    small = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)[box]
    # sRGB codes squared are light nearly enough
    tone = np.square(small, dtype=np.float32) / np.maximum(lit.diffuse[box] @ LUMINANCE.astype(np.float32), 1e-3)
    bare = tone[lit.head[box] > SURE]
    if len(bare):
        middle = float(np.partition(bare, (len(bare) - 1) // 2)[(len(bare) - 1) // 2])
        share = np.clip((tone / max(middle, 1e-9) - HAIR) / (SKIN - HAIR), 0, 1)
        out[box] = share * share * (3 - 2 * share)
    return out


@njit(cache=True, nogil=True)
def scaled(field, share):
    """Makes H x W x C weaker by H x W, in place."""
    for y in range(field.shape[0]):
        for x in range(field.shape[1]):
            for c in range(field.shape[2]):
                field[y, x, c] *= share[y, x]


def tone_blur(scale: float, width: int) -> tuple[tuple[int, int], float]:
    """Pixels of the kernel, and its standard deviation, by which a picture's tones are blurred.

    Args:
        scale: by how much it is larger than what is shaded, which is `width` pixels wide.
    """
    spread = scale * max(1.0, width / 300)
    size = 2 * round(3 * spread) + 1
    return (size, size), spread


def bounced(light: Light, front: np.ndarray) -> np.ndarray:
    """3: what comes back to a face whose mean normal is `front` (3, camera axes) from hair, clothes and walls."""
    out = BOUNCE * light.shaded(front[None])[0]
    for lamp in (sample for one in light.lamps for sample in one.samples()):
        out = out + BOUNCE * _facing_share(lamp, front) * lamp.colour
    return out


def _facing_share(lamp, front: np.ndarray) -> float:
    if lamp.direction is not None:
        return float(max(lamp.direction @ front, 0))
    away = float(np.linalg.norm(lamp.position))
    return float(max(lamp.position @ front, 0)) / max(away, 0.05) ** 3


def change(before: Shaded, after: Shaded) -> Change:
    """From how a surface was lit to how it is to be lit; nothing changes where both are the same."""
    # divided by a smooth maximum; what it adds to the old light is added to the new in proportion, so that the same light
    # changes nothing and what is sent back stays linear in the new one
    means = [np.array(cv2.mean(one.diffuse, one.wanted.view(np.uint8))[:3]) for one in (before, after)]
    # of a colour that the old light lacks little is believed
    few = [FLOOR * max(one.mean(), 1e-9) for one in means]
    share = ((means[1] + few[1]) / (means[0] + few[0])).astype(np.float32)
    ratio = np.empty_like(before.diffuse)
    with PARALLEL:
        _ratio(before.wanted, before.diffuse, after.diffuse, np.float32(max(FLOOR * means[0].mean(), 1e-6)), share, ratio)
    return Change(ratio, before.gloss, after.gloss)


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _applied(image, ratio, was, becomes, alpha, decode, encode, out):
    # the fields may be coarser: stretched linearly, pixel centres on pixel centres, a row at a time
    height, width = image.shape[:2]
    rows, columns = ratio.shape[:2]
    last = alpha.shape[2] - 1
    scale = np.float32(columns) / np.float32(width)
    for y in prange(height):
        up = min(
            max((np.float32(y) + np.float32(0.5)) * rows / np.float32(height) - np.float32(0.5), np.float32(0)),
            np.float32(rows - 1),
        )
        top = min(int(up), max(rows - 2, 0))
        below = min(top + 1, rows - 1)
        v = np.float32(up - top)
        line = np.empty((columns, 9), np.float32)
        for x in range(columns):
            for c in range(3):
                line[x, c] = ratio[top, x, c] + v * (ratio[below, x, c] - ratio[top, x, c])
                line[x, 3 + c] = was[top, x, c] + v * (was[below, x, c] - was[top, x, c])
                line[x, 6 + c] = becomes[top, x, c] + v * (becomes[below, x, c] - becomes[top, x, c])
        here = np.empty(9, np.float32)
        for x in range(width):
            brighter, darker = alpha[y, x, 0], alpha[y, x, last]
            if brighter <= 0 and darker <= 0:
                for c in range(3):
                    out[y, x, c] = image[y, x, c]
                continue
            along = min(max((np.float32(x) + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0)), np.float32(columns - 1))
            left = min(int(along), max(columns - 2, 0))
            right = min(left + 1, columns - 1)
            u = np.float32(along - left)
            for c in range(9):
                here[c] = line[left, c] + u * (line[right, c] - line[left, c])
            # where more gloss was expected than there can have been, all of it is weaker, in every colour alike
            kept = np.float32(1)
            for c in range(3):
                most = np.float32(MOST_GLOSS) * np.float32(decode[image[y, x, c]]) * np.float32(1 / 65535)
                if here[3 + c] * kept > most:
                    kept = most / here[3 + c]
            for c in range(3):
                pixel = np.float32(decode[image[y, x, c]]) * np.float32(1 / 65535)
                lit = (pixel - here[3 + c] * kept) * here[c] + here[6 + c] * kept
                lit = pixel + (brighter if lit > pixel else darker) * (lit - pixel)
                lit = min(max(lit, np.float32(0)), np.float32(1))
                # as an index once more: no number is neither below 0 nor above 1
                out[y, x, c] = encode[min(max(int(lit * np.float32(65535) + np.float32(0.5)), 0), 65535)]


def applied(image: np.ndarray, how: Change, alpha: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 sRGB, changed where `alpha` says so.

    Args:
        image: H x W x 3 uint8 sRGB; how: of any size, stretched over it.
        alpha: H x W in [0, 1]; or H x W x 2, by how much a colour of a pixel may become brighter, and darker.
    """
    out = np.empty_like(image)
    with PARALLEL:
        _applied(
            np.ascontiguousarray(image),
            how.ratio,
            how.was,
            how.becomes,
            np.ascontiguousarray(np.atleast_3d(alpha), np.float32),
            DECODE,
            ENCODE,
            out,
        )
    return out
