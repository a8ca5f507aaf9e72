"""A median regression that 5 % of gross errors do not sway, on a sample of the rows and with a proof on all of them."""

import numpy as np

import subspan

rng = np.random.default_rng(0)
X = rng.standard_normal((100_000, 8))
truth = np.arange(1.0, 9.0)
y = X @ truth + rng.standard_normal(len(X))
y[rng.random(len(y)) < 0.05] += 200

least_squares = subspan.LpRegressor(loss="l2").fit(X, y)
sampled = subspan.LpRegressor(loss="l1", n_rows=5_000).fit(X, y)
exact = subspan.LpRegressor(loss="l1", exact=True).fit(X, y)

print(f"least squares      intercept off by {least_squares.intercept_:.2f}")
print(f"median, 5000 rows  intercept off by {sampled.intercept_:.2f}, proved within {sampled.relative_gap_:.2%} of the optimum")
print(f"median, exact      intercept off by {exact.intercept_:.2f}, proved within {exact.relative_gap_:.0e}")
assert abs(sampled.intercept_) < 0.2 < abs(least_squares.intercept_)
