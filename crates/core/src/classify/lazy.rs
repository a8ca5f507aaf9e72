//! Classes that a batch hardly touches are left alone. With many classes a sample pulls at a few; the others get a gradient in
//! proportion to their probability, which is next to nothing, and cost as much.
//!
//! A class sleeps through a step if no sample of the batch is of it and if what would then have been left out of its subspace's way, the
//! gradients dropped since its last step and the way its buffer still has to go, stays below an angle `τ`. When it wakes, the buffer's
//! way is made up for exactly ([`super::step::catch_up`]); the gradients' is not, so a sleep moves the subspace by at most `τ` less.

use super::step::{StackedFrames, StepOptions, catch_up, descend};
use crate::error::Result;

/// What is postponed of one class.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    /// `Σ aᵢ μⁱ` of the steps not made.
    postponed: f64,
    /// `μʲ` of `j` of them.
    decay: f64,
    /// Angle by which dropped gradients would have moved the subspace, at most.
    dropped: f64,
    /// Bound of the buffer's largest singular value when the class fell asleep.
    speed: f64,
}

const AWAKE: Sleep = Sleep { postponed: 0.0, decay: 1.0, dropped: 0.0, speed: 0.0 };

/// Who sleeps.
pub(crate) struct Lazy {
    tau: f64,
    momentum: f64,
    classes: Vec<Sleep>,
    /// Steps of classes that were not made.
    pub(crate) skipped: u64,
}

impl Lazy {
    pub(crate) fn new(n_classes: usize, tau: f64, momentum: f64) -> Self {
        Self { tau, momentum, classes: vec![AWAKE; n_classes], skipped: 0 }
    }

    /// The classes that move in a step of the given rate, ascending. `load` bounds the norm of a class's gradient, and is infinite for the
    /// classes of the batch's samples.
    pub(crate) fn awake(&mut self, loads: &[f64], rate: f64) -> Vec<usize> {
        let Self { tau, momentum: mu, classes, skipped } = self;
        let mut awake = Vec::new();
        for (c, (sleep, load)) in classes.iter_mut().zip(loads).enumerate() {
            let dropped = sleep.dropped + rate * load / (1.0 - *mu);
            // The way of the buffer up to now and from now on, at a rate that does not rise.
            let way = sleep.speed * (sleep.postponed + rate * sleep.decay * *mu / (1.0 - *mu));
            if dropped + way < *tau {
                sleep.dropped = dropped;
                sleep.decay *= *mu;
                sleep.postponed += rate * sleep.decay;
                *skipped += 1;
            } else {
                awake.push(c);
            }
        }
        awake
    }

    /// One step of the classes that are awake; `gradient` holds theirs alone. Returns the largest angle moved.
    pub(crate) fn descend(
        &mut self,
        stacked: StackedFrames<'_, f32>,
        awake: &[usize],
        mut gradient: &[f32],
        rates: [f64; 2],
        options: StepOptions,
    ) -> Result<f64> {
        let n_cols = stacked.n_cols;
        let mut largest = 0.0f64;
        let mut classes = stacked.split();
        for c in awake {
            let (frame, buffer) = &mut classes[*c];
            let sleep = &mut self.classes[*c];
            wake(sleep, frame, buffer, n_cols)?;
            let own = gradient.split_off(..frame.len()).expect("gradients of the classes that are awake");
            let report = descend(frame, buffer, own, n_cols, rates, options)?;
            sleep.speed = report.speed;
            largest = largest.max(report.angle);
        }
        Ok(largest)
    }

    /// Makes up for everything postponed.
    pub(crate) fn wake_all(&mut self, stacked: StackedFrames<'_, f32>) -> Result<()> {
        let n_cols = stacked.n_cols;
        for (sleep, (frame, buffer)) in self.classes.iter_mut().zip(stacked.split()) {
            let decay = sleep.decay;
            wake(sleep, frame, buffer, n_cols)?;
            sleep.speed *= decay;
        }
        Ok(())
    }
}

fn wake(sleep: &mut Sleep, frame: &mut [f32], buffer: &mut [f32], n_cols: usize) -> Result<()> {
    if sleep.decay < 1.0 {
        catch_up(frame, buffer, n_cols, [sleep.postponed, sleep.decay])?;
    }
    *sleep = Sleep { speed: sleep.speed, ..AWAKE };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::geometry::{random, span};
    use crate::classify::step::MomentumMode;
    use crate::draw::Stream;

    /// Law 11: gradients that do not depend on the frame, every twentieth of a sample of the class.
    #[test]
    fn what_a_class_misses_is_less_than_its_sleeps_allow() {
        let (k, d, tau) = (2, 10, 1e-3);
        let options = StepOptions { momentum: MomentumMode::Transported, ..StepOptions::default() };
        let mut eager: Vec<f32> = random(&Stream::new(1, "frame"), 0, k, d).unwrap();
        let mut lazy = eager.clone();
        let (mut eager_m, mut lazy_m) = (vec![0f32; k * d], vec![0f32; k * d]);
        let mut state = Lazy::new(1, tau, 0.9);
        let mut rng = Stream::new(2, "gradient").rng(0);
        for t in 0..200 {
            let own = t % 20 == 0;
            let size = if own { 1e-3 } else { 5e-6 };
            let e: Vec<f32> = (0..k * d).map(|_| (size * rng.normal()) as f32).collect();
            descend(&mut eager, &mut eager_m, &e, d, [0.1, 0.9], options).unwrap();
            let norm = e.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let awake = state.awake(&[if own { f64::INFINITY } else { norm }], 0.1);
            let stacked = StackedFrames { frames: &mut lazy, buffers: &mut lazy_m, offsets: &[0, k], n_cols: d };
            state.descend(stacked, &awake, &e[..awake.len() * k * d], [0.1, 0.9], options).unwrap();
        }
        state.wake_all(StackedFrames { frames: &mut lazy, buffers: &mut lazy_m, offsets: &[0, k], n_cols: d }).unwrap();
        let apart = span(&eager, d).unwrap().distance(&span(&lazy, d).unwrap()).unwrap();
        // It falls asleep once after each of the ten gradients of its samples.
        assert!(state.skipped > 20 && apart > 0.0 && apart <= 10.0 * tau, "{} {apart}", state.skipped);
    }

    #[test]
    fn a_class_sleeps_until_what_it_misses_adds_up() {
        let mut lazy = Lazy::new(2, 1e-3, 0.5);
        // Each step drops 0.1 * 1e-3 / 0.5 = 2e-4 of the first class; the second has samples.
        let steps: Vec<Vec<usize>> = (0..6).map(|_| lazy.awake(&[1e-3, f64::INFINITY], 0.1)).collect();
        assert_eq!(steps, [vec![1], vec![1], vec![1], vec![1], vec![0, 1], vec![0, 1]]);
        assert_eq!(lazy.skipped, 4);
    }
}
