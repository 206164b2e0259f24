"""Draws an avatar: blends its layers for a code and lays them over each other, on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numba import njit, prange

from models.avatar.avatar import Avatar, motion_shape
from models.avatar.lighting import Lighting
from models.avatar.mesh_colours import MeshColours, look_up
from models.avatar.shape import AvatarHead, posed_shell
from models.code import Camera, FaceCode
from models.matting import ALONE, BESIDE, Matte, with_alpha
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
        triangles: T x 3.
        vertex: V x 2 or more: cosine to the camera, how opaque the surface is by itself, then the light's gain (3) if it has one.
        segments, offset, index: of its `MeshColours`.
        colour: S x 3 sRGB codes.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    triangles: np.ndarray
    vertex: np.ndarray
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
        columns, rows = np.meshgrid(np.arange(avatar.width, dtype=np.float32), np.arange(avatar.height, dtype=np.float32))
        self._grid = np.stack([columns, rows], -1)
        self._scenes: dict[Matte, np.ndarray] = {None: avatar.scene}
        self._room = {name: np.empty(len(getattr(avatar, name).mean), np.float32) for name in _BLENDED}

    def set_alpha(self, alpha: np.ndarray) -> None:
        """What of the scene is the person, shoulders above all: H x W uint8, needed where a matte is."""
        self._scenes |= {matte: with_alpha(self.avatar.scene, alpha, matte) for matte in (ALONE, BESIDE)}

    def render(self, code: FaceCode, camera: Camera | None = None, matte: Matte = None) -> np.ndarray:
        """H x W x 3 uint8 sRGB: the person with the code's expression, pose and gaze.

        Args:
            camera: of the avatar's width and height; the person's own where None.
            matte: H x W x 4 instead, with the person's alpha.
        """
        return self.layers(code, camera, matte).picture

    def layers(self, code: FaceCode, camera: Camera | None = None, matte: Matte = None) -> Layers:
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
        mesh_vertex = np.column_stack([facing(posed, self.prior.triangles), self.shape.opacity, self.lighting.gain(posed)])
        shell_vertex = np.column_stack([facing(around, avatar.shell.triangles), avatar.shell.opacity])
        seen = rasterise(projected, self.prior.triangles, *size, _wanted(self.prior.triangles, mesh_vertex))
        behind = rasterise(around_projected, avatar.shell.triangles, *size, _wanted(avatar.shell.triangles, shell_vertex))
        with PARALLEL:
            blended = {
                name: getattr(avatar, name).blend(near if name == "skin" else near_pose, self._room[name]) for name in _BLENDED
            }
            mesh = _surface(seen, self.prior.triangles, mesh_vertex, self.colours, blended["skin"])
            shell = _surface(behind, avatar.shell.triangles, shell_vertex, avatar.shell_colours, blended["halo"])
            motion = blended["scene_motion"].reshape(*motion_shape(*size), 2)
            change = blended["scene_change"].reshape(size[0] // 2, size[1] // 2, 3)
            out = _scene_picture(self._scenes[matte], motion, change, self._grid)
            _compose(shell, blended["veil"], mesh, matte == ALONE, out)
        return Layers(out, seen, posed, behind, around, around_projected, swell)


class Layers(NamedTuple):
    """A picture of an avatar and its surfaces.

    Attributes:
        picture: H x W x 3 uint8 sRGB; x 4 with a matte.
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


def _surface(seen: Fragments, triangles: np.ndarray, vertex: np.ndarray, colours: MeshColours, colour: np.ndarray) -> Surface:
    # without a sign: an index that can't be negative is looked up faster
    return Surface(
        seen.triangle, seen.barycentric, triangles.view(np.uint32), vertex, colours.segments, colours.offset,
        colours.index.view(np.uint32), colour.reshape(-1, 3),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _wanted(triangles, vertex):
    """T bool: not those that face away or are clear all over, which is most of a head. `vertex` as of `Surface`."""
    out = np.empty(triangles.shape[0], np.bool_)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        faces = max(vertex[a, 0], max(vertex[b, 0], vertex[c, 0])) > EDGE
        out[t] = faces and (vertex[a, 1] > 0 or vertex[b, 1] > 0 or vertex[c, 1] > 0)
    return out


@njit(cache=True, nogil=True)
def _opacity(vertex, a, b, c, wa, wb, wc, width):
    """Of a place on a surface: full where it faces the camera, none at its outline, times its own."""
    zero, one, two, three = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
    cosine = wa * vertex[a, 0] + wb * vertex[b, 0] + wc * vertex[c, 0]
    e = min(max((cosine - EDGE) / width, zero), one)
    return e * e * (three - two * e) * (wa * vertex[a, 1] + wb * vertex[b, 1] + wc * vertex[c, 1])


def _scene_picture(scene: np.ndarray, motion: np.ndarray, change: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """H x W x C uint8: the scene where it has moved to, and its change.

    Args:
        scene: H x W x C uint8, an alpha last where C is 4; motion: h x w x 2 float32, pixels to the place in it that is seen.
        change: h' x w' x 3 float32.
        grid: H x W x 2 float32, of each pixel its column and row.
    """
    size = scene.shape[1], scene.shape[0]
    places = cv2.add(cv2.resize(motion, size, interpolation=cv2.INTER_LINEAR), grid)
    moved = cv2.remap(scene, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    change = cv2.resize(change, size, interpolation=cv2.INTER_LINEAR)
    if scene.shape[2] == 3:
        return cv2.add(moved, change, dtype=cv2.CV_8U)
    moved[..., :3] = cv2.add(np.ascontiguousarray(moved[..., :3]), change, dtype=cv2.CV_8U)
    return moved


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _compose(shell, veils, mesh, alone, out):
    """Shell and mesh over what `out` (H x W x 3 uint8, or x 4 with an alpha) shows.

    Args:
        shell, mesh: `Surface`s.
        veils: S' float32, the opacity of the shell's samples, 255 is 1.
        alone: with an alpha, colours are the person's alone: what lies below counts as far as it is theirs.
    """
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    two, three, most, most_opaque = np.float32(2), np.float32(3), np.float32(255), np.float32(0.999)
    zeroth = np.uint32(0)
    for y in prange(out.shape[0]):
        drawn = out[y]
        mesh_seen, mesh_weights = mesh.triangle[y], mesh.barycentric[y]
        shell_seen, shell_weights = shell.triangle[y], shell.barycentric[y]
        for x in range(drawn.shape[0]):
            if mesh_seen[x] < 0 and shell_seen[x] < 0:
                continue
            t, s = np.uint64(mesh_seen[x]), np.uint64(shell_seen[x])
            # every name that is used in a later branch has a value first: without one numba 0.68 reads zeros there
            opacity, veil = zero, zero
            a, b, c, wa, wb, wc = zeroth, zeroth, zeroth, zero, zero, zero
            i, j, k, wi, wj, wk = zeroth, zeroth, zeroth, zero, zero, zero
            if mesh_seen[x] >= 0:
                a, b, c = mesh.triangles[t, 0], mesh.triangles[t, 1], mesh.triangles[t, 2]
                wa, wb, wc = mesh_weights[x, 0], mesh_weights[x, 1], mesh_weights[x, 2]
                opacity = _opacity(mesh.vertex, a, b, c, wa, wb, wc, EDGE_WIDTH)
            if shell_seen[x] >= 0 and opacity < most_opaque:
                d, e, f = shell.triangles[s, 0], shell.triangles[s, 1], shell.triangles[s, 2]
                wd, we, wf = shell_weights[x, 0], shell_weights[x, 1], shell_weights[x, 2]
                veil = _opacity(shell.vertex, d, e, f, wd, we, wf, SHELL_EDGE_WIDTH)
                if veil > zero:
                    l, m, n, wi, wj, wk = look_up(shell.offset[s], shell.segments[s], wd, we)
                    i, j, k = shell.index[l], shell.index[m], shell.index[n]
                    own = (wi * veils[i] + wj * veils[j] + wk * veils[k]) / most
                    # the regression is unsure where outlines lie: half transparent hair would be a ghost of both
                    own = min(max((own - SURE) / (one - two * SURE), zero), one)
                    veil *= own * own * (three - two * own)
            if veil <= zero and opacity <= zero:
                continue
            if out.shape[2] == 4:
                there = np.float32(drawn[x, 3]) / most
                under = veil + there * (one - veil)
                both = opacity + under * (one - opacity)
                drawn[x, 3] = np.uint8(most * both + half)
                if alone and under > zero:
                    veil = veil / under
                if alone and both > zero:
                    opacity = opacity / both
            red, green, blue = np.float32(drawn[x, 0]), np.float32(drawn[x, 1]), np.float32(drawn[x, 2])
            if veil > zero:
                halo = shell.colour
                red += veil * (wi * halo[i, 0] + wj * halo[j, 0] + wk * halo[k, 0] - red)
                green += veil * (wi * halo[i, 1] + wj * halo[j, 1] + wk * halo[k, 1] - green)
                blue += veil * (wi * halo[i, 2] + wj * halo[j, 2] + wk * halo[k, 2] - blue)
            if opacity > zero:
                l, m, n, wp, wq, wr = look_up(mesh.offset[t], mesh.segments[t], wa, wb)
                p, q, r = mesh.index[l], mesh.index[m], mesh.index[n]
                skin, light = mesh.colour, mesh.vertex
                lit_red = wa * light[a, 2] + wb * light[b, 2] + wc * light[c, 2]
                red += opacity * (lit_red * (wp * skin[p, 0] + wq * skin[q, 0] + wr * skin[r, 0]) - red)
                lit_green = wa * light[a, 3] + wb * light[b, 3] + wc * light[c, 3]
                green += opacity * (lit_green * (wp * skin[p, 1] + wq * skin[q, 1] + wr * skin[r, 1]) - green)
                lit = wa * light[a, 4] + wb * light[b, 4] + wc * light[c, 4]
                blue += opacity * (lit * (wp * skin[p, 2] + wq * skin[q, 2] + wr * skin[r, 2]) - blue)
            drawn[x, 0] = np.uint8(min(max(red, zero), most) + half)
            drawn[x, 1] = np.uint8(min(max(green, zero), most) + half)
            drawn[x, 2] = np.uint8(min(max(blue, zero), most) + half)


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
