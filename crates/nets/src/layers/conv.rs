//! Convolutions as products with unfolded images: as many at a time as fit a cache, since small products run far below the rate of large ones.

use rayon::prelude::*;
use subspan_linalg::{Real, gemm};

use super::CHUNK;

/// The shapes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// The same of the output.
    pub(crate) output: [usize; 3],
    /// Side of the kernel.
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) pad: usize,
}

impl Geometry {
    fn n_in(&self) -> usize {
        self.input.iter().product()
    }

    fn n_out(&self) -> usize {
        self.output.iter().product()
    }

    /// Positions of the output.
    fn places(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Values under a kernel.
    fn taps(&self) -> usize {
        self.input[0] * self.size * self.size
    }

    /// Images unfolded together; a function of the shapes alone, so that sums have a fixed order.
    fn group(&self) -> usize {
        (UNFOLDED / (self.taps() * self.places())).clamp(1, CHUNK)
    }

    /// Calls `visit(tap, first output place, places, input offset)` for each run of output places whose inputs lie in one row of the
    /// image.
    fn runs(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let ([c, h, w], [_, oh, ow], k) = (self.input, self.output, self.size);
        for tap in 0..c * k * k {
            let (channel, ky, kx) = (tap / (k * k), tap / k % k, tap % k);
            // Output columns whose input column x * stride + kx - pad lies in 0..w.
            let first = self.pad.saturating_sub(kx).div_ceil(self.stride);
            let last = (w + self.pad).saturating_sub(kx).div_ceil(self.stride).min(ow);
            if first >= last {
                continue;
            }
            for y in 0..oh {
                let row = y * self.stride + ky;
                if row >= self.pad && row - self.pad < h {
                    let from = channel * h * w + (row - self.pad) * w + first * self.stride + kx - self.pad;
                    visit(tap, y * ow + first, last - first, from);
                }
            }
        }
    }

    /// Unfolds images to `taps x (images · places)`; what lies outside an image stays as it is in `columns` (zero).
    fn unfold<T: Real>(&self, images: &[T], columns: &mut [T]) {
        let width = columns.len() / self.taps();
        for (i, image) in images.chunks_exact(self.n_in()).enumerate() {
            self.runs(|tap, place, n, from| {
                let out = &mut columns[tap * width + i * self.places() + place..][..n];
                if self.stride == 1 {
                    out.copy_from_slice(&image[from..from + n]);
                } else {
                    out.iter_mut().zip(image[from..].iter().step_by(self.stride)).for_each(|(o, v)| *o = *v);
                }
            });
        }
    }

    /// The transpose of [`Geometry::unfold`], added to `images`.
    fn fold<T: Real>(&self, columns: &[T], images: &mut [T]) {
        let width = columns.len() / self.taps();
        for (i, image) in images.chunks_exact_mut(self.n_in()).enumerate() {
            self.runs(|tap, place, n, to| {
                let places = image[to..].iter_mut().step_by(self.stride);
                let values = &columns[tap * width + i * self.places() + place..][..n];
                places.zip(values).for_each(|(o, v)| *o += *v);
            });
        }
    }

    /// Copies results between `images x out x places` and `out x (images · places)`: calls `copy(there, here)` for each run.
    fn planes(&self, images: usize, mut copy: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
        let (out, places) = (self.output[0], self.places());
        for i in 0..images {
            for o in 0..out {
                let (there, here) = ((i * out + o) * places, (o * images + i) * places);
                copy(there..there + places, here..here + places);
            }
        }
    }
}

/// Values of the unfolded images of a group: a megabyte of single precision.
const UNFOLDED: usize = 1 << 18;

/// `y` for a batch `x` and kernels `w` (`out x taps`). Floor: `2 n out taps places` flop.
pub(crate) fn forward<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, g: &Geometry) -> Vec<T> {
    let mut y = vec![T::default(); x.len() / g.n_in() * g.n_out()];
    let (group, places) = (g.group(), g.places());
    y.par_chunks_mut(group * g.n_out()).zip(x.par_chunks(group * g.n_in())).for_each(|(y, x)| {
        let images = x.len() / g.n_in();
        let mut columns = vec![T::default(); g.taps() * images * places];
        let mut planes = vec![T::default(); y.len()];
        g.unfold(x, &mut columns);
        gemm::mul_here(w, g.taps(), &columns, images * places, &mut planes);
        if let Some(bias) = bias {
            for (plane, b) in planes.chunks_exact_mut(images * places).zip(bias) {
                plane.iter_mut().for_each(|v| *v += *b);
            }
        }
        g.planes(images, |there, here| y[there].copy_from_slice(&planes[here]));
    });
    y
}

/// Gradients for `dy`: of the kernels, of the bias, and of `x` where `w` is given.
pub(crate) fn backward<T: Real>(x: &[T], w: Option<&[T]>, dy: &[T], g: &Geometry) -> (Vec<T>, Vec<T>, Option<Vec<T>>) {
    let (out, taps, places, group) = (g.output[0], g.taps(), g.places(), g.group());
    let mut dx = w.map(|_| vec![T::default(); x.len()]);
    // Kernels' and biases' shares of a few groups, added up in order.
    let chunk = |x: &[T], dy: &[T], mut dx: Option<&mut [T]>| {
        let (mut dw, mut one) = (vec![T::default(); out * taps], vec![T::default(); out * taps]);
        let mut db = vec![T::default(); out];
        for (at, (x, dy)) in x.chunks(group * g.n_in()).zip(dy.chunks(group * g.n_out())).enumerate() {
            let images = x.len() / g.n_in();
            let width = images * places;
            let mut columns = vec![T::default(); taps * width];
            g.unfold(x, &mut columns);
            let mut planes = vec![T::default(); dy.len()];
            g.planes(images, |there, here| planes[here].copy_from_slice(&dy[there]));
            gemm::mul_transposed_here(&planes, &columns, width, &mut one);
            dw.iter_mut().zip(&one).for_each(|(s, v)| *s += *v);
            for (b, plane) in db.iter_mut().zip(planes.chunks_exact(width)) {
                plane.iter().for_each(|v| *b += *v);
            }
            if let (Some(w), Some(dx)) = (w, dx.as_deref_mut()) {
                gemm::transposed_mul_here(w, taps, &planes, width, &mut columns);
                g.fold(&columns, &mut dx[at * group * g.n_in()..][..x.len()]);
            }
        }
        (dw, db)
    };
    let step = CHUNK.next_multiple_of(group);
    let tasks = x.par_chunks(step * g.n_in()).zip(dy.par_chunks(step * g.n_out()));
    let parts: Vec<(Vec<T>, Vec<T>)> = match &mut dx {
        Some(dx) => tasks.zip(dx.par_chunks_mut(step * g.n_in())).map(|((x, dy), dx)| chunk(x, dy, Some(dx))).collect(),
        None => tasks.map(|(x, dy)| chunk(x, dy, None)).collect(),
    };
    let (mut dw, mut db) = (vec![T::default(); out * taps], vec![T::default(); out]);
    for (w, b) in &parts {
        dw.iter_mut().zip(w).for_each(|(s, v)| *s += *v);
        db.iter_mut().zip(b).for_each(|(s, v)| *s += *v);
    }
    (dw, db, dx)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry from the definition.
    fn naive(x: &[f64], w: &[f64], g: &Geometry) -> Vec<f64> {
        let ([c, h, wd], [o, oh, ow], k) = (g.input, g.output, g.size);
        let mut y = Vec::new();
        for image in x.chunks_exact(c * h * wd) {
            for (f, i, j) in (0..o * oh * ow).map(|p| (p / (oh * ow), p / ow % oh, p % ow)) {
                let mut sum = 0.0;
                for (ch, a, b) in (0..c * k * k).map(|t| (t / (k * k), t / k % k, t % k)) {
                    let (r, s) = (i * g.stride + a, j * g.stride + b);
                    if r >= g.pad && s >= g.pad && r - g.pad < h && s - g.pad < wd {
                        sum += image[ch * h * wd + (r - g.pad) * wd + s - g.pad]
                            * w[f * c * k * k + ch * k * k + a * k + b];
                    }
                }
                y.push(sum);
            }
        }
        y
    }

    #[test]
    fn products_are_those_of_the_definition_and_the_gradients_their_adjoints() {
        let noise = |n: usize, k: u64| -> Vec<f64> {
            let stream = subspan::draw::Stream::new(k, "conv");
            (0..n as u64).map(|i| stream.uniform(i) - 0.5).collect()
        };
        for (input, out, size, stride, pad) in [
            ([2, 5, 6], 3, 3, 1, 1),
            ([3, 7, 7], 2, 3, 2, 1),
            ([1, 6, 6], 4, 5, 1, 0),
            ([2, 4, 4], 3, 1, 2, 0),
            ([1, 3, 3], 1, 7, 1, 3),
        ] {
            let side = |n: usize| (n + 2 * pad - size) / stride + 1;
            let output = [out, side(input[1]), side(input[2])];
            let g = Geometry { input, output, size, stride, pad };
            let n = 19;
            let (x, w) = (noise(n * g.n_in(), 1), noise(out * g.taps(), 2));
            let y = forward(&x, &w, None, &g);
            let expected = naive(&x, &w, &g);
            assert!(y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
            // <dy, conv(x, w)> is bilinear: its partial derivatives contract to itself.
            let dy = noise(y.len(), 3);
            let (dw, db, dx) = backward(&x, Some(&w), &dy, &g);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let value = dot(&dy, &y);
            assert!((dot(&dw, &w) - value).abs() < 1e-10 && (dot(&dx.unwrap(), &x) - value).abs() < 1e-10);
            let total: f64 = dy.iter().sum();
            assert!((db.iter().sum::<f64>() - total).abs() < 1e-10);
        }
    }
}
