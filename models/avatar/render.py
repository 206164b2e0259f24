"""Draws an avatar: blends its layers for a code and lays them over each other, on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from models.avatar.avatar import Avatar, motion_shape
from models.avatar.lighting import Lighting
from models.avatar.mesh_colours import MeshColours, look_up
from models.avatar.shape import AvatarHead, posed_shell
from models.code import Camera, FaceCode
from models.portrait.shade import facing
from models.prior.face import AnnyPrior
from models.raster import Fragments
from models.raster.cpu import PARALLEL, interpolate, rasterise

EDGE, EDGE_WIDTH = np.float32(0.02), np.float32(0.18)  # cosine to the camera at which a surface begins, and until it is whole
SHELL_EDGE_WIDTH = np.float32(0.1)  # the same of the shell
SURE = np.float32(0.15)  # of opacity: below it is none, above its complement all
_BLENDED = ("skin", "halo", "veil", "scene_motion", "scene_change")


class Surface(NamedTuple):
    """A textured surface in a picture, as the kernels take it.

    Attributes:
        triangle, barycentric: H x W and H x W x 3, what each pixel sees.
        triangles: T x 3; facing, opacity: V cosines to the camera, and how opaque the surface is by itself.
        segments, offset, index: of its `MeshColours`.
        colour: S x 3 sRGB codes.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    triangles: np.ndarray
    facing: np.ndarray
    opacity: np.ndarray
    segments: np.ndarray
    offset: np.ndarray
    index: np.ndarray
    colour: np.ndarray


class AvatarRenderer:
    """One avatar, ready to be drawn again and again."""

    def __init__(self, avatar: Avatar, prior: AnnyPrior):
        self.avatar, self.prior = avatar, prior
        self.shape = AvatarHead(prior, avatar.person, avatar.lift)
        self.colours = avatar.colours(prior)
        self.lighting = Lighting(self.shape, avatar.space, avatar.light)
        self._room = {name: np.empty(len(getattr(avatar, name).mean), np.float32) for name in _BLENDED}

    def render(self, code: FaceCode, camera: Camera | None = None) -> np.ndarray:
        """H x W x 3 uint8 sRGB: the person with the code's expression, pose and gaze.

        Args:
            camera: of the avatar's width and height; the person's own where None.
        """
        return self.layers(code, camera).picture

    def layers(self, code: FaceCode, camera: Camera | None = None) -> Layers:
        """The picture with what it was made of."""
        avatar, size = self.avatar, (self.avatar.height, self.avatar.width)
        camera = camera or avatar.person.camera
        code = avatar.space.drawn_in(code)
        at = avatar.space.place(code)
        near, near_pose = avatar.space.nearness(at), avatar.space.pose_nearness(at)
        with PARALLEL:
            shift, swell = avatar.shift.blend(near).reshape(-1, 3), avatar.swell.blend(near_pose).reshape(-1, 3)
        posed, projected = self.shape.posed(code, camera, shift)
        around, around_projected = posed_shell(avatar.shell, code, camera, swell)
        seen = rasterise(projected, self.prior.triangles, *size)
        behind = rasterise(around_projected, avatar.shell.triangles, *size)
        out = np.empty((*size, 3), np.uint8)
        with PARALLEL:
            blended = {
                name: getattr(avatar, name).blend(near if name == "skin" else near_pose, self._room[name]) for name in _BLENDED
            }
            mesh = _surface(seen, posed, self.prior.triangles, self.shape.opacity, self.colours, blended["skin"].reshape(-1, 3))
            shell = _surface(
                behind, around, avatar.shell.triangles, avatar.shell.opacity, avatar.shell_colours, blended["halo"].reshape(-1, 3)
            )
            motion = blended["scene_motion"].reshape(*motion_shape(*size), 2)
            change = blended["scene_change"].reshape(size[0] // 2, size[1] // 2, 3)
            _compose(avatar.scene, motion, change, shell, blended["veil"], mesh, self.lighting.gain(posed), out)
        return Layers(out, seen, posed, behind, around, around_projected, swell)


class Layers(NamedTuple):
    """A picture of an avatar and its surfaces.

    Attributes:
        picture: H x W x 3 uint8 sRGB.
        seen: the mesh, of V x 3 `posed` vertices (camera axes).
        behind: the shell, of D x 3 `around` vertices (camera axes), projected, moved by D x 3 `swell` (head frame).
    """

    picture: np.ndarray
    seen: Fragments
    posed: np.ndarray
    behind: Fragments
    around: np.ndarray
    around_projected: np.ndarray
    swell: np.ndarray


def _surface(seen: Fragments, posed, triangles, opacity, colours: MeshColours, colour: np.ndarray) -> Surface:
    return Surface(
        seen.triangle, seen.barycentric, triangles, facing(posed, triangles), opacity, colours.segments, colours.offset,
        colours.index, colour,
    )  # fmt: skip


@njit(inline="always")
def _opacity(mesh, t, wa, wb, wc, width):
    """Of a place on a surface: full where it faces the camera, none at its outline, times its own."""
    a, b, c = mesh.triangles[t, 0], mesh.triangles[t, 1], mesh.triangles[t, 2]
    cosine = wa * mesh.facing[a] + wb * mesh.facing[b] + wc * mesh.facing[c]
    e = min(max((cosine - EDGE) / width, np.float32(0)), np.float32(1))
    return e * e * (3 - 2 * e) * (wa * mesh.opacity[a] + wb * mesh.opacity[b] + wc * mesh.opacity[c])


@njit(inline="always")
def _place(x, y, columns, rows):
    """A place in an array, drawn into it: its cell, and how far it lies to the next ones."""
    x, y = min(max(x, 0.0), columns - 1.001), min(max(y, 0.0), rows - 1.001)
    m, n = int(x), int(y)
    return m, n, np.float32(x - m), np.float32(y - n)


@njit(inline="always")
def _between(values, m, n, fx, fy, h):
    """Bilinear."""
    above = (1 - fx) * np.float32(values[n, m, h]) + fx * np.float32(values[n, m + 1, h])
    return above + fy * ((1 - fx) * np.float32(values[n + 1, m, h]) + fx * np.float32(values[n + 1, m + 1, h]) - above)


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _compose(scene, motion, change, shell, veils, mesh, gain, out):
    """Scene, shell and mesh over each other.

    Args:
        scene: H x W x 3 uint8; motion: h x w x 2 float32, pixels to the place in it that is seen; change: h' x w' x 3 float32,
            added to that.
        shell, mesh: `Surface`s.
        veils: S' float32, the opacity of the shell's samples, 255 is 1.
        gain: V x 3 float32, of the light on the mesh.
    """
    height, width = out.shape[0], out.shape[1]
    rows, columns = change.shape[0], change.shape[1]
    down, across = motion.shape[0], motion.shape[1]
    zero, one = np.float32(0), np.float32(1)
    for y in prange(height):
        for x in range(width):
            opacity, veil = zero, zero
            p, q, r, wp, wq, wr = 0, 0, 0, zero, zero, zero
            a, b, c, wa, wb, wc = 0, 0, 0, zero, zero, zero
            i, j, k, wi, wj, wk = 0, 0, 0, zero, zero, zero
            t = mesh.triangle[y, x]
            if t >= 0:
                wa, wb, wc = mesh.barycentric[y, x, 0], mesh.barycentric[y, x, 1], mesh.barycentric[y, x, 2]
                opacity = _opacity(mesh, t, wa, wb, wc, EDGE_WIDTH)
                p, q, r, wp, wq, wr = look_up(mesh.offset[t], mesh.segments[t], wa, wb)
                p, q, r = mesh.index[p], mesh.index[q], mesh.index[r]
                a, b, c = mesh.triangles[t, 0], mesh.triangles[t, 1], mesh.triangles[t, 2]
            t = shell.triangle[y, x]
            if opacity < 0.999 and t >= 0:
                sa, sb, sc = shell.barycentric[y, x, 0], shell.barycentric[y, x, 1], shell.barycentric[y, x, 2]
                i, j, k, wi, wj, wk = look_up(shell.offset[t], shell.segments[t], sa, sb)
                i, j, k = shell.index[i], shell.index[j], shell.index[k]
                veil = (wi * veils[i] + wj * veils[j] + wk * veils[k]) / np.float32(255)
                # the regression is unsure where outlines lie: half transparent hair would be a ghost of both
                veil = min(max((veil - SURE) / (one - 2 * SURE), zero), one)
                veil = veil * veil * (3 - 2 * veil)
                veil *= _opacity(shell, t, sa, sb, sc, SHELL_EDGE_WIDTH)
            # of the scene's change, and of the scene's picture where that has moved to
            m, n, fx, fy = 0, 0, zero, zero
            u, v, fu, fv = 0, 0, zero, zero
            if opacity < 0.999:
                m, n, fx, fy = _place((x + 0.5) * columns / width - 0.5, (y + 0.5) * rows / height - 0.5, columns, rows)
                u, v, fu, fv = _place((x + 0.5) * across / width - 0.5, (y + 0.5) * down / height - 0.5, across, down)
                dx, dy = _between(motion, u, v, fu, fv, 0), _between(motion, u, v, fu, fv, 1)
                u, v, fu, fv = _place(x + dx, y + dy, width, height)
            for h in range(3):
                value = zero
                if opacity < 0.999:
                    value = _between(scene, u, v, fu, fv, h) + _between(change, m, n, fx, fy, h)
                    if veil > 0:
                        own = wi * shell.colour[i, h] + wj * shell.colour[j, h] + wk * shell.colour[k, h]
                        value += veil * (own - value)
                if opacity > 0:
                    own = wp * mesh.colour[p, h] + wq * mesh.colour[q, h] + wr * mesh.colour[r, h]
                    own *= wa * gain[a, h] + wb * gain[b, h] + wc * gain[c, h]
                    value += opacity * (own - value)
                out[y, x, h] = np.uint8(min(max(value, zero), np.float32(255)) + np.float32(0.5))


def draw_mesh(image: np.ndarray, seen: Fragments, triangles: np.ndarray, colours: MeshColours, skin: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8: a picture with the mesh's samples (S x 3) drawn over it, opaque."""
    out = image.copy()
    with PARALLEL:
        _draw(seen.triangle, seen.barycentric, colours.segments, colours.offset, colours.index, skin, out)
    return out


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _draw(triangle, barycentric, segments, offset, index, skin, out):
    for y in prange(out.shape[0]):
        for x in range(out.shape[1]):
            t = triangle[y, x]
            if t >= 0:
                p, q, r, wp, wq, wr = look_up(offset[t], segments[t], barycentric[y, x, 0], barycentric[y, x, 1])
                for k in range(3):
                    value = wp * skin[index[p], k] + wq * skin[index[q], k] + wr * skin[index[r], k]
                    out[y, x, k] = np.uint8(min(max(value, 0), 255) + 0.5)


def surface_opacity(seen: Fragments, posed: np.ndarray, triangles: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """H x W float32: how much of each pixel a surface covers, as `AvatarRenderer` draws it.

    Args:
        posed: V x 3 camera axes; opacity: V, its own.
    """
    cosine, own = np.moveaxis(interpolate(seen, triangles, np.stack([facing(posed, triangles), opacity], 1)), -1, 0)
    edge = np.clip((cosine - EDGE) / EDGE_WIDTH, 0, 1)
    return (edge * edge * (3 - 2 * edge) * own * (seen.triangle >= 0)).astype(np.float32)
