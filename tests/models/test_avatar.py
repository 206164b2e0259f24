"""What avatars are made of: mesh colours, the space of codes, the shell, light, layers, and the file."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models import tensors as tensors_module
from models.avatar.avatar import FORMAT, LARGEST, Avatar, is_avatar, load_avatar
from models.avatar.lighting import MOST, Lighting, take_out
from models.avatar.linear import Linear
from models.avatar.mesh_colours import MeshColours, gather, sample_areas, segments_of
from models.avatar.render import AvatarRenderer, draw_mesh
from models.avatar.render_torch import TorchAvatarRenderer
from models.avatar.shape import AvatarHead
from models.avatar.shell import Shell, icosphere
from models.avatar.space import SIZE, CodeSpace
from models.code import Camera, FaceCode, Person
from models.errors import ModelError
from models.matting import ALONE, BESIDE
from models.portrait.shade import facing
from models.prior.face import EXPRESSIONS
from models.raster.cpu import interpolate, rasterise
from tests.conftest import by_shapes_alone, expression, turned

QUAD = np.array([[0, 1, 2], [1, 3, 2]], np.int32)


def square(side: float = 64.0) -> np.ndarray:
    """Two triangles across a picture of 64 pixels, at depth 1."""
    return np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]], np.float32)


@pytest.mark.parametrize("segments", [1, 2, 5, 12])
def test_neighbours_share_their_edge(segments):
    colours = MeshColours.of(QUAD, np.full(2, segments))
    # corners, inner points of five edges, inner points of two triangles
    assert len(colours) == 4 + 5 * (segments - 1) + 2 * (segments - 1) * (segments - 2) // 2
    assert len(colours.index) == 2 * (segments + 1) * (segments + 2) // 2
    assert colours.barycentric.sum(1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("segments", [(1, 1), (4, 4), (3, 8)])
def test_what_is_linear_is_drawn_exactly(segments):
    """Also where the two triangles have different numbers of samples along the edge between them."""
    colours = MeshColours.of(QUAD, np.array(segments))
    corners = square()[QUAD[colours.triangle]]
    place = np.einsum("sk,skc->sc", colours.barycentric, corners)
    skin = np.stack([2 * place[:, 0], 3 * place[:, 1], 255 - place.sum(1)], 1).astype(np.float32)
    seen = rasterise(square(), QUAD, 64, 64)
    drawn = draw_mesh(np.zeros((64, 64, 3), np.uint8), seen, QUAD, colours, skin)
    y, x = np.mgrid[0:64, 0:64] + 0.5
    wanted = np.stack([2 * x, 3 * y, 254 - x - y], -1)
    assert np.abs(drawn - wanted).max() <= 0.51


def test_samples_keep_their_distance(prior):
    spacing = np.full(len(prior.triangles), 0.002)
    segments = segments_of(prior.mean, prior.triangles, spacing)
    corners = prior.mean[prior.triangles]
    longest = np.max([np.linalg.norm(corners[:, k] - corners[:, k - 1], axis=1) for k in range(3)], axis=0)
    reached = longest / segments
    assert (reached[segments < 12] <= 0.002 + 1e-9).all() and segments.min() == 1
    areas = sample_areas(MeshColours.of(prior.triangles, segments), prior.mean, prior.triangles)
    assert areas.mean() == pytest.approx(1, abs=1e-3) and (areas > 0).all()


def test_samples_tell_what_a_picture_shows_and_what_is_hidden():
    colours = MeshColours.of(QUAD, np.array([8, 8]))
    y, x = np.mgrid[0:64, 0:64]
    picture = np.stack([2 * x, 3 * y, np.full_like(x, 77)], -1).astype(np.uint8)
    points = square()
    seen = rasterise(points, QUAD, 64, 64)
    colour, weight = np.zeros((len(colours), 3), np.uint8), np.zeros(len(colours), np.uint8)
    facing = np.ones(4, np.float32)
    gather(picture, seen.depth, points, facing, QUAD, colours.triangle, colours.barycentric, 0.01, colour, weight)
    place = np.einsum("sk,skc->sc", colours.barycentric, points[QUAD[colours.triangle]])
    inner = (place[:, :2] > 1).all(1) & (place[:, :2] < 63).all(1)
    assert (weight[inner] == 255).all()
    assert np.abs(colour[inner, 0] - (2 * place[inner, 0] - 1)).max() <= 1
    assert np.abs(colour[inner, 1] - (3 * place[inner, 1] - 1.5)).max() <= 1
    nearer = seen.depth - np.float32(0.1)
    gather(picture, nearer, points, facing, QUAD, colours.triangle, colours.barycentric, 0.01, colour, weight)
    assert not weight.any()
    gather(picture, seen.depth, points, 0 * facing, QUAD, colours.triangle, colours.barycentric, 0.01, colour, weight)
    assert not weight.any()


def codes_of(count: int = 20) -> list[FaceCode]:
    rng = np.random.default_rng(0)
    return [
        FaceCode(
            expression(jawOpen=rng.uniform(0, 0.5), eyeBlinkLeft=rng.uniform(0, 1)), turned(*rng.normal(0, 0.1, 3)),
            np.array([0, 0, 0.6]) + rng.normal(0, 0.01, 3), rng.normal(0, 0.1, (2, 2)),
        )
        for _ in range(count)
    ]  # fmt: skip


def test_codes_beyond_what_was_learned_are_drawn_to_it():
    codes = codes_of()
    space = CodeSpace.of(codes)
    assert space.examples.shape == (20, SIZE)
    for code, example in zip(codes, space.examples):  # those that were learned from stay where they are
        assert space.place(code) == pytest.approx(example, abs=1e-9)
    jaw = np.flatnonzero(expression(jawOpen=1.0))[0]
    near, far, farther = (space.place(replace(codes[0], expression=expression(jawOpen=v)))[jaw] for v in (0.5, 0.8, 1.0))
    assert near <= far <= farther < space.high[jaw] + 0.25 * (space.high[jaw] - space.low[jaw]) + 0.01
    wild = FaceCode(np.ones(52), turned(1.5, 1.0, 0.5), np.array([3.0, 2.0, 0.1]), np.full((2, 2), 0.8))
    assert np.isfinite(space.nearness(space.place(wild))).all()
    kernel = space.nearness(space.examples)
    assert kernel == pytest.approx(kernel.T) and np.linalg.eigvalsh(kernel).min() > -1e-9
    middle = space.middle
    assert space.place(middle)[52:] == pytest.approx(np.zeros(10), abs=0.01)


def test_a_jaw_opens_no_farther_than_is_known_of_it(prior, avatar):
    codes = codes_of()
    space, jaw = CodeSpace.of(codes), EXPRESSIONS.index("jawOpen")
    for code in codes:
        assert space.drawn_in(code).expression == pytest.approx(code.expression, abs=1e-9)
    seen = [code.expression[jaw] for code in codes]
    asked = replace(codes[0], expression=expression(jawOpen=1.0, eyeLookDownLeft=0.9))
    drawn = space.drawn_in(asked)
    assert max(seen) < drawn.expression[jaw] <= max(seen) + 0.26 * (max(seen) - min(seen))
    looks = [k for k, name in enumerate(EXPRESSIONS) if name.startswith("eyeLook")]
    assert (drawn.expression[looks] == asked.expression[looks]).all()
    assert drawn.gaze is asked.gaze and drawn.rotation is asked.rotation and drawn.translation is asked.translation
    # the surface itself stays in reach, not its colours alone
    own, space = avatar.person.camera, avatar.space
    shift = avatar.shift.blend(space.nearness(space.place(space.drawn_in(asked)))).reshape(-1, 3)
    renderer = AvatarRenderer(avatar, prior)
    expected, _ = renderer.shape.posed(space.drawn_in(asked), own, shift)
    np.testing.assert_allclose(renderer.layers(asked).posed, expected, atol=1e-6)
    assert np.abs(renderer.shape.posed(asked, own, shift)[0] - expected).max() > 0.002


def test_the_shell_is_a_sphere_of_directions():
    directions, triangles = icosphere()
    assert len(directions) == 10 * 4**4 + 2 and len(triangles) == 20 * 4**4
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1, abs=1e-6)
    shell = Shell.star(np.array([0, 0, 0.6], np.float32), np.full(len(directions), 0.1, np.float32), np.ones(len(directions)))
    projected = Camera(500.0, 256, 256).project(shell.vertices)
    whole = rasterise(projected, triangles, 256, 256)
    # the outline of a sphere: r f / sqrt(d^2 - r^2) pixels
    radius = 0.1 * 500 / np.sqrt(0.36 - 0.01)
    assert (whole.triangle >= 0).sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    assert interpolate(whole, triangles, shell.vertices[:, 2:])[128, 128, 0] == pytest.approx(0.5, abs=1e-3)
    cosine = interpolate(whole, triangles, facing(shell.vertices, triangles)[:, None])[..., 0]
    assert cosine[128, 128] == pytest.approx(1, abs=1e-2)
    assert (cosine[whole.triangle >= 0] > -0.1).all()  # all wound outwards


@pytest.fixture(scope="module")
def avatar(prior) -> Avatar:
    """One that was never learned: smooth colours, a little motion."""
    rng = np.random.default_rng(0)
    codes = codes_of(12)
    space = CodeSpace.of(codes)
    segments = np.ones(len(prior.triangles), np.int32)
    directions, faces = icosphere()
    around = np.ones(len(faces), np.int32)

    def layer(size: int, mean: float, spread: float, rank: int = 3) -> Linear:
        basis = rng.integers(-127, 128, (rank, size)).astype(np.int8)
        return Linear(
            np.full(size, mean, np.float32), basis, np.full(rank, spread / 127, np.float32),
            (rng.normal(size=(12, rank)) * 0.1).astype(np.float32), np.float32([[-0.2], [0.3]]).repeat(rank, 1),
        )  # fmt: skip

    across, down = np.meshgrid(np.arange(96), np.arange(128))
    scene = (90 + 9 * np.sin(across / 3) * np.cos(down / 5)).astype(np.uint8)[..., None].repeat(3, 2)
    person = Person(rng.normal(0, 0.5, 80), np.zeros((478, 3)), Camera(300.0, 96, 128), np.zeros(52), np.zeros((2, 2)))
    samples = [len(MeshColours.of(t, s)) for t, s in ((prior.triangles, segments), (faces, around))]
    shell = Shell.star(np.zeros(3), np.full(len(directions), 0.13), np.ones(len(directions), np.float32))
    return Avatar(
        person, np.zeros_like(prior.mean), space, segments, layer(3 * len(prior.mean), 0, 1e-4), layer(3 * samples[0], 180, 8),
        rng.normal(0, 0.2, (8, 3)).astype(np.float32), shell,
        layer(3 * len(directions), 0, 1e-4), around, layer(3 * samples[1], 40, 4), layer(samples[1], 250, 2),
        scene, layer(2 * 16 * 12, 0.7, 1), layer(3 * 64 * 48, 0, 2), {"clips": ["none"]},
    )  # fmt: skip


def test_a_head_goes_little_farther_than_it_was_seen():
    """Where it was seen it goes as it is asked to; far outside, it stops: nobody has filmed that side, nor what it lays bare."""
    codes = codes_of()
    space = CodeSpace.of(codes)
    for code in codes:
        assert np.allclose(space.drawn_in(code).rotation, code.rotation) and space.drawn_in(code).translation is code.translation
    low, high = (space.centre + space.scale * end for end in (space.low, space.high))
    turns, moves = [], []
    for more in (0.0, 0.05, 0.1, 0.3, 1.0):
        turn = np.array([0, high[57] + more, 0])
        asked = replace(space.middle, rotation=cv2.Rodrigues(turn)[0] @ space.reference)
        turns.append(cv2.Rodrigues(space.drawn_in(asked).rotation @ space.reference.T)[0].ravel()[1] - high[57])
        asked = replace(space.middle, translation=space.middle.translation + np.array([more, 0, 0]))
        moves.append(space.drawn_in(asked).translation[0] - high[59])
    assert turns[:2] == pytest.approx([0, 0.05], abs=1e-6) and np.all(np.diff(turns) > -1e-9) and turns[-1] < 0.18
    assert np.all(np.diff(moves) > -1e-9) and moves[-1] < 0.01


@pytest.mark.parametrize("pose", [0.0, 0.15])
def test_an_avatar_is_cut_out_with_its_alpha(prior, avatar, pose):
    code = replace(avatar.space.middle, rotation=turned(pose) @ avatar.space.middle.rotation)
    alpha = np.zeros((128, 96), np.uint8)
    alpha[110:] = 255  # shoulders
    fast, plain = AvatarRenderer(avatar, prior), TorchAvatarRenderer(avatar, prior, "cpu")
    whole = fast.render(code).astype(int)
    for renderer in (fast, plain):
        renderer.set_alpha(alpha)
    cut = fast.render(code, matte=ALONE).astype(int)
    assert cut.shape == (128, 96, 4) and (cut[:10, :3, 3] == 0).all() and (cut[-4:, :, 3] == 255).all()
    assert cut[64, 48, 3] == 255 and np.abs(cut[64, 48, :3] - whole[64, 48]).max() <= 1
    apart = np.abs(plain.render(code, matte=ALONE).astype(int) - cut)
    apart[cut[..., 3] < 3] = 0
    assert np.quantile(apart, 0.995) <= 2
    assert np.array_equal(fast.render(code).astype(int), whole)
    both = fast.render(code, matte=BESIDE).astype(int)
    assert np.array_equal(both[..., :3], whole) and np.array_equal(both[..., 3], cut[..., 3])
    assert np.quantile(np.abs(plain.render(code, matte=BESIDE).astype(int) - both), 0.995) <= 2


def test_layers_lie_over_each_other(prior, avatar):
    """Face over hair over scene, each where it belongs."""
    away = avatar.space.middle.translation[2]
    code = FaceCode(np.zeros(52), np.eye(3), np.array([0.0, 0.0, away]))
    camera = Camera(300.0 * away / 0.9, 96, 128)
    picture = AvatarRenderer(avatar, prior).render(code, camera).astype(int)
    assert picture.shape == (128, 96, 3)
    assert np.abs(picture[:6] - 90).max() < 20  # scene
    assert np.abs(picture[64, 48] - 180).max() < 40  # face
    top = camera.project(np.array([[0.0, -0.12, away]]))[0]
    assert np.abs(picture[int(top[1]) + 3, int(top[0])] - 40).max() < 25  # hair


def test_what_is_left_out_is_not_missed(prior, avatar, monkeypatch):
    """The sides of head and shell that nobody sees are not drawn, which is to change nothing."""
    renderer = AvatarRenderer(avatar, prior)
    lean = [renderer.render(code).astype(int) for code in codes_of(6)]
    monkeypatch.setattr("models.avatar.render._wanted", lambda triangles, vertex: None)
    for code, picture in zip(codes_of(6), lean):
        assert (np.abs(renderer.render(code) - picture).max(-1) > 0).mean() < 1e-3  # pixels of an outline


def test_light_is_the_surfaces_own_in_the_middle_and_bounded_elsewhere(prior, avatar):
    strong = 40 * avatar.light
    shape = AvatarHead(prior, avatar.person, avatar.lift)
    lighting = Lighting(shape, avatar.space, strong)
    middle, _ = shape.posed(avatar.space.middle, avatar.person.camera)
    assert np.allclose(lighting.gain(middle), 1, atol=1e-5)
    away, _ = shape.posed(replace(avatar.space.middle, rotation=turned(0.9, 0.4, 0.0)), avatar.person.camera)
    gain = lighting.gain(away)
    assert gain.min() >= np.exp(-MOST) - 1e-5 and gain.max() <= np.exp(MOST) + 1e-5 and gain.max() > 1.9


def test_taking_light_out_undoes_it(prior, avatar):
    colours, rng = avatar.colours(prior), np.random.default_rng(1)
    gain = np.repeat(rng.uniform(0.5, 2.0, (len(prior.mean), 1)), 3, 1).astype(np.float32)
    corners = prior.triangles[colours.triangle]
    there = np.einsum("sk,skc->sc", colours.barycentric, gain[corners])
    own = rng.uniform(20, 110, there.shape)
    out, unit = np.empty(there.shape, np.uint16), np.float32(1 / 64)
    lit = np.round(own * there).astype(np.uint8)
    take_out(lit, gain, prior.triangles, colours.triangle, colours.barycentric, unit, out)
    assert np.abs(out * unit - own).max() < 0.5 / 0.5 + 1 / 64  # what rounding to whole codes had taken


def agree(avatar, prior, device: str) -> None:
    """What torch draws beside what numba draws: of codes that were learned from, and of one far beyond them."""
    fast, plain = AvatarRenderer(avatar, prior), TorchAvatarRenderer(avatar, prior, device)
    wild = FaceCode(np.ones(52), turned(0.6, 0.3, 0.2), np.array([0.05, -0.03, 0.8]), np.array([[0.4, -0.2], [0.3, 0.1]]))
    for code in (*codes_of(3), wild):
        apart = np.abs(plain.render(code).astype(int) - fast.render(code))
        # an outline's pixel may go to the other side where the two sum up in another order; the fast one rounds the scene's
        # places to 1/32 of a pixel, and its colours once more than torch does
        assert np.quantile(apart, 0.999) <= 1 and apart.mean() < 0.2
    nearer = Camera(360.0, 96, 128)
    apart = np.abs(plain.render(code, nearer).astype(int) - fast.render(code, nearer))
    assert np.quantile(apart, 0.999) <= 1
    again = plain.render(code)
    plain.render(codes_of(1)[0])
    assert (plain.render(code) == again).all()


def test_torch_draws_what_numba_draws(prior, avatar):
    agree(avatar, prior, "cpu")


@pytest.mark.parametrize("matte", [None, ALONE, BESIDE])
def test_nothing_in_the_torch_drawing_waits_for_the_device(prior, avatar, captured, matte):
    renderer = TorchAvatarRenderer(avatar, prior, "cpu")
    renderer.set_alpha(np.full((128, 96), 255, np.uint8))
    draw, arrays = captured("models.avatar.render_torch", lambda: renderer.render(codes_of(1)[0], matte=matte))
    assert by_shapes_alone(draw, arrays).shape == (128, 96, 4 if matte else 3)


@pytest.mark.cuda
def test_a_gpu_draws_what_numba_draws(prior, avatar):
    agree(avatar, prior, "cuda")


def test_a_saved_avatar_draws_the_same(prior, avatar, tmp_path):
    path = tmp_path / "one.avatar"
    avatar.save(path)
    assert is_avatar(path) and path.stat().st_size < LARGEST
    with safe_open(str(path), framework="np") as file:
        assert file.metadata()["format"] == FORMAT
    again = load_avatar(path, prior)
    assert again.origin == avatar.origin
    code = codes_of(1)[0]
    a, b = (AvatarRenderer(one, prior).render(code).astype(int) for one in (avatar, again))
    assert np.abs(a - b).mean() < 0.1 and np.abs(a - b).max() <= 40  # half floats move an outline by a hair


def tampered(path, target, change):
    """The file with its tensors and metadata changed."""
    with safe_open(str(path), framework="np") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    change(metadata, tensors)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(target), metadata=metadata)


BAD = {
    "later version": (lambda m, t: m.update(format="understudy-avatar-99"), "format 'understudy-avatar-99'"),
    "another prior": (lambda m, t: m.update(prior="3"), "version 3 of the prior"),
    "a tensor is gone": (lambda m, t: t.pop("skin.mean"), "altered or damaged"),
    "a tensor is short": (lambda m, t: t.update({"veil.mean": t["veil.mean"][:-1]}), "altered or damaged"),
    "light of another order": (lambda m, t: t.update({"light": t["light"][:3]}), "altered or damaged"),
    "of another kind": (lambda m, t: t.update({"scene": t["scene"].astype(np.float32)}), "altered or damaged"),
    "no number": (lambda m, t: t.update({"lift": np.full_like(t["lift"], np.nan)}), "altered or damaged"),
    "segments": (lambda m, t: t.update({"segments": np.zeros_like(t["segments"])}), "altered or damaged"),
    "camera": (lambda m, t: m.update(camera=json.dumps({"focal": 1e9, "width": 96, "height": 128})), "altered or damaged"),
    "no camera": (lambda m, t: m.pop("camera"), "altered or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(name, prior, avatar, tmp_path):
    change, said = BAD[name]
    avatar.save(tmp_path / "one.avatar")
    tampered(tmp_path / "one.avatar", tmp_path / "bad.avatar", change)
    with pytest.raises(ModelError, match=said) as error:
        load_avatar(tmp_path / "bad.avatar", prior)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused_in_one_line(prior, avatar, tmp_path):
    avatar.save(tmp_path / "one.avatar")
    whole = (tmp_path / "one.avatar").read_bytes()
    for name, content, said in (
        ("cut.avatar", whole[: len(whole) // 2], "cut off"), ("empty.avatar", b"", "not an avatar"),
        ("text.avatar", b"hello" * 99, "not an avatar"), ("large.avatar", bytes(LARGEST + 1), "expected at most 20 MB"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=said):
            load_avatar(tmp_path / name, prior)
    with pytest.raises(ModelError, match="no such file"):
        load_avatar(tmp_path / "nowhere.avatar", prior)


def test_too_many_bases_are_refused_and_the_old_file_stays(prior, avatar, tmp_path):
    path = tmp_path / "one.avatar"
    avatar.save(path)
    before = path.read_bytes()
    wide = replace(avatar, skin=replace(avatar.skin, basis=np.zeros((2000, len(avatar.skin.mean)), np.int8)))
    with pytest.raises(ModelError, match="expected at most 20 MB"):
        wide.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_avatar(prior, avatar, tmp_path, monkeypatch):
    path = tmp_path / "one.avatar"
    avatar.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(tensors_module, "save_file", full)
    with pytest.raises(ModelError, match="No space left on device.*unharmed"):
        avatar.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
