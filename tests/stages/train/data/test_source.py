import numpy as np
import pyarrow as pa
import pytest

from multicsr.errors import RunError
from multicsr.execution.row_stream import rows_in_order
from multicsr.stages.train.data import source
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.data.source import OwnRows, from_files, from_table
from multicsr.storage.manifest import Manifest, now
from multicsr.storage.store import Store

OBJECTIVE = "masked_infonce"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def index(triplets):
    return join_index([digest_rows(triplets, OBJECTIVE)])


def artifact(store, *parts: pa.Table) -> Manifest:
    """A curated room with a file for each part, of which some may be empty."""
    entries = [store.write_table(f"curated/abc/rows/{n}.parquet", part) for n, part in enumerate(parts)]
    num_rows = sum(part.num_rows for part in parts)
    return Manifest(
        stage="curate",
        run="test",
        fingerprint="abc",
        code_version="test",
        settings={},
        created=now(),
        seconds=0,
        rows_in=num_rows,
        rows_out=num_rows,
        rejected={},
        rows_digest="",
        files=entries,
        reject_files=[],
        counters={},
    )


def epochs_of(num_epochs: int, sizes: list[int], num_rows: int = 96) -> list[list[np.ndarray]]:
    draw = np.random.default_rng(0)
    orders = [draw.permutation(num_rows)[: sum(sizes)] for _ in range(num_epochs)]
    return [np.split(order, np.cumsum(sizes)[:-1]) for order in orders]


def planned(triplets, epochs) -> list[OwnRows]:
    """The batches of `epochs`, looked up one row at a time."""
    rows = [
        [[triplets.slice(int(row), 1).to_pylist()[0] for row in batch] for batch in batches]
        for batches in epochs
    ]
    columns = ("text", "entailment", "contradiction")
    return [
        OwnRows([row["row_id"] for row in batch], [[row[column] for row in batch] for column in columns])
        for batches in rows
        for batch in batches
    ]


def test_a_table_gives_the_planned_rows_in_order(triplets, index):
    epochs = epochs_of(2, [7, 23, 1, 49])
    assert [*from_table(triplets, index, OBJECTIVE)(epochs)] == planned(triplets, epochs)


def test_rows_that_were_left_out_do_not_shift_the_others(triplets):
    rows = triplets.to_pylist()
    rows[3]["contradiction"] = rows[3]["text"]
    table = pa.Table.from_pylist(rows)
    index = join_index([digest_rows(table, OBJECTIVE)])
    (batch,) = from_table(table, index, OBJECTIVE)([[np.array([2, 3])]])
    assert batch.row_ids == ["row2", "row4"]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("num_epochs", "rows_per_window"), [(1, 1_000_000), (3, 1_000_000), (2, 100), (2, 10)]
)
def test_files_give_exactly_what_the_table_gives(
    num_epochs, rows_per_window, triplets, index, store, monkeypatch
):
    """Rows lie in files in another order than they are numbered in, one file has none of them."""
    monkeypatch.setattr(source, "_ROWS_PER_WINDOW", rows_per_window)
    parts = [triplets.slice(60), triplets.slice(0, 0), triplets.slice(0, 11), triplets.slice(11, 49)]
    epochs = epochs_of(num_epochs, [7, 23, 1, 49])
    batches = [*from_files(store, artifact(store, *parts).files, index, OBJECTIVE)(epochs)]
    assert batches == planned(triplets, epochs)


@pytest.mark.parametrize(
    ("rows_per_window", "expected"), [(1_000_000, [4, 4]), (100, [2] * 4), (10, [1] * 8)]
)
def test_a_window_holds_a_part_of_one_epoch(rows_per_window, expected, triplets, index, store, monkeypatch):
    """The next is read while one is in use, and no other."""
    monkeypatch.setattr(source, "_ROWS_PER_WINDOW", rows_per_window)
    windows = []

    def rows_in_order(paths, read, name_rows, order_P):
        windows.append(len(order_P))
        place_R = [index.row_R.tolist().index(name) for name in order_P.tolist()]
        return triplets.take(place_R)

    monkeypatch.setattr(source, "rows_in_order", rows_in_order)
    epochs = epochs_of(2, [7, 23, 1, 49])
    batches = from_files(store, artifact(store, triplets).files, index, OBJECTIVE)(epochs)
    sizes = [len(row_N) for batches in epochs for row_N in batches]
    ends = np.cumsum(expected).tolist()
    for number, batch in enumerate(batches):
        assert len(batch.row_ids) == sizes[number]
        assert len(windows) <= 2 + sum(end <= number for end in ends)
    assert windows == [sum(part) for part in np.split(np.array(sizes), ends[:-1])]


@pytest.mark.usefixtures("ray_cluster")
def test_premises_alone(triplets, store):
    index = join_index([digest_rows(triplets, "simcse_unsup")])
    epochs = epochs_of(1, [5, 4])
    batches = [*from_files(store, artifact(store, triplets).files, index, "simcse_unsup")(epochs)]
    assert batches == [OwnRows(rows.row_ids, rows.sentences[:1]) for rows in planned(triplets, epochs)]


@pytest.mark.usefixtures("ray_cluster")
def test_the_callers_settings_of_ray_data_stay(triplets, index, store):
    from ray.data import DataContext

    before = DataContext.get_current()
    files = artifact(store, triplets).files
    assert len([*from_files(store, files, index, OBJECTIVE)(epochs_of(2, [50, 40]))]) == 4
    assert DataContext.get_current() is before


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("there", [slice(1, 96), slice(0, 95), slice(0, 1), slice(0, 0)])
def test_rows_that_are_missing_are_one_line_and_no_row_takes_their_place(there, triplets, index, store):
    """Even if it is the last row of the last batch alone."""
    curated = artifact(store, triplets.slice(there.start, there.stop - there.start))
    batches = from_files(store, curated.files, index, OBJECTIVE)([[np.arange(32), np.arange(32, 96)]])
    message = (
        f"^96 rows were planned for and {there.stop - there.start} are in the files; run the stage again$"
    )
    with pytest.raises(RunError, match=message):
        next(batches)


@pytest.mark.usefixtures("ray_cluster")
def test_a_row_in_two_files_is_rejected(triplets, index, store):
    curated = artifact(store, triplets, triplets.slice(5, 1))
    with pytest.raises(RunError, match=r"^96 rows were planned for and 97 are in the files"):
        next(from_files(store, curated.files, index, OBJECTIVE)(epochs_of(1, [96])))


@pytest.mark.usefixtures("ray_cluster")
def test_a_damaged_file_is_one_line(triplets, index, store):
    curated = artifact(store, triplets.slice(0, 50), triplets.slice(50))
    path = store.directory / curated.files[1].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=rf"{curated.files[1].path} is damaged; delete it and run") as caught:
        next(from_files(store, curated.files, index, OBJECTIVE)(epochs_of(1, [96])))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("ray_cluster")
def test_rows_come_by_name_and_strangers_do_not():
    """Names are digests: they lie anywhere in 64 bits."""
    names = np.array([2**64 - 1, 0, 2**63, 5, 2**63 - 1, 7], dtype=np.uint64)
    files = {"one": names[:4], "two": names[4:]}
    table = rows_in_order(
        [*files],
        lambda path: pa.table({"name": files[path]}),
        lambda table: table["name"].to_numpy(),
        names[[4, 0, 2, 3]],
    )
    assert table.to_pydict() == {"name": [2**63 - 1, 2**64 - 1, 2**63, 5]}
