"""`subspan regress` against SciPy, scikit-learn and NumPy on the same rows."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, QuantileRegressor

N_ROWS, N_COLS = 400, 4


def problem(seed, noise="t"):
    """A design without a column of ones, and a target with heavy-tailed noise."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((N_ROWS, N_COLS)) * [1, 10, 0.1, 3] + [0, 5, 0, -1]
    y = a @ [1, -0.2, 30, 0.5] + 2 + (rng.standard_t(2, N_ROWS) if noise == "t" else rng.laplace(size=N_ROWS))
    return a, y


def fit(cli, a, y, *arguments):
    """Coefficients with the intercept last, and the model file."""
    model = cli.regress(cli.npy("t.npy", np.column_stack([a, y])), f"c{a.shape[1]}", *arguments)
    return vector(model, a.shape[1]), model


def vector(model, n_cols):
    return np.array([model["coefficients"][f"c{j}"] for j in range(n_cols)] + [model["intercept"]])


def residuals(a, y, x):
    return y - a @ x[:-1] - x[-1]


def pinball(r, t):
    return np.sum(np.maximum(t * r, (t - 1) * r))


def quantile_optimum(a, y, t):
    """min t u + (1-t) v over a x + b + u - v = y, by HiGHS."""
    n, d = a.shape
    equalities = np.hstack([a, np.ones((n, 1)), np.eye(n), -np.eye(n)])
    cost = np.concatenate([np.zeros(d + 1), np.full(n, t), np.full(n, 1 - t)])
    bounds = [(None, None)] * (d + 1) + [(0, None)] * (2 * n)
    return linprog(cost, A_eq=equalities, b_eq=y, bounds=bounds, method="highs").fun


@pytest.mark.parametrize("mode", ["--full", "--exact"])
def test_l1_reaches_the_linear_program(cli, mode):
    a, y = problem(1)
    x, model = fit(cli, a, y, "--loss", "l1", mode)
    objective = np.sum(np.abs(residuals(a, y, x)))
    assert objective == pytest.approx(2 * quantile_optimum(a, y, 0.5), rel=1e-8)
    assert model["objective"] == pytest.approx(objective, rel=1e-12)
    assert 0 <= model["relative_gap"] <= 1e-8 if mode == "--exact" else True


@pytest.mark.parametrize("mode", ["--full", "--exact"])
@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.9])
def test_a_quantile_reaches_the_linear_program_and_scikit_learn(cli, mode, t):
    a, y = problem(2)
    x, model = fit(cli, a, y, "--loss", "quantile", "--quantile", t, mode)
    objective = pinball(residuals(a, y, x), t)
    assert objective == pytest.approx(quantile_optimum(a, y, t), rel=1e-8)
    assert model["objective"] == pytest.approx(objective, rel=1e-12)
    sklearn = QuantileRegressor(quantile=t, alpha=0, solver="highs").fit(a, y)
    assert objective <= pinball(y - sklearn.predict(a), t) * (1 + 1e-8)


def test_exact_on_a_table_larger_than_its_pilot_reaches_the_linear_program(cli):
    """Above 100 000 rows the exact mode samples, globs and proves. The dual programme has a row per column: it is quick."""
    rng = np.random.default_rng(9)
    a = rng.standard_normal((100_100, 3)) * np.abs(rng.standard_t(1.5, (100_100, 1)))
    y = a @ [1, 2, 3] + rng.standard_t(2, 100_100)
    model = cli.regress(cli.npy("t.npy", np.column_stack([a, y])), "c3", "--no-intercept", "--exact")
    best = linprog(-y, A_eq=a.T, b_eq=0.5 * a.sum(axis=0), bounds=(0, 1), method="highs-ipm").fun
    # max y z over 0 <= z <= 1 is half the sum of absolute residuals plus half the sum of y.
    assert model["objective"] == pytest.approx(-2 * best - y.sum(), rel=1e-8)
    assert model["rows_used"] < 100_100 and 0 <= model["relative_gap"] <= 1e-8


def test_several_quantiles_are_the_single_ones(cli):
    a, y = problem(2)
    name = cli.npy("t.npy", np.column_stack([a, y]))
    model = cli.regress(name, f"c{N_COLS}", "--loss", "quantile", "--quantile", "0.1,0.5,0.75", "--full")
    assert [one["quantile"] for one in model["fits"]] == [0.1, 0.5, 0.75]
    for one in model["fits"]:
        objective = pinball(residuals(a, y, vector(one, N_COLS)), one["quantile"])
        assert objective == pytest.approx(quantile_optimum(a, y, one["quantile"]), rel=1e-8)


def test_no_intercept_means_none(cli):
    a, y = problem(3)
    x, _ = fit(cli, a, y, "--loss", "l2", "--full", "--no-intercept")
    assert x[-1] == 0
    np.testing.assert_allclose(x[:-1], np.linalg.lstsq(a, y)[0], rtol=1e-8)


@pytest.mark.parametrize("mode", ["--full", "--exact"])
def test_l2_is_least_squares(cli, mode):
    a, y = problem(4)
    x, model = fit(cli, a, y, "--loss", "l2", mode)
    expected = np.linalg.lstsq(np.column_stack([a, np.ones(N_ROWS)]), y)[0]
    np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-10)
    assert model["objective"] == pytest.approx(np.sum(residuals(a, y, expected) ** 2), rel=1e-10)


def smooth_optimum(loss, slope, a, y):
    """The smallest Σ loss(residual) that BFGS finds, from the least-squares fit on unit columns."""
    b = np.column_stack([a, np.ones(len(y))])
    scale = np.linalg.norm(b, axis=0)
    b = b / scale
    start = np.linalg.lstsq(b, y)[0]
    value = lambda x: np.sum(loss(y - b @ x))
    gradient = lambda x: -b.T @ slope(y - b @ x)
    found = minimize(value, start, jac=gradient, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    return found.fun, found.x / scale


@pytest.mark.parametrize("mode", ["--full", "--exact"])
@pytest.mark.parametrize("p", [1.5, 3, 4])
def test_lp_reaches_scipy(cli, mode, p):
    a, y = problem(5, "laplace")
    x, model = fit(cli, a, y, "--loss", "lp", "-p", p, mode)
    best, _ = smooth_optimum(lambda r: np.abs(r) ** p, lambda r: p * np.sign(r) * np.abs(r) ** (p - 1), a, y)
    objective = np.sum(np.abs(residuals(a, y, x)) ** p)
    assert objective <= best * (1 + 1e-8) and objective >= best * (1 - 1e-6)
    assert model["objective"] == pytest.approx(objective, rel=1e-12)


@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_huber_reaches_scipy_at_the_same_delta(cli, delta):
    a, y = problem(6)
    x, model = fit(cli, a, y, "--loss", "huber", "--delta", delta, "--full")
    loss = lambda r: np.where(np.abs(r) <= delta, 0.5 * r**2, delta * (np.abs(r) - 0.5 * delta))
    best, expected = smooth_optimum(loss, lambda r: np.clip(r, -delta, delta), a, y)
    assert np.sum(loss(residuals(a, y, x))) == pytest.approx(best, rel=1e-8)
    assert model["objective"] == pytest.approx(best, rel=1e-8)
    np.testing.assert_allclose(x, expected, rtol=1e-3, atol=1e-4)


def labels(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((N_ROWS, N_COLS)) * [1, 3, 0.3, 2]
    return a, (rng.random(N_ROWS) < expit(a @ [1, -0.3, 2, 0.2] - 0.5)).astype(float)


@pytest.mark.parametrize("l2", [0, 2.5])
@pytest.mark.parametrize("mode", ["--full", "--exact"])
def test_logistic_is_scikit_learns(cli, mode, l2):
    a, y = labels(7)
    x, model = fit(cli, a, y, "--loss", "logistic", "--l2", l2, mode)
    C = 1 / l2 if l2 else np.inf
    sklearn = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(a, y)
    np.testing.assert_allclose(x, [*sklearn.coef_[0], sklearn.intercept_[0]], rtol=1e-4, atol=1e-6)
    margin = np.where(y == 1, 1, -1) * -residuals(a, np.zeros(N_ROWS), x)
    assert model["objective"] == pytest.approx(np.sum(np.logaddexp(0, -margin)), rel=1e-10)


def test_a_sampled_fit_is_near_the_optimum_and_its_gap_is_an_upper_bound(cli):
    rng = np.random.default_rng(8)
    a = rng.standard_normal((20_000, 3)) * np.abs(rng.standard_t(1.5, (20_000, 1)))
    y = a @ [1, 2, 3] + rng.laplace(size=20_000)
    name = cli.npy("t.npy", np.column_stack([a, y]))
    exact = cli.regress(name, "c3", "--loss", "l1", "--exact")
    sampled = cli.regress(name, "c3", "--loss", "l1", "--rows", 2000)
    excess = sampled["objective"] / exact["objective"] - 1
    assert -1e-8 <= excess <= 0.02
    assert sampled["rows_used"] < 3000
    if sampled["relative_gap"] is not None:
        assert excess <= sampled["relative_gap"] + 1e-8
