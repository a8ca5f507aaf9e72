"""The native half: arrays that `_check` has prepared in, arrays out."""

from collections.abc import Callable
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

__version__: str

_Matrix = NDArray[np.float64] | NDArray[np.float32]
_Progress = Optional[Callable[[str, int, Optional[int]], object]]

def main(arguments: list[str]) -> int: ...
def leverage_scores(x: _Matrix, progress: _Progress = None, threads: Optional[int] = None) -> NDArray[np.float64]: ...
def lewis_weights(
    x: _Matrix, p: float, progress: _Progress = None, threads: Optional[int] = None
) -> NDArray[np.float64]: ...
def sensitivities(
    x: _Matrix, p: float, progress: _Progress = None, threads: Optional[int] = None
) -> NDArray[np.float64]: ...
def sample_array(
    x: _Matrix, job: dict[str, Any], seed: int, progress: _Progress = None, threads: Optional[int] = None
) -> dict[str, Any]: ...
def sample_table(
    path: str,
    columns: dict[str, Any],
    job: dict[str, Any],
    seed: int,
    output: Optional[str] = None,
    progress: _Progress = None,
    threads: Optional[int] = None,
) -> dict[str, Any]: ...
def fit(
    x: _Matrix,
    y: NDArray[np.float64],
    job: dict[str, Any],
    seed: int,
    progress: _Progress = None,
    threads: Optional[int] = None,
) -> dict[str, Any]: ...
def fit_table(
    path: str,
    columns: dict[str, Any],
    job: dict[str, Any],
    seed: int,
    progress: _Progress = None,
    threads: Optional[int] = None,
) -> dict[str, Any]: ...
def train(
    x: _Matrix,
    codes: NDArray[np.uint32],
    classes: list[str],
    job: dict[str, Any],
    seed: int,
    progress: _Progress = None,
    threads: Optional[int] = None,
) -> tuple[Classifier, str]: ...
def scattering(
    x: _Matrix, shape: tuple[int, int], turned: bool = False, threads: Optional[int] = None
) -> NDArray[np.float32]: ...
def find_clusters(
    x: _Matrix, job: dict[str, Any], seed: int, progress: _Progress = None, threads: Optional[int] = None
) -> tuple[Clustering, dict[str, Any]]: ...
def match_models(
    models: list[list[tuple[str, str, list[int], NDArray[np.uint8]]]],
    spec: Optional[str],
    restarts: int,
    seed: int,
    identity: bool = False,
    weights: Optional[list[float]] = None,
    gamma: Optional[float] = None,
    progress: _Progress = None,
    threads: Optional[int] = None,
    graph: Optional[bytes] = None,
) -> dict[str, Any]: ...

class Table:
    def __new__(cls, path: str, columns: dict[str, Any]) -> Table: ...
    @property
    def n_chunks(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    def fold_chunk(self, chunk: int, task: bytes) -> bytes: ...
    def sample(
        self,
        job: dict[str, Any],
        seed: int,
        fold: Callable[[bytes], list[bytes]],
        output: Optional[str] = None,
        progress: _Progress = None,
    ) -> dict[str, Any]: ...
    def fit(
        self,
        job: dict[str, Any],
        seed: int,
        fold: Callable[[bytes], list[bytes]],
        progress: _Progress = None,
    ) -> dict[str, Any]: ...

class Classifier:
    @property
    def classes(self) -> list[str]: ...
    @property
    def n_features(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def has_reconstruction(self) -> bool: ...
    def predict(
        self, x: _Matrix, threads: Optional[int] = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32], Optional[NDArray[np.float32]]]: ...
    def logits(self, x: _Matrix, threads: Optional[int] = None) -> NDArray[np.float64]: ...
    def frames(self) -> Optional[tuple[NDArray[np.float32], list[int]]]: ...
    def class_angles(self) -> Optional[list[list[float]]]: ...
    def save(self, path: str) -> None: ...
    @classmethod
    def load(cls, path: str) -> Classifier: ...
    def to_bytes(self) -> bytes: ...
    @classmethod
    def from_bytes(cls, bytes: bytes) -> Classifier: ...

class Learner:
    def __new__(cls, classes: list[str], n_features: int, k: int, gamma: float, rate: float) -> Learner: ...
    @classmethod
    def of(cls, classifier: Classifier, rate: float) -> Learner: ...
    def learn(self, x: _Matrix, codes: NDArray[np.uint32], threads: Optional[int] = None) -> None: ...
    def classifier(self) -> Classifier: ...
    @property
    def seen(self) -> int: ...
    def to_bytes(self) -> bytes: ...
    @classmethod
    def from_bytes(cls, bytes: bytes) -> Learner: ...

class Clustering:
    @property
    def n_features(self) -> int: ...
    @property
    def n_clusters(self) -> int: ...
    def predict(
        self, x: _Matrix, threads: Optional[int] = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]: ...
    def transform(self, x: _Matrix, threads: Optional[int] = None) -> NDArray[np.float32]: ...
    def save(self, path: str) -> None: ...
    @classmethod
    def load(cls, path: str) -> Clustering: ...
    def to_bytes(self) -> bytes: ...
    @classmethod
    def from_bytes(cls, bytes: bytes) -> Clustering: ...

def geodesic_step(
    frame: NDArray[np.float64],
    buffer: NDArray[np.float64],
    a: float,
    transported: bool,
    reorthogonalize: bool,
    max_angle: Optional[float],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]: ...
def head_loss(
    frames: NDArray[np.float64], k: int, gamma: float, x: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]: ...
def orthonormal_rows(frame: NDArray[np.float64]) -> NDArray[np.float64]: ...
def rates(
    rows: NDArray[np.float64], membership: NDArray[np.float64], eps2: float
) -> tuple[float, float, NDArray[np.float64], NDArray[np.float64]]: ...
def doubly_stochastic(
    affinity: NDArray[np.float64], eta: float, gradient: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
