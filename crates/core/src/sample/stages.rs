//! Which scores a rule takes, in one stage or two.

use super::lift::{MAX_LIFTED_COLUMNS, lifted_dim};
use super::{Config, Rule};

/// Entries of a table (rows times columns) up to which Lewis weights of all rows are worth their extra passes in memory.
const LEWIS_IN_MEMORY: u64 = 20_000_000;
/// The first stage of a two-stage rule keeps this many times the final rows ...
const FIRST_STAGE_FACTOR: u64 = 20;
/// ... and at least this many rows.
const FIRST_STAGE_ROWS: u64 = 100_000;
/// Rows whose sensitivities are solved one by one (about a millisecond each): more are first thinned by Lewis weights, to this
/// many or a few times the final rows.
const SOLVED_ROWS: u64 = 20_000;
const SOLVED_FACTOR: u64 = 5;
/// Multiply-adds worth spending on the Gram matrix of a lift: some ten seconds on one core.
const LIFT_BUDGET: f64 = 5e11;

/// One draw: its scores and how many rows it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    pub(crate) rule: Rule,
    pub(crate) target: f64,
    /// Whether its rows are the sample.
    pub(crate) last: bool,
}

/// What decides about the stages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) n_rows: u64,
    pub(crate) n_cols: usize,
    pub(crate) rank: usize,
    pub(crate) in_memory: bool,
    /// Final rows.
    pub(crate) rows: u64,
    /// Total sensitivity, or a bound of it, where known; only asked for when `p > 2`.
    pub(crate) total_sensitivity: Option<f64>,
}

/// Whether the lift of a table for `p` is small enough to be worth its pass.
pub(crate) fn lift_fits(n_rows: u64, n_cols: usize, p: f64) -> bool {
    // At p = 2 the lift is the table itself.
    p > 2.0
        && lifted_dim(n_cols, p)
            .is_some_and(|dim| dim <= MAX_LIFTED_COLUMNS && n_rows as f64 * (dim * dim) as f64 <= LIFT_BUDGET)
}

/// Rows for unit distortion (up to logarithms) that each rule needs for `p > 2`, from the rank `d` and the total sensitivity
/// `S`: `d^(p/2)` by Lewis weights, `S^(2−2/p)` by sensitivities, `d^(2/p) S^(2−4/p)` by sensitivities plus leverage.
pub(crate) fn predicted_rows(rank: usize, total: f64, p: f64) -> Vec<(Rule, f64)> {
    let d = rank as f64;
    vec![
        (Rule::Lewis, d.powf(0.5 * p)),
        (Rule::Sensitivity, total.powf(2.0 - 2.0 / p)),
        (Rule::SensitivityLeverage, d.powf(2.0 / p) * total.powf(2.0 - 4.0 / p)),
    ]
}

/// The stages of `config` on a table.
pub(crate) fn plan(config: &Config, facts: &Facts) -> Vec<Stage> {
    let Facts { n_rows, n_cols, rows, .. } = *facts;
    let rule = match config.rule {
        Rule::Auto if config.p == 2.0 => Rule::Leverage,
        Rule::Auto if config.p > 2.0 => best_above_two(config.p, facts),
        Rule::Auto => Rule::Lewis,
        rule => rule,
    };
    let last = Stage { rule, target: rows as f64, last: true };
    let after = |rule, factor: u64, least: u64| {
        let target = n_rows.min(least.max(rows.saturating_mul(factor))) as f64;
        vec![Stage { rule, target, last: false }, last]
    };
    match rule {
        Rule::Sensitivity | Rule::SensitivityLeverage | Rule::Paper
            if config.p != 2.0 && !lift_fits(n_rows, n_cols, config.p) && n_rows > SOLVED_ROWS =>
        {
            after(Rule::Lewis, SOLVED_FACTOR, SOLVED_ROWS)
        }
        Rule::Lewis if config.rule == Rule::Auto && config.p < 2.0 => {
            let small = facts.in_memory && n_rows.saturating_mul(n_cols as u64) <= LEWIS_IN_MEMORY;
            let stages = after(Rule::RootLeverage, FIRST_STAGE_FACTOR, FIRST_STAGE_ROWS);
            if small {
                vec![last]
            } else if stages[0].target < 0.5 * n_rows as f64 {
                // Two passes instead of one per Lewis iteration.
                stages
            } else {
                // A first stage would thin nothing; at sizes near the table's, root leverage is as accurate (measured).
                vec![Stage { rule: Rule::RootLeverage, ..last }]
            }
        }
        _ => vec![last],
    }
}

fn best_above_two(p: f64, facts: &Facts) -> Rule {
    let predictions = facts.total_sensitivity.map_or_else(Vec::new, |s| predicted_rows(facts.rank, s, p));
    predictions.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(Rule::Lewis, |(rule, _)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;
    use crate::sample::scale::{Inclusion, solve_scale};

    fn rules(p: f64, facts: &Facts) -> Vec<Rule> {
        plan(&Config::rows(p, facts.rows), facts).iter().map(|s| s.rule).collect()
    }

    #[test]
    fn auto_takes_the_rule_of_the_case() {
        let small = Facts { n_rows: 10_000, n_cols: 10, rank: 10, in_memory: true, rows: 500, total_sensitivity: None };
        let large = Facts { n_rows: 100_000_000, in_memory: false, ..small };
        assert_eq!(rules(2.0, &large), [Rule::Leverage]);
        assert_eq!(rules(1.0, &small), [Rule::Lewis]);
        assert_eq!(rules(1.5, &large), [Rule::RootLeverage, Rule::Lewis]);
        assert_eq!(rules(1.0, &Facts { in_memory: false, ..small }), [Rule::RootLeverage]);
        assert_eq!(rules(3.0, &small), [Rule::Lewis]);
        // d = 10, p = 4: structure pays when S < d^1.5 = 31.6.
        assert_eq!(rules(4.0, &Facts { total_sensitivity: Some(19.0), ..small }), [Rule::SensitivityLeverage]);
        assert_eq!(rules(4.0, &Facts { total_sensitivity: Some(55.0), ..small }), [Rule::Lewis]);
    }

    #[test]
    fn solving_sensitivities_of_many_rows_takes_a_first_stage() {
        let facts =
            Facts { n_rows: 1_000_000, n_cols: 5, rank: 5, in_memory: true, rows: 1000, total_sensitivity: None };
        let stages = plan(&Config { rule: Rule::Sensitivity, ..Config::rows(1.5, 1000) }, &facts);
        assert_eq!((stages[0].rule, stages[0].target), (Rule::Lewis, 20_000.0));
        let lifted = plan(&Config { rule: Rule::Sensitivity, ..Config::rows(4.0, 1000) }, &facts);
        assert_eq!(lifted.len(), 1, "the lift scores every row in closed form");
    }

    /// The hard instance of Munteanu and Omlor (ICML 2024): a flat Gaussian block beside repeated unit vectors. Plain l_1
    /// sensitivities need `d^1.5` rows before the flat block keeps its rank, sensitivities plus leverage need `d`.
    #[test]
    fn leverage_repairs_plain_sensitivities_on_the_hard_instance() {
        let dims = [32usize, 64, 128, 256, 512];
        let slope = |augment: bool| {
            let points: Vec<(f64, f64)> =
                dims.iter().map(|d| ((*d as f64).ln(), (rows_for_rank(*d, augment) as f64).ln())).collect();
            let n = points.len() as f64;
            let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
            points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>()
                / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
        };
        let (plain, augmented) = (slope(false), slope(true));
        assert!((1.35..1.55).contains(&plain), "plain sensitivities: slope {plain:.3}");
        assert!((0.9..1.1).contains(&augmented), "with leverage: slope {augmented:.3}");
    }

    /// Expected rows at which at least `d` rows of the flat block are drawn in 45 of 50 seeds.
    fn rows_for_rank(d: usize, augment: bool) -> usize {
        let (n, copies) = (16 * d, 64);
        let mut rng = Stream::new(d as u64, "hard instance").rng(0);
        // σᵢ = ‖fᵢ‖ / (N √(2/π)) and τᵢ = ‖fᵢ‖² / N for the flat rows, 1/copies for both on the others.
        let norms_sq: Vec<f64> = (0..n).map(|_| (0..d).map(|_| rng.normal().powi(2)).sum()).collect();
        let mut scores: Vec<f64> = norms_sq
            .iter()
            .map(|s| {
                let tau = if augment { s / n as f64 } else { 0.0 };
                s.sqrt() / (n as f64 * std::f64::consts::FRAC_2_PI.sqrt()) + tau
            })
            .collect();
        let other = (1.0 + f64::from(u8::from(augment))) / copies as f64;
        scores.resize(n + copies * d, other);
        let zeros = vec![0.0; scores.len()];
        let enough = |m: usize| {
            let scale = solve_scale(&scores, &zeros, 0.0, 0.0, m as f64);
            let inclusion = Inclusion { scale, floor: 0.0, guard: 0.0 };
            let good = (0..50).filter(|seed| {
                let stream = Stream::new(*seed, "rows");
                (0..n).filter(|i| stream.uniform(*i as u64) < inclusion.probability(scores[*i], 0.0)).count() >= d
            });
            good.count() >= 45
        };
        let (mut low, mut high) = (d, scores.len());
        while high - low > 1 {
            let middle = (low + high) / 2;
            if enough(middle) { high = middle } else { low = middle }
        }
        high
    }
}
