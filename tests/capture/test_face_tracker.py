"""People keep their numbers."""

import numpy as np
import pytest

from capture.face_tracker import FaceTracker, _turned_back
from capture.frame import Frame
from capture.media import StillPicture, open_media
from pipeline.builtin import builtin_portrait
from pipeline.tracking import people_at_start


def face(x: float, y: float = 100.0, size: float = 60.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.5, 0.5, (478, 3)).astype(np.float32) * size
    return points + np.array([x, y, 0], np.float32)


class Script:
    """Stands in for the mesh: says which faces each frame shows."""

    def __init__(self, frames):
        self.frames = iter(frames)

    def __call__(self, image):
        return next(self.frames)

    def close(self):
        pass


@pytest.fixture
def play(monkeypatch):
    def run(frames, rate: float = 30.0):
        tracker = FaceTracker.__new__(FaceTracker)
        tracker._mesh, tracker._seen, tracker._next = Script(frames), {}, 0
        tracker._settles, tracker._count = False, 0
        blank = np.zeros((200, 400, 3), np.uint8)
        return [tracker(Frame(blank, i / rate)) for i in range(len(frames))]

    return run


def where(observations) -> dict[int, float]:
    return {o.id: float(o.landmarks[:468, 0].mean()) for o in observations if o.found}


def test_two_people_keep_their_ids_whatever_order_they_come_in(play):
    frames = [[face(100), face(300)] if i % 2 else [face(300), face(100)] for i in range(10)]
    told = [where(o) for o in play(frames)]
    assert all(abs(t[0] - told[0][0]) < 2 and abs(t[1] - told[0][1]) < 2 for t in told)


def test_a_person_lost_for_a_moment_comes_back_as_themselves(play):
    frames = [[face(100), face(300)]] * 5 + [[face(300)]] * 10 + [[face(100), face(300)]] * 5
    told = [where(o) for o in play(frames)]
    assert set(told[7]) == {k for k, x in told[0].items() if x > 200}
    assert told[-1] == pytest.approx(told[0], abs=2)


def test_the_largest_face_is_number_zero(play):
    first = play([[face(100, size=40), face(300, size=90)]])[0]
    assert where(first)[0] > 200


def test_a_lost_face_is_a_value(play):
    last = play([[face(100)], []])[1]
    assert len(last) == 1 and not last[0].found and last[0].confidence == 0


def test_a_synthetic_head_is_found(synthetic):
    head = synthetic()
    code = head.code()
    with FaceTracker() as tracker:
        seen = tracker(Frame(head.picture(code)))
    assert seen and seen[0].found
    assert np.abs(seen[0].landmarks[:468, :2].mean(0) - 256).max() < 60


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_landmarks_of_a_turned_picture_come_back_to_their_place(turns):
    image = np.zeros((40, 60), np.uint8)
    image[7, 11] = 1
    y, x = np.argwhere(np.rot90(image, turns))[0]
    back = _turned_back(np.array([[x + 0.5, y + 0.5, 3.0]], np.float32), turns, 40, 60)
    assert np.allclose(back, [[11.5, 7.5, 3]])


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_face_on_its_side_is_found(turns):
    upright = np.ascontiguousarray(builtin_portrait()[:256, 96:352])
    picture = np.ascontiguousarray(np.rot90(upright, -turns))
    count, found = people_at_start(StillPicture(picture, "turned"))
    assert count == 1
    with FaceTracker(still=True, turns=found) as tracker:
        seen = tracker(Frame(picture))[0].landmarks[[33, 263, 152], :2]
    with FaceTracker(still=True) as tracker:
        straight = tracker(Frame(upright))[0].landmarks[[33, 263, 152], :2]
    x, y = straight.T - 128
    back = {0: (x, y), 1: (-y, x), 3: (y, -x)}[turns]
    assert np.abs(seen - 128 - np.stack(back, 1)).max() < 5


@pytest.mark.media
def test_a_face_on_its_head_is_found(media):
    media = open_media(media / "odd/exif_orientation_3.jpg")
    assert people_at_start(media) == (1, 2)
