//! Seeded damage to small valid files, shared by the test and the long run of `examples/mutate.rs`.
#![allow(dead_code, unreachable_pub)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::{Compression, ZstdLevel};
use subspan_io::{Labels, Matrix, Missing, Table, TableOptions, write_sample};

use crate::common::*;

/// A valid file to damage.
pub struct Subject {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Appended to the path: `:KEY`.
    pub part: &'static str,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub refused: u64,
    pub accepted: u64,
    /// Refused because the decoder of a format library panicked, which the reader caught.
    pub caught: u64,
    /// Seeds whose file made the reader panic.
    pub panics: Vec<u64>,
}

/// One file per format and variant.
pub fn subjects() -> Vec<Subject> {
    let batch = mixed_batch(60, 9);
    let numbers: Vec<f64> = (0..40).map(f64::from).collect();
    let npy = npy_f64(10, 4, &numbers);
    let mut csv = String::from("a,b,text,flag\n");
    (0..60).for_each(|i| csv.push_str(&format!("{i},{},\"level, {}\",{}\n", f64::from(i) / 8.0, i % 3, i % 2 == 0)));
    let images = idx_bytes(8, &[6, 3, 3], &(0..54).collect::<Vec<u8>>());
    let tensors = safetensors_bytes(&[("w", vec![4, 3], vec![1.5; 12]), ("b", vec![4], vec![0.5; 4])]);
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let lz4 = Some(arrow::ipc::CompressionType::LZ4_FRAME);
    let ipc_zstd = Some(arrow::ipc::CompressionType::ZSTD);
    let subject = |name, bytes| Subject { name, bytes, part: "" };
    vec![
        subject("plain.parquet", parquet_bytes(&batch, 25, Compression::UNCOMPRESSED)),
        subject("snappy.parquet", parquet_bytes(&batch, 25, Compression::SNAPPY)),
        subject("zstd.parquet", parquet_bytes(&batch, 60, zstd)),
        subject("file.arrow", arrow_bytes(&batch, 25, false, None)),
        subject("stream.arrow", arrow_bytes(&batch, 25, true, None)),
        subject("lz4.feather", arrow_bytes(&batch, 25, false, lz4)),
        subject("zstd.feather", arrow_bytes(&batch, 25, false, ipc_zstd)),
        subject("t.csv", csv.clone().into_bytes()),
        subject("t.csv.gz", gzip(csv.as_bytes())),
        subject("t.npy", npy.clone()),
        subject("text.npy", npy_bytes("<U3", false, "(8,)", &[b'a', 0, 0, 0].repeat(24))),
        subject("fortran.npy", npy_bytes(">f4", true, "(5, 2, 3)", &[0; 120])),
        Subject { name: "stored.npz", bytes: npz_bytes(&[("a", &npy), ("b", &npy)], false), part: ":a" },
        Subject { name: "deflated.npz", bytes: npz_bytes(&[("a", &npy), ("b", &npy)], true), part: ":b" },
        subject("images-idx3-ubyte", images.clone()),
        subject("images-idx3-ubyte.gz", gzip(&images)),
        Subject { name: "t.safetensors", bytes: tensors, part: ":w" },
    ]
}

/// Damages `subject` with the seeds from `first_seed` on and reads each result as all it may be.
pub fn run(subject: &Subject, dir: &Path, first_seed: u64, count: u64) -> Outcome {
    // On one thread: waking others for a file of a few kilobytes takes longer than reading it.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| run_here(subject, dir, first_seed, count))
}

fn run_here(subject: &Subject, dir: &Path, first_seed: u64, count: u64) -> Outcome {
    let path = dir.join(subject.name);
    let named = format!("{}{}", path.display(), subject.part);
    let mut outcome = Outcome::default();
    for seed in first_seed..first_seed + count {
        // A new file each time: some file systems flush a file that is truncated and written again.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, damage(&subject.bytes, seed)).unwrap();
        match catch_unwind(AssertUnwindSafe(|| read_as_anything(&named, dir, seed))) {
            Ok(None) => outcome.accepted += 1,
            Ok(Some(reason)) => {
                outcome.refused += 1;
                outcome.caught += u64::from(reason.contains("the decoder gave up"));
            }
            Err(_) => outcome.panics.push(seed),
        }
    }
    outcome
}

/// One to four cuts, flips, insertions, deletions or overwritten bytes.
fn damage(bytes: &[u8], seed: u64) -> Vec<u8> {
    /// Values that sizes and types break at.
    const NASTY: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x40, b','];
    let mut mixer = Mixer(seed);
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + mixer.below(4) {
        let len = bytes.len() as u64;
        if len == 0 {
            break;
        }
        let at = mixer.below(len) as usize;
        match mixer.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, mixer.next() as u8),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] = NASTY[mixer.below(8) as usize],
            4 => {
                let end = (at + 1 + mixer.below(8) as usize).min(bytes.len());
                bytes[at..end].fill(NASTY[mixer.below(8) as usize]);
            }
            _ => bytes[at] ^= 1 << mixer.below(8),
        }
    }
    bytes
}

/// Every so many files, the sample is written as well: it costs a wait for the disk.
const WRITE_EVERY: u64 = 100;

/// Reads `path` as a table (and writes a sample of it) and as a matrix; why, if neither worked. Errors must have one line.
fn read_as_anything(path: &str, dir: &Path, seed: u64) -> Option<String> {
    let options = TableOptions { missing: Missing::Drop, ..TableOptions::default() };
    let table = Table::open(path, &options).and_then(|table| {
        let whole = read_all(&table)?;
        if let (Some(id), Some(record), 0) = (whole.ids.first(), whole.records.first(), seed % WRITE_EVERY) {
            let record = std::slice::from_ref(record);
            write_sample(dir.join("out.parquet"), &table, &[*id], &[1.0], &[1.0], record)?;
        }
        Ok(())
    });
    let matrix = Matrix::open(path).and_then(|matrix| matrix.to_f32());
    // Most files have several columns or values per sample; what counts is that none panics.
    let labels = Labels::open(path).err().map(|e| e.to_string());
    assert!(labels.is_none_or(|text| !text.contains('\n') && !text.is_empty()));
    let reasons = [table.err().map(|e| e.to_string()), matrix.err().map(|e| e.to_string())];
    for text in reasons.iter().flatten() {
        assert!(!text.contains('\n') && !text.is_empty());
    }
    let [table, matrix] = reasons;
    Some(table? + &matrix?)
}
