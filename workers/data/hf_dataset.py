"""A Hugging Face data set on disk: a column of text, as in SimpleStories, or one of images with a column of labels."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.reading.arrow_files import rows, split_files
from workers.reading.pixels import pixel_samples
from workers.reading.text_data import TextData, text_samples
from workers.samples import Samples
from workers.workload import setting

if TYPE_CHECKING:
    import numpy as np

TEST_SPLITS = ("test", "validation", "valid", "val")
# mode of a Pillow image -> the mode in which its values are channels of 8 bits
MODES = {"L": "L", "RGB": "RGB", "1": "L", "P": "RGB", "LA": "L", "RGBA": "RGB"}
CURE = (
    "data.path= takes a folder that `dataset.save_to_disk(...)` wrote, a folder of train-*.parquet files as on the Hub (also in data/), "
    "or one .parquet or .arrow file; nothing is downloaded"
)


@dataclass(frozen=True, kw_only=True)
class HfDataset(TextData):
    """Rows of the split `train` against those of `test` or `validation`; without these, every `test_every`-th row is a test row.

    A row of text is a document. With a `label_column`, `column` holds images (PNG or JPEG, all of one size), normalised by their training
    split, and what is said of tokens has no meaning. Images are grey or RGB, of 8 bits: palettes become RGB, black and white grey.
    """

    path: str | None = setting(None, identity=False, help="folder of save_to_disk or of .parquet files, or one file")
    column: str = setting("text", help="of the texts, or of the images")
    label_column: str | None = setting(None, help="null: column is text")

    def key_version(self) -> int:
        """Of images 2: before, indices of a palette were taken for pixels, and alpha for a channel."""
        return 2 if self.label_column else self.version

    def sources(self) -> list[Path]:
        """The Arrow or Parquet files, of the training split first."""
        train, test = self._splits()
        return [*train, *test]

    def documents(self, split: str) -> Iterator[bytes]:
        """The texts of a split, in the order of the files; rows without text are left out."""
        for (text,) in self._rows(split, (self.column,)):
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"data.column={self.column} of {self.path} holds no text, but {type(text).__name__}; name another column")
            if text:
                yield text.encode()

    def load(self) -> Samples:
        """Sequences (N, T), or images (N, channels, H, W) with labels (N,)."""
        return text_samples(self) if self.label_column is None else _images(self)

    def _rows(self, split: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        train, test = self._splits()
        if test:
            yield from rows(test if split == "test" else train, columns)
            return
        for number, row in enumerate(rows(train, columns), 1):
            if (number % self.test_every == 0) == (split == "test"):
                yield row

    def _splits(self) -> tuple[list[Path], list[Path]]:
        if self.path is None:
            raise ConfigError(f"data=hf_dataset needs a path; {CURE}")
        train = split_files(Path(self.path), "train")
        if not train:
            raise ConfigError(f"no training split at {self.path}; {CURE}")
        return train, next((found for split in TEST_SPLITS if (found := split_files(Path(self.path), split))), [])


@functools.lru_cache(maxsize=2)
def _images(data: HfDataset) -> Samples:
    import numpy as np

    assert data.label_column is not None
    splits: list[np.ndarray[Any, Any]] = []
    for split in ("train", "test"):
        found = [(_pixels(image), label) for image, label in data._rows(split, (data.column, data.label_column))]
        shapes = {image.shape for image, _ in found}
        if len(shapes) != 1:
            raise ConfigError(
                f"the images of the {split} split of {data.path} must be of one shape, got {sorted(shapes)[:4] or 'no image'}"
            )
        splits += [np.stack([image for image, _ in found]), np.array([label for _, label in found])]
    if splits[1].dtype.kind not in "iu":
        raise ConfigError(f"data.label_column={data.label_column} of {data.path} must hold whole numbers, got {splits[1][:1].tolist()}")
    return pixel_samples(*splits)


def _pixels(image: Any) -> "np.ndarray[Any, Any]":
    """(channels, H, W) in 8 bits, from the encoded bytes of the library's image type; grey (1) or RGB (3).

    ConfigError for other images: of more bits, of other colours, or with transparent pixels, whose colour nobody knows.
    """
    import io

    import numpy as np
    from PIL import Image

    encoded = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(encoded, bytes):
        raise ConfigError(f"an image must be stored by its bytes, as `datasets` embeds them on save, got {str(image)[:80]}")
    opened = Image.open(io.BytesIO(encoded))
    # Pillow cuts a PNG of 16 bits a channel down to 8; its header says so
    is_deep = opened.format == "PNG" and encoded[24] == 16
    if opened.mode not in MODES or is_deep:
        raise ConfigError(
            f"an image must be of one of the modes {', '.join(MODES)} of 8 bits, got {opened.mode}{' of 16 bits' if is_deep else ''}; "
            "save it as L (grey) or RGB, by a scale from its values to 0 .. 255 that is the same for all images"
        )
    if opened.has_transparency_data and (least := np.asarray(opened.convert("RGBA"))[..., 3].min()) < 255:
        raise ConfigError(
            f"an image must be opaque, got the alpha {least} in mode {opened.mode}; lay it on a background and save it as RGB"
        )
    pixels = np.asarray(opened.convert(MODES[opened.mode]))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
