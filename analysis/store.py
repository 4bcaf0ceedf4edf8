"""Run directories: ``manifest.json`` and one Parquet file per table of a record.

Rules this module obeys:

* Nothing is ever half-written: files go to a hidden sibling directory that is renamed when complete.
* A run directory is never overwritten. ``reserve`` says so before the run, ``write`` once more after.
* The same record gives the same bytes.
* Every way in which a directory can fail to be a run is one ``ScenarioError`` that names the path.

pyarrow is imported where it is needed: it takes longer to load than most commands take to run.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from core.record import SCHEMA_VERSION, TABLES, Record
from scenarios import files
from scenarios.errors import ScenarioError

__all__ = ["MANIFEST", "plain", "read", "reserve", "write"]

MANIFEST = "manifest.json"

FORMAT = "aladdin-run"


def reserve(path: str | Path) -> Path:
    """Check, before anything long is started, that a run directory can be made at ``path``.

    Creates missing parent directories. An empty directory may be used; anything else that is
    already there raises ``ScenarioError``, and so does a folder that cannot be written to.
    """
    path = files.place(path, "out")
    try:
        if path.is_symlink() or path.exists():
            if not path.is_dir():
                raise ScenarioError(f"output folder {path}: there is a file of that name; give another --out")
            if any(path.iterdir()):
                what = "already holds a run" if (path / MANIFEST).exists() else "is not empty"
                raise ScenarioError(
                    f"output folder {path}: it {what}, and runs are never overwritten; "
                    "give another --out or move it away"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _partial(path)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def write(record: Record, path: str | Path) -> Path:
    """Write ``record`` to the new run directory ``path``; returns it.

    Raises ``ScenarioError`` where a run is already there or the folder cannot be written to.
    """
    path = reserve(path)
    partial = _partial(path)
    try:
        partial.mkdir()
        tables = {name: table for name, table in record.tables().items() if len(table)}
        for name, table in tables.items():
            _write_table(table, partial / f"{name}.parquet")
        document = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "tables": {name: len(next(iter(table.values()))) for name, table in tables.items()},
            "manifest": plain(record.manifest),
        }
        (partial / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def read(path: str | Path) -> Record:
    """The record in the run directory ``path``.

    Raises ``ScenarioError`` where there is none, where it comes from a newer version of this
    program, and where files are missing, damaged or do not agree with the manifest.
    """
    path = Path(path)
    document = _read_manifest(path)
    listed = document["tables"]
    for name in ("nodes", "steps"):
        if name not in listed:
            raise ScenarioError(f"run directory {path}: the manifest lists no table {name!r}")
    names = [name for name in TABLES if name in listed]
    return Record(
        manifest=document["manifest"],
        **{name: _read_table(path, name, listed[name]) for name in names},
    )


def plain(value: Any) -> Any:
    """``value`` as strict JSON allows it: NumPy scalars and arrays unpacked, NaN and infinity None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)


def _partial(path: Path) -> Path:
    """The hidden sibling in which a run directory is built; the process id keeps writers apart."""
    return path.parent / f".{path.name}.partial-{os.getpid()}"


def _unwritable(path: Path, error: OSError) -> ScenarioError:
    return ScenarioError(
        f"output folder {path}: cannot be written ({error.strerror or error}); give another --out"
    )


def _write_table(table: Any, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = pyarrow.table({name: pyarrow.array(values) for name, values in table.items()})
    with path.open("wb") as file:  # by itself, pyarrow opens no path that is not UTF-8
        pyarrow.parquet.write_table(columns, file, compression="zstd")


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        document = json.loads(files.text(file))
    except FileNotFoundError:
        what = "has no manifest.json" if path.is_dir() else "does not exist"
        raise ScenarioError(
            f"run directory {path}: it {what}; expected a folder that `aladdin simulate --out` "
            "or `aladdin train` wrote"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ScenarioError(f"run directory {path}: {MANIFEST} cannot be read ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ScenarioError(f"run directory {path}: {MANIFEST} does not describe a run")
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ScenarioError(
            f"run directory {path}: written by a newer version of aladdin (schema {version!r}); "
            f"this one reads up to schema {SCHEMA_VERSION}"
        )
    if not isinstance(document.get("tables"), dict) or not isinstance(document.get("manifest"), dict):
        raise ScenarioError(f"run directory {path}: {MANIFEST} lacks its tables or its manifest")
    return document


def _read_table(path: Path, name: str, rows: Any) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    file = path / f"{name}.parquet"
    try:
        with file.open("rb") as opened:
            table = pyarrow.parquet.read_table(opened)
    except FileNotFoundError:
        raise ScenarioError(f"run directory {path}: {file.name} is missing") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise ScenarioError(f"run directory {path}: {file.name} is damaged or truncated ({error})") from None
    if table.num_rows != rows:
        raise ScenarioError(
            f"run directory {path}: {file.name} has {table.num_rows} rows, the manifest says {rows!r}"
        )
    return {column: _values(table[column]) for column in table.column_names}


def _values(column: Any) -> np.ndarray:
    """A Parquet column as NumPy has it in a record: text as fixed-width strings."""
    values = column.to_numpy()
    return values.astype(str) if values.dtype == object else np.array(values)
