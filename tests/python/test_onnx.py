"""Exported classifiers in another runtime: the same probabilities and classes as `subspan predict`."""

import numpy as np
import onnxruntime
import pytest

#: Single-precision probabilities of two implementations.
TOLERANCE = 1e-5


@pytest.mark.parametrize("flags", [[], ["--center"], ["--method", "linear"], ["--method", "clafic", "-k", "3"]])
def test_an_exported_graph_agrees_with_predict(cli, flags):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 60)
    x = (rng.normal(size=(4, 12))[labels] + rng.normal(size=(240, 12))).astype(np.float32)
    cli.npy("x.npy", x)
    cli.npy("y.npy", labels)
    cli.json("classify", "x.npy", "--labels", "y.npy", *flags, "--no-rivals", "--onnx", "m.onnx", "-o", "m.safetensors")
    # A zero row has no direction: every class is as likely.
    new = np.vstack([rng.normal(size=(50, 12)), np.zeros((1, 12))]).astype(np.float32)
    cli.npy("new.npy", new)
    cli.json("predict", "m.safetensors", "new.npy", "-o", "labels.npy", "--proba", "proba.npy")

    session = onnxruntime.InferenceSession(str(cli.folder / "m.onnx"), providers=["CPUExecutionProvider"])
    probabilities, classes = session.run(["probabilities", "label"], {"samples": new})
    expected = np.load(cli.folder / "proba.npy")
    assert np.abs(probabilities - expected).max() <= TOLERANCE
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * TOLERANCE
    assert (classes == np.load(cli.folder / "labels.npy"))[clear].all() and clear.sum() >= 45
