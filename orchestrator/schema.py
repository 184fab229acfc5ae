"""The fixed Arrow schemas of the dataset's tables, with units; columns are only ever added, and types only widen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, EigensweepError, UnknownName

if TYPE_CHECKING:
    import pyarrow as pa

# table -> column -> (Arrow type, unit, description)
TABLES: Mapping[str, Mapping[str, tuple[str, str, str]]] = {
    "tasks": {
        "key": ("string", "", "name of the task, by its content"),
        "generation": ("int32", "", "retractions before this result"),
        "workload": ("string", "", "kind of task"),
        "version": ("int32", "", "version of the workload"),
        "status": ("string", "", "ok or diverged"),
        "code": ("string", "", "fingerprint of the code that made the numbers"),
        "attempt": ("string", "", "the attempt that was committed"),
        "settings": ("string", "", "all settings, as JSON"),
        "inputs": ("string", "", "input field -> commit, as JSON"),
        "content": ("string", "", "data field -> SHA-256, as JSON"),
        "files": ("string", "", "file name -> size in bytes, as JSON"),
        "message": ("string", "", "what the task said at its end"),
    },
    "attempts": {
        "key": ("string", "", "the task"),
        "attempt": ("string", "", "batch-index-restart-random"),
        "class": ("string", "", "how it ended"),
        "code": ("string", "", "fingerprint of the code that ran"),
        "host": ("string", "", "where it ran"),
        "device": ("string", "", "what it computed on"),
        "started": ("timestamp[ms]", "UTC", "by the clock of the host"),
        "seconds": ("float32", "s", "run time"),
        "peak_memory_mib": ("float32", "MiB", "largest resident memory"),
        "resumed_at": ("int64", "step", "checkpoint it went on from"),
        "error_type": ("string", "", "exception"),
        "error_fingerprint": ("string", "", "equal for equal errors"),
        "message": ("string", "", "what it said at its end"),
        "checkpoint": ("int64", "step", "newest checkpoint that it left"),
        "batch": ("string", "", "token of the batch that it was part of"),
        "job_id": ("string", "", "name of its job at the scheduler"),
        "cpu_hours": ("float32", "h", "run time x CPUs that it kept from others"),
        "gpu_hours": ("float32", "h", "run time x GPUs; of one that k tasks share each has 1/k"),
        "node_hours": ("float32", "h", "run time x nodes of its job x its share of the slots"),
        "energy_joules": ("float32", "J", "its share of what its job has used"),
    },
    "jobs": {
        "batch": ("string", "", "token of its batch"),
        "job_id": ("string", "", "name at the scheduler"),
        "sweep": ("string", "", "the sweep that sent it"),
        "reason": ("string", "", "how it ended, in the scheduler's word"),
        "hosts": ("string", "", "nodes where it ran, separated by commas"),
        "nodes": ("int32", "", "asked for"),
        "cpus": ("int32", "", "asked for, of each node"),
        "gpus": ("int32", "", "asked for, of each node"),
        "memory_gib": ("float32", "GiB", "asked for, of each node"),
        "limit_minutes": ("float32", "min", "time limit"),
        "slots": ("int32", "", "tasks at once"),
        "num_tasks": ("int32", "", "tasks that it was sent"),
        "seconds": ("float32", "s", "elapsed time, all its runs together"),
        "cpu_hours": ("float32", "h", "elapsed time x nodes x CPUs"),
        "gpu_hours": ("float32", "h", "elapsed time x nodes x GPUs"),
        "node_hours": ("float32", "h", "elapsed time x nodes"),
        "energy_joules": ("float64", "J", "as the scheduler or the job measured it"),
        "idle_tasks": ("string", "", "keys of its tasks as JSON, where none of them began"),
    },
    "scalars": {
        "key": ("string", "", "the task"),
        "step": ("int64", "step", "0 where there are no steps"),
        "name": ("string", "", "what was measured"),
        "value": ("float64", "", "NaN where it diverged"),
    },
    "spectra": {
        "key": ("string", "", "the task"),
        "step": ("int64", "step", "0 where there are no steps"),
        "index": ("int32", "", "0 is the smallest stored eigenvalue"),
        "eigenvalue": ("float64", "", "ascending with index"),
        "weight": ("float64", "", "squared projection of the residual on the eigenvector"),
    },
}

# columns that repeat; `key` does in every table with several rows a task
DICTIONARY = frozenset(
    """workload status code content files inputs class host device error_type error_fingerprint name
    batch job_id sweep reason hosts""".split()
)
UNIQUE_KEY = frozenset({"tasks", "attempts", "axes"})
# a result that is taken back takes its rows with it but from these tables: the work was done, and paid for
KEPT = frozenset({"attempts", "jobs"})
ORDER = ("key", "step", "name", "index", "attempt", "batch")


def fixed(table: str) -> "pa.Schema":
    """The schema of one of our own tables."""
    import pyarrow as pa

    fields = []
    for name, (type_, unit, description) in TABLES[table].items():
        metadata = {"unit": unit, "description": description} if unit else {"description": description}
        fields.append(pa.field(name, arrow_type(type_), metadata=metadata))
    return pa.schema(fields)


def arrow_type(text: str) -> "pa.DataType":
    """The Arrow type of that name (`float64`, `int32`, `string`, `bool`, `timestamp[ms]` ...)."""
    import pyarrow as pa

    if text == "timestamp[ms]":
        return pa.timestamp("ms", tz="UTC")
    try:
        return pa.type_for_alias(text)
    except ValueError:
        raise ConfigError(f"no Arrow type {text!r}; there are float64, float32, int64, int32, bool, string and others of pyarrow") from None


def declared(workload: str, table: str) -> "pa.Schema | None":
    """The schema that a workload declares for a table of its own; None where it (or the workload) is not to be had here."""
    import pyarrow as pa

    from workers import plugins

    try:
        columns = plugins.load("workloads", workload).tables.get(table.removeprefix(f"{workload}."))
    except (EigensweepError, ImportError):
        return None
    return columns and pa.schema([("key", pa.string()), *((name, arrow_type(type_)) for name, type_ in columns.items())])


def dataset_table(workload: str, table: str) -> str:
    """Name in the dataset: ours are shared by all workloads, a workload's own carries its name, once."""
    return table if table in ("scalars", "spectra") else f"{workload}.{table.removeprefix(f'{workload}.')}"


def table_from(name: str, columns: Mapping[str, Any], schema: "pa.Schema | None") -> "pa.Table":
    """Columns as an Arrow table of `schema` (absent ones null), or of their own types; further columns stay."""
    import pyarrow as pa

    if schema is None:
        return pa.table(dict(columns))
    num_rows = len(next(iter(columns.values())))
    arrays = [_array(name, field, columns[field.name]) if field.name in columns else pa.nulls(num_rows, field.type) for field in schema]
    more = [column for column in columns if column not in schema.names]
    table = pa.table(arrays, schema=schema)
    for column in more:
        table = table.append_column(column, pa.array(columns[column]))
    return table


def _array(table: str, field: "pa.Field", values: Any) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ConfigError(
            f"column {field.name!r} of table {table!r} must be {field.type}, got something else ({error}); "
            "correct the workload, raise its version and run it again"
        ) from None


def unite(tables: "list[pa.Table]") -> "pa.Table":
    """The rows of several tables, with every column of any of them, in the widest of its types."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="permissive")


def in_order(table: "pa.Table") -> "pa.Table":
    """Sorted by key, then step, name, index."""
    return table.sort_by([(column, "ascending") for column in ORDER if column in table.column_names])


def write_options(table: str, schema: "pa.Schema") -> dict[str, Any]:
    """How a part is encoded: names and repeated keys by dictionary, floats by byte stream, all in zstd."""
    import pyarrow as pa

    def is_whole(type_: "pa.DataType") -> bool:
        return bool(pa.types.is_integer(type_) or pa.types.is_timestamp(type_))

    by_dictionary = [name for name in schema.names if name in DICTIONARY or (name == "key" and table not in UNIQUE_KEY)]
    encodings = {field.name: "BYTE_STREAM_SPLIT" for field in schema if pa.types.is_floating(field.type)}
    encodings |= {field.name: "DELTA_BINARY_PACKED" for field in schema if is_whole(field.type)}
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": by_dictionary,
        "column_encoding": encodings,
        "dictionary_pagesize_limit": 64 * 2**20,
        "row_group_size": 2**20,
    }


def known_table(table: str, known: list[str]) -> str:
    """`table` if the dataset can have it; raises UnknownName."""
    from workers.errors import nearest

    if table not in known:
        raise UnknownName(f"no table {table!r}{nearest(table, known)} There are {', '.join(known)}")
    return table
