//! Classifiers as `.safetensors` files.
//!
//! Tensors of a model of subspaces: `subspaces` (f32, all frames stacked, `Σk x D`), `offsets` (u32, `C + 1`), optionally `center`
//! (f32, `D`) and `gamma` (f64, 1). Of a linear one: `weights` (f32, `C x D`), `bias` (f32, `C`). Of both, `temperature` (f64, 1)
//! and optionally `recon_subspaces`, `recon_offsets` and `recon_center`, against which strangeness is measured, with
//! `contrast_mean` (f32, `D`), `contrast_form` (f32, `D x D`), `contrast_slopes` (f32, `C x D`), `contrast_constants` (f32, `C`) and
//! `contrast_standards` (f64, 4), `contrast_weight` (f64, 1) if there is a second measure (earlier versions wrote none and ignore it). The file's metadata has one entry, `subspan`: a JSON object with `format`, `version` and `classes`. A file is not trusted: everything
//! predictions rely on is checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use subspan::classify::{Contrast, Frames, Model, Reconstruction, SCALES, Scorer, orthonormality_defect};

use crate::atomic::AtomicFile;
use crate::bytes::open_file;
use crate::error::{IoError, Result};
use crate::guard::decoding;

/// What this version writes and reads.
const FORMAT: &str = "subspan-classifier-1";
/// The metadata's only key; one, so that equal models make equal files.
const KEY: &str = "subspan";
/// Largest entry of `P Pᵀ − I` of a frame that counts as orthonormal: far above the rounding of single precision.
const ORTHONORMAL: f64 = 1e-3;

/// The metadata's entry.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: String,
    classes: Vec<String>,
}

/// Writes `model` into `file`, which is then complete. Equal models give equal bytes.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_model(model: &Model, file: AtomicFile) -> Result<()> {
    write_all(file, |path| to_bytes(model, path))
}

/// The bytes that [`write_model`] writes.
///
/// # Errors
/// [`IoError::Write`] if a part exceeds what the format can hold.
pub fn model_to_bytes(model: &Model) -> Result<Vec<u8>> {
    to_bytes(model, "a model")
}

fn to_bytes(model: &Model, path: &str) -> Result<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    let d = model.n_cols;
    put_f64(&mut tensors, "temperature", model.temperature);
    match &model.scorer {
        Scorer::Subspaces { frames, gamma, center } => {
            put_f64(&mut tensors, "gamma", *gamma);
            put_frames(&mut tensors, ["subspaces", "offsets"], frames, d);
            put_f32(&mut tensors, "center", center.as_deref(), &[d]);
        }
        Scorer::Linear { weights, bias } => {
            put_f32(&mut tensors, "weights", Some(weights), &[bias.len(), d]);
            put_f32(&mut tensors, "bias", Some(bias), &[bias.len()]);
        }
    }
    if let Some(reconstruction) = &model.reconstruction {
        put_frames(&mut tensors, ["recon_subspaces", "recon_offsets"], &reconstruction.frames, d);
        put_f32(&mut tensors, "recon_center", reconstruction.center.as_deref(), &[d]);
        if let Some(contrast) = &reconstruction.contrast {
            let n_classes = contrast.constants.len();
            put_f32(&mut tensors, "contrast_mean", Some(&contrast.mean), &[d]);
            put_f32(&mut tensors, "contrast_form", Some(&contrast.form), &[d, d]);
            put_f32(&mut tensors, "contrast_slopes", Some(&contrast.slopes), &[n_classes, d]);
            put_f32(&mut tensors, "contrast_constants", Some(&contrast.constants), &[n_classes]);
            let bytes = contrast.standards.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert("contrast_standards", (Dtype::F64, vec![contrast.standards.len()], bytes));
            put_f64(&mut tensors, "contrast_weight", contrast.weight);
        }
    }
    let header =
        Header { format: FORMAT.into(), version: env!("CARGO_PKG_VERSION").into(), classes: model.classes.clone() };
    let failed = |e: &dyn std::fmt::Display| IoError::write(path)(std::io::Error::other(e.to_string()));
    let text = serde_json::to_string(&header).map_err(|e| failed(&e))?;
    tensor_bytes(&tensors, Some(text), path)
}

/// Writes what `bytes` makes, given the file's name, into `file`, which is then complete.
pub(crate) fn write_all(mut file: AtomicFile, bytes: impl FnOnce(&str) -> Result<Vec<u8>>) -> Result<()> {
    let path = file.target().display().to_string();
    file.write_all(&bytes(&path)?).map_err(IoError::write(&path))?;
    file.commit()
}

/// Tensors and the header's text as the content of a file, which errors call `path`.
pub(crate) fn tensor_bytes(
    tensors: &BTreeMap<&'static str, Stored>,
    text: Option<String>,
    path: &str,
) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| IoError::write(path)(std::io::Error::other(e.to_string()));
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<_, SafeTensorError>>()
        .map_err(|e| failed(&e))?;
    let metadata = text.map(|text| HashMap::from([(KEY.to_string(), text)]));
    safetensors::serialize(views, metadata).map_err(|e| failed(&e))
}

/// Type, shape and little-endian bytes.
pub(crate) type Stored = (Dtype, Vec<usize>, Vec<u8>);

pub(crate) fn put_f32(
    tensors: &mut BTreeMap<&'static str, Stored>,
    name: &'static str,
    values: Option<&[f32]>,
    shape: &[usize],
) {
    if let Some(values) = values {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.insert(name, (Dtype::F32, shape.to_vec(), bytes));
    }
}

pub(crate) fn put_f64(tensors: &mut BTreeMap<&'static str, Stored>, name: &'static str, value: f64) {
    tensors.insert(name, (Dtype::F64, vec![1], value.to_le_bytes().to_vec()));
}

fn put_frames(tensors: &mut BTreeMap<&'static str, Stored>, names: [&'static str; 2], frames: &Frames, d: usize) {
    put_f32(tensors, names[0], Some(&frames.rows), &[frames.rows.len() / d, d]);
    let bytes = frames.offsets.iter().flat_map(|o| (*o as u32).to_le_bytes()).collect();
    tensors.insert(names[1], (Dtype::U32, vec![frames.offsets.len()], bytes));
}

/// Reads a classifier and checks it.
///
/// # Errors
/// [`IoError`]: no such file; not a safetensors file, not a model of this program, or damaged; shapes that do not fit each
/// other, frames that are not orthonormal, numbers that are not finite.
pub fn read_model(path: &str) -> Result<Model> {
    reading(path, read_classifier)
}

/// [`read_model`] of a file's content; `path` names it in errors.
///
/// # Errors
/// As [`read_model`].
pub fn model_from_bytes(path: &str, bytes: &[u8]) -> Result<Model> {
    reading_bytes(path, bytes, read_classifier)
}

fn read_classifier(reader: &Reader<'_>, header: &str) -> Result<Model> {
    let header: Header = serde_json::from_str(header).map_err(|e| IoError::corrupt(reader.path, "metadata", e))?;
    reader.model(header)
}

/// Opens a model file and hands its tensors and the text of its header to `read`.
pub(crate) fn reading<T>(path: &str, read: impl FnOnce(&Reader<'_>, &str) -> Result<T>) -> Result<T> {
    use std::io::Read;
    let (mut file, _) = open_file(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(IoError::read(path, "data"))?;
    reading_bytes(path, &bytes, read)
}

/// The first bytes of a safetensors file are the length of its header; those of another file are a length that cannot be.
fn no_header(path: &str, e: &SafeTensorError) -> IoError {
    match e {
        SafeTensorError::HeaderTooLarge | SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            IoError::corrupt(path, "header", format!("{e}, this is no .safetensors file or a part of one"))
        }
        e => IoError::corrupt(path, "header", e),
    }
}

/// [`reading`] of a file's content.
pub(crate) fn reading_bytes<T>(
    path: &str,
    bytes: &[u8],
    read: impl FnOnce(&Reader<'_>, &str) -> Result<T>,
) -> Result<T> {
    decoding(path, "header", || {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| no_header(path, &e))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| IoError::Unsupported {
            path: path.into(),
            what: "a safetensors file, but not a model of this program".into(),
            hint: Some("subspan classify and subspan cluster write models".into()),
        })?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| IoError::corrupt(path, "data", e))?;
        read(&Reader { path, tensors }, text)
    })
}

/// Whether the safetensors file at `path` says that it is a model of this program.
pub(crate) fn is_model(path: &str) -> Result<bool> {
    use std::io::Read;
    let (mut file, _) = open_file(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(IoError::read(path, "data"))?;
    decoding(path, "header", || {
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| no_header(path, &e))?;
        Ok(metadata.metadata().as_ref().is_some_and(|m| m.contains_key(KEY)))
    })
}

/// The tensors of a model file, not trusted.
pub(crate) struct Reader<'a> {
    pub(crate) path: &'a str,
    tensors: SafeTensors<'a>,
}

impl Reader<'_> {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn model(&self, header: Header) -> Result<Model> {
        if header.format != FORMAT {
            return Err(IoError::unsupported(
                self.path,
                format!("a model of format {}, this version reads {FORMAT}", header.format),
            ));
        }
        let n_classes = header.classes.len();
        if n_classes < 2 {
            return Err(self.corrupt("classes", format!("{n_classes} classes, at least 2 are needed")));
        }
        let mut seen = HashSet::new();
        if let Some(class) = header.classes.iter().find(|c| !seen.insert(c.as_str())) {
            return Err(self.corrupt("classes", format!("class {class} twice")));
        }
        let temperature = self.scale("temperature")?;
        let (scorer, n_cols) = if self.tensors.tensor("subspaces").is_ok() {
            let gamma = self.scale("gamma")?;
            let (frames, n_cols) = self.frames(["subspaces", "offsets"], n_classes, None)?;
            let center = self.optional_f32("center", &[n_cols])?;
            (Scorer::Subspaces { frames, gamma, center }, n_cols)
        } else {
            let (weights, shape) = self.f32("weights")?;
            let [rows, n_cols] = shape[..] else {
                return Err(self.corrupt("weights", format!("shape {shape:?} instead of two dimensions")));
            };
            if rows != n_classes || n_cols == 0 {
                return Err(self.corrupt("weights", format!("shape {shape:?} for {n_classes} classes")));
            }
            let bias = self.shaped_f32("bias", &[n_classes])?;
            (Scorer::Linear { weights, bias }, n_cols)
        };
        let reconstruction = if self.tensors.tensor("recon_subspaces").is_ok() {
            let (frames, _) = self.frames(["recon_subspaces", "recon_offsets"], n_classes, Some(n_cols))?;
            let center = self.optional_f32("recon_center", &[n_cols])?;
            Some(Reconstruction { frames, center, contrast: self.contrast(n_classes, n_cols)? })
        } else {
            None
        };
        Ok(Model { classes: header.classes, n_cols, scorer, temperature, reconstruction })
    }

    /// The second measure of strangeness; files of earlier versions have none.
    fn contrast(&self, n_classes: usize, n_cols: usize) -> Result<Option<Contrast>> {
        if !self.has("contrast_form") {
            return Ok(None);
        }
        let standards = self.f64("contrast_standards", 4)?;
        let standards = [standards[0], standards[1], standards[2], standards[3]];
        if standards[1] <= 0.0 || standards[3] <= 0.0 {
            let detail = format!("deviations {} and {} are not positive", standards[1], standards[3]);
            return Err(self.corrupt("contrast_standards", detail));
        }
        let weight = self.f64("contrast_weight", 1)?[0];
        if !(0.0..=1.0).contains(&weight) {
            return Err(self.corrupt("contrast_weight", format!("{weight} is not between 0 and 1")));
        }
        Ok(Some(Contrast {
            mean: self.shaped_f32("contrast_mean", &[n_cols])?,
            form: self.shaped_f32("contrast_form", &[n_cols, n_cols])?,
            slopes: self.shaped_f32("contrast_slopes", &[n_classes, n_cols])?,
            constants: self.shaped_f32("contrast_constants", &[n_classes])?,
            standards,
            weight,
        }))
    }

    /// Frames and their number of columns. A class may have no row: one that an online learner has not met.
    fn frames(
        &self,
        [rows_name, offsets_name]: [&str; 2],
        n_classes: usize,
        n_cols: Option<usize>,
    ) -> Result<(Frames, usize)> {
        let (rows, shape) = self.f32(rows_name)?;
        let [n_rows, found] = shape[..] else {
            return Err(self.corrupt(rows_name, format!("shape {shape:?} instead of two dimensions")));
        };
        if found == 0 || n_cols.is_some_and(|n| n != found) {
            let expected = n_cols.map_or_else(|| "at least 1".to_string(), |n| n.to_string());
            return Err(self.corrupt(rows_name, format!("{found} columns instead of {expected}")));
        }
        let offsets = self.offsets(offsets_name)?;
        let fits = offsets.len() == n_classes + 1
            && offsets.first() == Some(&0)
            && offsets.last() == Some(&n_rows)
            && offsets.windows(2).all(|o| o[0] <= o[1] && o[1] - o[0] <= found);
        if !fits {
            let detail = format!("{n_classes} classes do not share {n_rows} rows of {found} columns this way");
            return Err(self.corrupt(offsets_name, detail));
        }
        for (c, o) in offsets.windows(2).enumerate() {
            let defect = orthonormality_defect(&rows[o[0] * found..o[1] * found], found);
            if defect.is_nan() || defect > ORTHONORMAL {
                let detail = format!("the rows of class number {c} are not orthonormal (off by {defect:.1e})");
                return Err(self.corrupt(rows_name, detail));
            }
        }
        Ok((Frames { rows, offsets }, found))
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.tensors.tensor(name).map_err(|_| IoError::NoSuchPart {
            path: self.path.into(),
            kind: "tensor",
            part: name.into(),
            available: self.tensors.names().into_iter().map(Into::into).collect(),
        })
    }

    pub(crate) fn f32(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != Dtype::F32 {
            return Err(self.corrupt(name, format!("type {:?} instead of F32", tensor.dtype())));
        }
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let values: Vec<f32> = tensor.data().chunks_exact(size_of::<f32>()).map(number).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(self.corrupt(name, format!("value number {at} is {}", values[at]))),
            None => Ok((values, tensor.shape().to_vec())),
        }
    }

    pub(crate) fn shaped_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let (values, shape) = self.f32(name)?;
        if shape == expected {
            Ok(values)
        } else {
            Err(self.corrupt(name, format!("shape {shape:?} instead of {expected:?}")))
        }
    }

    pub(crate) fn optional_f32(&self, name: &str, expected: &[usize]) -> Result<Option<Vec<f32>>> {
        self.tensors.tensor(name).is_ok().then(|| self.shaped_f32(name, expected)).transpose()
    }

    pub(crate) fn offsets(&self, name: &str) -> Result<Vec<usize>> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != Dtype::U32 || tensor.shape().len() != 1 {
            return Err(self.corrupt(name, format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape())));
        }
        let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize;
        Ok(tensor.data().chunks_exact(size_of::<u32>()).map(number).collect())
    }

    /// Finite double-precision numbers, one dimension.
    pub(crate) fn f64(&self, name: &str, len: usize) -> Result<Vec<f64>> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != Dtype::F64 || tensor.shape() != [len] {
            let detail = format!("{:?} of shape {:?} instead of F64 of [{len}]", tensor.dtype(), tensor.shape());
            return Err(self.corrupt(name, detail));
        }
        let values: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(self.corrupt(name, format!("value number {at} is {}", values[at]))),
            None => Ok(values),
        }
    }

    fn scale(&self, name: &str) -> Result<f64> {
        let tensor = self.tensor(name)?;
        let value =
            <[u8; 8]>::try_from(tensor.data()).ok().filter(|_| tensor.dtype() == Dtype::F64).map(f64::from_le_bytes);
        match value {
            Some(v) if SCALES.contains(&v) => Ok(v),
            Some(v) => Err(self.corrupt(name, format!("{v} is not between {} and {}", SCALES.start(), SCALES.end()))),
            None => Err(self.corrupt(name, format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape()))),
        }
    }

    pub(crate) fn corrupt(&self, place: &str, detail: String) -> IoError {
        IoError::corrupt(self.path, place, detail)
    }
}
