"""`subspan sample` against scores, draws and certificates computed in a few lines of NumPy."""

import numpy as np
import pytest
from scipy.linalg import eigh

N_ROWS, N_COLS = 3000, 6


def table(seed, heavy=True):
    """Correlated Gaussian rows, some of them much longer than the others."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((N_ROWS, N_COLS)) @ rng.standard_normal((N_COLS, N_COLS))
    return a * np.abs(rng.standard_t(1.5, (N_ROWS, 1))) if heavy else a


def leverage(a):
    return np.sum(np.linalg.qr(a)[0] ** 2, axis=1)


def lewis_change(a, p, log_w):
    """ln (v/w) with v = (a' Q^-1 a)^(p/2) and Q = sum of w^(1-2/p) a a': zero at the Lewis weights."""
    half = np.exp((0.5 - 1 / p) * log_w)
    return 0.5 * p * np.log(leverage(half[:, None] * a) / half**2) - log_w


def lewis_iterates(a, p, steps):
    """ln w after each step of the damped fixed point from w = d/n."""
    n, d = a.shape
    log_w = np.full(n, np.log(d / n))
    for _ in range(steps):
        log_w = log_w + 4 / (p + 2) * lewis_change(a, p, log_w)
        yield log_w


def scale_solving(target, probabilities):
    """The c for which probabilities(c) add up to the target, by bisection."""
    low, high = 0.0, 1.0
    while probabilities(high).sum() < target:
        high *= 2
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if probabilities(middle).sum() < target else (low, middle)
    return high


def test_leverage_probabilities_are_those_of_qr(cli):
    a = table(1)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 200, "--rule", "leverage")
    tau = leverage(a)
    c = scale_solving(200, lambda c: np.minimum(1, c * tau))
    expected = np.minimum(1, c * tau)[drawn["row_id"]]
    np.testing.assert_allclose(drawn["probability"], expected, rtol=1e-9)
    assert drawn.results["score_sum"] == pytest.approx(N_COLS, rel=1e-10)


def test_root_leverage_probabilities_carry_the_rank_guard(cli):
    a = table(2)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 200, "-p", 1, "--rule", "root-leverage")
    tau, guard = leverage(a), 4 * np.log(2 * N_COLS)
    q = lambda c: np.minimum(1, np.maximum(c * np.sqrt(tau), guard * tau))
    expected = q(scale_solving(200, q))[drawn["row_id"]]
    np.testing.assert_allclose(drawn["probability"], expected, rtol=1e-9)


@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_lewis_probabilities_are_an_iterate_of_the_fixed_point(cli, p):
    a = table(3)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 200, "-p", p, "--rule", "lewis")
    guard = 4 * np.log(2 * N_COLS) * leverage(a) if p < 2 else np.zeros(N_ROWS)
    iterates = list(lewis_iterates(a, p, 20))

    def worst(log_w):
        q = lambda c: np.minimum(1, np.maximum(c * np.exp(log_w), guard))
        expected = q(scale_solving(200, q))[drawn["row_id"]]
        return np.max(np.abs(np.log(drawn["probability"] / expected)))

    # Sampling needs weights to a log-error of 0.3: the run stops at such an iterate, and it is exactly one of ours.
    errors = [worst(log_w) for log_w in iterates]
    k = int(np.argmin(errors))
    assert errors[k] < 1e-8, errors
    assert np.max(np.abs(lewis_change(a, p, iterates[k]))) <= 0.3


@pytest.mark.parametrize("p, rule", [(2, "leverage"), (1, "lewis"), (1, "uniform"), (4, "auto")])
def test_drawn_rows_are_the_rows_at_their_positions(cli, p, rule):
    a = table(4)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 150, "-p", p, "--rule", rule)
    ids = drawn["row_id"]
    assert np.all(np.diff(ids.astype(np.int64)) > 0)
    np.testing.assert_array_equal(drawn.matrix(N_COLS), a[ids])
    np.testing.assert_array_equal(drawn["weight"], 1 / drawn["probability"])
    assert len(ids) == drawn.results["rows_out"]


@pytest.mark.parametrize("draw", ["poisson", "systematic", "priority"])
def test_weighted_sums_estimate_sums_over_all_rows(cli, draw):
    a = table(5, heavy=False)
    name, truth = cli.npy("a.npy", a), np.sum(a**2)
    sums = []
    for seed in range(12):
        drawn = cli.sample(name, "--rows", 300, "--draw", draw, "--seed", seed)
        sums.append(drawn["weight"] @ np.sum(drawn.matrix(N_COLS) ** 2, axis=1))
    error = np.std(sums, ddof=1) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - truth) <= 5 * error


def test_certificate_for_p_2_is_the_generalized_eigenvalues(cli):
    a = table(6)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 200)
    b = drawn.matrix(N_COLS)
    values = eigh((b.T * drawn["weight"]) @ b, a.T @ a, eigvals_only=True) - 1
    certificate = drawn.results["certificate"]
    assert certificate["kind"] == "exact"
    assert certificate["lower"] == pytest.approx(min(values[0], 0), abs=1e-9)
    assert certificate["upper"] == pytest.approx(max(values[-1], 0), abs=1e-9)


@pytest.mark.parametrize("p, kind", [(4, "bound"), (1, "searched"), (1.5, "searched")])
def test_no_random_direction_leaves_the_certificate(cli, p, kind):
    """A rigorous bound holds for every x; a search finds at least what blind directions find."""
    a = table(7, heavy=False)
    drawn = cli.sample(cli.npy("a.npy", a), "--rows", 300, "-p", p)
    x = np.linalg.inv(np.linalg.qr(a)[1]) @ np.random.default_rng(0).standard_normal((N_COLS, 2000))
    sampled = drawn["weight"] @ np.abs(drawn.matrix(N_COLS) @ x) ** p
    ratio = sampled / np.sum(np.abs(a @ x) ** p, axis=0) - 1
    certificate = drawn.results["certificate"]
    assert certificate["kind"] == kind
    assert certificate["lower"] <= ratio.min() and ratio.max() <= certificate["upper"]


def test_the_sample_does_not_depend_on_threads_or_file_format(cli):
    a = table(8)
    name = cli.npy("a.npy", a)
    np.savetxt(cli.folder / "a.csv", a, fmt="%.17g", delimiter=",", header="c0,c1,c2,c3,c4,c5", comments="")
    for rule, p in [("leverage", 2), ("lewis", 1)]:
        one, two, csv = (
            cli.sample(table, "--rows", 200, "-p", p, "--rule", rule, "--seed", 3, "--threads", threads)
            for table, threads in [(name, 1), (name, 2), ("a.csv", 2)]
        )
        assert one.table.equals(two.table)
        assert one["row_id"].tolist() == csv["row_id"].tolist()
        np.testing.assert_allclose(one["weight"], csv["weight"], rtol=1e-12)
