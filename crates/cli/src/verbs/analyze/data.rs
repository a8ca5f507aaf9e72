//! The samples of an evaluation: files, and what a network makes of them.

use subspan::record::InputRecord;
use subspan_io::{Checkpoint, Labels, Matrix};
use subspan_nets::analyze::Evaluation;
use subspan_nets::{Dims, Labelled, Net, NetError, Normalize, Samples};
use subspan_report::count;

use crate::failure::Failure;

/// Keys of a checkpoint's metadata that may say how its inputs are normalised.
const METADATA: [&str; 6] = ["input", "normalize", "mean", "std", "preprocessing", "arch"];

/// Where the samples are.
pub(super) struct Files {
    pub(super) data: String,
    pub(super) labels: String,
    pub(super) train: Option<String>,
    pub(super) normalize: Option<Normalize>,
}

impl Files {
    pub(super) fn resolve(
        data: Option<(String, String)>,
        train: Option<String>,
        normalize: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let normalize =
            normalize.map(Normalize::parse).transpose().map_err(|e| Failure::usage(e.to_string(), e.hint()))?;
        Ok(data.map(|(data, labels)| Self { data, labels, train, normalize }))
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = &str> {
        [self.data.as_str(), self.labels.as_str()].into_iter().chain(self.train.as_deref())
    }
}

/// Samples in memory.
pub(super) struct Data {
    pub(super) dims: Dims,
    pub(super) normalize: Normalize,
    pub(super) inputs: Vec<InputRecord>,
    x: Vec<f32>,
    y: Vec<u32>,
    train: Option<Vec<f32>>,
    /// One for each training sample; statistics need no labels.
    train_y: Vec<u32>,
}

impl Data {
    /// Reads and normalises; `channels` is what the network's images have.
    pub(super) fn read(files: &Files, channels: Option<usize>, model: &Checkpoint) -> Result<Self, Failure> {
        let matrix = Matrix::open(&files.data)?;
        let labels = Labels::open(&files.labels)?;
        let (n, found) = (matrix.n_rows(), labels.codes.len());
        if n != found {
            let (n, found) = (count(n as u64), count(found as u64));
            let message = format!("{} has {found} labels for the {n} samples of {}", files.labels, files.data);
            return Err(Failure::Work { message, hint: None });
        }
        let normalize = match &files.normalize {
            Some(how) => how.clone(),
            None => from_checkpoint(model, &matrix)?,
        };
        let samples = read_samples(&matrix, channels, &normalize)?;
        let mut inputs = vec![matrix.input_record()?, labels.input.clone()];
        let mut train = None;
        if let Some(path) = &files.train {
            let matrix = Matrix::open(path)?;
            let own = read_samples(&matrix, channels, &normalize)?;
            if own.dims != samples.dims {
                let message =
                    format!("{path} has samples of shape {:?}, {} of {:?}", own.dims, files.data, samples.dims);
                return Err(Failure::Work { message, hint: None });
            }
            inputs.push(matrix.input_record()?);
            train = Some(own.values);
        }
        let y = class_numbers(&labels)?;
        let n_train = train.as_ref().map_or(0, |t| t.len() / samples.dims.iter().product::<usize>());
        Ok(Self { dims: samples.dims, normalize, inputs, x: samples.values, y, train, train_y: vec![0; n_train] })
    }

    /// Checks that every label is an output of the network.
    pub(super) fn check_labels(&self, classes: usize) -> Result<(), Failure> {
        match self.y.iter().position(|y| *y as usize >= classes) {
            Some(row) => Err(NetError::Label { label: self.y[row].to_string(), row, classes }.into()),
            None => Ok(()),
        }
    }

    pub(super) fn evaluation<'a>(&'a self, net: &'a Net) -> Evaluation<'a> {
        let train = self.train.as_ref().map(|x| Labelled { x, y: &self.train_y });
        Evaluation { net, data: Labelled { x: &self.x, y: &self.y }, train }
    }
}

/// Samples of a file, normalised.
pub(crate) fn read_samples(
    matrix: &Matrix,
    channels: Option<usize>,
    normalize: &Normalize,
) -> Result<Samples, Failure> {
    let shape: Vec<usize> = matrix.shape().iter().map(|n| *n as usize).collect();
    let mut samples = Samples::arrange(&shape, matrix.to_f32()?, channels)?;
    samples.normalize(normalize, is_integer(matrix))?;
    Ok(samples)
}

/// Whether a file holds integers, which stand for pixels.
pub(super) fn is_integer(matrix: &Matrix) -> bool {
    matrix.dtype().starts_with(['u', 'i'])
}

/// What the checkpoint says about its inputs; floating-point samples need nothing.
pub(crate) fn from_checkpoint(model: &Checkpoint, matrix: &Matrix) -> Result<Normalize, Failure> {
    if !is_integer(matrix) {
        return Ok(Normalize::Raw);
    }
    let entries = METADATA.iter().filter_map(|key| Some((*key, model.metadata(key)?)));
    Normalize::from_metadata(entries).ok_or_else(|| {
        let what = format!("{} does not say how its inputs are normalised", model.path());
        NetError::Normalize { what }.into()
    })
}

/// Labels as the numbers of outputs.
pub(crate) fn class_numbers(labels: &Labels) -> Result<Vec<u32>, Failure> {
    let numbers: Vec<u32> = labels
        .classes
        .iter()
        .map(|class| {
            class.parse().map_err(|_| Failure::Work {
                message: format!("{}: label {class} is no number of an output", labels.input.path),
                hint: Some("labels are the numbers of the network's outputs, from 0".into()),
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(labels.codes.iter().map(|c| numbers[*c as usize]).collect())
}
