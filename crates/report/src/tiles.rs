//! Small images: kept in a run record as bytes, drawn as a sheet of tiles.
//!
//! In a record: `{"height", "width", "channels", "pixels"}`, the pixels of all images one after the other, row-major, as base64.
//! On the page: one PNG per sheet inside a data address, not compressed (tiles are tiny), gaps transparent.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::text::escape;

/// Smallest and largest side of an array that counts as an image.
const SIDES: std::ops::RangeInclusive<u64> = 4..=128;
/// Pixels between tiles.
const GAP: usize = 1;
/// A sheet is drawn so large that a tile is about that wide, in CSS pixels.
const TILE_WIDTH: usize = 40;

/// Height, width and channels of the images in an array of this shape (images first; `N x H x W` or `N x H x W x C`), if it
/// holds images.
///
/// ```
/// assert_eq!(subspan_report::image_shape(&[1797, 8, 8]), Some([8, 8, 1]));
/// assert_eq!(subspan_report::image_shape(&[60, 32, 32, 3]), Some([32, 32, 3]));
/// assert_eq!(subspan_report::image_shape(&[60, 384]), None);
/// ```
pub fn image_shape(shape: &[u64]) -> Option<[usize; 3]> {
    let (height, width, channels) = match *shape {
        [_, height, width] => (height, width, 1),
        [_, height, width, channels @ (1 | 3)] => (height, width, channels),
        _ => return None,
    };
    let fits = SIDES.contains(&height) && SIDES.contains(&width);
    fits.then_some([height as usize, width as usize, channels as usize])
}

/// Images (of `shape`: height, width, channels) for a record. Values are stretched over all of them together: the smallest is
/// black, the largest white.
///
/// # Panics
/// If `values` does not hold whole images.
pub fn images(shape: [usize; 3], values: &[f32]) -> Value {
    let [height, width, channels] = shape;
    assert!(values.len().is_multiple_of(height * width * channels), "whole images");
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
    let bytes: Vec<u8> = values.iter().map(|v| ((v - low) * scale).round() as u8).collect();
    json!({ "height": height, "width": width, "channels": channels, "pixels": base64(&bytes) })
}

/// The images of a record in rows of `columns` tiles; `None` if the value holds none.
pub(crate) fn sheet(value: &Value, columns: usize, what: &str) -> Option<String> {
    let side = |name: &str| value[name].as_u64().filter(|n| (1..=*SIDES.end()).contains(n)).map(|n| n as usize);
    let (height, width, channels) = (side("height")?, side("width")?, side("channels")?);
    let pixels = from_base64(value["pixels"].as_str()?)?;
    let size = height * width * channels;
    let n = pixels.len() / size;
    if n == 0 || columns == 0 || ![1, 3].contains(&channels) || pixels.len() != n * size {
        return None;
    }
    let (columns, rows) = (columns.min(n), n.div_ceil(columns));
    let sheet_width = columns * (width + GAP) - GAP;
    let sheet_height = rows * (height + GAP) - GAP;
    // Zero is what shows through; black is one.
    let mut sheet = vec![0; sheet_width * sheet_height * channels];
    for (i, image) in pixels.chunks_exact(size).enumerate() {
        let (top, left) = (i / columns * (height + GAP), i % columns * (width + GAP));
        for (y, line) in image.chunks_exact(width * channels).enumerate() {
            let at = ((top + y) * sheet_width + left) * channels;
            sheet[at..at + line.len()].iter_mut().zip(line).for_each(|(s, p)| *s = (*p).max(1));
        }
    }
    let png = base64(&png(sheet_width, sheet_height, channels, &sheet));
    let zoom = (TILE_WIDTH / width).max(1);
    let mut out = String::new();
    let _ = write!(
        out,
        "<img class=\"tiles\" width=\"{}\" height=\"{}\" alt=\"{}\" src=\"data:image/png;base64,{png}\">",
        sheet_width * zoom,
        sheet_height * zoom,
        escape(what)
    );
    Some(out)
}

/// A PNG of 8-bit samples (1 or 3 per pixel) in which zero is transparent, with stored (uncompressed) blocks.
fn png(width: usize, height: usize, channels: usize, samples: &[u8]) -> Vec<u8> {
    /// Largest stored block.
    const STORED: usize = 65_535;
    let mut lines = Vec::with_capacity(samples.len() + height);
    for line in samples.chunks_exact(width * channels) {
        lines.push(0); // no filter
        lines.extend_from_slice(line);
    }
    // A zlib stream of stored blocks.
    let mut data = vec![0x78, 0x01];
    let n_blocks = lines.len().div_ceil(STORED);
    for (i, block) in lines.chunks(STORED).enumerate() {
        data.push(u8::from(i + 1 == n_blocks));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend_from_slice(block);
    }
    data.extend(adler32(&lines).to_be_bytes());
    let mut header = Vec::new();
    header.extend((width as u32).to_be_bytes());
    header.extend((height as u32).to_be_bytes());
    header.extend([8, if channels == 1 { 0 } else { 2 }, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let transparent = vec![0; 2 * channels];
    for (kind, body) in [(b"IHDR", &header), (b"tRNS", &transparent), (b"IDAT", &data), (b"IEND", &Vec::new())] {
        out.extend((body.len() as u32).to_be_bytes());
        let from = out.len();
        out.extend_from_slice(kind);
        out.extend_from_slice(body);
        let check = crc32(&out[from..]);
        out.extend(check.to_be_bytes());
    }
    out
}

/// The checksum of zlib streams (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let (mut a, mut b) = (1, 0);
    for byte in bytes {
        a = (a + u32::from(*byte)) % PRIME;
        b = (b + a) % PRIME;
    }
    b << 16 | a
}

/// The checksum of PNG chunks (ISO 3309, reflected polynomial 0xedb88320).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |w: u32, b| w << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .trim_end_matches('=')
        .bytes()
        .map(|c| ALPHABET.iter().position(|a| *a == c).map(|i| i as u32))
        .collect::<Option<_>>()?;
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for four in digits.chunks(4) {
        let word = four.iter().fold(0, |w, d| w << 6 | d) << (6 * (4 - four.len()));
        out.extend(&word.to_be_bytes()[1..four.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one_and_reversible() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64("a b"), None);
    }

    #[test]
    fn checksums_are_those_of_their_standards() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_sheet_holds_its_tiles_and_lets_the_page_through_between_them() {
        let value = images([4, 4, 1], &[0.0; 16].into_iter().chain([2.0; 16]).collect::<Vec<f32>>());
        let html = sheet(&value, 2, "a < b").unwrap();
        assert!(html.contains("width=\"90\" height=\"40\"") && html.contains("a &lt; b"), "{html}");
        let data = html.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        let png = from_base64(data).unwrap();
        let black_gap_white = [1, 1, 1, 1, 0, 255, 255, 255, 255];
        assert_eq!(png.windows(9).filter(|w| *w == black_gap_white).count(), 4);
    }

    #[test]
    fn what_is_no_image_is_not_drawn() {
        for bad in [
            Value::Null,
            json!({"height": 4, "width": 4, "channels": 1, "pixels": "AAAA"}),
            json!({"height": 4, "width": 4, "channels": 2, "pixels": base64(&[0; 32])}),
            json!({"height": 4_000_000_000_u64, "width": 4, "channels": 1, "pixels": ""}),
        ] {
            assert_eq!(sheet(&bad, 3, ""), None, "{bad}");
        }
    }
}
