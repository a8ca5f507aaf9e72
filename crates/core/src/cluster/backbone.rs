//! A trained convolutional network as a function of an image: from pixels to features that clusters are found in.
//!
//! BatchNorm is folded into the kernels, so that a layer is a product, a bias, perhaps the sum with an earlier layer (the shortcut of a
//! residual network) and perhaps a rectifier. The mean of the last layer over all places is the image's features.

use rayon::prelude::*;
use subspan_linalg::gemm;

use crate::error::{Error, Result};

/// A convolution with square kernels; zeros around the image keep its size, up to the stride.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// What it works on: 0 is the image, `i + 1` the result of layer `i`.
    pub from: usize,
    /// What is added to its result, counted alike.
    pub add: Option<usize>,
    /// Whether negative values become zero.
    pub rectified: bool,
    /// Side of a kernel, odd.
    pub size: usize,
    /// Step in both directions.
    pub stride: usize,
    /// `outputs x size x size x inputs`.
    pub kernels: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

/// A convolutional network of images of one size, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Backbone {
    image: [usize; 3],
    mean: Vec<f32>,
    deviation: Vec<f32>,
    layers: Vec<Convolution>,
    /// Height, width and channels of the image and of every layer's result.
    shapes: Vec<[usize; 3]>,
}

/// Images per task; also the unit to which inputs are padded, so that an image's features do not depend on its company.
const IMAGES: usize = 8;
/// Largest side of an image, most channels and most layers: far above any that is trained here, and a bound on what a damaged file can
/// make predictions allocate.
const MAX_SIDE: usize = 256;
const MAX_CHANNELS: usize = 4096;
const MAX_LAYERS: usize = 256;
/// Most values that all layers together make of an image: a gigabyte per task.
const MAX_VALUES: usize = 1 << 25;
/// Largest side of a kernel.
const MAX_KERNEL: usize = 11;

impl Backbone {
    /// A network of images of the given height, width and channels, stored pixel by pixel; from every channel its `mean` is
    /// subtracted, then it is divided by its `deviation`.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the layer that does not fit.
    ///
    /// ```
    /// use subspan::cluster::{Backbone, Convolution};
    /// // Twice the brightness, where it is above 1.
    /// let layer = Convolution {
    ///     from: 0, add: None, rectified: true, size: 1, stride: 1, kernels: vec![2.0], bias: vec![0.0],
    /// };
    /// let net = Backbone::new([2, 2, 1], vec![1.0], vec![1.0], vec![layer])?;
    /// assert_eq!(net.apply(&[0.0, 1.0, 2.0, 5.0]), [2.5]);
    /// # Ok::<(), subspan::Error>(())
    /// ```
    pub fn new(image: [usize; 3], mean: Vec<f32>, deviation: Vec<f32>, layers: Vec<Convolution>) -> Result<Self> {
        let fail = |value: String, expected: String| Err(Error::parameter("backbone", value, expected));
        let [height, width, channels] = image;
        if [height, width].iter().any(|s| !(1..=MAX_SIDE).contains(s)) || !(1..=MAX_CHANNELS).contains(&channels) {
            return fail(format!("of images {image:?}"), format!("of sides up to {MAX_SIDE}"));
        }
        if mean.len() != channels || deviation.len() != channels || !deviation.iter().all(|s| *s > 0.0) {
            return fail("its normalisation".into(), format!("positive deviations for {channels} channels"));
        }
        if !(1..=MAX_LAYERS).contains(&layers.len()) {
            return fail(format!("of {} layers", layers.len()), format!("of 1 to {MAX_LAYERS} layers"));
        }
        let mut shapes = vec![image];
        for (i, layer) in layers.iter().enumerate() {
            let Some([h, w, c]) = shapes.get(layer.from).copied() else {
                return fail(format!("layer {i} on {}", layer.from), "of layers on earlier ones".into());
            };
            let (out, size, stride) = (layer.bias.len(), layer.size, layer.stride);
            let kernel = size % 2 == 1 && size <= MAX_KERNEL && (1..=MAX_KERNEL).contains(&stride);
            if !kernel || !(1..=MAX_CHANNELS).contains(&out) || layer.kernels.len() != out * size * size * c {
                return fail(format!("layer {i}"), format!("of kernels on {c} channels with odd sides"));
            }
            let shape = [h.div_ceil(stride), w.div_ceil(stride), out];
            if layer.add.is_some_and(|a| shapes.get(a) != Some(&shape)) {
                return fail(format!("layer {i}"), "sums of results of one shape".into());
            }
            shapes.push(shape);
        }
        let values: usize = shapes.iter().map(|[h, w, c]| h * w * c).sum();
        if values > MAX_VALUES {
            return fail(format!("of {values} values per image"), format!("of at most {MAX_VALUES}"));
        }
        Ok(Self { image, mean, deviation, layers, shapes })
    }

    /// Height, width and channels of an image.
    pub fn image(&self) -> [usize; 3] {
        self.image
    }

    /// What is subtracted from each channel, and what it is divided by.
    pub fn normalisation(&self) -> [&[f32]; 2] {
        [&self.mean, &self.deviation]
    }

    /// The layers in order.
    pub fn layers(&self) -> &[Convolution] {
        &self.layers
    }

    /// Features per image.
    pub fn n_out(&self) -> usize {
        self.shapes[self.layers.len()][2]
    }

    /// Features of images (`n x height · width · channels`); each independent of the others.
    ///
    /// # Panics
    /// If `images` does not hold whole images.
    pub fn apply(&self, images: &[f32]) -> Vec<f32> {
        let (len, out) = (self.image.iter().product::<usize>(), self.n_out());
        assert!(images.len().is_multiple_of(len), "whole images");
        let mut features = vec![0f32; images.len() / len * out];
        features.par_chunks_mut(IMAGES * out).zip(images.par_chunks(IMAGES * len)).for_each(|(features, images)| {
            let mut normed = images.to_vec();
            for pixel in normed.chunks_exact_mut(self.mean.len()) {
                pixel.iter_mut().zip(&self.mean).zip(&self.deviation).for_each(|((v, m), s)| *v = (*v - m) / s);
            }
            normed.resize(IMAGES * len, 0.0);
            let mut results = vec![normed];
            for (i, layer) in self.layers.iter().enumerate() {
                let result = layer.apply(&results, &self.shapes, self.shapes[i + 1]);
                results.push(result);
            }
            let last = &results[self.layers.len()];
            let places = last.len() / (IMAGES * out);
            for (row, image) in features.chunks_exact_mut(out).zip(last.chunks_exact(places * out)) {
                image.chunks_exact(out).for_each(|place| row.iter_mut().zip(place).for_each(|(r, v)| *r += v));
                row.iter_mut().for_each(|r| *r /= places as f32);
            }
        });
        features
    }
}

impl Convolution {
    /// The results for a block of images, from all that came before.
    fn apply(&self, results: &[Vec<f32>], shapes: &[[usize; 3]], shape: [usize; 3]) -> Vec<f32> {
        let patches = self.patches(&results[self.from], shapes[self.from], shape);
        let taps = self.kernels.len() / self.bias.len();
        let mut out = vec![0f32; patches.len() / taps * self.bias.len()];
        gemm::mul_transposed_here(&patches, &self.kernels, taps, &mut out);
        out.chunks_exact_mut(self.bias.len()).for_each(|p| p.iter_mut().zip(&self.bias).for_each(|(v, b)| *v += b));
        if let Some(other) = self.add {
            out.iter_mut().zip(&results[other]).for_each(|(v, a)| *v += a);
        }
        if self.rectified {
            out.iter_mut().for_each(|v| *v = v.max(0.0));
        }
        out
    }

    /// The values under the kernel at every place, one row each; zeros outside the image.
    fn patches(&self, images: &[f32], [height, width, c]: [usize; 3], [h, w, _]: [usize; 3]) -> Vec<f32> {
        let (pad, row) = (self.size / 2, self.size * c);
        let mut out = vec![0f32; images.len() / (height * width * c) * h * w * self.size * row];
        let patches = out.chunks_exact_mut(h * w * self.size * row);
        for (patches, image) in patches.zip(images.chunks_exact(height * width * c)) {
            for (at, patch) in patches.chunks_exact_mut(self.size * row).enumerate() {
                let (y, x) = (at / w * self.stride, at % w * self.stride);
                // Columns of the image under the kernel, the first of them `left` columns into it.
                let (first, left) = (x.saturating_sub(pad), pad.saturating_sub(x));
                let last = (x + pad + 1).min(width);
                for ky in 0..self.size {
                    if let Some(r) = (y + ky).checked_sub(pad).filter(|r| *r < height) {
                        let from = &image[(r * width + first) * c..(r * width + last) * c];
                        patch[ky * row + left * c..][..from.len()].copy_from_slice(from);
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn layer(
        from: usize,
        add: Option<usize>,
        inputs: usize,
        outputs: usize,
        size: usize,
        stride: usize,
    ) -> Convolution {
        let mut rng = Stream::new(0, "kernels").rng((from * 10 + size) as u64);
        let mut normal = |n: usize| (0..n).map(|_| rng.normal() as f32).collect();
        let (kernels, bias) = (normal(outputs * size * size * inputs), normal(outputs));
        Convolution { from, add, rectified: true, size, stride, kernels, bias }
    }

    /// Two layers, a projection of the first beside the second.
    fn net() -> Backbone {
        let layers = vec![
            layer(0, None, 2, 3, 3, 1),
            Convolution { rectified: false, ..layer(1, None, 3, 4, 3, 2) },
            layer(1, Some(2), 3, 4, 1, 2),
        ];
        Backbone::new([5, 7, 2], vec![0.5, 1.0], vec![2.0, 1.0], layers).unwrap()
    }

    #[test]
    fn features_are_those_of_the_definition_and_do_not_depend_on_company() {
        let net = net();
        let mut rng = Stream::new(1, "images").rng(0);
        let images: Vec<f32> = (0..19 * 70).map(|_| rng.normal() as f32).collect();
        let features = net.apply(&images);
        assert_eq!(net.apply(&images[13 * 70..14 * 70]), features[13 * 4..14 * 4]);
        // One image by loops over the definition.
        let normed: Vec<f32> =
            images[..70].iter().enumerate().map(|(i, v)| if i % 2 == 0 { (v - 0.5) / 2.0 } else { v - 1.0 }).collect();
        let mut results: Vec<(Vec<f32>, [usize; 3])> = vec![(normed, [5, 7, 2])];
        for l in net.layers() {
            let (x, [h, w, c]) = &results[l.from];
            let (oh, ow, out, pad) = (h.div_ceil(l.stride), w.div_ceil(l.stride), l.bias.len(), l.size / 2);
            let mut y = Vec::new();
            for (r, s, o) in (0..oh * ow * out).map(|p| (p / (ow * out), p / out % ow, p % out)) {
                let mut sum = l.bias[o] + l.add.map_or(0.0, |a| results[a].0[(r * ow + s) * out + o]);
                for (ky, kx, ch) in (0..l.size * l.size * c).map(|t| (t / (l.size * c), t / c % l.size, t % c)) {
                    let (a, b) = (r * l.stride + ky, s * l.stride + kx);
                    if a >= pad && b >= pad && a - pad < *h && b - pad < *w {
                        sum += x[((a - pad) * w + b - pad) * c + ch]
                            * l.kernels[((o * l.size + ky) * l.size + kx) * c + ch];
                    }
                }
                y.push(if l.rectified { sum.max(0.0) } else { sum });
            }
            results.push((y, [oh, ow, out]));
        }
        let (last, [h, w, out]) = &results[3];
        for (o, value) in features[..4].iter().enumerate() {
            let mean = (0..h * w).map(|p| last[p * out + o]).sum::<f32>() / (h * w) as f32;
            assert!((mean - value).abs() < 1e-4, "{mean} {value}");
        }
    }

    #[test]
    fn networks_that_do_not_fit_together_are_refused() {
        let with = |change: &dyn Fn(&mut Vec<Convolution>)| {
            let mut layers = net().layers;
            change(&mut layers);
            Backbone::new([5, 7, 2], vec![0.5, 1.0], vec![2.0, 1.0], layers)
        };
        assert!(with(&|_| {}).is_ok());
        for change in [
            (|l: &mut Vec<Convolution>| l.clear()) as fn(&mut Vec<Convolution>),
            |l| l[0].from = 1,
            |l| l[1].stride = 0,
            |l| l[0].size = 2,
            |l| l[2].add = Some(1),
            |l| l[2].add = Some(3),
            |l| _ = l[1].kernels.pop(),
            |l| l[1].bias.clear(),
        ] {
            assert!(with(&change).is_err());
        }
        let one = || vec![layer(0, None, 1, 1, 1, 1)];
        assert!(Backbone::new([5000, 7, 1], vec![0.0], vec![1.0], one()).is_err());
        assert!(Backbone::new([5, 7, 1], vec![0.0], vec![0.0], one()).is_err());
        assert!(Backbone::new([5, 7, 1], vec![], vec![1.0], one()).is_err());
        // A small layer that makes much of an image.
        let layer = |outputs: usize| Convolution {
            from: 0,
            add: None,
            rectified: true,
            size: 1,
            stride: 1,
            kernels: vec![1.0; outputs],
            bias: vec![0.0; outputs],
        };
        let on = |outputs: usize| Backbone::new([256, 256, 1], vec![0.0], vec![1.0], vec![layer(outputs)]);
        assert!(on(16).is_ok() && on(4096).is_err());
    }
}
