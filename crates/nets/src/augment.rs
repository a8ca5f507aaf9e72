//! Views of images: what a network should not tell apart.
//!
//! A view shows a part of the image, turned, moved, mirrored and in other colours, within limits. Its random numbers are a function of
//! (seed, pass, image, view), so neither threads nor the order of a batch change it.

use subspan::draw::{Rng, Stream};

use crate::graph::Dims;

/// The limits within which views differ from their image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Least and largest area of the part that is shown, as a share of the image's; above one, the border is repeated around it.
    pub area: [f64; 2],
    /// Largest ratio of the part's sides, relative to the image's.
    pub aspect: f64,
    /// Largest angle, in degrees.
    pub rotation: f64,
    /// How far the part may reach over the border, as a share of the image's sides.
    pub shift: f64,
    /// Probability of a mirrored view.
    pub flip: f64,
    /// Probability of other colours, and how much brightness, contrast, saturation (factors within one plus or minus this) and
    /// hue (turns) then change; for three channels only.
    pub jitter: f64,
    /// See [`Augmentation::jitter`].
    pub strength: [f64; 4],
    /// Probability of a view without colours; for three channels only.
    pub gray: f64,
}

impl Augmentation {
    /// For images of one channel: small rotations, moves and changes of size. Nothing is mirrored: digits and letters become others, and
    /// without labels nobody can tell whether images are of that kind.
    pub const GRAY: Self = Self {
        area: [0.7, 1.1],
        aspect: 1.15,
        rotation: 15.0,
        shift: 0.05,
        flip: 0.0,
        jitter: 0.0,
        strength: [0.0; 4],
        gray: 0.0,
    };

    /// For photographs: parts of any size down to a twelfth of the area, mirrored half of the time, in other colours (the recipe of
    /// contrastive learning on small images; Chen et al., arXiv 2002.05709).
    pub const COLOR: Self = Self {
        area: [0.08, 1.0],
        aspect: 4.0 / 3.0,
        rotation: 0.0,
        shift: 0.0,
        flip: 0.5,
        jitter: 0.8,
        strength: [0.4, 0.4, 0.4, 0.1],
        gray: 0.2,
    };

    /// The usual limits for images of so many channels.
    pub fn usual(channels: usize) -> Self {
        if channels == 1 { Self::GRAY } else { Self::COLOR }
    }

    /// Writes view number `view` of image number `index` in pass `pass` to `out`. Images are channel by channel.
    ///
    /// # Panics
    /// If the image or `out` do not have the given shape.
    ///
    /// ```
    /// use subspan_nets::{Augmentation, ViewKey};
    /// let image: Vec<f32> = (0..64).map(|v| v as f32).collect();
    /// let key = ViewKey { seed: 0, pass: 3, index: 17, view: 1 };
    /// let (mut a, mut b) = (vec![0.0; 64], vec![0.0; 64]);
    /// Augmentation::GRAY.view(&image, [1, 8, 8], key, &mut a);
    /// Augmentation::GRAY.view(&image, [1, 8, 8], key, &mut b);
    /// assert_eq!(a, b);
    /// Augmentation::GRAY.view(&image, [1, 8, 8], ViewKey { view: 0, ..key }, &mut b);
    /// assert_ne!(a, b);
    /// ```
    pub fn view(&self, image: &[f32], dims: Dims, key: ViewKey, out: &mut [f32]) {
        let [channels, h, w] = dims;
        assert!(image.len() == channels * h * w && out.len() == image.len(), "one image of the given shape");
        let mut rng = key.rng();
        let place = self.place(&mut rng, h as f64, w as f64);
        for (plane, out) in image.chunks_exact(h * w).zip(out.chunks_exact_mut(h * w)) {
            for (at, o) in out.iter_mut().enumerate() {
                // From the middle, in pixels.
                let (y, x) = ((at / w) as f64 - (h - 1) as f64 / 2.0, (at % w) as f64 - (w - 1) as f64 / 2.0);
                *o = between(plane, [h, w], place.source(y, x));
            }
        }
        if let Ok([r, g, b]) = <[&mut [f32]; 3]>::try_from(out.chunks_exact_mut(h * w).collect::<Vec<_>>()) {
            self.recolor([r, g, b], &mut rng);
        }
    }

    /// Draws where the view lies in the image.
    fn place(&self, rng: &mut Rng, h: f64, w: f64) -> Place {
        let mut within = |low: f64, high: f64| low + (high - low) * rng.uniform();
        let side = within(self.area[0], self.area[1]).sqrt();
        let stretch = within(-self.aspect.ln() / 2.0, self.aspect.ln() / 2.0).exp();
        let (sides, angle) = ([side / stretch, side * stretch], within(-self.rotation, self.rotation).to_radians());
        // A part that is smaller than the image may lie anywhere in it.
        let mut offset = |side: f64, n: f64| {
            let room = (0.5 * (1.0 - side)).max(0.0) + self.shift;
            within(-room, room) * n
        };
        let middle = [offset(sides[0], h), offset(sides[1], w)];
        let mirrored = within(0.0, 1.0) < self.flip;
        Place { sides, middle, turn: [angle.cos(), angle.sin()], mirrored, center: [(h - 1.0) / 2.0, (w - 1.0) / 2.0] }
    }

    /// Changes brightness, contrast, saturation and hue of an image of three channels. Grey is the mean of the channels; hues turn around
    /// the grey axis.
    fn recolor(&self, [r, g, b]: [&mut [f32]; 3], rng: &mut Rng) {
        let n = r.len() as f64;
        let jitters = rng.uniform() < self.jitter;
        let mut factors = self.strength.map(|s| s * (2.0 * rng.uniform() - 1.0));
        let grays = rng.uniform() < self.gray;
        if !jitters {
            factors = [0.0; 4];
        }
        let [bright, contrast, color, turns] = factors;
        let total: f64 = r.iter().chain(&*g).chain(&*b).map(|v| f64::from(*v)).sum();
        let (level, scale) = ((1.0 + bright) * total / (3.0 * n), (1.0 + bright) * (1.0 + contrast));
        let base = (-contrast * level) as f32;
        let color = if grays { 0.0 } else { 1.0 + color };
        let (sin, cos) = (std::f64::consts::TAU * turns).sin_cos();
        let (along, across) = ((color * cos) as f32, (color * sin / 3f64.sqrt()) as f32);
        let scale = scale as f32;
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let gray = (*r + *g + *b) / 3.0;
            let [x, y, z] = [*r - gray, *g - gray, *b - gray];
            *r = base + scale * (gray + along * x + across * (z - y));
            *g = base + scale * (gray + along * y + across * (x - z));
            *b = base + scale * (gray + along * z + across * (y - x));
        }
    }
}

/// What the random numbers of a view are a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewKey {
    /// Of the whole training.
    pub seed: u64,
    /// Number of the pass over the images.
    pub pass: u64,
    /// Number of the image.
    pub index: u64,
    /// Number of the view.
    pub view: u64,
}

impl ViewKey {
    fn rng(self) -> Rng {
        Stream::new(self.seed, &format!("view {} of pass {}", self.view, self.pass)).rng(self.index)
    }
}

/// Where a view lies in its image.
struct Place {
    /// Shares of height and width.
    sides: [f64; 2],
    /// Of the part, from the image's middle.
    middle: [f64; 2],
    /// Cosine and sine.
    turn: [f64; 2],
    mirrored: bool,
    /// Of the image, row and column.
    center: [f64; 2],
}

impl Place {
    /// Row and column in the image of a place in the view, both counted from the middle.
    fn source(&self, y: f64, x: f64) -> [f64; 2] {
        let x = if self.mirrored { -x } else { x };
        let (y, x, [cos, sin]) = (y * self.sides[0], x * self.sides[1], self.turn);
        [y * cos + x * sin + self.middle[0] + self.center[0], x * cos - y * sin + self.middle[1] + self.center[1]]
    }
}

/// The value between the four nearest pixels; the border goes on outside.
fn between(plane: &[f32], [h, w]: [usize; 2], [y, x]: [f64; 2]) -> f32 {
    let (y, x) = (y.clamp(0.0, (h - 1) as f64), x.clamp(0.0, (w - 1) as f64));
    let (top, left) = (y as usize, x as usize);
    let (bottom, right) = ((top + 1).min(h - 1), (left + 1).min(w - 1));
    let (fy, fx) = ((y - top as f64) as f32, (x - left as f64) as f32);
    let row = |r: usize| plane[r * w + left] * (1.0 - fx) + plane[r * w + right] * fx;
    row(top) * (1.0 - fy) + row(bottom) * fy
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Augmentation = Augmentation {
        area: [1.0, 1.0],
        aspect: 1.0,
        rotation: 0.0,
        shift: 0.0,
        flip: 0.0,
        jitter: 0.0,
        strength: [0.0; 4],
        gray: 0.0,
    };

    fn key(index: u64) -> ViewKey {
        ViewKey { seed: 5, pass: 0, index, view: 0 }
    }

    fn image(channels: usize) -> Vec<f32> {
        let stream = Stream::new(0, "image");
        (0..channels as u64 * 12 * 10).map(|i| stream.uniform(i) as f32).collect()
    }

    fn seen(augmentation: Augmentation, channels: usize, index: u64) -> Vec<f32> {
        let mut out = vec![0.0; channels * 120];
        augmentation.view(&image(channels), [channels, 12, 10], key(index), &mut out);
        out
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn without_limits_to_use_a_view_is_the_image_and_each_limit_does_what_it_says() {
        let plain = image(3);
        assert!(close(&seen(STILL, 3, 0), &plain));
        let mirrored: Vec<f32> = plain.chunks(10).flat_map(|row| row.iter().rev().copied()).collect();
        assert!(close(&seen(Augmentation { flip: 1.0, ..STILL }, 3, 0), &mirrored));
        // Half a turn or less: the middle stays where it is, the corners do not.
        let turned = seen(Augmentation { rotation: 180.0, ..STILL }, 1, 3);
        assert!(!close(&turned, &image(1)));
        let gray = seen(Augmentation { gray: 1.0, ..STILL }, 3, 0);
        assert!(close(&gray[..120], &gray[120..240]) && close(&gray[..120], &gray[240..]));
        let mean = |p: usize| (plain[p] + plain[120 + p] + plain[240 + p]) / 3.0;
        assert!((0..120).all(|p| (gray[p] - mean(p)).abs() < 1e-5));
        // Saturation and hue leave grey alone; brightness is a factor.
        let hue = seen(Augmentation { jitter: 1.0, strength: [0.0, 0.0, 0.5, 0.5], ..STILL }, 3, 1);
        assert!(!close(&hue, &plain));
        assert!((0..120).all(|p| ((hue[p] + hue[120 + p] + hue[240 + p]) / 3.0 - mean(p)).abs() < 1e-5));
        let bright = seen(Augmentation { jitter: 1.0, strength: [0.5, 0.0, 0.0, 0.0], ..STILL }, 3, 1);
        let factor = bright[0] / plain[0];
        assert!((factor - 1.0).abs() > 1e-3 && (0..360).all(|p| (bright[p] - factor * plain[p]).abs() < 1e-5));
    }

    #[test]
    fn views_stay_within_the_range_of_the_image_and_differ_from_each_other() {
        for index in 0..20 {
            let view = seen(Augmentation::GRAY, 1, index);
            assert!(view.iter().all(|v| (0.0..=1.0).contains(v)));
            assert!(!close(&view, &seen(Augmentation::GRAY, 1, index + 1)));
        }
        assert_eq!(Augmentation::usual(1).flip, 0.0);
        assert_eq!(Augmentation::usual(3).flip, 0.5);
    }
}
