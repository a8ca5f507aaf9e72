"""The rivals, each as its users would call it on data that is in memory already.

Every function takes the row-major design `a` (and the target `y`) and returns scores or coefficients; whatever layout a
rival prefers, it is given what its own documentation asks for. A rival that fails raises.
"""

import warnings

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import linprog

# --- leverage scores -------------------------------------------------------------------------------------------------


def qr(a):
    q = np.linalg.qr(a)[0]
    return np.einsum("ij,ij->i", q, q)


def gram_cholesky(a):
    """Two lines that most people write: the whole whitened table at once."""
    lower = np.linalg.cholesky(a.T @ a)
    z = solve_triangular(lower, a.T, lower=True, check_finite=False)
    return np.einsum("ij,ij->j", z, z)


def gram_cholesky_blocked(a, block=4096):
    """The same by blocks that stay in cache, with the inverse formed once: the best NumPy that we could write."""
    inverse = np.linalg.inv(np.linalg.cholesky(a.T @ a)).T
    scores = np.empty(len(a))
    for i in range(0, len(a), block):
        z = a[i : i + block] @ inverse
        np.einsum("ij,ij->i", z, z, out=scores[i : i + block])
    return scores


# --- least absolute deviations ---------------------------------------------------------------------------------------


def pinball_solver(name):
    """A warning on the way (a singular subsample, a doubled one) is not a failure: the objective tells."""

    def solve(a, y):
        from pinball import get_solver

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coefficients = get_solver(name).solve(a, y, 0.5).coefficients
        if not np.all(np.isfinite(coefficients)):
            raise ArithmeticError("coefficients are not finite")
        return coefficients

    return solve


def statsmodels_quantreg(a, y):
    from statsmodels.regression.quantile_regression import QuantReg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return QuantReg(y, a).fit(q=0.5).params


def sklearn_quantile(a, y):
    from sklearn.linear_model import QuantileRegressor

    return QuantileRegressor(quantile=0.5, alpha=0, fit_intercept=False, solver="highs").fit(a, y).coef_


def highs_primal(a, y):
    """min 1u + 1v with a x + u - v = y, sparse, as scikit-learn poses it."""
    from scipy.sparse import csc_matrix, eye, hstack

    n, d = a.shape
    equalities = hstack([csc_matrix(a), eye(n), -eye(n)], format="csc")
    cost = np.concatenate([np.zeros(d), np.ones(2 * n)])
    bounds = np.column_stack([np.r_[np.full(d, -np.inf), np.zeros(2 * n)], np.full(d + 2 * n, np.inf)])
    return checked(linprog(cost, A_eq=equalities, b_eq=y, bounds=bounds, method="highs")).x[:d]


def highs_dual(a, y):
    """max y z with aᵀ z = aᵀ 1 / 2 and 0 <= z <= 1: d rows instead of n; coefficients are the multipliers."""
    result = checked(linprog(-y, A_eq=a.T, b_eq=0.5 * a.sum(axis=0), bounds=(0, 1), method="highs"))
    return -result.eqlin.marginals


def checked(result):
    if not result.success:
        raise RuntimeError(result.message)
    return result


LEVERAGE = {
    "numpy QR": qr,
    "numpy Gram+Cholesky": gram_cholesky,
    "numpy Gram+Cholesky, blocked": gram_cholesky_blocked,
}
L1 = {
    "pinball pfn": pinball_solver("pfn"),
    "pinball fn": pinball_solver("fnb"),
    "statsmodels QuantReg": statsmodels_quantreg,
    "scikit-learn QuantileRegressor": sklearn_quantile,
    "scipy HiGHS": highs_primal,
    "scipy HiGHS, dual form": highs_dual,
}
