"""The wheel and the command line are one program: equal seeds give equal bits."""

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import COMMAND, blobs_of_lines, heavy_table

import subspan

N_ROWS = 70_000  # more than one chunk


def read_sample(path):
    table = pq.read_table(path)
    return [table.column(name).to_numpy() for name in ("row_id", "weight", "probability")]


@pytest.mark.parametrize("p, rule, draw", [
    (2, "auto", "poisson"), (1, "auto", "poisson"), (1.5, "lewis", "priority"), (4, "auto", "poisson"),
    (2, "uniform", "systematic"),
])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_samples_of_arrays_and_files_are_those_of_the_command(command, tmp_path, p, rule, draw, dtype):
    a = heavy_table(N_ROWS, 4, seed=3, dtype=dtype)
    np.save(tmp_path / "a.npy", a)
    arguments = ["--rows", 300, "-p", p, "--rule", rule, "--draw", draw, "--seed", 11, "-o", "s.parquet"]
    record = command("sample", "a.npy", *arguments)
    ids, weights, probabilities = read_sample(tmp_path / "s.parquet")
    settings = dict(n_rows=300, p=p, rule=rule, draw=draw, random_state=11)
    fitted = subspan.RowSampler(**settings).fit(np.asfortranarray(a))
    for drawn in (subspan.sample(tmp_path / "a.npy", **settings), subspan.sample(a, **settings), fitted):
        assert np.array_equal(drawn.indices_, ids)
        assert np.array_equal(drawn.weights_, weights)
        assert np.array_equal(drawn.probabilities_, probabilities)
        assert drawn.certificate_._asdict() == record["results"]["certificate"]
        assert drawn.summary_["score_sum"] == record["results"]["score_sum"]


def test_a_sample_is_written_byte_for_byte_as_by_the_command(command, tmp_path):
    np.save(tmp_path / "a.npy", heavy_table(3000, 3))
    command("sample", "a.npy", "--rows", 200, "-o", "theirs.parquet")
    drawn = subspan.sample(tmp_path / "a.npy", 200, output=tmp_path / "ours.parquet")
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "theirs.parquet").read_bytes()
    assert drawn.rows_.shape == (len(drawn), 3) and drawn.columns_ == ["c0", "c1", "c2"]


@pytest.mark.parametrize("settings, flags", [
    (dict(n_rows=300), ["--rows", 300]),
    (dict(loss="quantile", quantile=[0.2, 0.8], n_rows=300, exclude=["c1"]),
     ["--loss", "quantile", "--quantile", "0.2,0.8", "--rows", 300, "--exclude", "c1"]),
    (dict(loss="l2", fit_intercept=False), ["--loss", "l2", "--full", "--no-intercept"]),
    (dict(exact=True), ["--exact"]),
])
def test_fits_of_files_are_those_of_the_command(command, tmp_path, settings, flags):
    import pyarrow as pa

    a = heavy_table(5000, 4, seed=4)
    columns = {f"c{j}": a[:, j] for j in range(3)} | {"kind": np.where(a[:, 0] > 0, "up", "down"), "y": a.sum(axis=1)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1000)
    command("regress", "t.parquet", "--target", "y", "--seed", 7, *flags, "-o", "m.json")
    theirs = json.loads((tmp_path / "m.json").read_text())
    model = subspan.regress(tmp_path / "t.parquet", "y", random_state=7, **settings)
    fits = theirs.get("fits", [theirs])
    names = list(model.feature_names_in_)
    for fit, coef, intercept, objective in zip(
        fits, np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_), np.atleast_1d(model.objective_), strict=True
    ):
        assert fit["coefficients"] == dict(zip(names, coef, strict=True))
        assert fit["intercept"] == intercept and fit["objective"] == objective
    assert model.rows_used_ == fits[0]["rows_used"]
    assert len(names) == model.n_features_in_
    assert np.isfinite(model.predict(np.ones((2, len(names))))).all()


@pytest.mark.parametrize("settings, flags", [
    (dict(loss="l1"), ["--full"]),
    (dict(loss="l1", exact=True), ["--exact"]),
    (dict(loss="l1", n_rows=500), ["--rows", 500]),
    (dict(loss="huber", delta=1.5, n_rows=500, fit_intercept=False), ["--delta", 1.5, "--rows", 500, "--no-intercept"]),
    (dict(loss="lp", p=3), ["-p", 3, "--full"]),
    (dict(loss="quantile", quantile=[0.1, 0.9], n_rows=500), ["--quantile", "0.1,0.9", "--rows", 500]),
])
def test_fits_are_those_of_the_command(command, tmp_path, settings, flags):
    a = heavy_table(N_ROWS, 4, seed=4)
    y = a @ [1, -2, 0.5, 0] + 3 + np.random.default_rng(1).standard_t(2, N_ROWS)
    np.save(tmp_path / "t.npy", np.column_stack([a, y]))
    command("regress", "t.npy", "--target", "c4", "--loss", settings["loss"], *flags, "--seed", 5, "-o", "m.json")
    model = json.loads((tmp_path / "m.json").read_text())
    ours = subspan.LpRegressor(random_state=5, **settings).fit(a, y)
    fits = model.get("fits", [model])
    assert np.array_equal(np.atleast_2d(ours.coef_), [[f["coefficients"][f"c{j}"] for j in range(4)] for f in fits])
    assert np.array_equal(np.atleast_1d(ours.intercept_), [f["intercept"] for f in fits])
    assert np.array_equal(np.atleast_1d(ours.objective_), [f["objective"] for f in fits])
    gaps = ours.relative_gap_ if isinstance(ours.relative_gap_, list) else [ours.relative_gap_]
    assert gaps == [f["relative_gap"] for f in fits] and ours.rows_used_ == fits[0]["rows_used"]


@pytest.mark.parametrize("k, method", [(2, "gcr"), ("auto", "gcr"), (2, "clafic"), (None, "linear")])
def test_classifiers_are_those_of_the_command(command, tmp_path, k, method):
    x, y = blobs_of_lines(600)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    dimension = {} if k is None else {"k": k}
    arguments = ["--method", method, "--no-rivals", "--seed", 2, "-o", "m.safetensors"]
    command("classify", "x.npy", "--labels", "y.npy", *(["-k", k] if dimension else []), *arguments)
    command("predict", "m.safetensors", "x.npy", "-o", "c.npy", "--proba", "p.npy", "--ood", "o.npy")
    ours = subspan.GrassmannClassifier(method=method, random_state=2, **dimension).fit(np.asfortranarray(x), y)
    theirs = subspan.GrassmannClassifier.load(tmp_path / "m.safetensors")
    ours.save(tmp_path / "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    for model in (ours, theirs, pickle.loads(pickle.dumps(ours))):
        assert np.array_equal(model.predict(x), np.load(tmp_path / "c.npy"))
        assert np.array_equal(model.predict_proba(x), np.load(tmp_path / "p.npy"))
        assert np.array_equal(model.ood_score(x), np.load(tmp_path / "o.npy"))


@pytest.mark.parametrize(
    "flags, settings",
    [
        (["--clusters", "4"], dict(n_clusters=4)),
        (["--clusters", "auto"], dict(n_clusters=None)),
        (["--clusters", "4", "--unequal"], dict(n_clusters=4, unequal=True)),
    ],
)
def test_clusterings_are_those_of_the_command(command, tmp_path, flags, settings):
    x, _ = blobs_of_lines(240)
    np.save(tmp_path / "x.npy", x)
    record = command("cluster", "x.npy", *flags, "--seed", 2, "-o", "out")
    command("predict", "out/model.safetensors", "x.npy", "-o", "labels.npy")
    ours = subspan.ManifoldClustering(random_state=2, **settings).fit(np.asfortranarray(x))
    ours.save(tmp_path / "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()
    assert np.array_equal(ours.labels_, np.load(tmp_path / "out/labels.npy"))
    assert np.array_equal(ours.confidence_, np.load(tmp_path / "out/confidence.npy"))
    assert np.array_equal(ours.representation_, np.load(tmp_path / "out/representation.npy"))
    assert ours.n_clusters_ == record["results"]["clusters"] == len(ours.subspaces_)
    for model in (ours, pickle.loads(pickle.dumps(ours))):
        assert np.array_equal(model.predict(x), np.load(tmp_path / "labels.npy"))
        assert np.array_equal(model.transform(x), ours.representation_)


@pytest.mark.parametrize("turned", [False, True])
def test_features_of_images_are_those_of_the_command(command, tmp_path, turned):
    # Bars that lie and bars that stand, at different places.
    images = np.zeros((60, 12, 12), np.uint8)
    for i, image in enumerate(images):
        stripe = image if i % 2 else image.T
        stripe[2 + i % 7] = 200
        image += np.random.default_rng(i).integers(0, 30, image.shape, np.uint8)
    np.save(tmp_path / "x.npy", images)
    flags = ["--features", "scattering-turned" if turned else "scattering"]
    command("cluster", "x.npy", "--clusters", "2", *flags, "--seed", 2, "-o", "out")
    features = subspan.scattering(images, turned=turned)
    ours = subspan.ManifoldClustering(2, random_state=2).fit(features)
    assert np.array_equal(ours.labels_, np.load(tmp_path / "out/labels.npy"))
    assert np.array_equal(ours.representation_, np.load(tmp_path / "out/representation.npy"))
    assert np.array_equal(features, subspan.scattering(images.astype(np.float64), turned=turned, n_threads=1))


def test_images_that_cannot_be_scattered_are_refused():
    with pytest.raises(ValueError, match="n_images x height x width"):
        subspan.scattering(np.zeros((3, 64)))
    with pytest.raises(ValueError, match="8 to 256"):
        subspan.scattering(np.zeros((3, 4, 16)))


def test_a_trained_model_of_the_command_represents_and_labels_its_rows(command, tmp_path):
    x, _ = blobs_of_lines(240)
    np.save(tmp_path / "x.npy", x)
    command("cluster", "x.npy", "--clusters", "4", "--method", "mlc", "-o", "out")
    ours = subspan.ManifoldClustering(4, method="mlc").fit(x)
    assert isinstance(ours.summary_["learned"]["kept"], bool)
    assert np.array_equal(ours.labels_, np.load(tmp_path / "out/labels.npy"))
    assert np.array_equal(ours.representation_, np.load(tmp_path / "out/representation.npy"))
    model = subspan.ManifoldClustering.load(tmp_path / "out/trained-model.safetensors")
    assert np.array_equal(model.predict(x), np.load(tmp_path / "out/trained-labels.npy"))
    z = np.load(tmp_path / "out/trained-representation.npy")
    assert np.array_equal(model.transform(x), z)
    # Linear: rows of different clusters are nearly orthogonal, those of one are not.
    labels = model.predict(x)
    cosines, same = np.abs(z @ z.T), labels[:, None] == labels[None]
    np.fill_diagonal(same, False)
    assert cosines[~same & ~np.eye(len(z), dtype=bool)].mean() < 0.1 < cosines[same].mean()


def test_columns_that_single_precision_does_not_tell_are_refused():
    x, _ = blobs_of_lines(60)
    x = x.astype(np.float64)
    x[:, 1] += 1e9
    with pytest.raises(ValueError, match="column 1 goes from .*single precision") as e:
        subspan.ManifoldClustering(2).fit(x)
    assert any("subtract an offset" in note for note in e.value.__notes__)
    x[:, 1] = 1e9
    assert subspan.ManifoldClustering(2).fit(x).n_clusters_ == 2


def test_class_angles_are_principal_angles():
    x, y = blobs_of_lines(400)
    model = subspan.GrassmannClassifier(k=2).fit(x, y)
    angles = model.class_angles()
    rows, offsets = model.model_.frames()
    cosines = np.linalg.svd(rows[:2] @ rows[2:4].T, compute_uv=False)
    assert angles.shape == (4, 4, 2) and offsets == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(np.cos(angles[0, 1]), cosines, atol=1e-6)
    np.testing.assert_allclose(angles[2, 2], 0, atol=1e-6)


def test_errors_have_the_commands_text(tmp_path):
    import subprocess

    def told(*arguments):
        done = subprocess.run([COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode != 0
        return done.stderr.splitlines()[0].removeprefix("error: ")

    missing = str(tmp_path / "nothing.npy")
    with pytest.raises(FileNotFoundError) as raised:
        subspan.sample(missing, 10)
    assert str(raised.value) == told("sample", missing, "--rows", "10", "-o", "o.parquet")
    with pytest.raises(OSError, match="cannot write"):
        np.save(tmp_path / "a.npy", heavy_table(100, 2))
        subspan.sample(tmp_path / "a.npy", 10, output=tmp_path / "no" / "o.parquet")
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError) as raised:
        subspan.sample(tmp_path / "bad.npy", 10)
    bad = str(tmp_path / "bad.npy")
    assert str(raised.value) == told("sample", bad, "--rows", "10", "-o", "o.parquet")


def test_the_command_is_the_program():
    import subprocess

    version = subprocess.run([COMMAND, "--version"], capture_output=True, text=True)
    assert version.stdout.split() == ["subspan", subspan.__version__]
    usage = subprocess.run([COMMAND, "sample"], capture_output=True, text=True)
    assert usage.returncode == 2 and usage.stderr.startswith("error: ")
