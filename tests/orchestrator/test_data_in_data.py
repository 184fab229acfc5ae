"""A data set within a data set: chosen on the command line and in a sweep's file, and part of a task's key by its content."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.compose import compose
from orchestrator.sweep import expand
from workers.data.digits import Digits
from workers.data.fashion_mnist import FashionMnist
from workers.data.next_pixel import NextPixel
from workers.data.npz import Npz
from workers.errors import UnknownName
from workers.workload import Data

TRAIN = "workload=train"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data_of(*words: str) -> list[Data]:
    """The data set of each combination."""
    found = []
    for combo in compose(words).combos:
        workload = combo.base
        while not hasattr(workload, "data"):
            (workload,) = workload.inputs().values()
        found.append(workload.data)
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=next_pixel"], [NextPixel()]),
        (["data=next_pixel", "data.images=fashion_mnist"], [NextPixel(images=FashionMnist())]),
        (["data.images=fashion_mnist", "data.images.path=/x", "data=next_pixel"], [NextPixel(images=FashionMnist(path="/x"))]),
        (["data=next_pixel", "images=fashion_mnist", "levels=8"], [NextPixel(images=FashionMnist(), levels=8)]),
        (["data=next_pixel", "data.images=npz,digits"], [NextPixel(images=Npz()), NextPixel(images=Digits())]),
        (["data=next_pixel,digits"], [NextPixel(), Digits()]),
        (["data=digits,next_pixel"], [Digits(), NextPixel()]),
    ],
)
def test_a_data_set_within_another_is_chosen_by_its_path(words, expected):
    assert data_of(TRAIN, *words) == expected
    assert data_of("workload=spectrum", *words) == expected


def test_a_sweeps_file_chooses_both():
    Path("conf/sweep").mkdir(parents=True)
    Path("conf/sweep/pixels.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: next_pixel\n  - override /data@images: fashion_mnist\n"
        "workload: train\ndata.levels: 8\nsweep:\n  grid:\n    data.pooling: [1, 2]\n"
    )
    Path("conf/sweep/more.yaml").write_text("# @package _global_\ndefaults: [pixels]\nimages.path: /x\n")
    assert data_of("sweep=pixels") == [NextPixel(images=FashionMnist(), levels=8)]
    assert data_of("sweep=pixels", "data.images=digits") == [NextPixel(images=Digits(), levels=8)]
    assert data_of("sweep=more") == [NextPixel(images=FashionMnist(path="/x"), levels=8)]


def test_a_setting_of_the_inner_one_that_the_chosen_one_lacks_is_refused():
    with pytest.raises(UnknownName, match=r"no setting 'data.images.path'"):
        data_of(TRAIN, "data=next_pixel", "data.images.path=/x")


def test_the_key_follows_the_content_of_the_inner_one_and_not_its_path(tmp_path):
    def keys(*words: str) -> list[str]:
        return expand(compose([TRAIN, "data=next_pixel", "data.images=npz", *words])).keys

    arrays = {name: np.zeros((4, 2, 2), np.uint8) if name[0] == "x" else np.zeros(4) for name in ("x_train", "y_train", "x_test", "y_test")}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "images.npz", **arrays)
    first = keys("data.images.path=one/images.npz")
    (tmp_path / "other" / "images.npz").write_bytes((tmp_path / "one" / "images.npz").read_bytes())
    assert keys("data.images.path=other/images.npz") == first
    assert keys("data.images.path=one/images.npz", "levels=8") != first
    np.savez(tmp_path / "other" / "images.npz", **{**arrays, "y_test": np.ones(4)})
    assert keys("data.images.path=other/images.npz") != first


def test_generated_data_have_a_key_by_their_settings_alone():
    keys = [expand(compose([TRAIN, "loss=mse", "data=power_law", *words])).keys for words in ([], ["data.seed=1"], ["data.num_modes=9"])]
    assert len({key for one in keys for key in one}) == 3
