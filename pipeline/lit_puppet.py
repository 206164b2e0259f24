"""Whoever is moved, shown under another light: a puppet around a puppet, so that live, batch and the page relight alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from capture.face_tracker import FaceMesh
from models.code import Camera, FaceCode
from models.light.lights import Light
from models.matting import ALONE, BESIDE, Matte
from models.portrait.view import Faceless, View
from models.prior.face import AnnyPrior
from pipeline.ensemble import Ensemble
from pipeline.puppet import Puppet, rest_picture
from pipeline.relighting import Look, Relit, edges_left_out

_MOST_FACES = 20


class LitPuppet:
    """One person who is moved, under a light."""

    def __init__(self, puppet: Puppet, relit: Relit, light: Light):
        self.puppet, self.light = puppet, light
        self._relit = relit
        self.person, self.rest, self.base, self.is_video = puppet.person, puppet.rest, puppet.base, puppet.is_video

    def again(self) -> LitPuppet:
        return LitPuppet(self.puppet.again(), self._relit, self.light)

    def __call__(
        self, code: FaceCode, camera: Camera, time: float, plate: View | Faceless | None = None, matte: Matte = None
    ) -> np.ndarray:  # fmt: skip
        # people's outlines move as the picture itself does: told anew from each picture they come and go
        seen = self.puppet(code, camera, time, plate, matte or BESIDE)
        alpha = seen[..., 3].astype(np.float32) / 255
        share = np.ones_like(alpha) if matte == ALONE else edges_left_out(alpha)
        if isinstance(plate, Faceless):  # nothing moved: it is lit as it was filmed
            code, turned = plate.code, None
        else:
            turned = self.puppet.turned(code)
        picture = np.ascontiguousarray(seen[..., :3])
        relit = self._relit(picture, code, alpha, self.light, share, camera=camera, turned=turned)
        return relit if matte is None else np.dstack([relit, seen[..., 3]])

    def turned(self, code: FaceCode) -> None:
        return None


def lit(
    ensemble: Ensemble, light: Light, prior: AnnyPrior, known: list[Relit] | None = None, device: str = "cpu"
) -> Ensemble:  # fmt: skip
    """The same people under a light.

    Args:
        known: what `lights_known` said of them; None looks at them, which takes a second each.
        device: where they are relit, if they are looked at.
    """
    known = lights_known(ensemble, prior, device) if known is None else known
    return ensemble.replaced([LitPuppet(puppet, one, light) for puppet, one in zip(ensemble.puppets, known)])


def lights_known(ensemble: Ensemble, prior: AnnyPrior, device: str = "cpu") -> list[Relit]:
    """Each of the people, their surface and the light they are shown in known."""
    return [_known(puppet, prior, device) for puppet in ensemble.puppets]


def _known(puppet: Puppet, prior: AnnyPrior, device: str) -> Relit:
    """What relighting has to know of somebody, from their picture at rest."""
    picture = rest_picture(puppet)
    code = replace(puppet.base, expression=puppet.rest)
    own = Relit.landmarks_of(puppet.person, code, prior)
    finder = FaceMesh(_MOST_FACES, still=True)
    try:
        faces = finder(picture)
    finally:
        finder.close()
    # of several, the one that lies on them; none where the picture shows them too small for the mesh
    near = [face for face in faces if np.linalg.norm(face[:468, :2] - own[:468, :2], axis=1).mean() < 0.1 * np.ptp(own[:468, 0])]
    landmarks = min(near, key=lambda face: np.abs(face[:468, :2] - own[:468, :2]).mean()) if near else None
    look = Look(picture, code, own if landmarks is None else landmarks, landmarks is not None)
    return Relit(puppet.person, prior, [look], device=device)
