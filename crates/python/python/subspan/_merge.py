"""Checkpoints of one architecture matched, merged and compared: state_dicts, dicts of arrays, or files."""

import json
import os
from typing import NamedTuple

import numpy as np

from . import _check, _native

# Types as safetensors files name them.
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


class Match(NamedTuple):
    """A model whose units have moved to where those of another are.

    ``aligned`` computes what the model computed; ``permutations`` holds, for each group of units that move together, where unit
    ``i`` comes from; ``summary`` the distances before and after, and whether no single group can be improved (``certified``).
    """

    aligned: dict
    permutations: dict
    summary: dict


class Merged(NamedTuple):
    """One model out of several."""

    model: dict
    permutations: list
    summary: dict


class Analysis(NamedTuple):
    """How two models are connected: ``summary`` with distances and alignment, ``curve`` with losses between them."""

    summary: dict
    curve: list
    barrier: dict
    permutations: dict


def _read(path):
    """Tensors of a .safetensors file as a dict of arrays; bfloat16 becomes float32."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > os.fstat(file.fileno()).st_size - 8:
            raise ValueError(f"{path}: no safetensors file")
        content = file.read(size)
    try:
        header = json.loads(content)
    except ValueError as e:
        raise ValueError(f"{path}: no safetensors file") from e
    data = np.memmap(path, np.uint8, "r", offset=8 + size)
    model = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        raw = data[slice(*entry["data_offsets"])]
        if entry["dtype"] == "BF16":
            model[name] = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
        elif entry["dtype"] in _TYPES:
            model[name] = np.frombuffer(raw, _TYPES[entry["dtype"]]).reshape(entry["shape"])
        else:
            raise ValueError(f"{path}: tensor {name} of type {entry['dtype']} is not supported")
    return model


def _given(model):
    """A model as the native half takes it, and what makes its tensors again."""
    if isinstance(model, (str, os.PathLike)):
        model = _read(model)
    if not hasattr(model, "items"):
        raise ValueError(f"a model is a state_dict, a dict of arrays or a path, not {type(model).__name__}")
    tensors = []
    for name, value in model.items():
        if hasattr(value, "detach"):
            tensor = value.detach().cpu().contiguous()
            kind = str(tensor.dtype).removeprefix("torch.")
            raw = tensor.reshape(-1).view(_torch().uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
        else:
            # The shape of a scalar survives this, that of ascontiguousarray does not.
            array = np.asarray(value, order="C")
            if not array.dtype.isnative:
                raise ValueError(f"tensor {name} has the other byte order ({array.dtype.str})")
            tensor, kind = array, array.dtype.name
            raw = array.reshape(-1).view(np.uint8)
        if kind not in _NAMES:
            raise ValueError(f"tensor {name} of type {kind} is not supported")
        tensors.append((str(name), _NAMES[kind], list(tensor.shape), raw))
    if not tensors:
        raise ValueError("the model has no tensors")
    return tensors, model


def _torch():
    import torch

    return torch


def _like(handed, model):
    """Tensors from the native half, of the kind, order and place of the model's own."""
    found = {name: (dtype, shape, raw) for name, dtype, shape, raw in handed}
    out = {}
    for name, value in model.items():
        dtype, shape, raw = found[str(name)]
        if hasattr(value, "detach"):
            tensor = _torch().from_numpy(raw).view(value.dtype).reshape(shape)
            out[name] = tensor.to(value.device)
        else:
            out[name] = raw.view(_TYPES[dtype]).reshape(shape)
    return out


def _spec(spec):
    """The spec's text and the graph's bytes, or `None` twice to derive one from the tensors."""
    if spec == "auto" or spec is None:
        return None, None
    if str(spec).lower().endswith(".onnx"):
        with open(spec, "rb") as file:
            return None, file.read()
    with open(spec, encoding="utf-8") as file:
        return file.read(), None


def _run(models, spec, random_state, restarts, n_threads, progress, **more):
    given = [_given(model) for model in models]
    text, graph = _spec(spec)
    found = _native.match_models(
        [tensors for tensors, _ in given],
        text,
        _check.count(restarts, "restarts"),
        _check.seed(random_state),
        progress=_check.callback(progress),
        threads=_check.count(n_threads, "n_threads"),
        graph=graph,
        **more,
    )
    return found, [model for _, model in given], json.loads(found["summary"])


def match(a, b, spec="auto", *, restarts=1, random_state=0, n_threads=None, progress=None):
    """Moves the hidden units of ``b`` to where those of ``a`` are, by their weights.

    Parameters
    ----------
    a, b : dict of arrays, state_dict or path
        Models of one architecture; a path is a ``.safetensors`` file.
    spec : str or path
        ``auto`` derives from names and shapes which axes move together; else a spec file of the command line, or an
        ``.onnx`` file whose graph tells.
    restarts : int
        Runs with different orders, of which the best is kept.
    random_state, n_threads, progress
        As of :class:`subspan.RowSampler`.

    Returns
    -------
    Match
        ``aligned`` (of the kind of ``b``), ``permutations`` and ``summary``.
    """
    found, models, summary = _run([a, b], spec, random_state, restarts, n_threads, progress)
    figures = {**summary.pop("pairs")[0], **summary, "spec": found["spec"]}
    return Match(_like(found["aligned"][0], models[1]), found["permutations"][0], figures)


def merge(models, spec="auto", *, weights=None, match=True, restarts=1, random_state=0, n_threads=None, progress=None):
    """The weighted mean of models whose units have been matched; of the kind of the first.

    Parameters
    ----------
    models : list of models
        As of :func:`match`, at least two.
    weights : list of float, optional
        Equal by default; they are made to add up to one.
    match : bool
        Whether to match the units first.
    spec, restarts, random_state, n_threads, progress
        As of :func:`match`.

    Returns
    -------
    Merged
        ``model``, ``permutations`` of all but the first, and ``summary``.
    """
    if len(models) < 2:
        raise ValueError(f"at least 2 models are needed, not {len(models)}")
    weights = [1.0] * len(models) if weights is None else [_check.number(w, "a weight") for w in weights]
    if len(weights) != len(models):
        raise ValueError(f"{len(weights)} weights for {len(models)} models")
    total = sum(weights)
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"the weights must have a positive sum, not {total}")
    weights = [w / total for w in weights]
    found, given, summary = _run(
        models, spec, random_state, restarts, n_threads, progress, weights=weights, identity=not match
    )
    return Merged(_like(found["merged"], given[0]), found["permutations"], {**summary, "spec": found["spec"]})


def analyze(a, b, loss_fn=None, spec="auto", *, points=25, gamma=0.3, random_state=0, n_threads=None, progress=None):
    """How well two models are connected before and after matching: distances, alignment of singular directions, loss barrier.

    Parameters
    ----------
    a, b, spec, random_state, n_threads, progress
        As of :func:`match`.
    loss_fn : callable, optional
        Takes a model of the kind of ``b`` (``a`` if it is a path) and returns its loss: any model, any data.
    points : int
        Models between the two whose loss is measured, ends included.
    gamma : float
        Singular directions above this part of the largest singular value count for the alignment.

    Returns
    -------
    Analysis
        ``summary``; ``curve``, a list of ``{alpha, loss, matched_loss}``; ``barrier``, the largest rise above the straight line
        between the ends, before and after; ``permutations``.
    """
    points = _check.count(points, "points")
    if points < 2:
        raise ValueError(f"points must be at least 2, not {points}")
    found, given, summary = _run(
        [a, b], spec, random_state, 1, n_threads, progress, gamma=_check.number(gamma, "gamma")
    )
    figures = {**summary.pop("pairs")[0], **summary}
    curve, barrier = [], {}
    if loss_fn is not None:
        aligned = _like(found["aligned"][0], given[1])
        for alpha in np.linspace(0, 1, points).tolist():
            losses = [float(loss_fn(_between(given[0], other, alpha))) for other in (given[1], aligned)]
            curve.append({"alpha": alpha, "loss": losses[0], "matched_loss": losses[1]})
        barrier = {"before": _barrier(curve, "loss"), "after": _barrier(curve, "matched_loss")}
    return Analysis(figures, curve, barrier, found["permutations"][0])


def _between(a, b, alpha):
    """``(1 - alpha) a + alpha b``; what is no floating number comes from ``a``."""

    def one(x, y):
        floating = x.is_floating_point() if hasattr(x, "detach") else np.asarray(x).dtype.kind == "f"
        if not floating:
            return x
        mixed = (1 - alpha) * x + alpha * y
        return mixed.to(x.dtype) if hasattr(x, "detach") else mixed.astype(np.asarray(x).dtype)

    return {name: one(value, b[name]) for name, value in a.items()}


def _barrier(curve, name):
    start, end = curve[0][name], curve[-1][name]
    return max(point[name] - (1 - point["alpha"]) * start - point["alpha"] * end for point in curve)
