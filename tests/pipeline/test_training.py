"""A minute of training in small: it learns, says so, stops, goes on, and learns from real faces without labels."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models.encoder.weights import load_weights
from models.errors import ModelError
from pipeline.training import TrainingSettings, augmented, train_encoder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(weights after a few seconds of training, what was said, the report)."""
    path, said = tmp_path_factory.mktemp("training") / "w.safetensors", []
    report = train_encoder(path, TrainingSettings(0.25, seed=3, report_every=1000), say=said.append)
    return path, said, report


def test_it_learns_and_says_so(trained):
    path, said, report = trained
    assert report["steps"] > 3 and report["fresh"] >= 64
    assert said[0].startswith("minutes | steps") and len(said) == 2
    assert path.with_suffix(".png").stat().st_size > 1000
    _, origin = load_weights(path)
    assert origin["data"] == ["synthetic"] and origin["seed"] == 3 and origin["training"]["steps"] == report["steps"]
    assert np.isfinite(list(origin["held_out"].values())).all()


def test_it_goes_on_where_it_stopped(trained):
    path, _, before = trained
    with safe_open(str(path.with_suffix(".state.safetensors")), framework="pt") as file:
        weight = file.get_tensor("weights.out.weight")
        assert any(name.startswith("moment.") for name in file.keys())
    report = train_encoder(path, TrainingSettings(0.1, resume=True, seed=3, report_every=1000), say=lambda _: None)
    assert report["steps"] > before["steps"] and report["seconds"] > before["seconds"]
    with safe_open(str(path.with_suffix(".state.safetensors")), framework="pt") as file:
        moved = (file.get_tensor("weights.out.weight") - weight).abs().mean()
    assert 0 < moved < 0.05  # a little further, not anew


def test_a_damaged_state_is_told(trained, tmp_path):
    path, _, _ = trained
    copy = tmp_path / "w.safetensors"
    copy.write_bytes(path.read_bytes())
    copy.with_suffix(".state.safetensors").write_bytes(b"\x01" * 100)
    with pytest.raises(ModelError, match="Delete it to go on from the weights alone"):
        train_encoder(copy, TrainingSettings(0.1, resume=True), say=lambda _: None)


def test_it_learns_from_real_faces_without_labels(trained, synthetic, tmp_path):
    from capture.photo import write_photo

    path, _, before = trained
    copy = tmp_path / "w.safetensors"
    copy.write_bytes(path.read_bytes())
    faces = tmp_path / "faces"
    faces.mkdir()
    head = synthetic(size=256, focal=320.0)
    write_photo(faces / "face.png", head.picture(head.code()))
    (faces / "broken.jpg").write_bytes(b"\x00" * 50)
    said: list[str] = []
    settings = TrainingSettings(0.15, (str(faces),), landmarks=True, resume=True, report_every=1000)
    report = train_encoder(copy, settings, say=said.append)
    assert report["steps"] > before["steps"] and report["data"] == ["synthetic", "face.png"]
    assert any("skipped" in line and "broken.jpg" in line for line in said)
    assert any("3 crops of real faces from 1 files, 1 files skipped" in line for line in said)


def test_augmentation_is_seeded_and_stays_a_picture():
    pictures = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    first, again, other = augmented(pictures, 1), augmented(pictures, 1), augmented(pictures, 2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 1 and (first - pictures).abs().mean() < 0.1


@pytest.mark.slow
def test_no_process_is_left_behind(tmp_path):
    words = ["train-encoder", "--output", tmp_path / "w.safetensors", "--minutes", "5"]
    trainer = subprocess.Popen([sys.executable, "-m", "pipeline", *map(str, words)], cwd=ROOT, stderr=subprocess.DEVNULL)
    time.sleep(40)
    children = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children").read_text().split()
    assert children
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    for _ in range(40):
        alive = [pid for pid in children if Path(f"/proc/{pid}").exists()]
        if not alive:
            break
        time.sleep(1)
    for pid in alive:
        os.kill(int(pid), signal.SIGKILL)
    assert not alive
