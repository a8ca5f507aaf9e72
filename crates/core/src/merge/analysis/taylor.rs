//! What slope and curvature at the ends say about the middle.

/// Step of the differences of slopes, as a share of the line: in double precision their error is far below the curvature's.
pub const TAYLOR_STEP: f64 = 1e-3;

/// The estimate of `ℓ(½) − (ℓ(0) + ℓ(1)) / 2` from second-order expansions at both ends:
/// `¼ μ·(g_A − g_B) + 1/16 μ·(H_A + H_B) μ` with `μ` the difference of the models. `slope(α)` is the derivative of the loss
/// along the line, `g(α)·μ`; the curvatures are central differences of it. Exact for quadratics.
///
/// # Errors
/// Those of `slope`.
///
/// ```
/// use subspan::merge::analysis::taylor_gap;
/// // ℓ(α) = (2α − 1)² has ℓ(½) − ½ (ℓ(0) + ℓ(1)) = −1.
/// let found = taylor_gap(|alpha| Ok::<_, ()>(4.0 * (2.0 * alpha - 1.0)))?;
/// assert!((found + 1.0).abs() < 1e-9);
/// # Ok::<(), ()>(())
/// ```
pub fn taylor_gap<E>(mut slope: impl FnMut(f64) -> Result<f64, E>) -> Result<f64, E> {
    let h = TAYLOR_STEP;
    let mut ends = [(0.0, 0.0); 2];
    for (end, at) in ends.iter_mut().zip([0.0, 1.0]) {
        let curvature = (slope(at + h)? - slope(at - h)?) / (2.0 * h);
        *end = (slope(at)?, curvature);
    }
    let [(slope_a, curve_a), (slope_b, curve_b)] = ends;
    Ok(0.25 * (slope_a - slope_b) + 0.0625 * (curve_a + curve_b))
}
