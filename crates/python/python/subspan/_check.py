"""Arrays and parameters as the native half takes them, or errors that say what to do.

Nothing large is copied: arrays of float32 and float64 pass through in any memory order, memory-mapped ones too.
"""

import numbers

import numpy as np

_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


def matrix(x, name="X"):
    """`x` as a two-dimensional array of float32 or float64; values are checked as they are read."""
    if not isinstance(x, np.ndarray):
        if hasattr(x, "toarray"):
            raise ValueError(f"{name} is a sparse matrix; dense data is required: use {name}.toarray()")
        x = np.asarray(x)
    if x.ndim != 2:
        hint = f"; reshape it with {name}.reshape(-1, 1) if it is one column" if x.ndim == 1 else ""
        raise ValueError(f"{name} must have 2 dimensions, not {x.ndim}{hint}")
    for size, what in zip(x.shape, ("sample", "feature")):
        if size == 0:
            raise ValueError(f"{name} has 0 {what}(s) (shape={x.shape}) while a minimum of 1 is required")
    return _floats(x, name)


def _floats(x, name):
    """`x` in a precision that the native half reads."""
    dtype = x.dtype
    if dtype in _FLOATS and dtype.isnative:
        # Fields of packed records may lie at odd addresses, which no reader of numbers expects.
        return x if x.flags.aligned else np.array(x)
    if not dtype.isnative and dtype.kind in "iuf":
        raise ValueError(f"{name} has the other byte order ({dtype.str}); use {name}.astype({dtype.newbyteorder('=').str!r})")
    if dtype.kind == "b" or dtype.kind in "iu" or dtype == np.float16:
        return x.astype(np.float64)
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {dtype}")
    if dtype.kind == "O":
        try:
            return np.asarray(x, dtype=np.float64)
        except TypeError as e:
            # The words that scikit-learn's users know; the type is theirs too.
            raise TypeError(f"{name} holds objects that are no numbers: argument must be a string or a number: {e}") from e
        except ValueError as e:
            raise ValueError(f"{name} is an array of objects, not of numbers: {e}") from e
    raise ValueError(f"{name} must hold numbers, not {dtype}; use {name}.astype(float) if they are numbers in disguise")


def column(y, n_rows, name="y"):
    """`y` as a contiguous array of finite float64, one per row."""
    if y is None:
        raise ValueError(f"requires y to be passed, but the target {name} is None")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        _warn_column(name)
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"{name} should be a 1d array, got an array of shape {y.shape} instead")
    if y.dtype.kind not in "biuf":
        y = _floats(y, name)
    y = np.ascontiguousarray(y, dtype=np.float64)
    if len(y) != n_rows:
        raise ValueError(f"{name} has {len(y)} values for the {n_rows} rows of X: inconsistent numbers of samples")
    bad = np.flatnonzero(~np.isfinite(y))
    if bad.size:
        value = "NaN" if np.isnan(y[bad[0]]) else "inf"
        raise ValueError(f"Input {name} contains {value}: non-finite value {value} at row {bad[0]}")
    return y


def _warn_column(name):
    import warnings

    try:
        from sklearn.exceptions import DataConversionWarning as Category
    except ImportError:
        Category = UserWarning
    message = f"A column-vector {name} was passed when a 1d array was expected; it is used as {name}.ravel()"
    warnings.warn(message, Category, stacklevel=4)


def count(value, name):
    """A whole number that is not negative, or `None`."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    return int(value)


def number(value, name):
    """A number as a float."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(value)


def seed(random_state):
    """The 64-bit seed behind `random_state`: an integer is the command line's `--seed`; `None` draws a fresh one."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(0, 2**64, dtype=np.uint64))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, 2**31))
    value = count(random_state, "random_state")
    if value >= 2**64:
        raise ValueError(f"random_state must be below 2**64, but is {value}")
    return value


def callback(progress):
    """A progress function, or `None`."""
    if progress is not None and not callable(progress):
        raise ValueError(f"progress must be a function of (phase, done, total), not {progress!r}")
    return progress
