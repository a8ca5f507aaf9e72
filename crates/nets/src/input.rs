//! Samples as a network wants them: images channel by channel, normalised.

use crate::error::{NetError, Result};
use crate::graph::Dims;

/// Largest value of a pixel stored as an integer.
const WHITE: f32 = 255.0;

/// How stored values become inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalize {
    /// As stored.
    Raw,
    /// Integers divided by 255.
    Unit,
    /// Integers divided by 255, then `(x − mean) / std`: one of each, or one per channel.
    Standard {
        /// Means.
        mean: Vec<f32>,
        /// Standard deviations.
        std: Vec<f32>,
    },
}

impl Normalize {
    /// Reads `none`, `unit` or `MEAN/STD`, each a number or one number per channel separated by commas.
    ///
    /// # Errors
    /// [`NetError::Normalize`].
    ///
    /// ```
    /// use subspan_nets::Normalize;
    /// let two = Normalize::parse("0.5,0.4/0.2,0.1")?;
    /// assert_eq!(two, Normalize::Standard { mean: vec![0.5, 0.4], std: vec![0.2, 0.1] });
    /// # Ok::<(), subspan_nets::NetError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => return Ok(Self::Raw),
            "unit" => return Ok(Self::Unit),
            _ => {}
        }
        let numbers = |t: &str| -> Option<Vec<f32>> { t.split(',').map(|n| n.trim().parse().ok()).collect() };
        let parts = text.split_once('/').and_then(|(m, s)| Some((numbers(m)?, numbers(s)?)));
        parts.and_then(|(mean, std)| Self::standard(mean, std)).ok_or_else(|| NetError::Normalize {
            what: format!("\"{text}\" is no normalisation: mean and deviation are needed, as in 0.1307/0.3081"),
        })
    }

    /// Finds a normalisation in a checkpoint's metadata: `(pixel/255-0.1307)/0.3081`, or the words mean and std (as keys or in a
    /// text) before numbers.
    ///
    /// ```
    /// use subspan_nets::Normalize;
    /// let found = Normalize::from_metadata([("input", "(pixel/255-0.1307)/0.3081")]);
    /// assert_eq!(found, Some(Normalize::Standard { mean: vec![0.1307], std: vec![0.3081] }));
    /// let found = Normalize::from_metadata([("arch", "net, normalise mean .5/.4/.3 std .2/.2/.2")]);
    /// assert!(matches!(found, Some(Normalize::Standard { mean, .. }) if mean.len() == 3));
    /// assert_eq!(Normalize::from_metadata([("arch", "mlp")]), None);
    /// ```
    pub fn from_metadata<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let entries: Vec<(&str, &str)> = entries.into_iter().collect();
        let formula = entries.iter().find_map(|(_, text)| {
            let rest = text.trim().strip_prefix("(pixel/255-")?;
            let (mean, std) = rest.split_once(")/")?;
            Self::standard(vec![mean.trim().parse().ok()?], vec![std.trim().parse().ok()?])
        });
        formula.or_else(|| {
            let after = |word: &str| -> Option<Vec<f32>> {
                entries.iter().find_map(|(key, text)| {
                    let text = if *key == word { text } else { &text[text.find(&format!("{word} "))? + word.len()..] };
                    numbers_at_start(text)
                })
            };
            Self::standard(after("mean")?, after("std")?)
        })
    }

    fn standard(mean: Vec<f32>, std: Vec<f32>) -> Option<Self> {
        let fits = mean.len() == std.len()
            && !mean.is_empty()
            && mean.iter().all(|m| m.is_finite())
            && std.iter().all(|s| *s > 0.0 && s.is_finite());
        fits.then_some(Self::Standard { mean, std })
    }
}

/// The numbers at the start of a text, separated by `/`, commas, brackets or blanks.
fn numbers_at_start(text: &str) -> Option<Vec<f32>> {
    let separators = ['/', ',', '[', ']', '(', ')', ' ', '='];
    let words = text.split(separators).filter(|w| !w.is_empty());
    let numbers: Vec<f32> = words.map_while(|w| w.parse().ok()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

impl std::fmt::Display for Normalize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |v: &[f32]| v.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Raw => write!(f, "none"),
            Self::Unit => write!(f, "unit"),
            Self::Standard { mean, std } => write!(f, "{}/{}", list(mean), list(std)),
        }
    }
}

/// Samples in memory, one per row, images channel by channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Channels, height and width.
    pub dims: Dims,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Samples {
    /// Arranges stored values of `shape` (samples first) for a network that takes images of `channels` channels, or plain vectors.
    /// Images are `n x h x w`, `n x h x w x c`, `n x c x h x w` or square ones flattened channel by channel; plain vectors
    /// keep the stored order.
    ///
    /// # Errors
    /// [`NetError::Input`].
    pub fn arrange(shape: &[usize], values: Vec<f32>, channels: Option<usize>) -> Result<Self> {
        let per_sample: usize = shape[1..].iter().product();
        let Some(channels) = channels else { return Ok(Self { dims: [per_sample, 1, 1], values }) };
        let expected = || format!("images of {channels} channel{}", if channels == 1 { "" } else { "s" });
        let fail = || NetError::Input { found: shape[1..].to_vec(), expected: expected() };
        let dims = match *shape {
            [_, h, w] if channels == 1 => [1, h, w],
            [_, h, w, c] if c == channels => {
                let values = interleaved(&values, c, h * w);
                return Ok(Self { dims: [c, h, w], values });
            }
            [_, c, h, w] if c == channels => [c, h, w],
            [_, d] if d % channels == 0 && (d / channels).isqrt().pow(2) == d / channels => {
                let side = (d / channels).isqrt();
                [channels, side, side]
            }
            _ => return Err(fail()),
        };
        Ok(Self { dims, values })
    }

    /// Normalises in place; `integer` says that the file held integers.
    ///
    /// # Errors
    /// [`NetError::Normalize`] if there are several means, but not one per channel.
    pub fn normalize(&mut self, how: &Normalize, integer: bool) -> Result<()> {
        let scale = if integer { WHITE } else { 1.0 };
        let (mean, std) = match how {
            Normalize::Raw => return Ok(()),
            Normalize::Unit => (vec![0.0], vec![1.0]),
            Normalize::Standard { mean, std } => (mean.clone(), std.clone()),
        };
        let [channels, h, w] = self.dims;
        if mean.len() != 1 && mean.len() != channels {
            let what = format!("{} means and deviations for {channels} channels", mean.len());
            return Err(NetError::Normalize { what });
        }
        for sample in self.values.chunks_exact_mut(channels * h * w) {
            for (c, plane) in sample.chunks_exact_mut(h * w).enumerate() {
                let k = c % mean.len();
                plane.iter_mut().for_each(|v| *v = (*v / scale - mean[k]) / std[k]);
            }
        }
        Ok(())
    }
}

/// From pixel by pixel to channel by channel.
pub(crate) fn interleaved(values: &[f32], channels: usize, places: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (out, sample) in out.chunks_exact_mut(channels * places).zip(values.chunks_exact(channels * places)) {
        for (p, pixel) in sample.chunks_exact(channels).enumerate() {
            for (c, v) in pixel.iter().enumerate() {
                out[c * places + p] = *v;
            }
        }
    }
    out
}
