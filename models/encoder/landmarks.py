"""Landmarks of the prior in torch: codes to points in a crop, and one step that brings codes to points that were seen.

Convention: crop widths from the crop's centre, as in `models.encoder.synthetic`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.prior.face import AnnyPrior


class Landmarks(nn.Module):
    """The prior at its 478 landmarks, or at points between them."""

    def __init__(self, prior: AnnyPrior, between: Float[np.ndarray, "m 478"] | None = None):
        """Args:
        between: weights of the landmarks in each point; None takes the landmarks themselves.
        """
        super().__init__()
        at = lambda field: prior.at_landmarks(field) if between is None else between @ prior.at_landmarks(field)
        fields = {"mean": at(prior.mean), "identity": at(prior.identity), "expression": at(prior.expression)}
        for name, field in fields.items():
            flat = field if name == "mean" else field.reshape(len(field), -1)
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(flat, np.float32)), persistent=False)
        basis = torch.cat([self.identity, self.expression]).view(-1, len(self.mean), 3).permute(1, 2, 0)  # m 3 132
        self.register_buffer("basis", basis.contiguous(), persistent=False)

    def shape(self, identity: Float[Tensor, "n 80"], expression: Float[Tensor, "n 52"]) -> Float[Tensor, "n m 3"]:
        """Head frame, metres; the irises look straight ahead."""
        return self.mean + (identity @ self.identity + expression @ self.expression).unflatten(1, (-1, 3))

    def shown(self, shape: Tensor, rotation: Tensor, place: Tensor, focal: Tensor) -> Float[Tensor, "n m 2"]:
        """Crop widths from the crop's centre."""
        return self._shown(shape @ rotation.transpose(1, 2), place, focal)[0]

    def _shown(self, turned: Tensor, place: Tensor, focal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(points, their depths, the head origin's depth)."""
        depth = 0.1 * focal / place[:, 2].exp()
        z = (turned[..., 2] + depth[:, None]).clamp(min=0.02)
        points = (focal[:, None, None] * turned[..., :2] + (place[:, :2] * depth[:, None])[:, None]) / z[..., None]
        return points, z, depth

    def linearised(
        self, identity: Tensor, expression: Tensor, rotation: Tensor, place: Tensor, focal: Tensor
    ) -> tuple[Float[Tensor, "n m 2"], Float[Tensor, "n 2m 138"]]:
        """The points, and their derivatives by a further turn (3, radians, camera axes), place (3), identity, expression."""
        turned = self.shape(identity, expression) @ rotation.transpose(1, 2)
        points, z, depth = self._shown(turned, place, focal)
        near = 1 / z[..., None]
        flat = torch.eye(2, dtype=z.dtype, device=z.device).expand(*z.shape, 2, 2)
        # n m 2 3, by the point in camera axes
        ray = torch.cat([(focal[:, None, None] * near)[..., None] * flat, -(points * near)[..., None]], -1)
        spun = torch.linalg.cross(turned[:, :, None].expand_as(ray), ray)
        moved = (depth[:, None, None] * near)[..., None] * torch.cat([flat, (points - place[:, None, :2])[..., None]], -1)
        count, marks = points.shape[:2]
        seen = (ray @ rotation[:, None]).permute(1, 0, 2, 3).reshape(marks, 2 * count, 3) @ self.basis
        seen = seen.view(marks, count, 2, -1).permute(1, 0, 2, 3)
        return points, torch.cat([spun, moved, seen], -1).flatten(1, 2)


def rotation_of_vector(vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation about an axis by its length, radians (Rodrigues)."""
    square = vector.square().sum(1)[:, None, None]
    angle = (square + 1e-12).sqrt()
    x, y, z = vector.unbind(-1)
    nought = torch.zeros_like(x)
    across = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], -1).unflatten(-1, (3, 3))
    flat = torch.eye(3, dtype=vector.dtype, device=vector.device)
    half = angle / 2
    return flat + (angle.sin() / angle) * across + 0.5 * (half.sin() / half).square() * (across @ across)


class Correction(nn.Module):
    """One Gauss-Newton step from what was expected to what was seen, weighing both (an extended Kalman filter's update).

    How far expectations tend to be off is learned for each code, how well a point was seen comes with it.
    """

    def __init__(self, landmarks: Landmarks):
        super().__init__()
        self.landmarks = landmarks
        typical = [0.08] * 3 + [0.02, 0.02, 0.05] + [0.7] * len(landmarks.identity) + [0.12] * len(landmarks.expression)
        self.spread = nn.Parameter(torch.tensor(typical).log())

    def system(
        self, identity: Tensor, expression: Tensor, rotation: Tensor, place: Tensor, focal: Tensor,
        seen: Float[Tensor, "n m 2"], doubt: Float[Tensor, "n m"],
    ) -> tuple[Float[Tensor, "n 2m 2m"], Float[Tensor, "n 2m 1"], Float[Tensor, "n 2m 138"]]:  # fmt: skip
        """(covariance of how far off points are, how far off they are, its covariance with the codes).

        Args:
            doubt: standard deviation of each point, crop widths.
        """
        points, slope = self.landmarks.linearised(identity, expression, rotation, place, focal)
        carried = slope * (2 * self.spread).exp()
        own = torch.eye(slope.shape[1], dtype=slope.dtype, device=slope.device)
        square = carried @ slope.transpose(1, 2) + own * doubt.square().repeat_interleave(2, 1)[:, None]
        return square, (seen - points).flatten(1)[..., None], carried

    @staticmethod
    def solved(square: Tensor, off: Tensor, carried: Tensor) -> Float[Tensor, "n 138"]:
        """The step that a system asks for."""
        return (carried.transpose(1, 2) @ torch.cholesky_solve(off, torch.linalg.cholesky(square)))[..., 0]

    @staticmethod
    def moved(
        identity: Tensor, expression: Tensor, rotation: Tensor, place: Tensor, step: Float[Tensor, "n 138"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(identity, expression, rotation, place) after the step."""
        turn, move, person, face = step.split((3, 3, identity.shape[1], expression.shape[1]), 1)
        return identity + person, (expression + face).clamp(0, 1), rotation_of_vector(turn) @ rotation, place + move
