//! From the input's columns and the user's choice to the columns of the design.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Field, Schema};
use subspan::Error;

use super::categories::{Codes, Levels, MAX_LEVELS};
use super::{Missing, TableOptions};
use crate::error::{IoError, Result};

/// The columns of the design and where they come from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Input columns used, in the order of the design, the target last.
    pub(crate) used: Vec<Used>,
    /// Their indices in the input, increasing: what is read.
    pub(crate) sources: Vec<usize>,
    /// Names of the design's columns, without the target.
    pub(crate) names: Vec<String>,
    /// The target's name.
    pub(crate) target: Option<String>,
    /// Columns of a block, target included.
    pub(crate) n_cols: usize,
    pub(crate) missing: Missing,
    /// Text columns that may not be meant as such.
    pub(crate) warnings: Vec<String>,
}

/// One input column of the design.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) name: String,
    /// Place in [`Plan::sources`].
    pub(crate) source: usize,
    /// First column of a block that it fills.
    pub(crate) offset: usize,
    pub(crate) kind: Kind,
}

/// How a column becomes numbers.
#[derive(Debug)]
pub(crate) enum Kind {
    /// As one number, times a factor.
    Number { factor: f64 },
    /// One column per level, without the first `skip`.
    Levels { codes: Codes, skip: u32 },
}

impl Plan {
    /// Chooses and checks the columns; `discover` finds the levels of the text columns among them.
    pub(crate) fn new(
        path: &str,
        schema: &Schema,
        options: &TableOptions,
        discover: impl FnOnce(&[usize]) -> Result<Vec<Levels>, Error>,
    ) -> Result<Self, Error> {
        check_names(path, schema)?;
        let design = select(path, schema, options)?;
        let target = options.target.as_deref().map(|name| find(path, schema, name)).transpose()?;
        if design.is_empty() {
            return Err(IoError::Empty { path: path.into(), what: "columns" }.into());
        }
        if let Some(target) = target
            && number_factor(schema.field(target)).is_none()
        {
            return Err(column_type(path, schema.field(target), true).into());
        }
        let mut text: Vec<usize> =
            design.iter().copied().filter(|c| number_factor(schema.field(*c)).is_none()).collect();
        for column in &text {
            if !is_text(schema.field(*column).data_type()) {
                return Err(column_type(path, schema.field(*column), false).into());
            }
        }
        text.sort_unstable();
        let levels = discover(&text)?;
        let mut levels: Vec<_> = text.iter().copied().zip(levels).collect();

        let mut sources: Vec<usize> = design.iter().chain(&target).copied().collect();
        sources.sort_unstable();
        let mut plan = Self {
            used: Vec::new(),
            sources,
            names: Vec::new(),
            target: options.target.clone(),
            n_cols: 0,
            missing: options.missing,
            warnings: Vec::new(),
        };
        for column in design.into_iter().chain(target) {
            let field = schema.field(column);
            let offset = plan.n_cols;
            let kind = match number_factor(field) {
                Some(factor) => {
                    plan.n_cols += 1;
                    if Some(column) != target {
                        plan.names.push(field.name().clone());
                    }
                    Kind::Number { factor }
                }
                None => {
                    let at = levels.iter().position(|(c, _)| *c == column).unwrap_or_default();
                    let names = levels.swap_remove(at).1.into_sorted().ok_or_else(|| IoError::TooManyLevels {
                        path: path.into(),
                        column: field.name().clone(),
                        limit: MAX_LEVELS,
                    })?;
                    plan.warnings.extend(stray(field.name(), &names));
                    let skip = usize::from(options.drop_first_level);
                    let shown = names.iter().skip(skip).map(|level| format!("{}={level}", field.name()));
                    plan.names.extend(shown);
                    plan.n_cols += names.len().saturating_sub(skip);
                    Kind::Levels { codes: Codes::new(&names), skip: skip as u32 }
                }
            };
            let source = plan.sources.binary_search(&column).unwrap_or_default();
            plan.used.push(Used { name: field.name().clone(), source, offset, kind });
        }
        if plan.names.is_empty() {
            return Err(IoError::Empty { path: path.into(), what: "columns" }.into());
        }
        // A level may be called like a column: models name coefficients, and one would be lost.
        let mut seen = HashSet::new();
        match plan.names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(IoError::DuplicateColumn { path: path.into(), column: name.clone() }.into()),
            None => Ok(plan),
        }
    }

    /// Of every text column after the first whose levels are all there, the first level's column.
    pub(crate) fn redundant(&self) -> Vec<usize> {
        let whole = self.used.iter().filter(|used| matches!(used.kind, Kind::Levels { skip: 0, .. }));
        whole.skip(1).map(|used| used.offset).collect()
    }

    /// Whether every column of the design is one input column, in input order: then a plain array needs no rearranging.
    pub(crate) fn is_identity(&self, n_input: usize) -> bool {
        self.n_cols == n_input && self.used.iter().enumerate().all(|(j, used)| used.source == j)
    }
}

/// No column may share its name with another: choices by name would be ambiguous.
fn check_names(path: &str, schema: &Schema) -> Result<()> {
    let mut seen = HashSet::new();
    match schema.fields().iter().find(|field| !seen.insert(field.name())) {
        Some(field) => Err(IoError::DuplicateColumn { path: path.into(), column: field.name().clone() }),
        None => Ok(()),
    }
}

/// The design's input columns, in the order of `--columns` or of the input.
fn select(path: &str, schema: &Schema, options: &TableOptions) -> Result<Vec<usize>> {
    let target = options.target.as_deref();
    let excluded = options.exclude.iter().map(|name| find(path, schema, name)).collect::<Result<HashSet<_>>>()?;
    let chosen = match &options.columns {
        None => (0..schema.fields().len()).filter(|c| Some(schema.field(*c).name().as_str()) != target).collect(),
        Some(names) => {
            let mut seen = HashSet::new();
            let mut chosen = Vec::new();
            for name in names {
                if Some(name.as_str()) == target {
                    return Err(IoError::Selection { detail: format!("--columns names the target {name} as well") });
                }
                if !seen.insert(name) {
                    return Err(IoError::DuplicateColumn { path: "--columns".into(), column: name.clone() });
                }
                chosen.push(find(path, schema, name)?);
            }
            chosen
        }
    };
    Ok(chosen.into_iter().filter(|c| !excluded.contains(c)).collect())
}

/// The index of the column `name`.
pub(crate) fn find(path: &str, schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let mut near: Vec<(usize, &String)> =
            schema.fields().iter().map(|f| (distance(name, f.name()), f.name())).collect();
        near.sort();
        let close = |(d, known): &&(usize, &String)| *d <= 1 + name.chars().count().max(known.chars().count()) / 4;
        IoError::UnknownColumn {
            path: path.into(),
            column: name.into(),
            near: near.iter().take_while(close).take(MAX_NEAR).map(|(_, known)| (*known).clone()).collect(),
        }
    })
}

/// Look-alikes named in a hint.
const MAX_NEAR: usize = 3;

/// Edits (insert, delete, replace) between two names, upper and lower case alike (Wagner and Fischer's recurrence).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replace = diagonal + usize::from(a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn column_type(path: &str, field: &Field, target: bool) -> IoError {
    let data_type = field.data_type().to_string();
    IoError::ColumnType { path: path.into(), column: field.name().clone(), data_type, target }
}

/// Whether values are text, to be one-hot encoded.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// What a column of numbers is multiplied with; `None` if it holds no numbers.
///
/// Points in time become days (dates), or seconds since 1970-01-01T00:00 (timestamps) or midnight (times); durations become
/// seconds: whatever unit a writer chose to store, the numbers are the same.
fn number_factor(field: &Field) -> Option<f64> {
    use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    const MILLISECONDS_PER_DAY: f64 = 86_400_000.0;
    Some(match field.data_type() {
        DataType::Boolean => 1.0,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => 1.0,
        DataType::Date32 => 1.0,
        DataType::Date64 => 1.0 / MILLISECONDS_PER_DAY,
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) | DataType::Duration(unit) => {
            match unit {
                Second => 1.0,
                Millisecond => 1e-3,
                Microsecond => 1e-6,
                Nanosecond => 1e-9,
            }
        }
        DataType::Dictionary(_, values) if values.is_numeric() => 1.0,
        other if other.is_numeric() => 1.0,
        _ => return None,
    })
}

/// Fewest levels among which one that is no number stands out.
const MANY_LEVELS: usize = 10;

/// A warning of a text column nearly all of whose levels are numbers: a few cells have probably made it text.
fn stray(column: &str, levels: &[String]) -> Option<String> {
    let mut others = levels.iter().filter(|level| level.trim().parse::<f64>().is_err());
    let first = others.next()?;
    let n_others = 1 + others.count();
    let probable = levels.len() >= MANY_LEVELS && MANY_LEVELS * n_others <= levels.len();
    probable.then(|| {
        format!(
            "column {column} is text because of \"{first}\", but {} of its {} levels are numbers: each became a column of its own",
            levels.len() - n_others,
            levels.len()
        )
    })
}
