"""A corpus as a table: a CSV or Parquet file that names the photos of each pair.

Columns `noisy` and `clean` are URIs, or paths relative to the table's folder; `scene`, `camera`,
`iso`, `shutter`, `brightness` and `split` are optional. Without `scene` each clean photo is a
scene.
"""

import io
import logging
import re
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from degrain.errors import UserError
from degrain.storage.location import Location

TABLE_SUFFIXES = (".csv", ".parquet")
_OPTIONAL = ("camera", "shutter", "brightness", "split")
_KNOWN = frozenset(("noisy", "clean", "scene", "iso", *_OPTIONAL))
# pandas turns integers into floats if some are missing.
_ISO = re.compile(r"(?:iso)?\s*(\d+)(?:\.0*)?", re.IGNORECASE)
_log = logging.getLogger(__name__)


def read_pair_table(place: Location) -> list[dict[str, Any]]:
    """The rows of a table as the fields of pairs. Raises UserError for a missing file, column or
    value.
    """
    try:
        content = place.read_bytes()
    except OSError:
        raise UserError(f"there is no table '{place}'; check the path of the corpus") from None
    try:
        if place.path.lower().endswith(".csv"):
            # All columns are text: a scene named 007 is not the number 7.
            names = (
                content.split(b"\n", 1)[0].decode("utf-8-sig").strip().replace('"', "").split(",")
            )
            kinds = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            )
            table = pyarrow.csv.read_csv(io.BytesIO(content), convert_options=kinds)
        else:
            table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"cannot read table '{place}': {str(error).splitlines()[0]}") from None
    if missing := [c for c in ("noisy", "clean") if c not in table.column_names]:
        raise UserError(
            f"table '{place}' has no column '{missing[0]}'; it has {', '.join(table.column_names)}"
            f"{'; separate columns by commas' if ';' in table.column_names[0] else ''}"
        )
    if unknown := [name for name in table.column_names if name not in _KNOWN]:
        _log.warning(
            "table '%s': columns that are not read: %s; known are %s",
            *(place, ", ".join(unknown), ", ".join(sorted(_KNOWN))),
        )
    if not table.num_rows:
        raise UserError(f"table '{place}' has no rows; name a pair in each")
    return [_pair(row, number, place) for number, row in enumerate(table.to_pylist(), 1)]


def _pair(row: dict[str, Any], number: int, place: Location) -> dict[str, Any]:
    row = {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}
    if not row["noisy"] or not row["clean"]:
        raise UserError(
            f"row {number} of table '{place}' names no {'clean' if row['noisy'] else 'noisy'} "
            "photo; fill it in"
        )
    folder = Location(place.uri.rpartition("/")[0], place.storage)
    noisy, clean = (
        str(uri if _absolute(uri) else folder / uri)
        for uri in (str(row["noisy"]), str(row["clean"]))
    )
    if noisy == clean:
        raise UserError(
            f"row {number} of table '{place}' names one file, '{row['noisy']}', as noisy and clean "
            "photo; name two, or give noisy photos without clean ones as a corpus `noisy`"
        )
    iso, split = row.get("iso"), row.get("split")
    if split not in (None, "", "train", "val", "test"):
        raise UserError(
            f"row {number} of table '{place}' has split '{split}'; known: train, val, test"
        )
    return {
        "id": f"pairs/{row['noisy']}",
        "scene": f"pairs/{row.get('scene') or row['clean']}",
        "noisy": noisy,
        "clean": clean,
        "iso": int(whole[1]) if (whole := _ISO.fullmatch(str(iso))) else None,
        **{name: str(row[name]) for name in _OPTIONAL if row.get(name)},
    }


def _absolute(uri: str) -> bool:
    return uri.startswith("/") or "://" in uri
