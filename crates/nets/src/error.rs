//! What can keep a network from running.

use subspan::merge::MergeError;

/// The result of every fallible function of this crate.
pub type Result<T, E = NetError> = std::result::Result<T, E>;

/// An error of this crate. `Display` is one line; [`NetError::hint`] is the next step, where there is one.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetError {
    /// Names and shapes belong to no known architecture, or to several.
    Architecture {
        /// What does not fit, naming a tensor.
        what: String,
    },
    /// A layer list that cannot be read.
    LayerList {
        /// The word.
        word: String,
        /// What is wrong with it.
        what: String,
    },
    /// A parameter that the network needs is not there.
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A parameter of the wrong shape.
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have; zero stands for any size.
        expected: Vec<usize>,
    },
    /// Samples that do not fit the network.
    Input {
        /// Values, or channels, height and width, of a sample.
        found: Vec<usize>,
        /// What the network takes.
        expected: String,
    },
    /// A label that is no class of the network.
    Label {
        /// The label.
        label: String,
        /// Its sample.
        row: usize,
        /// Number of outputs.
        classes: usize,
    },
    /// A normalisation that cannot be read, or none where one is needed.
    Normalize {
        /// What is wrong.
        what: String,
    },
    /// The loss is infinite or no number.
    NonFinite {
        /// Of what.
        what: String,
    },
    /// A setting outside its range.
    Parameter {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted, completing "must be ...".
        expected: &'static str,
    },
    /// The models cannot be matched.
    Merge(MergeError),
    /// An error of the library.
    Library(subspan::Error),
    /// The observer asked to stop.
    Cancelled,
}

impl NetError {
    /// The next step for the user, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Architecture { .. } => {
                Some("name the layers with --arch, e.g. conv1,relu,maxpool2,fc1,relu,fc2".into())
            }
            Self::LayerList { .. } => {
                Some("layers are names of parameters, relu, tanh, gelu, sigmoid, maxpoolN, avgpoolN".into())
            }
            Self::Label { .. } => Some("labels are the numbers of the network's outputs, from 0".into()),
            Self::Normalize { .. } => {
                Some("give --normalize MEAN/STD (of pixels scaled to 0..1), or unit, or none".into())
            }
            Self::Merge(e) => e.hint(),
            Self::Library(e) => e.hint(),
            _ => None,
        }
    }

    pub(crate) fn architecture(what: impl Into<String>) -> Self {
        Self::Architecture { what: what.into() }
    }
}

impl std::fmt::Display for NetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Architecture { what } => write!(f, "the network's architecture is not known: {what}"),
            Self::LayerList { word, what } => write!(f, "layer \"{word}\": {what}"),
            Self::Missing { tensor } => write!(f, "tensor {tensor} is missing"),
            Self::Shape { tensor, found, expected } => {
                write!(f, "tensor {tensor} has shape {found:?}, the network needs {expected:?}")
            }
            Self::Input { found, expected } => write!(f, "samples of shape {found:?}, the network takes {expected}"),
            Self::Label { label, row, classes } => {
                write!(f, "label {label} in row {row} is none of the network's {classes} outputs")
            }
            Self::Normalize { what } => write!(f, "{what}"),
            Self::NonFinite { what } => write!(f, "the loss of {what} is not finite"),
            Self::Parameter { name, value, expected } => write!(f, "{name} must be {expected}, not {value}"),
            Self::Merge(e) => e.fmt(f),
            Self::Library(e) => e.fmt(f),
            Self::Cancelled => write!(f, "interrupted"),
        }
    }
}

impl NetError {
    /// As an error of the library, for code that runs behind one of its seams.
    pub(crate) fn into_core(self) -> subspan::Error {
        match self {
            Self::Cancelled => subspan::Error::Cancelled,
            Self::Library(e) => e,
            other => subspan::Error::Source(Box::new(other)),
        }
    }
}

impl std::error::Error for NetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Merge(e) => Some(e),
            Self::Library(e) => Some(e),
            _ => None,
        }
    }
}

impl From<MergeError> for NetError {
    fn from(e: MergeError) -> Self {
        match e {
            MergeError::Library(subspan::Error::Cancelled) => Self::Cancelled,
            other => Self::Merge(other),
        }
    }
}

impl From<subspan::Error> for NetError {
    fn from(e: subspan::Error) -> Self {
        match e {
            subspan::Error::Cancelled => Self::Cancelled,
            other => Self::Library(other),
        }
    }
}
