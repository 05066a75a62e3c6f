"""Reading of row ids."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.storage.store import FileEntry, Store


def read_ids(store: Store, entries: Iterable[FileEntry], rows: pc.Expression | None) -> pa.Array:
    """Return the ids of the rows in these files that match the filter (None: all), in no particular order."""
    columns = [store.read_table(entry, ["row_id"], rows)["row_id"] for entry in entries]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.concat_arrays([pa.array([], pa.string()), *chunks])
