"""Checkpoints: planted permutations are undone, merging keeps the function, analysis sees the barrier."""

import numpy as np
import pytest

import subspan


def mlp(seed, widths=(6, 24, 20, 3), dtype=np.float32):
    rng = np.random.default_rng(seed)
    model = {}
    for i, (n_in, n_out) in enumerate(zip(widths, widths[1:])):
        model[f"{2 * i}.weight"] = (rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(dtype)
        model[f"{2 * i}.bias"] = (0.1 * rng.standard_normal(n_out)).astype(dtype)
    return model


def forward(model, x):
    x = np.asarray(x, np.float64)
    for i in (0, 2, 4):
        x = x @ np.asarray(model[f"{i}.weight"], np.float64).T + np.asarray(model[f"{i}.bias"], np.float64)
        x = np.maximum(x, 0) if i < 4 else x
    return x


def shuffled(model, seed=7):
    """The same function with its hidden units in another order."""
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(24), rng.permutation(20)
    return {
        "0.weight": model["0.weight"][p], "0.bias": model["0.bias"][p],
        "2.weight": model["2.weight"][q][:, p], "2.bias": model["2.bias"][q],
        "4.weight": model["4.weight"][:, q], "4.bias": model["4.bias"],
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_planted_order_is_undone_bit_for_bit(dtype):
    a = mlp(0, dtype=dtype)
    found = subspan.match(a, shuffled(a))
    assert list(found.aligned) == list(a)
    for name in a:
        assert found.aligned[name].dtype == dtype
        assert np.array_equal(found.aligned[name], a[name])
    assert found.summary["distance_after"] == 0 < found.summary["distance_before"]
    assert found.summary["certified"] and sorted(len(p) for p in found.permutations.values()) == [20, 24]


def test_an_aligned_model_computes_what_it_computed():
    a, b = mlp(0), mlp(1)
    found = subspan.match(a, b)
    x = np.random.default_rng(2).standard_normal((50, 6))
    np.testing.assert_allclose(forward(found.aligned, x), forward(b, x), rtol=1e-12)
    assert found.summary["distance_after"] < found.summary["distance_before"]


def test_merging_orders_of_one_model_gives_the_model():
    a = mlp(0)
    three = [a, shuffled(a, 1), shuffled(a, 2)]
    merged = subspan.merge(three)
    for name in a:
        np.testing.assert_allclose(merged.model[name], a[name], atol=1e-6)
    assert len(merged.permutations) == 2
    plain = subspan.merge(three, match=False)
    np.testing.assert_allclose(plain.model["0.bias"], np.mean([m["0.bias"] for m in three], axis=0), atol=1e-6)
    heavy = subspan.merge(three, weights=[2, 0, 0], match=False)
    assert all(np.array_equal(heavy.model[name], a[name]) for name in a)


def test_analysis_measures_the_barrier_with_any_loss():
    a = mlp(0)
    x = np.random.default_rng(2).standard_normal((200, 6))
    y = forward(a, x)
    seen = subspan.analyze(a, shuffled(a), lambda model: np.mean((forward(model, x) - y) ** 2), points=5)
    assert seen.barrier["before"] > 0.01 > seen.barrier["after"] >= 0
    assert [point["alpha"] for point in seen.curve] == [0, 0.25, 0.5, 0.75, 1]
    assert seen.summary["alignment"]["after"] > seen.summary["alignment"]["before"]
    assert subspan.analyze(a, shuffled(a)).curve == []


def test_state_dicts_and_files_are_models_too(tmp_path):
    torch = pytest.importorskip("torch")
    a = {name: torch.from_numpy(value) for name, value in mlp(0).items()}
    b = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in shuffled(mlp(0)).items()}
    a["steps"], b["steps"] = torch.tensor(7), torch.tensor(9)
    found = subspan.match(a, b)
    assert all(torch.equal(found.aligned[name], a[name]) for name in a if name != "steps")
    assert found.aligned["steps"] == 9
    half = {name: value.to(torch.bfloat16) for name, value in b.items()}
    assert subspan.merge([half, half]).model["0.weight"].dtype == torch.bfloat16


def write_safetensors(path, model):
    import json

    header, data = {}, b""
    for name, value in model.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [len(data), len(data) + value.nbytes]}
        data += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_path_is_a_model(tmp_path):
    a = mlp(0)
    write_safetensors(tmp_path / "a.safetensors", a)
    write_safetensors(tmp_path / "b.safetensors", shuffled(a))
    found = subspan.match(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert all(np.array_equal(found.aligned[name], a[name]) for name in a)


def test_models_that_do_not_fit_are_told_apart(tmp_path):
    a = mlp(0)
    nan = {**a, "0.bias": np.full(24, np.nan, np.float32)}
    less = {name: value for name, value in a.items() if name != "2.bias"}
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    for call, error, words in [
        (lambda: subspan.match(a, mlp(0, (6, 25, 20, 3))), ValueError, "0.bias|0.weight"),
        (lambda: subspan.match(a, less), ValueError, "2.bias"),
        (lambda: subspan.match(a, nan), ValueError, "0.bias"),
        (lambda: subspan.match({"x": np.ones(3)}, {"x": np.ones(3)}), ValueError, ""),
        (lambda: subspan.match(a, {}), ValueError, "no tensors"),
        (lambda: subspan.match(a, 3), ValueError, "state_dict"),
        (lambda: subspan.match(a, {**a, "0.bias": a["0.bias"].astype(">f4")}), ValueError, "byte order"),
        (lambda: subspan.match(a, {**a, "0.bias": a["0.bias"].astype(complex)}), ValueError, "not supported"),
        (lambda: subspan.match(tmp_path / "no.safetensors", a), FileNotFoundError, "no.safetensors"),
        (lambda: subspan.match(tmp_path / "x.safetensors", a), ValueError, "x.safetensors"),
        (lambda: subspan.merge([a]), ValueError, "at least 2 models"),
        (lambda: subspan.merge([a, a], weights=[1]), ValueError, "1 weights for 2 models"),
        (lambda: subspan.merge([a, a], weights=[1, -1]), ValueError, "positive sum"),
        (lambda: subspan.analyze(a, a, points=1), ValueError, "points"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_merging_and_matching_are_the_commands(command, tmp_path):
    from subspan._merge import _read

    a, b = mlp(0), mlp(1)
    write_safetensors(tmp_path / "a.safetensors", a)
    write_safetensors(tmp_path / "b.safetensors", b)
    command("merge", "a.safetensors", "b.safetensors", "-o", "m.safetensors")
    record = command("match", "a.safetensors", "b.safetensors", "-o", "out")
    merged, matched = subspan.merge([a, b]), subspan.match(a, b)
    theirs, aligned = _read(tmp_path / "m.safetensors"), _read(tmp_path / "out" / "b.safetensors")
    for name in a:
        assert np.array_equal(merged.model[name], theirs[name])
        assert np.array_equal(matched.aligned[name], aligned[name])
    assert matched.summary["distance_after"] == record["results"]["distance_after"]
