//! Classifiers as ONNX graphs, for any runtime.
//!
//! One input `samples` (f32, `N x D`); outputs `probabilities` (f32, `N x C`), `label` (i64, `N`, the index of the class) and, where
//! the model has a reconstruction, `strangeness` (f32, `N`). The names of the classes are a JSON array in the metadata entry
//! `classes`. Only operators of opset 13 that every runtime has; a zero sample gives equal probabilities, as `predict` does.

use std::io::Write;

use subspan::classify::{Contrast, Frames, Model, Scorer};

use crate::atomic::AtomicFile;
use crate::error::{IoError, Result};

/// The version of the file format and of the operators.
const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;
/// Lengths below this count as zero.
const TINY: f32 = 1e-12;

/// Writes `model` into `file`, which is then complete.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_onnx(model: &Model, mut file: AtomicFile) -> Result<()> {
    let path = file.target().display().to_string();
    file.write_all(&encode(model)).map_err(IoError::write(&path))?;
    file.commit()
}

/// The file's bytes.
fn encode(model: &Model) -> Vec<u8> {
    let (d, n_classes) = (model.n_cols, model.classes.len());
    let mut graph = Graph::default();
    let logits = match &model.scorer {
        Scorer::Subspaces { frames, gamma, center } => {
            let unit = graph.unit_samples("", center.as_deref());
            let lengths = graph.lengths("", &unit, frames, d);
            graph.floats("scale", &[], &[(gamma / model.temperature) as f32]);
            graph.node("Mul", &[&lengths, "scale"], "logits", &[])
        }
        Scorer::Linear { weights, bias } => {
            graph.floats("weights", &[n_classes, d], weights);
            graph.floats("bias", &[n_classes], bias);
            graph.floats("scale", &[], &[(1.0 / model.temperature) as f32]);
            let raw = graph.node("Gemm", &["samples", "weights", "bias"], "raw", &[("transB", Attribute::Int(1))]);
            graph.node("Mul", &[&raw, "scale"], "logits", &[])
        }
    };
    let axis = ("axis", Attribute::Int(1));
    graph.node("Softmax", &[&logits], "probabilities", std::slice::from_ref(&axis));
    graph.node("ArgMax", &[&logits], "label", &[axis, ("keepdims", Attribute::Int(0))]);
    graph.outputs.push(value_info("probabilities", FLOAT, &[None, Some(n_classes)]));
    graph.outputs.push(value_info("label", INT64, &[None]));
    if let Some(reconstruction) = &model.reconstruction {
        let unit = graph.unit_samples("recon ", reconstruction.center.as_deref());
        let squares = graph.squares("recon ", &unit, &reconstruction.frames, d);
        let axes = [("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(0))];
        let nearest = graph.node("ReduceMax", &[&squares], "nearest", &axes);
        graph.floats("one", &[], &[1.0]);
        graph.floats("zero", &[], &[0.0]);
        let rest = graph.node("Sub", &["one", &nearest], "rest", &[]);
        let rest = graph.node("Max", &[&rest, "zero"], "positive rest", &[]);
        match &reconstruction.contrast {
            None => graph.node("Sqrt", &[&rest], "strangeness", &[]),
            Some(contrast) => {
                let sine = graph.node("Sqrt", &[&rest], "sine", &[]);
                graph.joined(contrast, &unit, &sine)
            }
        };
        graph.outputs.push(value_info("strangeness", FLOAT, &[None]));
    }
    let mut body = Message::default();
    graph.nodes.iter().for_each(|n| body.message(1, n));
    body.text(2, "subspan classifier");
    graph.initializers.iter().for_each(|t| body.message(5, t));
    body.message(11, &value_info("samples", FLOAT, &[None, Some(d)]));
    graph.outputs.iter().for_each(|o| body.message(12, o));

    let mut opset = Message::default();
    opset.text(1, "");
    opset.int(2, OPSET);
    let mut classes = Message::default();
    classes.text(1, "classes");
    classes.text(2, &serde_json::Value::from(model.classes.clone()).to_string());
    let mut out = Message::default();
    out.int(1, IR_VERSION);
    out.text(2, "subspan");
    out.text(3, env!("CARGO_PKG_VERSION"));
    out.message(7, &body);
    out.message(8, &opset);
    out.message(14, &classes);
    out.0
}

/// Element types.
const FLOAT: u64 = 1;
const INT64: u64 = 7;

#[derive(Default)]
struct Graph {
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    outputs: Vec<Message>,
}

#[derive(Clone)]
enum Attribute {
    Int(u64),
    Ints(Vec<u64>),
}

impl Graph {
    /// Samples of length one; names begin with `prefix`.
    fn unit_samples(&mut self, prefix: &str, center: Option<&[f32]>) -> String {
        let mut x = "samples".to_string();
        if let Some(center) = center {
            let name = format!("{prefix}center");
            self.floats(&name, &[center.len()], center);
            x = self.node("Sub", &[&x, &name], &format!("{prefix}centered"), &[]);
        }
        let axes = [("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(1))];
        let length = self.node("ReduceL2", &[&x], &format!("{prefix}length"), &axes);
        let tiny = format!("{prefix}tiny");
        self.floats(&tiny, &[], &[TINY]);
        let length = self.node("Max", &[&length, &tiny], &format!("{prefix}positive length"), &[]);
        self.node("Div", &[&x, &length], &format!("{prefix}unit"), &[])
    }

    /// The projections of unit samples on all frames.
    fn projections(&mut self, prefix: &str, unit: &str, frames: &Frames, d: usize) -> String {
        let dims = frames.rows.len() / d;
        let transposed: Vec<f32> = (0..d * dims).map(|i| frames.rows[i % dims * d + i / dims]).collect();
        let name = format!("{prefix}subspaces");
        self.floats(&name, &[d, dims], &transposed);
        self.node("MatMul", &[unit, &name], &format!("{prefix}projections"), &[])
    }

    /// Lengths of the projections on each class's subspace.
    fn lengths(&mut self, prefix: &str, unit: &str, frames: &Frames, d: usize) -> String {
        let n_classes = frames.offsets.len() - 1;
        let k = frames.offsets[1];
        if frames.offsets.windows(2).any(|o| o[1] - o[0] != k) {
            let squares = self.squares(prefix, unit, frames, d);
            return self.node("Sqrt", &[&squares], &format!("{prefix}lengths"), &[]);
        }
        let z = self.projections(prefix, unit, frames, d);
        let shape = format!("{prefix}by class");
        self.integers(&shape, &[-1, n_classes as i64, k as i64]);
        let z = self.node("Reshape", &[&z, &shape], &format!("{prefix}projections by class"), &[]);
        let axes = [("axes", Attribute::Ints(vec![2])), ("keepdims", Attribute::Int(0))];
        self.node("ReduceL2", &[&z], &format!("{prefix}lengths"), &axes)
    }

    /// Squared lengths; subspaces may differ in dimension: a matrix of zeros and ones adds up what belongs to a class.
    fn squares(&mut self, prefix: &str, unit: &str, frames: &Frames, d: usize) -> String {
        let z = self.projections(prefix, unit, frames, d);
        let (n_classes, dims) = (frames.offsets.len() - 1, frames.rows.len() / d);
        let mut members = vec![0f32; dims * n_classes];
        for (c, o) in frames.offsets.windows(2).enumerate() {
            (o[0]..o[1]).for_each(|i| members[i * n_classes + c] = 1.0);
        }
        let name = format!("{prefix}members");
        self.floats(&name, &[dims, n_classes], &members);
        let z = self.node("Mul", &[&z, &z], &format!("{prefix}squares"), &[]);
        self.node("MatMul", &[&z, &name], &format!("{prefix}squared lengths"), &[])
    }

    /// Strangeness from unit samples and their sine to the nearest subspace, as [`Contrast`] says; 1 for a zero sample.
    fn joined(&mut self, contrast: &Contrast, unit: &str, sine: &str) -> String {
        let (d, n_classes) = (contrast.mean.len(), contrast.constants.len());
        let slopes: Vec<f32> = (0..d * n_classes).map(|i| contrast.slopes[i % n_classes * d + i / n_classes]).collect();
        self.floats("contrast mean", &[d], &contrast.mean);
        self.floats("contrast form", &[d, d], &contrast.form);
        self.floats("contrast slopes", &[d, n_classes], &slopes);
        self.floats("contrast constants", &[n_classes], &contrast.constants);
        let axes = [("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(0))];
        let y = self.node("Sub", &[unit, "contrast mean"], "contrast y", &[]);
        let turned = self.node("MatMul", &[&y, "contrast form"], "contrast turned", &[]);
        let squares = self.node("Mul", &[&y, &turned], "contrast squares", &[]);
        // The axes of a sum are an input in this version of the operators; a product with ones needs none.
        self.floats("contrast ones", &[d], &vec![1.0; d]);
        let square = self.node("MatMul", &[&squares, "contrast ones"], "contrast square", &[]);
        let along = self.node("MatMul", &[&y, "contrast slopes"], "contrast along", &[]);
        let by_class = self.node("Add", &[&along, "contrast constants"], "contrast by class", &[]);
        let nearest = self.node("ReduceMin", &[&by_class], "contrast nearest", &axes);
        let measure = self.node("Add", &[&square, &nearest], "contrast", &[]);
        let mut terms = Vec::new();
        let total = 1.0 + contrast.weight;
        for (i, (name, share)) in
            [(sine, 1.0 / total), (measure.as_str(), contrast.weight / total)].into_iter().enumerate()
        {
            let [mean, deviation] = [contrast.standards[2 * i], contrast.standards[2 * i + 1]];
            let names = [format!("standard mean {i}"), format!("standard factor {i}")];
            self.floats(&names[0], &[], &[mean as f32]);
            self.floats(&names[1], &[], &[(share / deviation) as f32]);
            let shifted = self.node("Sub", &[name, &names[0]], &format!("shifted {i}"), &[]);
            terms.push(self.node("Mul", &[&shifted, &names[1]], &format!("standard {i}"), &[]));
        }
        let s = self.node("Add", &[&terms[0], &terms[1]], "standard", &[]);
        let square = self.node("Mul", &[&s, &s], "standard square", &[]);
        let length = self.node("Add", &[&square, "one"], "standard length square", &[]);
        let length = self.node("Sqrt", &[&length], "standard length", &[]);
        let share = self.node("Div", &[&s, &length], "standard share", &[]);
        self.floats("half", &[], &[0.5]);
        let share = self.node("Mul", &[&share, "half"], "half share", &[]);
        let score = self.node("Add", &[&share, "half"], "score", &[]);
        let length = self.node("ReduceL2", &[unit], "unit length", &axes);
        let none = self.node("Sub", &["one", &length], "no length", &[]);
        self.node("Max", &[&score, &none], "strangeness", &[])
    }

    /// Adds a node with one output, whose name it returns.
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> String {
        let mut node = Message::default();
        inputs.iter().for_each(|i| node.text(1, i));
        node.text(2, output);
        node.text(3, output);
        node.text(4, op);
        for (name, value) in attributes {
            /// The kinds of attributes.
            const INT: u64 = 2;
            const INTS: u64 = 7;
            let mut attribute = Message::default();
            attribute.text(1, name);
            match value {
                Attribute::Int(v) => {
                    attribute.int(3, *v);
                    attribute.int(20, INT);
                }
                Attribute::Ints(values) => {
                    values.iter().for_each(|v| attribute.int(8, *v));
                    attribute.int(20, INTS);
                }
            }
            node.message(5, &attribute);
        }
        self.nodes.push(node);
        output.to_string()
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.initializers.push(tensor(name, FLOAT, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }

    fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializers.push(tensor(name, INT64, &[values.len()], bytes));
    }
}

fn tensor(name: &str, kind: u64, shape: &[usize], bytes: Vec<u8>) -> Message {
    let mut out = Message::default();
    shape.iter().for_each(|n| out.int(1, *n as u64));
    out.int(2, kind);
    out.text(8, name);
    out.bytes(9, &bytes);
    out
}

/// An input or output; a dimension without a number is that of the samples.
fn value_info(name: &str, kind: u64, shape: &[Option<usize>]) -> Message {
    let (mut dims, mut tensor, mut typed, mut out) =
        (Message::default(), Message::default(), Message::default(), Message::default());
    for n in shape {
        let mut dim = Message::default();
        match n {
            Some(n) => dim.int(1, *n as u64),
            None => dim.text(2, "N"),
        }
        dims.message(1, &dim);
    }
    tensor.int(1, kind);
    tensor.message(2, &dims);
    typed.message(1, &tensor);
    out.text(1, name);
    out.message(2, &typed);
    out
}

/// A message of Protocol Buffers under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Wire types.
    const VARINT: u64 = 0;
    const BYTES: u64 = 2;

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | Self::VARINT);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | Self::BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_the_protocol_says() {
        let mut message = Message::default();
        message.int(1, 150);
        message.text(2, "testing");
        assert_eq!(message.0, [0x08, 0x96, 0x01, 0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
    }

    #[test]
    fn subspaces_of_unequal_dimension_take_the_general_route() {
        let model = |offsets: Vec<usize>| Model {
            classes: vec!["a".into(), "b".into()],
            n_cols: 2,
            scorer: Scorer::Subspaces {
                frames: Frames { rows: [1.0, 0.0, 0.0, 1.0, 0.0, 1.0][..2 * offsets[2]].to_vec(), offsets },
                gamma: 25.0,
                center: None,
            },
            temperature: 1.0,
            reconstruction: None,
        };
        let has = |bytes: &[u8], what: &str| bytes.windows(what.len()).any(|w| w == what.as_bytes());
        let (equal, unequal) = (encode(&model(vec![0, 1, 2])), encode(&model(vec![0, 1, 3])));
        assert!(has(&equal, "Reshape") && !has(&equal, "members") && has(&equal, "[\"a\",\"b\"]"));
        assert!(has(&unequal, "members") && has(&unequal, "Sqrt") && !has(&unequal, "strangeness"));
    }
}
