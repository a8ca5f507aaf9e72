//! Systematic draws: row `i` is kept when the running sum of probabilities passes a point of the grid `start + integer` in it.
//!
//! The running sum needs the probabilities of all earlier rows: one pass for the scale, one for each chunk's sum, one to draw.

use super::{Choice, DrawPlan, Drawn, Inclusion, Kept, Scorer, Tally, score_block};
use crate::error::Result;
use crate::observe::Observer;
use crate::rows::{self, RowSource};

pub(super) fn draw(source: &dyn RowSource, scorer: &Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let DrawPlan { floor, guard, target, stream, .. } = *plan;
    let mut tally = rows::fold(
        source,
        observer,
        || Tally::new(plan, source.n_cols()),
        |tally, block| {
            tally.rows_in += block.n_rows() as u64;
            let (scores, leverages) = score_block(block, scorer)?;
            scores.iter().zip(&leverages).for_each(|(s, t)| tally.histogram.add(*s, *t));
            Ok(())
        },
        |total, part| {
            total.rows_in += part.rows_in;
            total.histogram.merge(&part.histogram);
        },
    )?;
    let scale = tally.histogram.solve(target);
    let inclusion = Inclusion { scale, floor, guard };
    // (first row of the chunk, sum of its probabilities), in chunk order.
    let sums: Vec<(u64, f64)> = rows::fold(
        source,
        observer,
        Vec::new,
        |sums: &mut Vec<(u64, f64)>, block| {
            if block.n_rows() == 0 {
                return Ok(());
            }
            if sums.is_empty() {
                sums.push((block.id(0), 0.0));
            }
            let (scores, leverages) = score_block(block, scorer)?;
            for (s, t) in scores.iter().zip(&leverages) {
                sums[0].1 += inclusion.probability(*s, *t);
            }
            Ok(())
        },
        |sums, mut more| sums.append(&mut more),
    )?;
    let mut total = 0.0;
    let mut offsets = Vec::with_capacity(sums.len());
    for (first, sum) in &sums {
        offsets.push((*first, total));
        total += sum;
    }
    let start = stream.uniform(0);
    let (kept, _) = rows::fold(
        source,
        observer,
        || (Kept::new(source.n_cols()), None::<f64>),
        |(kept, running), block| {
            if block.n_rows() == 0 {
                return Ok(());
            }
            let known = offsets.partition_point(|(first, _)| *first <= block.id(0)).saturating_sub(1);
            let running = running.get_or_insert_with(|| offsets[known].1);
            let (scores, leverages) = score_block(block, scorer)?;
            let mut chosen = Vec::new();
            for (row, (score, leverage)) in scores.into_iter().zip(leverages).enumerate() {
                let before = *running;
                *running += inclusion.probability(score, leverage);
                if (*running - start).floor() > (before - start).floor() {
                    chosen.push(Choice { row, score, leverage, uniform: start });
                }
            }
            kept.extend(block, &chosen)
        },
        |(kept, _), (more, _)| kept.append(more),
    )?;
    tally.kept = kept;
    tally.kept.set_probabilities(&inclusion);
    Ok(tally.finish(scale, total, 3))
}
