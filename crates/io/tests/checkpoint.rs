//! Checkpoints: read, written, and refused with the tensor named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use subspan::merge::{DType, Model, PermInfo, Permutations, Piece, Spec};
use subspan_io::{AtomicFile, Checkpoint, CheckpointPlan, CheckpointWriter, read_permutations, write_permutations};
use tempfile::TempDir;

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|k| k as u8));
    bytes
}

fn put(place: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = place.path().join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

const PLAIN: &str = r#"{"__metadata__":{"normalize":"0.5/0.5"},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"n":{"dtype":"I64","shape":[],"data_offsets":[22,30]},"e":{"dtype":"F16","shape":[0,4],"data_offsets":[30,30]}}"#;

#[test]
fn tensors_are_views_in_the_order_of_their_bytes() {
    let place = TempDir::new().unwrap();
    let path = put(&place, "m.safetensors", &file(PLAIN, 30));
    let model = Checkpoint::open(&path).unwrap();
    assert_eq!(model.names(), ["a", "b", "n", "e"]);
    let b = model.tensor("b").unwrap();
    assert_eq!((b.dtype, b.shape, b.data), (DType::BF16, &[3usize][..], &[16u8, 17, 18, 19, 20, 21][..]));
    assert_eq!(model.metadata("normalize"), Some("0.5/0.5"));
    assert_eq!((model.n_parameters(), model.n_bytes(), model.base_name().as_str()), (8, 30, "m.safetensors"));
    assert!(model.tensor("c").is_none());
}

#[test]
fn what_contradicts_itself_is_refused_with_its_place() {
    let place = TempDir::new().unwrap();
    let tensor = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let of = |parts: &[String]| format!("{{{}}}", parts.join(","));
    let a = || tensor("a", "F32", "[2]", "[0,8]");
    for (bytes, expected) in [
        (file(&of(&[a(), tensor("b", "F32", "[1]", "[4,8]")]), 8), "tensor b: overlaps the tensor before"),
        (file(&of(&[a(), tensor("b", "F32", "[1]", "[12,16]")]), 16), "tensor b: leaves a hole before it"),
        (
            file(&of(&[a(), tensor("b", "F32", "[4]", "[8,24]")]), 20),
            "tensor b: ends at byte 24 of 20: the file is truncated",
        ),
        (file(&of(&[a(), a()]), 8), "tensor a: two tensors of this name"),
        (file(&of(&[a()]), 9), "1 bytes belong to no tensor"),
        (file(&of(&[tensor("a", "F33", "[2]", "[0,8]")]), 8), "tensor a: has the unknown dtype F33"),
        (file(&of(&[tensor("a", "F16", "[2]", "[0,8]")]), 8), "tensor a: of shape [2] and dtype F16 has 8 bytes"),
        (file(&of(&[tensor("a", "F32", "[-2]", "[0,8]")]), 8), "tensor a: has -2 in its shape"),
        (file(&of(&[tensor("a", "F32", "[2]", "[8,0]")]), 8), "tensor a: ends at byte 0, before its begin at 8"),
        (file(&of(&[tensor("a", "F32", "[4611686018427387904,4]", "[0,8]")]), 8), "tensor a: of shape"),
        (file(r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8), "tensor a: has no data_offsets"),
        (file(r#"{"a":3}"#, 8), "tensor a: has no dtype"),
        (file(r#"{"__metadata__":{"k":3}}"#, 0), "__metadata__: not a map of text to text"),
        (file("[1,2]", 0), "does not begin with a brace"),
        (file("{\"a\":", 0), "header: EOF"),
        (file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8), "tensor a: needs two data_offsets"),
        (file(r#"{"a":{"dtype":"F32","shape":[1e30],"data_offsets":[0,8]}}"#, 8), "tensor a: has 1e+30 in its shape"),
        (file(r#"{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}"#, 8), "tensor a: has 2.5 in its shape"),
        (file(r#"{"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}}"#, 8), "tensor a: has no dtype"),
        (
            file(&of(&[tensor("a", "F32", "[0,99]", "[0,0]"), tensor("b", "U8", "[9]", "[0,9]")]), 4),
            "tensor b: ends at byte 9 of 4",
        ),
        (
            file(&of(&[a(), tensor("b", "F32", "[1]", "[8,12]"), tensor("b", "F32", "[1]", "[12,16]")]), 16),
            "tensor b: two tensors of this name",
        ),
        (file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "__metadata__: two tensors of this name"),
        (
            100_000_001u64.to_le_bytes().into_iter().chain([b'{'; 64]).collect(),
            "a header of 100000001 bytes does not fit",
        ),
        (u64::MAX.to_le_bytes().to_vec(), "a header of 18446744073709551615 bytes does not fit"),
        (vec![1, 2, 3], "3 bytes are no safetensors file"),
    ] {
        let path = put(&place, "bad.safetensors", &bytes);
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with(&path), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    let path = put(&place, "model.bin", b"PK");
    assert!(Checkpoint::open(&path).unwrap_err().hint().unwrap().contains("safetensors.torch"));
    assert!(Checkpoint::open(&format!("{path}.no")).is_err());
    let error = Checkpoint::open(&place.path().display().to_string()).unwrap_err().to_string();
    assert!(error.contains("neither model.safetensors.index.json nor model.safetensors"), "{error}");
}

/// A checkpoint of two shards.
fn shards(place: &TempDir, map: &str) -> String {
    let one = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let two = r#"{"y":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"z":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}"#;
    put(place, "s-1.safetensors", &file(one, 8));
    put(place, "s-2.safetensors", &file(two, 7));
    put(place, "model.safetensors.index.json", format!("{{\"weight_map\":{map}}}").as_bytes());
    place.path().display().to_string()
}

#[test]
fn shards_are_one_model_and_written_as_shards() {
    let place = TempDir::new().unwrap();
    let path = shards(&place, r#"{"x":"s-1.safetensors","y":"s-2.safetensors","z":"s-2.safetensors"}"#);
    let model = Checkpoint::open(&path).unwrap();
    assert_eq!(model.names(), ["x", "y", "z"]);
    let out = place.path().join("copy");
    let mut writer = CheckpointWriter::create(&out, model.plan()).unwrap();
    for name in ["x", "y", "z"] {
        for byte in model.tensor(name).unwrap().data.chunks(3) {
            writer.write(byte).unwrap();
        }
    }
    writer.finish().unwrap();
    let copy = Checkpoint::open(&out.display().to_string()).unwrap();
    assert!(copy.is_directory() && copy.plan() == model.plan());
    for name in model.names() {
        assert_eq!(copy.tensor(name).unwrap().data, model.tensor(name).unwrap().data);
    }
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    for (map, expected) in [
        (r#"{"x":"s-1.safetensors","y":"s-2.safetensors"}"#, "tensor z: the index does not list it"),
        (r#"{"x":"s-1.safetensors","y":"s-2.safetensors","z":"s-2.safetensors","w":"s-1.safetensors"}"#, "tensor w"),
        (r#"{"x":"s-2.safetensors","y":"s-2.safetensors","z":"s-1.safetensors"}"#, "tensor x: it is in"),
        (r#"{"x":"../s-1.safetensors"}"#, "is no file name"),
        ("3", "no weight_map"),
    ] {
        let place = TempDir::new().unwrap();
        let error = Checkpoint::open(&shards(&place, map)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_writer_that_stops_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let tensors = vec![("a".to_string(), DType::F32, vec![2])];
    let plan = |directory| CheckpointPlan {
        files: vec![("model.safetensors".into(), tensors.clone(), BTreeMap::new())],
        directory,
    };
    for directory in [false, true] {
        let target = place.path().join("out");
        let mut writer = CheckpointWriter::create(&target, plan(directory)).unwrap();
        writer.write(&[0; 4]).unwrap();
        drop(writer);
        let mut writer = CheckpointWriter::create(&target, plan(directory)).unwrap();
        writer.write(&[0; 8]).unwrap();
        assert!(writer.write(&[0]).is_err());
        drop(writer);
        assert!(CheckpointWriter::create(&target, plan(directory)).unwrap().finish().is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

#[test]
fn permutations_are_read_as_written() {
    let place = TempDir::new().unwrap();
    let mut spec = Spec::default();
    spec.perms.insert("h".into(), PermInfo::new(40));
    spec.perms.insert("g/0".into(), PermInfo { groups: Some(2), ..PermInfo::new(8) });
    spec.tensors.insert("w".into(), vec![vec![Piece::whole("h")]]);
    let p = Permutations::random(&spec, 3, false);
    let path = place.path().join("p.safetensors");
    let shown = path.display().to_string();
    write_permutations(&[("b/", &p)], AtomicFile::create(&path).unwrap()).unwrap();
    assert_eq!(read_permutations(&shown, &spec, "b/").unwrap(), p);
    spec.perms.insert("h".into(), PermInfo::new(41));
    assert!(read_permutations(&shown, &spec, "b/").unwrap_err().to_string().contains("perm h: 40 units"));
    let floats = put(&place, "f.safetensors", &file(r#"{"h":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8));
    assert!(read_permutations(&floats, &spec, "").unwrap_err().to_string().contains("tensor h: F32 of shape [2]"));
    assert!(Path::new(&shown).exists());
}
