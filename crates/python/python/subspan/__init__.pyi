from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, NamedTuple, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._clustering import ManifoldClustering as ManifoldClustering
from ._estimators import GrassmannClassifier as GrassmannClassifier
from ._estimators import LpRegressor as LpRegressor
from ._estimators import RowSampler as RowSampler

__version__: str

Progress = Optional[Callable[[str, int, Optional[int]], object]]
RandomState = Union[None, int, np.random.Generator, np.random.RandomState]

class Certificate(NamedTuple):
    lower: float
    upper: float
    kind: Literal["exact", "bound", "searched"]
    reference: str

class Sample:
    indices_: NDArray[np.int64]
    weights_: NDArray[np.float64]
    probabilities_: NDArray[np.float64]
    certificate_: Optional[Certificate]
    rows_: NDArray[np.float64]
    columns_: list[str]
    summary_: dict[str, Any]
    def __len__(self) -> int: ...

def leverage_scores(
    X: ArrayLike, *, n_threads: Optional[int] = None, progress: Progress = None
) -> NDArray[np.float64]: ...
def lewis_weights(
    X: ArrayLike, p: float, *, n_threads: Optional[int] = None, progress: Progress = None
) -> NDArray[np.float64]: ...
def sensitivities(
    X: ArrayLike, p: float, *, n_threads: Optional[int] = None, progress: Progress = None
) -> NDArray[np.float64]: ...
def scattering(images: ArrayLike, *, turned: bool = False, n_threads: Optional[int] = None) -> NDArray[np.float32]: ...
def sample(
    table: Union[str, PathLike[str], ArrayLike],
    n_rows: Optional[int] = None,
    p: float = 2,
    rule: str = "auto",
    random_state: RandomState = 0,
    *,
    epsilon: Optional[float] = None,
    draw: Literal["poisson", "systematic", "priority"] = "poisson",
    certify: bool = True,
    columns: Optional[Sequence[str]] = None,
    exclude: Sequence[str] = (),
    missing: Literal["error", "drop"] = "error",
    output: Union[None, str, PathLike[str]] = None,
    n_threads: Optional[int] = None,
    progress: Progress = None,
) -> Sample: ...
def regress(
    table: Union[str, PathLike[str]],
    target: str,
    n_rows: Optional[int] = None,
    loss: Literal["l1", "l2", "lp", "quantile", "huber", "logistic"] = "l1",
    *,
    p: float = 1.5,
    quantile: Union[float, Sequence[float]] = 0.5,
    delta: float = 1.0,
    l2: float = 0.0,
    exact: bool = False,
    fit_intercept: bool = True,
    random_state: RandomState = 0,
    columns: Optional[Sequence[str]] = None,
    exclude: Sequence[str] = (),
    missing: Literal["error", "drop"] = "error",
    n_threads: Optional[int] = None,
    progress: Progress = None,
) -> LpRegressor: ...

Model = Union[str, PathLike[str], dict[str, Any]]

class Match(NamedTuple):
    aligned: dict[str, Any]
    permutations: dict[str, NDArray[np.int64]]
    summary: dict[str, Any]

class Merged(NamedTuple):
    model: dict[str, Any]
    permutations: list[dict[str, NDArray[np.int64]]]
    summary: dict[str, Any]

class Analysis(NamedTuple):
    summary: dict[str, Any]
    curve: list[dict[str, float]]
    barrier: dict[str, float]
    permutations: dict[str, NDArray[np.int64]]

def match(
    a: Model,
    b: Model,
    spec: Union[str, PathLike[str]] = "auto",
    *,
    restarts: int = 1,
    random_state: RandomState = 0,
    n_threads: Optional[int] = None,
    progress: Progress = None,
) -> Match: ...
def merge(
    models: Sequence[Model],
    spec: Union[str, PathLike[str]] = "auto",
    *,
    weights: Optional[Sequence[float]] = None,
    match: bool = True,
    restarts: int = 1,
    random_state: RandomState = 0,
    n_threads: Optional[int] = None,
    progress: Progress = None,
) -> Merged: ...
def analyze(
    a: Model,
    b: Model,
    loss_fn: Optional[Callable[[dict[str, Any]], float]] = None,
    spec: Union[str, PathLike[str]] = "auto",
    *,
    points: int = 25,
    gamma: float = 0.3,
    random_state: RandomState = 0,
    n_threads: Optional[int] = None,
    progress: Progress = None,
) -> Analysis: ...
