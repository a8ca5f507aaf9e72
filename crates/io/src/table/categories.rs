//! Levels of text columns: finding them, and the code of each row.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use rayon::prelude::*;
use subspan::Error;
use subspan::rows::block_rows;

use super::store::{Request, Store};
use crate::error::{IoError, Result};

/// Most levels of a text column that one-hot encoding is meant for.
pub(crate) const MAX_LEVELS: usize = 1000;

/// Distinct values found so far; `None` once there are more than [`MAX_LEVELS`].
#[derive(Debug, Clone)]
pub(crate) struct Levels(Option<HashSet<String>>);

impl Default for Levels {
    fn default() -> Self {
        Self(Some(HashSet::new()))
    }
}

impl Levels {
    /// Adds one value.
    pub(crate) fn insert(&mut self, value: &str) {
        if let Some(levels) = &mut self.0
            && !levels.contains(value)
        {
            levels.insert(value.to_owned());
            if levels.len() > MAX_LEVELS {
                self.0 = None;
            }
        }
    }

    /// Whether there are too many.
    pub(crate) fn overflown(&self) -> bool {
        self.0.is_none()
    }

    fn merge(&mut self, other: &Self) {
        match &other.0 {
            None => self.0 = None,
            Some(levels) => levels.iter().for_each(|level| self.insert(level)),
        }
    }

    /// The levels, sorted.
    pub(crate) fn into_sorted(self) -> Option<Vec<String>> {
        self.0.map(|levels| {
            let mut levels: Vec<String> = levels.into_iter().collect();
            levels.sort();
            levels
        })
    }
}

/// Finds the levels of the text columns `columns` (increasing) in one pass over them.
pub(crate) fn discover(store: &dyn Store, columns: &[usize]) -> Result<Vec<Levels>, Error> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(known) = columns.iter().map(|c| store.known_levels(*c)).collect() {
        return Ok(known);
    }
    let request = Request { columns, batch_rows: block_rows(columns.len()), levels: true };
    let parts: Vec<Result<Vec<Levels>, Error>> = (0..store.starts().len() - 1)
        .into_par_iter()
        .map(|chunk| {
            let mut found = vec![Levels::default(); columns.len()];
            store.read(chunk, &request, &mut |batch| {
                for (levels, column) in found.iter_mut().zip(batch.columns()) {
                    if !levels.overflown() {
                        collect(column, levels)?;
                    }
                }
                Ok(())
            })?;
            Ok(found)
        })
        .collect();
    let mut total = vec![Levels::default(); columns.len()];
    for part in parts {
        total.iter_mut().zip(&part?).for_each(|(all, one)| all.merge(one));
    }
    Ok(total)
}

fn collect(column: &ArrayRef, levels: &mut Levels) -> Result<()> {
    match Text::of(column)? {
        Text::Plain(text) => text.iter().flatten().for_each(|value| levels.insert(value)),
        Text::Coded { codes, values } => {
            // A dictionary may hold values that no row uses.
            let mut used = vec![false; values.len()];
            codes.iter().flatten().for_each(|code| used[code as usize] = true);
            for (value, _) in values.iter().zip(used).filter(|(_, used)| *used) {
                value.into_iter().for_each(|value| levels.insert(value));
            }
        }
    }
    Ok(())
}

/// A text column in one of two forms.
enum Text {
    Plain(StringArray),
    Coded { codes: arrow::array::Int32Array, values: StringArray },
}

impl Text {
    fn of(column: &ArrayRef) -> Result<Self> {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        if *column.data_type() == dictionary {
            let array = column.as_dictionary::<Int32Type>();
            return Ok(Self::Coded { codes: array.keys().clone(), values: array.values().as_string().clone() });
        }
        let plain = cast(column, &DataType::Utf8)?;
        Ok(Self::Plain(plain.as_string().clone()))
    }
}

/// The code of each level of one column.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    of: HashMap<String, u32>,
}

/// A row without a value.
pub(crate) const NO_CODE: u32 = u32::MAX;

impl Codes {
    pub(crate) fn new(levels: &[String]) -> Self {
        Self { of: levels.iter().cloned().zip(0..).collect() }
    }

    /// The code of every row of `column`, [`NO_CODE`] for missing ones.
    ///
    /// # Errors
    /// [`IoError::Changed`] for a value that was not there when the levels were found.
    pub(crate) fn encode(&self, path: &str, column: &ArrayRef, out: &mut Vec<u32>) -> Result<(), Error> {
        out.clear();
        let code = |value: &str| self.of.get(value).copied();
        let known = match Text::of(column)? {
            Text::Plain(text) => text.iter().try_for_each(|value| {
                out.push(match value {
                    None => NO_CODE,
                    Some(value) => code(value)?,
                });
                Some(())
            }),
            Text::Coded { codes, values } => {
                let of: Vec<Option<u32>> = values.iter().map(|v| v.map_or(Some(NO_CODE), code)).collect();
                codes.iter().try_for_each(|key| {
                    out.push(match key {
                        None => NO_CODE,
                        Some(key) => of[key as usize]?,
                    });
                    Some(())
                })
            }
        };
        known.ok_or_else(|| IoError::Changed { path: path.into() }.into())
    }
}
