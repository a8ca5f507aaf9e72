//! The computation graph of an ONNX file: as much of the format as permutation specs need. Untrusted input: every length is
//! checked, nothing recurses with the file.

use subspan::merge::graph::{Attribute, Graph, GraphNode};
use subspan::merge::{DType, Tensor};

use crate::error::{IoError, Result};

/// Reads the graph of an ONNX model. Weights in files beside it (external data) are known by name and shape only.
///
/// # Errors
/// [`IoError`]: no such file; no ONNX (with the message that cannot be read); a parameter whose bytes are not those of its shape.
pub fn read_graph(path: &str) -> Result<Graph> {
    let bytes = std::fs::read(path).map_err(IoError::open(path))?;
    parse_graph(&bytes, path)
}

/// The graph of an ONNX model in memory; `path` is for messages.
///
/// # Errors
/// As [`read_graph`], without opening.
pub fn parse_graph(bytes: &[u8], path: &str) -> Result<Graph> {
    let corrupt = |Malformed(place, detail): Malformed| IoError::corrupt(path, place, detail);
    let model = fields(bytes, "model").map_err(corrupt)?;
    let body = model.iter().rev().find_map(|(number, v)| if *number == 7 { v.bytes() } else { None });
    let Some(body) = body else { return Err(IoError::corrupt(path, "model", "no graph in it: no ONNX file")) };
    graph(body).map_err(corrupt)
}

/// Where a message cannot be read, and why.
struct Malformed(String, String);

/// The value of a field.
#[derive(Clone, Copy)]
enum Field<'a> {
    Int(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(b) = self { Some(b) } else { None }
    }

    fn text(self) -> String {
        self.bytes().map_or_else(String::new, |b| String::from_utf8_lossy(b).into_owned())
    }

    /// The numbers of a repeated field, packed or not.
    fn integers(self) -> Option<Vec<i64>> {
        match self {
            Self::Int(v) => Some(vec![v as i64]),
            Self::Bytes(mut rest) => {
                let mut out = Vec::new();
                while !rest.is_empty() {
                    out.push(varint(&mut rest)? as i64);
                }
                Some(out)
            }
            _ => None,
        }
    }

    fn singles(self) -> Option<Vec<f32>> {
        match self {
            Self::Fixed32(v) => Some(vec![f32::from_bits(v)]),
            Self::Bytes(b) if b.len().is_multiple_of(4) => {
                Some(b.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
            _ => None,
        }
    }

    fn doubles(self) -> Option<Vec<f64>> {
        match self {
            Self::Fixed64(v) => Some(vec![f64::from_bits(v)]),
            Self::Bytes(b) if b.len().is_multiple_of(8) => {
                Some(b.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
            }
            _ => None,
        }
    }
}

/// A number of at most ten groups of seven bits, low ones first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message of Protocol Buffers.
fn fields<'a>(mut rest: &'a [u8], place: &str) -> Result<Vec<(u64, Field<'a>)>, Malformed> {
    let mut out = Vec::new();
    while !rest.is_empty() {
        match field(&mut rest) {
            Some(field) => out.push(field),
            None => {
                let detail = "a field ends beyond its message, or is of no known kind";
                return Err(Malformed(place.into(), detail.into()));
            }
        }
    }
    Ok(out)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let take = |rest: &mut &'a [u8], n: usize| {
        let (taken, tail) = rest.split_at_checked(n)?;
        *rest = tail;
        Some(taken)
    };
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => Field::Int(varint(rest)?),
        1 => Field::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(take(rest, len)?)
        }
        5 => Field::Fixed32(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((key >> 3, value))
}

fn graph(bytes: &[u8]) -> Result<Graph, Malformed> {
    let mut out = Graph::default();
    for (number, value) in fields(bytes, "graph")? {
        let Some(bytes) = value.bytes() else { continue };
        match number {
            1 => out.nodes.push(node(bytes)?),
            5 => {
                let (name, tensor) = tensor(bytes)?;
                out.parameters.push((name, tensor));
            }
            11 => {
                let (name, shape) = value_info(bytes)?;
                let missing =
                    || Malformed(format!("input {name}"), "its shape is not stated: export with shapes".into());
                out.inputs.push((name.clone(), shape.ok_or_else(missing)?));
            }
            12 => out.outputs.push(value_info(bytes)?.0),
            13 => {
                let (name, shape) = value_info(bytes)?;
                out.shapes.extend(shape.map(|shape| (name, shape)));
            }
            15 => return Err(Malformed("graph".into(), "it has sparse parameters, which are not supported".into())),
            _ => {}
        }
    }
    Ok(out)
}

fn node(bytes: &[u8]) -> Result<GraphNode, Malformed> {
    let mut out = GraphNode::default();
    let mut domain = String::new();
    for (number, value) in fields(bytes, "a node")? {
        match number {
            1 => out.inputs.push(value.text()),
            2 => out.outputs.push(value.text()),
            3 => out.name = value.text(),
            4 => out.op = value.text(),
            5 => {
                let (name, attribute) = attribute(value.bytes().unwrap_or_default(), &out.name)?;
                out.attributes.insert(name, attribute);
            }
            7 => domain = value.text(),
            _ => {}
        }
    }
    // Operators of other makers can mean anything; those of ONNX Runtime with known names mean the same.
    if !["", "ai.onnx", "com.microsoft"].contains(&domain.as_str()) {
        out.op = format!("{domain}.{}", out.op);
    }
    Ok(out)
}

fn attribute(bytes: &[u8], node: &str) -> Result<(String, Attribute), Malformed> {
    let place = || format!("node {node}");
    let bad = |what: &str| Malformed(place(), format!("an attribute with {what} that cannot be read"));
    let (mut name, mut out) = (String::new(), Attribute::Other);
    // Fields of the lists add up; the kind, if it is stated, tells a list of one or none.
    let (mut ints, mut floats, mut kind) = (Vec::new(), Vec::new(), 0);
    for (number, value) in fields(bytes, &place())? {
        match number {
            1 => name = value.text(),
            2 => {
                out = Attribute::Float(value.singles().and_then(|v| v.first().copied()).ok_or_else(|| bad("a number"))?)
            }
            3 => {
                out =
                    Attribute::Int(value.integers().and_then(|v| v.first().copied()).ok_or_else(|| bad("an integer"))?)
            }
            4 => out = Attribute::Text(value.text()),
            5 => out = Attribute::Tensor(tensor(value.bytes().unwrap_or_default())?.1),
            6 | 11 => out = Attribute::Body,
            7 => floats.extend(value.singles().ok_or_else(|| bad("numbers"))?),
            8 => ints.extend(value.integers().ok_or_else(|| bad("integers"))?),
            20 => kind = value.integers().and_then(|v| v.first().copied()).unwrap_or(0),
            _ => {}
        }
    }
    /// Kinds of attributes: lists.
    const FLOATS: i64 = 6;
    const INTS: i64 = 7;
    if out == Attribute::Other {
        if kind == INTS || !ints.is_empty() {
            out = Attribute::Ints(ints);
        } else if kind == FLOATS || !floats.is_empty() {
            out = Attribute::Floats(floats);
        }
    }
    Ok((name, out))
}

/// How the elements of an ONNX type are stored.
fn dtype(kind: i64) -> Option<DType> {
    let opaque = |name, size| DType::Opaque { name, size };
    Some(match kind {
        1 => DType::F32,
        2 => opaque("U8", 1),
        3 => opaque("I8", 1),
        4 => opaque("U16", 2),
        5 => opaque("I16", 2),
        6 => opaque("I32", 4),
        7 => opaque("I64", 8),
        9 => opaque("BOOL", 1),
        10 => DType::F16,
        11 => DType::F64,
        12 => opaque("U32", 4),
        13 => opaque("U64", 8),
        16 => DType::BF16,
        _ => return None,
    })
}

fn tensor(bytes: &[u8]) -> Result<(String, Tensor), Malformed> {
    let mut name = String::new();
    let (mut dims, mut kind, mut external) = (Vec::new(), 0, false);
    let (mut raw, mut typed): (Option<&[u8]>, Vec<u8>) = (None, Vec::new());
    let (mut integers, mut wide): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    let all = fields(bytes, "a parameter")?;
    if let Some((_, value)) = all.iter().find(|(number, _)| *number == 8) {
        name = value.text();
    }
    let bad = |detail: String| Malformed(format!("parameter {name}"), detail);
    let unreadable = || bad("its numbers cannot be read".into());
    for (number, value) in all {
        match number {
            1 => dims.extend(value.integers().ok_or_else(unreadable)?),
            2 => kind = value.integers().and_then(|v| v.first().copied()).ok_or_else(unreadable)?,
            4 => typed.extend(value.singles().ok_or_else(unreadable)?.iter().flat_map(|v| v.to_le_bytes())),
            5 => integers.extend(value.integers().ok_or_else(unreadable)?),
            7 | 11 => wide.extend(value.integers().ok_or_else(unreadable)?),
            9 => raw = value.bytes(),
            10 => typed.extend(value.doubles().ok_or_else(unreadable)?.iter().flat_map(|v| v.to_le_bytes())),
            13 => external = true,
            14 => external |= value.integers().is_some_and(|v| v.first() == Some(&1)),
            _ => {}
        }
    }
    let dtype = dtype(kind).ok_or_else(|| bad(format!("elements of type {kind}, which is not supported")))?;
    let shape: Option<Vec<usize>> = dims.iter().map(|n| usize::try_from(*n).ok()).collect();
    let size = shape.as_ref().and_then(|s| s.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d)));
    let (Some(shape), Some(size)) = (shape, size) else { return Err(bad(format!("a shape of {dims:?}"))) };
    if external {
        return Ok((name, Tensor { dtype, shape, data: Vec::new() }));
    }
    let data = match raw {
        Some(raw) => raw.to_vec(),
        None if !integers.is_empty() => {
            integers.iter().flat_map(|v| v.to_le_bytes()[..dtype.size().min(8)].to_vec()).collect()
        }
        None if !wide.is_empty() => wide.iter().flat_map(|v| v.to_le_bytes()[..dtype.size().min(8)].to_vec()).collect(),
        None => typed,
    };
    if data.len() != size {
        return Err(bad(format!("{} bytes for {} of shape {shape:?}", data.len(), dtype.name())));
    }
    Ok((name, Tensor { dtype, shape, data }))
}

/// A shape whose dimensions need not have numbers.
type Shape = Vec<Option<usize>>;

/// A value's name and shape; none if it is no tensor of a stated rank.
fn value_info(bytes: &[u8]) -> Result<(String, Option<Shape>), Malformed> {
    let place = "a value's description";
    let sub = |bytes: &[u8], wanted: u64| -> Result<Option<Vec<u8>>, Malformed> {
        let found = fields(bytes, place)?.into_iter().find(|(number, _)| *number == wanted);
        Ok(found.and_then(|(_, v)| v.bytes()).map(<[u8]>::to_vec))
    };
    let name = sub(bytes, 1)?.map_or_else(String::new, |b| String::from_utf8_lossy(&b).into_owned());
    let mut shape = bytes.to_vec();
    // Type, tensor type, shape.
    for wanted in [2, 1, 2] {
        match sub(&shape, wanted)? {
            Some(inner) => shape = inner,
            None => return Ok((name, None)),
        }
    }
    let mut dims = Vec::new();
    for (number, value) in fields(&shape, place)? {
        if number == 1 {
            let dim = fields(value.bytes().unwrap_or_default(), place)?;
            let size =
                dim.iter().find(|(n, _)| *n == 1).and_then(|(_, v)| v.integers()).and_then(|v| v.first().copied());
            dims.push(size.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0));
        }
    }
    Ok((name, Some(dims)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message: fields with bytes.
    fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in fields {
            out.push((number << 3 | 2) as u8);
            out.push(bytes.len() as u8);
            out.extend(*bytes);
        }
        out
    }

    fn small() -> Vec<u8> {
        let dims = [0x08, 0x02, 0x08, 0x01, 0x10, 0x01];
        let raw = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        let weight = [&dims[..], &message(&[(8, b"w"), (9, &raw)])].concat();
        let ints = [0x40, 0x03, 0x40, 0x04, 0xA0, 0x01, 0x07];
        let attribute = [&message(&[(1, b"perm")])[..], &ints].concat();
        let node = message(&[(1, b"x"), (1, b"w"), (2, b"y"), (4, b"MatMul"), (5, &attribute)]);
        let dim = message(&[(1, &[0x08, 0x05]), (1, &message(&[(2, b"N")]))]);
        let info = |name: &[u8]| message(&[(1, name), (2, &message(&[(1, &message(&[(2, &dim)]))]))]);
        let graph = message(&[(1, &node), (5, &weight), (11, &info(b"x")), (12, &info(b"y"))]);
        message(&[(7, &graph)])
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let graph = parse_graph(&small(), "m.onnx").unwrap();
        assert_eq!((graph.inputs, graph.outputs), (vec![("x".into(), vec![Some(5), None])], vec!["y".to_string()]));
        assert_eq!(graph.parameters[0].0, "w");
        assert_eq!(graph.parameters[0].1, Tensor::from_f32(&[2, 1], &[1.0, 2.0], DType::F32));
        assert_eq!((graph.nodes[0].op.as_str(), &graph.nodes[0].inputs[1]), ("MatMul", &"w".to_string()));
        assert_eq!(graph.nodes[0].attributes["perm"], Attribute::Ints(vec![3, 4]));
    }

    #[test]
    fn damaged_files_are_errors_never_panics() {
        let bytes = small();
        for cut in 0..bytes.len() {
            let _ = parse_graph(&bytes[..cut], "m.onnx");
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[cut] = value;
                let _ = parse_graph(&changed, "m.onnx");
            }
        }
        let text = parse_graph(b"version = 1\n", "spec.onnx").unwrap_err().to_string();
        assert!(text.starts_with("spec.onnx: corrupt file, model: "), "{text}");
    }
}
