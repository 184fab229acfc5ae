"""Token files and Hugging Face data sets on disk: what is read, that it stays on the disk, and what is refused."""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from task_runs import attempt

from workers.data.hf_dataset import HfDataset, _pixels
from workers.data.tokens import Tokens
from workers.errors import ConfigError
from workers.reading import text_data
from workers.workloads.train import Train


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text_data.text_samples.cache_clear()


# -- token files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bins(tmp_path: Path) -> Path:
    """A folder in nanoGPT's layout, of 100 and 30 tokens below 50."""
    draw = np.random.default_rng(0)
    for name, num in (("train", 100), ("val", 30)):
        draw.integers(0, 50, num).astype("<u2").tofile(tmp_path / f"{name}.bin")
    return tmp_path


def test_sequences_are_the_file_and_targets_the_same_one_token_on(bins):
    samples = Tokens(path=str(bins), sequence_length=8, vocabulary_size=64).load()
    tokens = np.fromfile(bins / "train.bin", "<u2")
    assert samples.train_inputs[:].tolist() == [tokens[8 * i : 8 * i + 8].tolist() for i in range(12)]
    assert samples.train_targets[:].tolist() == [tokens[8 * i + 1 : 8 * i + 9].tolist() for i in range(12)]
    assert (len(samples.test_inputs), samples.num_outputs, samples.sample_name, samples.unit_name) == (3, 64, "sequences", "tokens")


def test_a_vocabulary_that_is_not_given_is_the_largest_token_of_both_splits_and_one(bins):
    np.array([7] * 20 + [99], "<u2").tofile(bins / "val.bin")
    assert Tokens(path=str(bins), sequence_length=8).load().num_outputs == 100


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_one_file_is_cut_and_no_token_is_in_both_splits(tmp_path, suffix):
    tokens, path = np.arange(200, dtype=np.uint32), tmp_path / f"own{suffix}"
    np.save(path, tokens) if suffix == ".npy" else tokens.tofile(path)
    samples = Tokens(path=str(path), dtype="uint32", sequence_length=8, test_fraction=0.2).load()
    train, test = ({*inputs[:].ravel(), *targets[:].ravel()} for inputs, targets in _splits(samples))
    assert not train & test
    assert (max(train) < min(test), len(train), len(test)) == (True, 153, 33)


def _splits(samples: Any) -> list[tuple[Any, Any]]:
    return [(samples.train_inputs, samples.train_targets), (samples.test_inputs, samples.test_targets)]


def resident_mib() -> float:
    """Memory of this process, mapped files included, which a watchdog counts."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("vocabulary_size", [None, 50257])
def test_a_large_file_is_never_held(tmp_path, vocabulary_size):
    """2^28 tokens, of which none takes room on the disk."""
    for name in ("train", "val"):
        with (tmp_path / f"{name}.bin").open("wb") as file:
            file.truncate(2**29)
    before = resident_mib()
    samples = Tokens(path=str(tmp_path), sequence_length=1024, vocabulary_size=vocabulary_size).load()
    batch = samples.train_inputs[np.array([0, 1000, 200_000])]
    assert resident_mib() - before < 48
    assert (samples.train_inputs.shape, batch.shape) == ((2**28 // 1024 - 1, 1024), (3, 1024))


def test_a_file_that_is_cut_while_it_is_used_is_named(bins):
    samples = Tokens(path=str(bins), sequence_length=8).load()
    (bins / "train.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="train.bin is shorter than it was, or than it says; fetch it again"):
        samples.train_inputs[np.array([3])]


def test_taken_tokens_are_of_a_type_that_torch_can_look_up(bins):
    import torch

    inputs, targets = Tokens(path=str(bins), sequence_length=8, vocabulary_size=50).load().train(np.array([3, 0]), "cpu", torch.float64)
    assert (inputs.dtype, inputs.shape) == (torch.int32, (2, 8))
    assert torch.nn.Embedding(50, 4)(inputs).shape == (2, 8, 4)
    assert torch.nn.functional.one_hot(targets.long(), 50).shape == (2, 8, 50)


def test_a_token_outside_the_vocabulary_is_refused(bins):
    with pytest.raises(ConfigError, match=r"hold the token \d+, and data.vocabulary_size=10 allows 0 to 9; .* check data.dtype=uint16"):
        Tokens(path=str(bins), sequence_length=8, vocabulary_size=10).load()


@pytest.mark.parametrize("vocabulary_size", [None, 64])
def test_a_negative_token_is_refused(tmp_path, vocabulary_size):
    np.array([5, 6, -100, *range(20)], np.int32).tofile(tmp_path / "own.bin")
    data = Tokens(path=str(tmp_path / "own.bin"), dtype="int32", sequence_length=4, vocabulary_size=vocabulary_size)
    with pytest.raises(ConfigError, match="hold the token -100, and tokens are 0 or more; .* marks such as -100 .* check data.dtype=int32"):
        data.load()


@pytest.mark.parametrize("layout", ["folder", "bin", "npy"])
def test_the_shapes_of_token_files_are_known_before_they_are_read(bins, tmp_path, layout):
    np.save(tmp_path / "own.npy", np.arange(77))
    path = {"folder": bins, "bin": bins / "train.bin", "npy": tmp_path / "own.npy"}[layout]
    data = Tokens(path=str(path), sequence_length=8)
    samples = data.load()
    assert data.shapes() == (samples.train_inputs.shape, samples.test_inputs.shape)
    assert (Tokens().shapes(), Tokens(path=str(path), sequence_length=1000).shapes()) == (None, None)


def test_absent_and_wrong_token_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="data=tokens needs a path; data.path= takes a folder with train.bin and val.bin"):
        Tokens().files()
    with pytest.raises(ConfigError, match=rf"no train.bin \(nor train.npy\) at {tmp_path}; data.path= takes"):
        Tokens(path=str(tmp_path)).files()
    (tmp_path / "train.bin").write_bytes(b"abc")
    with pytest.raises(ConfigError, match="no val.bin .nor val.npy, valid.bin"):
        Tokens(path=str(tmp_path)).files()
    (tmp_path / "val.bin").write_bytes(b"abc")
    with pytest.raises(ConfigError, match=r"train.bin is no array of uint16 tokens \(3 bytes\); data.dtype= says which"):
        Tokens(path=str(tmp_path)).load()
    np.save(tmp_path / "real.npy", np.zeros(9))
    with pytest.raises(ConfigError, match=r"real.npy holds an array of shape \(9,\) and type float64; it must be \(L,\) whole numbers"):
        Tokens(path=str(tmp_path / "real.npy")).load()
    np.zeros(9, "<u2").tofile(tmp_path / "short.bin")
    with pytest.raises(ConfigError, match="split has 0 tokens.*take shorter sequences or more text"):
        Tokens(path=str(tmp_path / "short.bin")).load()


def test_a_relative_path_is_one_of_the_folder_here(bins, monkeypatch):
    monkeypatch.chdir(bins.parent)
    assert Tokens(path=bins.name).path == str(bins)
    assert HfDataset(path="x", tokenizer_path="t.json").tokenizer_path == str(bins.parent / "t.json")


def test_tokens_for_a_model_that_reads_none_are_refused_by_name(bins, tmp_path):
    with pytest.raises(ConfigError, match=r"model=mlp reads numbers, and this data set has tokens \(data=tokens\)"):
        attempt(tmp_path, Train(data=Tokens(path=str(bins), sequence_length=8), train_size=4, num_steps=3), reraise=True)


# -- Hugging Face data sets -------------------------------------------------------------------------------------------

STORIES = [f"Story {number}: the small robot went on for {number * number} days." for number in range(40)]


def save_to_disk(folder: Path, table: pa.Table, num_files: int = 1) -> None:
    """One split, as `Dataset.save_to_disk` writes it: Arrow streams, and a state that names them."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{num_files:05d}.arrow" for number in range(num_files)]
    size = -(-len(table) // num_files)
    for number, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(number * size, size), max_chunksize=7)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_indices_files": None}))


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A `DatasetDict` on disk with a training and a test split."""
    folder, table = tmp_path / "stories", pa.table({"id": range(40), "story": STORIES})
    save_to_disk(folder / "train", table.slice(0, 30), 3)
    save_to_disk(folder / "test", table.slice(30))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder


def as_text(inputs: Any) -> str:
    return "".join(chr(token) if token < 256 else "|" for token in inputs[:].ravel())


def test_stories_of_saved_splits_follow_each_other(stories):
    samples = HfDataset(path=str(stories), column="story", sequence_length=10).load()
    assert "|".join(STORIES[:30]).startswith(as_text(samples.train_inputs))
    assert "|".join(STORIES[30:]).startswith(as_text(samples.test_inputs))
    assert samples.train_inputs[:].size > len("|".join(STORIES[:30])) - 10


def test_parquet_files_of_the_hub_hold_the_same(stories, tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table = pa.table({"id": range(40), "story": STORIES})
    for number in range(2):
        pq.write_table(table.slice(15 * number, 15), tmp_path / "hub" / "data" / f"train-{number:05d}-of-00002.parquet")
    pq.write_table(table.slice(30), tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    one, other = (HfDataset(path=str(tmp_path / name), column="story", sequence_length=10).load() for name in ("stories", "hub"))
    np.testing.assert_array_equal(one.train_inputs[:], other.train_inputs[:])
    np.testing.assert_array_equal(one.test_targets[:], other.test_targets[:])


def test_of_one_split_every_so_many_th_row_is_a_test_row(stories):
    data = HfDataset(path=str(stories / "train"), column="story", test_every=5)
    assert [document.decode() for document in data.documents("test")] == STORIES[4:30:5]
    assert {*data.documents("train"), *data.documents("test")} == {story.encode() for story in STORIES[:30]}


def test_images_with_labels_are_normalised_by_their_training_split(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    encoded = []
    for image in pixels:
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"image": encoded, "label": [number % 3 for number in range(20)]}), tmp_path / "images.parquet")
    samples = HfDataset(path=str(tmp_path / "images.parquet"), column="image", label_column="label", test_every=4).load()
    test = np.arange(20) % 4 == 3
    slow = np.moveaxis((pixels - pixels[~test].mean((0, 1, 2))) / pixels[~test].std((0, 1, 2)), -1, 1)
    np.testing.assert_allclose(samples.test_inputs[:], slow[test], rtol=1e-5, atol=1e-6)
    assert (samples.train_targets.tolist()[:4], samples.num_outputs, samples.input_shape) == ([0, 1, 2, 1], 3, (3, 4, 5))


def pixels_of(image: Image.Image, **options: Any) -> np.ndarray:
    image.save(file := io.BytesIO(), "PNG", **options)
    return _pixels({"bytes": file.getvalue(), "path": None})


def test_palettes_are_the_colours_they_name_and_other_modes_lose_nothing():
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rgb, grey = Image.fromarray(colours), Image.fromarray(colours[..., 0])
    indices = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5), "P")
    indices.putpalette(colours.reshape(-1, 3).tobytes())
    for image in (rgb, rgb.convert("RGBA"), indices):
        np.testing.assert_array_equal(pixels_of(image), np.moveaxis(colours, -1, 0))
    for image in (grey, grey.convert("LA")):
        np.testing.assert_array_equal(pixels_of(image), colours[None, ..., 0])
    np.testing.assert_array_equal(pixels_of(grey.point(lambda value: 255 * (value > 99), "1")), 255 * (colours[None, ..., 0] > 99))


@pytest.mark.parametrize("mode", ["I;16", "I", "CMYK"])
def test_images_of_other_modes_are_refused_with_those_that_are_not(mode):
    Image.new(mode, (3, 3)).save(file := io.BytesIO(), "TIFF")
    with pytest.raises(
        ConfigError, match=f"must be of one of the modes L, RGB, 1, P, LA, RGBA of 8 bits, got {mode}; save it as L .grey. or"
    ):
        _pixels(file.getvalue())


def test_a_png_of_16_bits_a_colour_is_refused():
    """Which Pillow reads as one of 8."""
    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    checked = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    with pytest.raises(ConfigError, match="of 8 bits, got RGB of 16 bits; save it as L"):
        _pixels(b"\x89PNG\r\n\x1a\n" + b"".join(checked))


def test_transparent_images_are_refused():
    clear = Image.new("RGBA", (3, 3), (9, 9, 9, 255))
    clear.putpixel((1, 1), (9, 9, 9, 77))
    with pytest.raises(ConfigError, match="must be opaque, got the alpha 77 in mode RGBA; lay it on a background and save it as RGB"):
        pixels_of(clear)
    with pytest.raises(ConfigError, match="must be opaque, got the alpha 0 in mode P"):
        pixels_of(Image.new("P", (3, 3)), transparency=0)


def test_the_key_of_images_is_another_than_before_and_that_of_text_is_not():
    assert [HfDataset(label_column=column).key_version() for column in (None, "label")] == [1, 2]


def test_what_is_wrong_with_a_saved_data_set_is_named(stories, tmp_path):
    with pytest.raises(ConfigError, match="data=hf_dataset needs a path; .*save_to_disk.*nothing is downloaded"):
        HfDataset().files()
    with pytest.raises(ConfigError, match=f"no training split at {tmp_path}; data.path= takes a folder that"):
        HfDataset(path=str(tmp_path)).files()
    with pytest.raises(ConfigError, match="has no column text; it has id, story: name one of them with data.column="):
        HfDataset(path=str(stories)).load()
    with pytest.raises(ConfigError, match="data.column=id of .* holds no text, but int; name another column"):
        HfDataset(path=str(stories), column="id").load()
    state = json.loads((stories / "test" / "state.json").read_text())
    (stories / "test" / "state.json").write_text(json.dumps(state | {"_indices_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(ConfigError, match="holds a selection of rows, not the rows; save it again after `dataset.flatten_indices"):
        HfDataset(path=str(stories), column="story").files()
    (stories / "train" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(ConfigError, match="state.json names .*data-00001-of-00003.arrow, which is not there; copy the whole folder"):
        HfDataset(path=str(stories), column="story").files()
    (stories / "train" / "state.json").write_text("[]")
    with pytest.raises(ConfigError, match="state.json is none of a saved data set .* save it again with save_to_disk"):
        HfDataset(path=str(stories), column="story").files()


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match=r"bad\.parquet cannot be read .*save the data set again"):
        HfDataset(path=str(tmp_path / "bad.parquet"), column="story").load()
