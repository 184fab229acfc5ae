"""Data sets of Hugging Face's library `datasets` on disk, read by pyarrow alone: folders of `save_to_disk`, and Parquet files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.errors import ConfigError
from workers.staging import local

_ROWS_AT_ONCE = 1024


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split, in their order; none where there is no such split.

    What is looked for: `dataset_dict.json` and a folder for each split; a folder that is one split itself (`state.json`), as `train`;
    `train-00000-of-00002.parquet` or `train.parquet` in the folder or in its `data`; or one `.parquet` or `.arrow` file, as `train`.
    """
    if folder.is_file():
        return [folder] if split == "train" else []
    if (folder / "state.json").is_file():
        return _saved(folder) if split == "train" else []
    if (folder / split / "state.json").is_file():
        return _saved(folder / split)
    for place in (folder, folder / "data"):
        if found := sorted(path for path in place.glob(f"{split}*.parquet") if path.stem.partition("-")[0] == split):
            return found
    return []


def rows(paths: list[Path], columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row, as Python objects; ConfigError where a file lacks one or cannot be read."""
    import pyarrow as pa

    for path in paths:
        try:
            for batch in _batches(local(path), columns):
                missing = [name for name in columns if name not in batch.schema.names]
                if missing:
                    raise ConfigError(
                        f"{path} has no column {', '.join(missing)}; it has {', '.join(batch.schema.names)}: name one of them with "
                        "data.column= (or data.label_column=)"
                    )
                yield from zip(*(batch.column(name).to_pylist() for name in columns))
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); save the data set again") from error


def _batches(path: Path, columns: tuple[str, ...]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        known = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=known if len(known) == len(columns) else None)
        return
    with pa.memory_map(str(path)) as source:
        for batch in pa.ipc.open_stream(source):
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                yield batch.slice(start, _ROWS_AT_ONCE)


def _saved(folder: Path) -> list[Path]:
    """The Arrow files that `state.json` names."""
    try:
        state = json.loads((folder / "state.json").read_text())
        found = [folder / one["filename"] for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder}/state.json is none of a saved data set ({error!r}); save it again with save_to_disk") from error
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ConfigError(f"{folder} holds a selection of rows, not the rows; save it again after `dataset.flatten_indices()`")
    if absent := [str(path) for path in found if not path.is_file()]:
        raise ConfigError(f"{folder}/state.json names {', '.join(absent)}, which is not there; copy the whole folder")
    return found
