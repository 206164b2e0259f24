"""Frames relit one after the other: light that stays on people, and the same film on another device."""

from __future__ import annotations

import numpy as np

from capture.media import open_media
from models.light.presets import PRESETS
from pipeline.backdrop import TRANSPARENT
from pipeline.film_matte import FilmMatte
from pipeline.looking import look_at
from pipeline.relight import Behind, Relighting, relit_frames, relit_picture
from tests.conftest import write_clip
from tests.relight_figures import flicker_of


def test_light_stays_on_people_who_move(performer, prior, tmp_path):
    """Carried along, it trembles less on them; under a light that turns every frame is as by itself."""
    path = tmp_path / "clip.mp4"
    write_clip(path, performer[:12])
    clip = open_media(path)
    shot, light, frames = look_at(clip, prior), PRESETS["window"](), list(clip)
    length = frames[-1].time

    with FilmMatte(quick=True) as of:
        mattes = [of(frame) for frame in frames]

    def alone(how: Relighting) -> list[np.ndarray]:
        behind = Behind(TRANSPARENT, clip.width, clip.height)
        return [
            relit_picture(frame.image, shot, k, how.light_at(light, frame.time / length), behind, matte)
            for k, (frame, matte) in enumerate(zip(frames, mattes))
        ]

    film = lambda how: [frame.image for frame in relit_frames(clip, shot, light, how)]
    still, turning = Relighting(background=TRANSPARENT), Relighting(background=TRANSPARENT, turn=(0.0, 90.0))
    steady, trembling = film(still), alone(still)
    assert np.array_equal(steady[0], trembling[0])
    assert flicker_of(frames, iter(steady))[0] < flicker_of(frames, iter(trembling))[0]
    over = [picture[..., 3] > 200 for picture in trembling]
    away = lambda one, other: np.array(
        [np.abs(a[..., :3].astype(int) - b[..., :3])[w].mean() for a, b, w in zip(one, other, over)]
    )
    # the same light all the same: this head turns by 70 degrees a second, so that light lags behind by some
    off, changed = away(steady, trembling), away([frame.image for frame in frames], trembling)
    assert (off < 0.1 * changed).all()
    assert all(np.array_equal(a, b) for a, b in zip(film(turning), alone(turning)))


def test_torch_makes_the_film_that_numba_makes(performer, prior, tmp_path):
    """What is carried on from frame to frame as well; `cpu:0` is any other device than the `cpu` that numba has."""
    path = tmp_path / "clip.mp4"
    write_clip(path, performer[:4])
    clip = open_media(path)
    film = lambda device: [
        frame.image for frame in relit_frames(clip, look_at(clip, prior, device=device), PRESETS["noon"](), Relighting())
    ]
    off = np.abs(np.stack(film("cpu")).astype(int) - np.stack(film("cpu:0")))
    assert off.mean() < 0.05 and off[1:].max() <= 12  # where heads end, as in tests/models/test_lighting_torch.py


def test_looking_at_another_light_meanwhile_leaves_a_film_as_it_is(performer, prior, tmp_path):
    """As a visitor of the page does who drags a slider while their film is made."""
    clip = open_media(write_clip(tmp_path / "clip.mp4", performer[:3]))
    shot, other = look_at(clip, prior, device="cpu:0"), PRESETS["sunset"]().turned(1.0)
    frames, matte = list(clip), np.ones((clip.height, clip.width), np.float32)

    def film(meanwhile) -> list[np.ndarray]:
        out = []
        for frame in relit_frames(clip, shot, PRESETS["sunset"](), Relighting()):
            out.append(frame.image)
            meanwhile()
        return out

    look = lambda: relit_picture(frames[0].image, shot, 0, other, Behind("keep", clip.width, clip.height), matte)
    assert all(np.array_equal(a, b) for a, b in zip(film(lambda: None), film(look)))
