//! The scattering transform of small images: features that small shifts and deformations hardly move.
//!
//! Wavelet moduli of first and second order, averaged over squares of side `2^J` (Bruna and Mallat, "Invariant scattering
//! convolution networks", 2013), with Morlet wavelets of `J = 3` scales and `L = 8` orientations: 217 channels. Every channel of
//! an image is divided by its largest value, so that where it is counts and not how much, unless the image is a single square. Images are mirrored up to a power of two and convolved periodically. Features may be
//! averaged over small turns of the image, which then hardly move them either.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Scales.
const SCALES: usize = 3;
/// Orientations.
const ANGLES: usize = 8;
/// Images of a smaller side have no coarsest scale; larger ones are no small images.
const SIDES: std::ops::RangeInclusive<usize> = 8..=256;
/// Degrees by which an image is turned where features are averaged over turns.
const TURNS: [f64; 5] = [-16.0, -8.0, 0.0, 8.0, 16.0];

/// Filters for images of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Scattering {
    height: usize,
    width: usize,
    /// Side after padding, a power of two.
    side: usize,
    /// Fourier transforms (real) of the wavelets, scale after scale, angle after angle.
    wavelets: Vec<Vec<f32>>,
    /// Of the averaging filter.
    average: Vec<f32>,
    /// Whether features are averaged over turns.
    turned: bool,
}

/// A complex number: real and imaginary part.
type Complex = [f32; 2];

impl Scattering {
    /// Filters for images of this size.
    ///
    /// # Errors
    /// [`Error::Parameter`] for sides outside 8 to 256.
    pub fn new(height: usize, width: usize) -> Result<Self> {
        for side in [height, width] {
            if !SIDES.contains(&side) {
                return Err(Error::parameter(
                    "images",
                    format!("{height} x {width}"),
                    "of sides 8 to 256 for scattering",
                ));
            }
        }
        let side = height.max(width).next_power_of_two();
        let mut wavelets = Vec::new();
        for j in 0..SCALES {
            for a in 0..ANGLES {
                wavelets.push(morlet(side, j, std::f64::consts::PI * a as f64 / ANGLES as f64));
            }
        }
        // Widths as in common implementations: 0.8 · 2^j for wavelets, 0.8 · 2^(J−1) for the average.
        let average = gaussian(side, 0.8 * f64::from(1 << (SCALES - 1)), 0.0, [0.0, 0.0], 1.0);
        Ok(Self { height, width, side, wavelets, average, turned: false })
    }

    /// The same averaged over turns of the image by up to 16 degrees, at five times the cost: hands slant as they like, and what slants
    /// is one shape.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { turned: true, ..self }
    }

    /// Whether features are averaged over turns.
    pub fn is_turned(&self) -> bool {
        self.turned
    }

    /// Height and width of an image.
    pub fn image(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Values per image after the transform.
    pub fn n_out(&self) -> usize {
        let cells = self.cells();
        (1 + SCALES * ANGLES + ANGLES * ANGLES * SCALES * (SCALES - 1) / 2) * cells * cells
    }

    /// Averages per side.
    fn cells(&self) -> usize {
        self.side >> SCALES
    }

    /// Transforms images (`n x height · width`); each independent of the others. Cost: about 70 two-dimensional Fourier
    /// transforms of the padded image each.
    ///
    /// # Panics
    /// If `images` does not hold whole images.
    pub fn apply(&self, images: &[f32]) -> Vec<f32> {
        let size = self.height * self.width;
        assert!(images.len().is_multiple_of(size), "whole images");
        let mut out = vec![0f32; images.len() / size * self.n_out()];
        let plans: Vec<Plan> = (0..=SCALES).map(|s| Plan::new(self.side >> s)).collect();
        out.par_chunks_mut(self.n_out()).zip(images.par_chunks(size)).for_each(|(out, image)| {
            if !self.turned {
                return self.one(image, &plans, out);
            }
            let mut part = vec![0f32; out.len()];
            for degrees in TURNS {
                self.one(&turn(image, [self.height, self.width], degrees), &plans, &mut part);
                out.iter_mut().zip(&part).for_each(|(o, p)| *o += p / TURNS.len() as f32);
            }
        });
        out
    }

    fn one(&self, image: &[f32], plans: &[Plan], out: &mut [f32]) {
        let n = self.side;
        let at = |i: usize, size: usize| if i < size { i } else { 2 * size - 1 - i.min(2 * size - 1) };
        let mut x: Vec<Complex> =
            (0..n * n).map(|p| [image[at(p / n, self.height) * self.width + at(p % n, self.width)], 0.0]).collect();
        plans[0].transform(&mut x, false);
        let cells = self.cells() * self.cells();
        let mut slots = out.chunks_exact_mut(cells);
        let mut put = |spectrum: &[Complex], level: usize| {
            let slot = slots.next().expect("as many channels as counted");
            self.averaged(spectrum, level, plans, slot);
        };
        put(&x, 0);
        let mut second = Vec::new();
        for (w, wavelet) in self.wavelets.iter().enumerate() {
            let j = w / ANGLES;
            let u = self.modulus(&x, 0, wavelet, j, plans);
            put(&u, j);
            second.push((j, u));
        }
        for (j, u) in &second {
            for (w, wavelet) in self.wavelets.iter().enumerate().skip((j + 1) * ANGLES) {
                let v = self.modulus(u, *j, wavelet, w / ANGLES, plans);
                put(&v, w / ANGLES);
            }
        }
    }

    /// The spectrum of `|u * ψ|` sampled every `2^to`, for a spectrum `u` of samples every `2^from`.
    fn modulus(&self, u: &[Complex], from: usize, wavelet: &[f32], to: usize, plans: &[Plan]) -> Vec<Complex> {
        let mut v = self.filtered(u, from, wavelet, to);
        plans[to].transform(&mut v, true);
        v.iter_mut().for_each(|z| *z = [(z[0] * z[0] + z[1] * z[1]).sqrt(), 0.0]);
        plans[to].transform(&mut v, false);
        v
    }

    /// The average of a channel over each cell, divided by the largest.
    fn averaged(&self, u: &[Complex], level: usize, plans: &[Plan], out: &mut [f32]) {
        let mut v = self.filtered(u, level, &self.average, SCALES);
        plans[SCALES].transform(&mut v, true);
        let largest = v.iter().fold(0f32, |m, z| m.max(z[0].abs()));
        let scale = match v.len() {
            1 => 1.0,
            _ if largest > 0.0 => largest.recip(),
            _ => 0.0,
        };
        out.iter_mut().zip(&v).for_each(|(o, z)| *o = z[0] * scale);
    }

    /// Product with a filter and subsampling: aliases in the spectrum are added up.
    fn filtered(&self, u: &[Complex], from: usize, filter: &[f32], to: usize) -> Vec<Complex> {
        let (n, m) = (self.side >> from, self.side >> to);
        let scale = (m * m) as f32 / (n * n) as f32;
        // A filter at a coarser sampling: its own aliases, of which those of low frequencies count.
        let place = |k: usize| if k < n / 2 { k } else { k + self.side - n };
        let mut out = vec![[0f32; 2]; m * m];
        for r in 0..n {
            for c in 0..n {
                let f = filter[place(r) * self.side + place(c)] * scale;
                let to = &mut out[(r % m) * m + c % m];
                to[0] += f * u[r * n + c][0];
                to[1] += f * u[r * n + c][1];
            }
        }
        out
    }
}

/// An image turned around its middle, between pixels by bilinear interpolation; beyond the border it is dark.
fn turn(image: &[f32], [height, width]: [usize; 2], degrees: f64) -> Vec<f32> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let middle = [(height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0];
    let at = |row: f64, column: f64| {
        let inside = row >= 0.0 && column >= 0.0 && row < height as f64 && column < width as f64;
        if inside { f64::from(image[row as usize * width + column as usize]) } else { 0.0 }
    };
    (0..height * width)
        .map(|p| {
            let (down, right) = ((p / width) as f64 - middle[0], (p % width) as f64 - middle[1]);
            let (row, column) = (middle[0] + cos * down + sin * right, middle[1] - sin * down + cos * right);
            let (above, left) = (row.floor(), column.floor());
            let (r, c) = (row - above, column - left);
            let upper = (1.0 - c) * at(above, left) + c * at(above, left + 1.0);
            let lower = (1.0 - c) * at(above + 1.0, left) + c * at(above + 1.0, left + 1.0);
            ((1.0 - r) * upper + r * lower) as f32
        })
        .collect()
}

/// The Fourier transform of a Gabor wavelet minus the Gaussian that makes its mean zero.
fn morlet(side: usize, scale: usize, angle: f64) -> Vec<f32> {
    let width = 0.8 * f64::from(1 << scale);
    let frequency = 3.0 * std::f64::consts::FRAC_PI_4 / f64::from(1 << scale);
    let slant = 4.0 / ANGLES as f64;
    let center = [frequency * angle.cos(), frequency * angle.sin()];
    let wave = gaussian(side, width, angle, center, slant);
    let envelope = gaussian(side, width, angle, [0.0, 0.0], slant);
    let share = wave[0] / envelope[0];
    wave.iter().zip(&envelope).map(|(w, e)| w - share * e).collect()
}

/// The Fourier transform of an oriented Gaussian of unit mass, moved to `center`, on the grid of frequencies with aliases.
fn gaussian(side: usize, width: f64, angle: f64, center: [f64; 2], slant: f64) -> Vec<f32> {
    let (cos, sin) = (angle.cos(), angle.sin());
    let tau = std::f64::consts::TAU;
    (0..side * side)
        .map(|p| {
            let mut sum = 0.0;
            for shift_r in -1..=1 {
                for shift_c in -1..=1 {
                    let fr = tau * ((p / side) as f64 / side as f64 + f64::from(shift_r)) - center[1];
                    let fc = tau * ((p % side) as f64 / side as f64 + f64::from(shift_c)) - center[0];
                    let (along, across) = (fc * cos + fr * sin, -fc * sin + fr * cos);
                    // In space the envelope is `slant` times as narrow across.
                    sum += (-0.5 * width * width * (along * along + across * across / (slant * slant))).exp();
                }
            }
            sum as f32
        })
        .collect()
}

/// A two-dimensional Fourier transform of a square of a power of two.
struct Plan {
    side: usize,
    /// `exp(−2πi k / side)` for half of the `k`.
    roots: Vec<Complex>,
}

impl Plan {
    fn new(side: usize) -> Self {
        let root = |k: usize| {
            let angle = -std::f64::consts::TAU * k as f64 / side as f64;
            [angle.cos() as f32, angle.sin() as f32]
        };
        Self { side, roots: (0..side / 2).map(root).collect() }
    }

    fn transform(&self, x: &mut [Complex], inverse: bool) {
        for _ in 0..2 {
            x.chunks_exact_mut(self.side).for_each(|row| self.line(row, inverse));
            for i in 0..self.side {
                for j in 0..i {
                    x.swap(i * self.side + j, j * self.side + i);
                }
            }
        }
        if inverse {
            let scale = 1.0 / (self.side * self.side) as f32;
            x.iter_mut().for_each(|z| *z = [z[0] * scale, z[1] * scale]);
        }
    }

    /// Radix two, decimation in time.
    fn line(&self, x: &mut [Complex], inverse: bool) {
        let n = x.len();
        if n < 2 {
            return;
        }
        let bits = n.trailing_zeros();
        for i in 0..n {
            let j = i.reverse_bits() >> (usize::BITS - bits);
            if i < j {
                x.swap(i, j);
            }
        }
        let mut half = 1;
        while half < n {
            let step = n / (2 * half);
            for block in x.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                    let [cos, sin] = self.roots[k * step];
                    let sin = if inverse { -sin } else { sin };
                    let t = [b[0] * cos - b[1] * sin, b[0] * sin + b[1] * cos];
                    *b = [a[0] - t[0], a[1] - t[1]];
                    *a = [a[0] + t[0], a[1] + t[1]];
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_square_keeps_the_strength_of_its_channels() {
        for (side, kept) in [(8, 2.0), (16, 1.0)] {
            let scattering = Scattering::new(side, side).unwrap();
            let stripes: Vec<f32> = (0..side * side).map(|p| if p / side % 2 == 0 { 1.0 } else { 0.2 }).collect();
            let brighter: Vec<f32> = stripes.iter().map(|v| 2.0 * v).collect();
            let lying: Vec<f32> = (0..side * side).map(|p| stripes[p % side * side + p / side]).collect();
            let [one, two, other] = [&stripes, &brighter, &lying].map(|image| scattering.apply(image));
            assert!(one.iter().zip(&two).all(|(a, b)| (kept * a - b).abs() < 1e-4 * (1.0 + b.abs())), "{side}");
            let apart = one.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart > 0.05, "{side}: {apart}");
        }
    }

    #[test]
    fn the_fourier_transform_is_that_of_the_definition_and_turns_back() {
        let n = 8;
        let x: Vec<Complex> = (0..n * n).map(|i| [((i * 7) % 13) as f32, ((i * 5) % 11) as f32]).collect();
        let plan = Plan::new(n);
        let mut y = x.clone();
        plan.transform(&mut y, false);
        for (r, c) in [(0, 0), (1, 0), (3, 5), (7, 7)] {
            let mut sum = [0f64; 2];
            for (p, z) in x.iter().enumerate() {
                let angle = -std::f64::consts::TAU * (r * (p / n) + c * (p % n)) as f64 / n as f64;
                sum[0] += f64::from(z[0]) * angle.cos() - f64::from(z[1]) * angle.sin();
                sum[1] += f64::from(z[0]) * angle.sin() + f64::from(z[1]) * angle.cos();
            }
            assert!(
                (f64::from(y[r * n + c][0]) - sum[0]).abs() < 1e-3
                    && (f64::from(y[r * n + c][1]) - sum[1]).abs() < 1e-3
            );
        }
        plan.transform(&mut y, true);
        assert!(x.iter().zip(&y).all(|(a, b)| (a[0] - b[0]).abs() < 1e-4 && (a[1] - b[1]).abs() < 1e-4));
    }

    #[test]
    fn a_small_shift_moves_features_less_than_pixels_and_wavelets_have_no_mean() {
        let s = Scattering::new(28, 28).unwrap();
        assert_eq!(s.n_out(), 217 * 16);
        assert!(s.wavelets.iter().all(|w| w[0].abs() < 1e-6));
        // A ring, and the same ring one pixel to the right.
        let ring = |shift: f32| -> Vec<f32> {
            let radius = |p: usize| ((p / 28) as f32 - 14.0).hypot((p % 28) as f32 - 13.0 - shift);
            (0..784).map(|p| (-0.5 * (radius(p) - 7.0).powi(2)).exp()).collect()
        };
        let distance = |a: &[f32], b: &[f32]| {
            let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt();
            let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            norm(&difference) / norm(a)
        };
        let (a, b) = (ring(0.0), ring(1.0));
        let moved = distance(&s.apply(&a), &s.apply(&b));
        assert!(moved < 0.5 * distance(&a, &b), "{moved} {}", distance(&a, &b));
        assert!(Scattering::new(4, 28).is_err());
        // An image does not depend on its company; a blank one is all zero.
        let both = [a.clone(), vec![0.0; 784]].concat();
        let out = s.apply(&both);
        assert_eq!(out[..s.n_out()], s.apply(&a));
        assert!(out[s.n_out()..].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn turning_is_that_of_the_plane_and_averaged_features_hardly_see_it() {
        let bar = |degrees: f64| -> Vec<f32> {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let across = |p: usize| cos * ((p % 28) as f64 - 13.5) - sin * ((p / 28) as f64 - 13.5);
            let along = |p: usize| sin * ((p % 28) as f64 - 13.5) + cos * ((p / 28) as f64 - 13.5);
            (0..784).map(|p| (-0.5 * ((across(p) / 2.0).powi(2) + (along(p) / 5.0).powi(2))).exp() as f32).collect()
        };
        let gap = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let upright = bar(0.0);
        assert!(turn(&upright, [28, 28], 0.0) == upright);
        // What interpolation blurs is an eighth of what the turn moves.
        assert!(gap(&turn(&upright, [28, 28], 10.0), &bar(10.0)) < 0.2 * gap(&upright, &bar(10.0)));
        let plain = Scattering::new(28, 28).unwrap();
        let turned = plain.clone().turned();
        let moved = |s: &Scattering| gap(&s.apply(&bar(-6.0)), &s.apply(&bar(6.0)));
        assert!(moved(&turned) < 0.7 * moved(&plain), "{} {}", moved(&turned), moved(&plain));
        // The middle of a wide image stays where it is.
        let wide: Vec<f32> = (0..9 * 21).map(|p| f32::from(u8::from(p == 4 * 21 + 10))).collect();
        assert_eq!(turn(&wide, [9, 21], 8.0)[4 * 21 + 10], 1.0);
    }
}
