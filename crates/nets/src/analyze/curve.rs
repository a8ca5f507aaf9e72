//! Loss and accuracy along the line between two models.

use subspan::merge::Model;
use subspan::merge::analysis::{Barrier, Point, grid, taylor_gap};
use subspan::{Event, Observer, Silent};

use crate::error::{NetError, Result};
use crate::evaluate::{Labelled, Scores, evaluate, loss_and_gradient};
use crate::graph::Net;
use crate::repair::reset_norms;
use crate::tensor::{Params, Tensor, cast, lerp};

/// Most samples of the Taylor estimate, which needs double precision and twelve gradients.
const TAYLOR_SAMPLES: usize = 1000;

/// How models are evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    /// The network that the models are parameters of.
    pub net: &'a Net,
    /// Samples to evaluate on.
    pub data: Labelled<'a, f32>,
    /// Training samples, for statistics of BatchNorm; without them averaged statistics stay.
    pub train: Option<Labelled<'a, f32>>,
}

/// The parameters of `net` in a model; tensors the network does not use are left out.
///
/// # Errors
/// A tensor that is missing, of the wrong shape or no floating type.
pub fn params_of(net: &Net, model: &dyn Model) -> Result<Params<f32>> {
    let mut out = Params::new();
    for (name, _) in net.parameters() {
        let view = model.tensor(&name).filter(|t| t.dtype.is_float());
        let view = view.ok_or_else(|| NetError::Missing { tensor: name.clone() })?;
        out.insert(name.clone(), Tensor { shape: view.shape.to_vec(), values: view.to_f32() });
    }
    net.check(&out)?;
    Ok(out)
}

/// A curve before and after matching.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// From the first model to the second as it is.
    pub raw: Vec<Point>,
    /// From the first model to the matched second.
    pub matched: Vec<Point>,
}

impl Evaluation<'_> {
    /// Loss and accuracy of one model.
    ///
    /// # Errors
    /// Parameters or samples that do not fit the network; a loss that is not finite.
    pub fn scores(&self, params: &Params<f32>) -> Result<Scores> {
        let scores = evaluate(self.net, params, &self.data)?;
        if scores.loss.is_finite() { Ok(scores) } else { Err(NetError::NonFinite { what: "a model".into() }) }
    }

    /// The scores of a merged model, its BatchNorm statistics measured first where there are training samples.
    ///
    /// # Errors
    /// As [`Evaluation::scores`]; an interrupt.
    pub fn merged_scores(&self, params: &Params<f32>, observer: &dyn Observer) -> Result<Scores> {
        match &self.train {
            Some(train) if self.net.has_norm() => {
                let mut reset = params.clone();
                reset_norms(self.net, &mut reset, train, observer)?;
                self.scores(&reset)
            }
            _ => self.scores(params),
        }
    }

    /// `n` points from `a` to `b`. `ends` are the scores of the two, if known.
    ///
    /// # Errors
    /// As [`Evaluation::merged_scores`]; a number of points that is even or below 3.
    pub fn curve(
        &self,
        a: &Params<f32>,
        b: &Params<f32>,
        n: usize,
        ends: Option<[Scores; 2]>,
        observer: &dyn Observer,
    ) -> Result<Vec<Point>> {
        let ends = match ends {
            Some(ends) => ends,
            None => [self.scores(a)?, self.scores(b)?],
        };
        let mut out = Vec::new();
        for alpha in grid(n)? {
            if observer.cancelled() {
                return Err(NetError::Cancelled);
            }
            let scores = match alpha {
                0.0 => ends[0],
                1.0 => ends[1],
                _ => self.merged_scores(&lerp(a, b, alpha), observer)?,
            };
            out.push(Point { alpha, loss: scores.loss, accuracy: scores.accuracy });
            observer.event(Event::Advance { steps: 1 });
        }
        Ok(out)
    }

    /// The Taylor estimate of the gap at the middle of the line from `a` to `b`, and the true gap on the same samples, both in
    /// double precision. `None` with BatchNorm, whose statistics are no smooth function along the line.
    ///
    /// # Errors
    /// As [`Evaluation::scores`].
    pub fn taylor(&self, a: &Params<f32>, b: &Params<f32>) -> Result<Option<(f64, f64)>> {
        if self.net.has_norm() {
            return Ok(None);
        }
        let data = self.data.first(TAYLOR_SAMPLES);
        let x: Vec<f64> = data.x.iter().map(|v| f64::from(*v)).collect();
        let data = Labelled { x: &x, y: data.y };
        let (a, b): (Params<f64>, Params<f64>) = (cast(a), cast(b));
        let slope = |alpha: f64| -> Result<f64> {
            let (_, gradient) = loss_and_gradient(self.net, &lerp(&a, &b, alpha), &data)?;
            let along = |(name, g): (&String, &Tensor<f64>)| -> f64 {
                let ends = a[name].values.iter().zip(&b[name].values);
                g.values.iter().zip(ends).map(|(g, (a, b))| g * (b - a)).sum()
            };
            Ok(gradient.iter().map(along).sum())
        };
        let estimate = taylor_gap(slope)?;
        let at = |alpha: f64| Ok::<_, NetError>(evaluate(self.net, &lerp(&a, &b, alpha), &data)?.loss);
        let truth = at(0.5)? - (at(0.0)? + at(1.0)?) / 2.0;
        Ok(Some((estimate, truth)))
    }

    /// The barrier between two models on a grid of `n` points.
    ///
    /// # Errors
    /// As [`Evaluation::curve`].
    pub fn barrier(&self, a: &Params<f32>, b: &Params<f32>, n: usize) -> Result<Barrier> {
        Ok(Barrier::of(&self.curve(a, b, n, None, &Silent)?))
    }
}
