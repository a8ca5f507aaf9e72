//! What can go wrong inside a method, with the data a user needs to mend it.

use subspan_linalg::LinalgError;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the library. `Display` is one line; [`Error::hint`] is the next step, where there is one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A NaN or an infinity in the data.
    NonFinite {
        /// Global index of the first such row.
        row: u64,
        /// Column index.
        column: usize,
        /// The value found.
        value: f64,
    },
    /// A parameter outside its range.
    Parameter {
        /// The name users know it by.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted, completing "must be ...".
        expected: String,
    },
    /// Two inputs whose shapes do not belong together.
    Shape {
        /// Which input.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size it should have.
        expected: usize,
    },
    /// The table has no rows or no columns.
    Empty {
        /// `"rows"` or `"columns"`.
        what: &'static str,
    },
    /// Every row is zero: nothing can be measured.
    AllZero,
    /// Every sample is too short, after centring if that is asked for, to have a direction in single precision.
    NoDirections,
    /// Every row is the same: there is nothing to tell apart.
    Constant,
    /// Rows that equal the mean, so that they have no direction.
    ZeroRows {
        /// How many.
        count: usize,
        /// Global indices of the first of them.
        first: Vec<u64>,
    },
    /// A column whose values single precision does not tell apart.
    Precision {
        /// Its index.
        column: usize,
        /// Its least value.
        low: f64,
        /// Its largest.
        high: f64,
    },
    /// A sum beyond the range of double precision.
    Overflow {
        /// What was summed.
        what: &'static str,
    },
    /// Fewer rows than the work needs.
    TooFewRows {
        /// Rows there are.
        found: usize,
        /// Rows needed.
        needed: usize,
        /// The next step, where there is one.
        hint: Option<&'static str>,
    },
    /// An iteration stopped before reaching its tolerance.
    NotConverged {
        /// Which iteration.
        what: &'static str,
        /// Iterations done.
        iterations: usize,
        /// The measure it stopped at.
        reached: f64,
        /// The measure it had to reach.
        tolerance: f64,
    },
    /// A logistic regression whose classes a hyperplane separates: the optimum is at infinity.
    Separable,
    /// Fewer than two classes have samples.
    Classes {
        /// Classes found.
        found: usize,
        /// The only one's label.
        label: String,
    },
    /// The loss of a training became infinite.
    Diverged {
        /// In which pass.
        epoch: usize,
        /// The learning rate.
        lr: f64,
    },
    /// The state of a pass, computed elsewhere, cannot be used.
    State {
        /// Of which chunk of the table, where that is known.
        chunk: Option<u64>,
        /// What is wrong with it, completing "the state ...".
        what: &'static str,
    },
    /// A factorization failed.
    Linalg(LinalgError),
    /// The row source failed (file, network, format); the text is the source's own.
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// The observer asked to stop.
    Cancelled,
}

impl Error {
    /// A parameter error: `name` must be `expected`, but `value` was given.
    pub fn parameter(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Parameter { name, value: value.to_string(), expected: expected.into() }
    }

    /// The next step for the user, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NonFinite { .. } => Some("drop or fill the missing values first".into()),
            Self::ZeroRows { .. } => Some("--zero-rows drop leaves them out and labels them like new rows".into()),
            Self::TooFewRows { hint, .. } => hint.map(Into::into),
            Self::Separable => Some("add --l2 PENALTY, or drop the column that separates the classes".into()),
            Self::Diverged { lr, .. } => Some(format!("lower the learning rate, say to {}", lr / 10.0)),
            Self::NotConverged { .. } => {
                Some("check for columns that are nearly multiples of each other, and for extreme parameters".into())
            }
            Self::NoDirections => {
                Some("scale the features; centred, subtract an offset in double precision first".into())
            }
            Self::Precision { .. } => Some("subtract an offset from the column, or scale it".into()),
            Self::Overflow { .. } => Some("divide large columns by a power of ten first".into()),
            _ => None,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NonFinite { row, column, value } => {
                write!(f, "non-finite value {value} at row {row}, column {column}")
            }
            Self::Parameter { name, value, expected } => write!(f, "{name} must be {expected}, not {value}"),
            Self::Shape { what, found, expected } => write!(f, "{what} has size {found}, expected {expected}"),
            Self::Empty { what } => write!(f, "the table has no {what}"),
            Self::Precision { column, low, high } => write!(
                f,
                "column {column} goes from {low:?} to {high:?}: single precision, in which rows are compared, does not tell its values apart"
            ),
            Self::Overflow { what } => write!(f, "{what} is beyond the range of double precision"),
            Self::AllZero => write!(f, "every value of the table is zero"),
            Self::NoDirections => write!(f, "no sample has a direction: all are shorter than 1e-12"),
            Self::Constant => write!(f, "every row is the same"),
            Self::ZeroRows { count, first } => {
                let shown: Vec<String> = first.iter().map(u64::to_string).collect();
                let more = if *count > first.len() { ", ..." } else { "" };
                let rows = if *count == 1 { "row has" } else { "rows have" };
                let why = "equal to the mean, or zero where rows are not centred";
                write!(f, "{count} {rows} no direction ({why}): {}{more}", shown.join(", "))
            }
            Self::TooFewRows { found, needed, .. } => write!(f, "{found} rows, at least {needed} are needed"),
            Self::NotConverged { what, iterations, reached, tolerance } => write!(
                f,
                "{what} did not converge: {reached:.3e} after {iterations} iterations, {tolerance:.1e} needed"
            ),
            Self::Separable => {
                write!(f, "the two classes are separated by a hyperplane, so the logistic optimum is at infinity")
            }
            Self::Classes { found: 0, .. } => write!(f, "classification needs at least 2 classes, got none"),
            Self::Classes { found, label } => {
                write!(f, "classification needs at least 2 classes, got {found} (label {label})")
            }
            Self::Diverged { epoch, .. } => write!(f, "the training loss became infinite in pass {epoch}"),
            Self::State { chunk: Some(chunk), what } => write!(f, "the state of chunk {chunk} {what}"),
            Self::State { chunk: None, what } => write!(f, "a state {what}"),
            Self::Linalg(e) => e.fmt(f),
            Self::Source(e) => e.fmt(f),
            Self::Cancelled => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Linalg(e) => Some(e),
            Self::Source(e) => Some(e.as_ref()),
            _ => None,
        }
    }
}

impl From<LinalgError> for Error {
    fn from(e: LinalgError) -> Self {
        Self::Linalg(e)
    }
}
