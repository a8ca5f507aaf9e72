//! What a file format must offer for [`Table`](super::Table) to read columns from it.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::categories::Levels;

/// A columnar view of the input, in chunks whose order is row order.
pub(crate) trait Store: Debug + Send + Sync {
    /// All columns of the input.
    fn schema(&self) -> &SchemaRef;

    /// Global index of each chunk's first row, then the number of rows: one entry more than there are chunks.
    fn starts(&self) -> &[u64];

    /// Reads `request` of one chunk, batch after batch in row order, exactly as many rows as `starts` says.
    fn read(
        &self,
        chunk: usize,
        request: &Request<'_>,
        visit: &mut dyn FnMut(&RecordBatch) -> subspan::Result<()>,
    ) -> subspan::Result<()>;

    /// The levels of a text column, where opening the input has already found them.
    fn known_levels(&self, column: usize) -> Option<Levels> {
        let _ = column;
        None
    }
}

/// What to read of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Column indices, increasing; batches hold them in this order.
    pub(crate) columns: &'a [usize],
    /// Largest number of rows of a batch.
    pub(crate) batch_rows: usize,
    /// Whether text may come dictionary-encoded, which is faster for columns of few levels.
    pub(crate) levels: bool,
}
