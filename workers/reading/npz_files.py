"""Arrays of `.npz` archives, read where they are taken unless they are compressed."""

import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.reading.lazy import Stored

if TYPE_CHECKING:
    import numpy as np

_LOCAL_HEADER = 30  # bytes before the name in a zip's local header, whose last four say how long name and extra field are


def stored_arrays(path: Path, names: tuple[str, ...]) -> "dict[str, np.ndarray[Any, Any] | Stored]":
    """The arrays of these names; ConfigError where the archive cannot be read or lacks one. Compressed ones are read into memory."""
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            present = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in names if name not in present]
            if missing:
                raise ConfigError(f"{path} has no array {', '.join(missing)}; it has {', '.join(present) or 'none'}")
            stored = {name for name in names if present[name].compress_type == zipfile.ZIP_STORED}
            found: dict[str, np.ndarray[Any, Any] | Stored] = {name: _stored(path, present[name]) for name in stored}
        with np.load(path, allow_pickle=False) as arrays:
            return found | {name: arrays[name] for name in names if name not in stored}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no readable .npz archive ({error}); fetch it again") from error


def stored_head(path: Path, name: str) -> tuple[tuple[int, ...], bool]:
    """The shape of an array, and whether it is compressed, without reading more; ConfigError where the archive cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _head(file)[0], archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no readable .npz archive ({error}); fetch it again") from error


def _stored(path: Path, info: zipfile.ZipInfo) -> Stored:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        shape, fortran, dtype = _head(file)
        if dtype.hasobject or fortran:
            raise ValueError(f"{info.filename} holds Python objects, or is stored by columns")
        return Stored(path, dtype, shape, offset=file.tell())


def _head(file: IO[bytes]) -> "tuple[tuple[int, ...], bool, np.dtype[Any]]":
    """Shape, whether by columns, and type of the `.npy` that begins here."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
