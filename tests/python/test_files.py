"""Files that other programs write, read by us; files that we write, read by pyarrow."""

import csv
import datetime
import gzip

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

N_ROWS = 600


def numbers(seed=0, n_cols=4):
    return np.random.default_rng(seed).standard_normal((N_ROWS, n_cols))


def mixed_table():
    """One column of each kind that tables hold."""
    rng = np.random.default_rng(1)
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=int(k)) for k in rng.integers(0, 300, N_ROWS)]
    times = [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=int(k))
             for k in rng.integers(0, 10**7, N_ROWS)]
    return pa.table({
        "f64": rng.standard_normal(N_ROWS),
        "f32": rng.standard_normal(N_ROWS).astype(np.float32),
        "i64": rng.integers(-10**12, 10**12, N_ROWS),
        "i8": rng.integers(-100, 100, N_ROWS).astype(np.int8),
        "u16": rng.integers(0, 60000, N_ROWS).astype(np.uint16),
        "flag": rng.random(N_ROWS) < 0.3,
        "text": pa.array(rng.choice(["red", "green, dark", 'blue "sky"'], N_ROWS)),
        "level": pa.array(rng.choice(["low", "high"], N_ROWS)).dictionary_encode(),
        "day": pa.array(days, pa.date32()),
        "time": pa.array(times, pa.timestamp("us", tz="UTC")),
        "empty": pa.array([None if k % 7 == 0 else float(k) for k in range(N_ROWS)], pa.float64()),
    })


def plain(column):
    """A column with dictionaries replaced by their values."""
    column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def write_feather(table, path):
    feather.write_feather(table, path, compression="uncompressed")


@pytest.mark.parametrize("name, write", [
    ("t.parquet", lambda table, path: pq.write_table(table, path, row_group_size=170)),
    ("t.arrow", write_feather),
    ("t.feather", write_feather),
])
def test_a_sample_keeps_every_column_with_its_type(cli, name, write):
    table = mixed_table()
    write(table, cli.folder / name)
    drawn = cli.sample(name, "--rows", 60, "--columns", "f64,f32,i8")
    assert drawn.table.schema.field("row_id").type == pa.uint64()
    assert drawn.table.schema.field("probability").type == pa.float64()
    assert drawn.table.schema.field("weight").type == pa.float64()
    assert drawn.table.column_names[3:] == table.column_names
    expected = table.take(drawn["row_id"])
    for column in table.column_names:
        ours, theirs = plain(drawn.table.column(column)), plain(expected.column(column))
        assert ours.type == theirs.type, column
        assert ours.to_pylist() == theirs.to_pylist(), column


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4"])
def test_parquet_of_every_compression_gives_one_sample(cli, compression):
    a = numbers()
    table = pa.table({f"c{j}": a[:, j] for j in range(4)})
    pq.write_table(table, cli.folder / "t.parquet", compression=compression, row_group_size=100)
    drawn = cli.sample("t.parquet", "--rows", 80)
    expected = cli.sample(cli.npy("t.npy", a), "--rows", 80)
    assert drawn["row_id"].tolist() == expected["row_id"].tolist()
    np.testing.assert_allclose(drawn["weight"], expected["weight"], rtol=1e-12)


def test_a_directory_of_files_is_one_table(cli):
    a = numbers(2)
    (cli.folder / "parts").mkdir()
    for k, part in enumerate(np.array_split(a, 3)):
        table = pa.table({f"c{j}": part[:, j] for j in range(4)})
        pq.write_table(table, cli.folder / "parts" / f"part-{k}.parquet")
    expected = cli.sample(cli.npy("t.npy", a), "--rows", 80)
    for name in ["parts", "parts/*.parquet"]:
        drawn = cli.sample(name, "--rows", 80)
        assert drawn["row_id"].tolist() == expected["row_id"].tolist()
        np.testing.assert_array_equal(drawn.matrix(4), a[drawn["row_id"]])


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", "u1", "i1", "<i2", ">i2", "<i4", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_every_number_type_and_order_is_read_or_refused_clearly(cli, dtype, order):
    lowest = 0 if np.dtype(dtype).kind == "u" else -100
    values = np.clip((numbers(3) * 40).round(), lowest, 100)
    np.save(cli.folder / "t.npy", np.array(values, dtype=dtype, order=order))
    done = cli.run("sample", "t.npy", "--rows", 80, "-o", "sample.parquet")
    if done.returncode == 0:
        table = pq.read_table(cli.folder / "sample.parquet")
        picked = table.column("row_id").to_numpy()
        read = np.column_stack([table.column(f"c{j}").to_numpy() for j in range(4)])
        np.testing.assert_array_equal(read.astype(float), values[picked])
        np.save(cli.folder / "plain.npy", values)
        assert picked.tolist() == cli.sample("plain.npy", "--rows", 80)["row_id"].tolist()
    else:
        # Only a foreign byte order may be refused, and in one line that says so.
        assert dtype.startswith(">"), done.stderr
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "endian" in done.stderr


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_inside_npz_is_the_array(cli, save):
    a = numbers(4)
    save(cli.folder / "t.npz", other=np.arange(3), table=np.asfortranarray(a))
    drawn = cli.sample("t.npz:table", "--rows", 80)
    np.testing.assert_array_equal(drawn.matrix(4), a[drawn["row_id"]])
    assert drawn["row_id"].tolist() == cli.sample(cli.npy("t.npy", a), "--rows", 80)["row_id"].tolist()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_csv_quoting(cli, quoting, name):
    table = mixed_table().select(["f64", "i64", "text"])
    opener = gzip.open if name.endswith(".gz") else open
    with opener(cli.folder / name, "wt", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator="\n")
        writer.writerow(["f64", "a name, quoted", "text"])
        writer.writerows(zip(*(table.column(c).to_pylist() for c in table.column_names)))
    drawn = cli.sample(name, "--rows", 60, "--columns", "f64,text")
    ids = drawn["row_id"]
    np.testing.assert_array_equal(drawn["f64"], table.column("f64").to_numpy()[ids])
    assert drawn.table.column("a name, quoted").to_pylist() == table.column("i64").take(ids).to_pylist()
    assert drawn.table.column("text").to_pylist() == table.column("text").take(ids).to_pylist()


@pytest.mark.parametrize("intercept", [True, False])
def test_text_columns_are_one_hot(cli, intercept):
    """First level dropped with an intercept, kept without one."""
    table = mixed_table().select(["f64", "f32", "text", "level"])
    rng = np.random.default_rng(5)
    y = rng.standard_normal(N_ROWS) + 3 * (np.array(table.column("text").to_pylist()) == "red")
    pq.write_table(table.select(["f64", "text"]).append_column("y", pa.array(y)), cli.folder / "t.parquet")
    model = cli.regress("t.parquet", "y", "--loss", "l2", "--full", *([] if intercept else ["--no-intercept"]))
    text = np.array(table.column("text").to_pylist())
    levels = sorted(set(text))[1 if intercept else 0:]
    design = [table.column("f64").to_numpy(), *((text == level).astype(float) for level in levels)]
    names = ["f64", *(f"text={level}" for level in levels)]
    if intercept:
        design.append(np.ones(N_ROWS))
    expected = np.linalg.lstsq(np.column_stack(design), y)[0]
    assert list(model["coefficients"]) == names
    np.testing.assert_allclose(list(model["coefficients"].values()), expected[: len(names)], rtol=1e-8)
    assert model["intercept"] == pytest.approx(expected[-1] if intercept else 0, rel=1e-8)


def test_missing_values_are_an_error_or_dropped(cli):
    table = mixed_table().select(["f64", "empty"])
    pq.write_table(table, cli.folder / "t.parquet")
    done = cli.run("sample", "t.parquet", "--rows", 60, "-o", "s.parquet")
    assert done.returncode == 1 and "empty" in done.stderr and "row 0" in done.stderr and "hint: " in done.stderr
    assert not (cli.folder / "s.parquet").exists()
    drawn = cli.sample("t.parquet", "--rows", 60, "--missing", "drop")
    ids = drawn["row_id"]
    assert np.all(ids % 7 != 0)
    np.testing.assert_array_equal(drawn["empty"], ids.astype(float))
