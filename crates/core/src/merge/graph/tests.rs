use super::super::tests::random_model;
use super::super::{DType, Layout, MemoryModel, Permutations, Piece, Solve, compare, derive};
use super::*;

/// A graph under construction over the tensors of a model.
struct Builder {
    graph: Graph,
    shapes: Vec<(String, Vec<usize>)>,
}

impl Builder {
    fn new(input: &[Option<usize>]) -> Self {
        Self { graph: Graph { inputs: vec![("x".into(), input.to_vec())], ..Graph::default() }, shapes: Vec::new() }
    }

    fn parameter(&mut self, name: &str, shape: &[usize]) -> String {
        self.shapes.push((name.into(), shape.to_vec()));
        name.into()
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let dtype = DType::Opaque { name: "I64", size: 8 };
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.graph.parameters.push((name.into(), Tensor { dtype, shape: vec![values.len()], data }));
        name.into()
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> String {
        self.graph.nodes.push(GraphNode {
            name: String::new(),
            op: op.into(),
            inputs: inputs.iter().map(|i| (*i).into()).collect(),
            outputs: vec![output.into()],
            attributes: attributes.iter().map(|(n, a)| ((*n).into(), a.clone())).collect(),
        });
        output.into()
    }

    fn dense(&mut self, x: &str, layer: &str, out: usize, into: usize) -> String {
        let w = self.parameter(&format!("{layer}.weight"), &[out, into]);
        let b = self.parameter(&format!("{layer}.bias"), &[out]);
        self.node("Gemm", &[x, &w, &b], &format!("{layer} out"), &[("transB", Attribute::Int(1))])
    }

    fn conv(&mut self, x: &str, layer: &str, [out, into, k]: [usize; 3], stride: i64) -> String {
        let w = self.parameter(&format!("{layer}.weight"), &[out, into, k, k]);
        let pad = k as i64 / 2;
        let attributes = [("pads", Attribute::Ints(vec![pad; 4])), ("strides", Attribute::Ints(vec![stride; 2]))];
        self.node("Conv", &[x, &w], &format!("{layer} out"), &attributes)
    }

    fn norm(&mut self, x: &str, layer: &str, n: usize) -> String {
        let parts =
            ["weight", "bias", "running_mean", "running_var"].map(|p| self.parameter(&format!("{layer}.{p}"), &[n]));
        let inputs: Vec<&str> = std::iter::once(x).chain(parts.iter().map(String::as_str)).collect();
        self.node("BatchNormalization", &inputs, &format!("{layer} out"), &[])
    }

    /// The graph and a model of random tensors.
    fn finish(mut self, output: &str) -> (Graph, MemoryModel) {
        let shapes: Vec<(&str, &[usize])> = self.shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let model = random_model(&shapes, DType::F32, 1);
        let held = |(name, _): &(String, Vec<usize>)| (name.clone(), model.tensors[name].clone());
        self.graph.parameters.extend(self.shapes.iter().map(held));
        self.graph.outputs.push(output.into());
        (self.graph, model)
    }
}

/// An axis of a tensor, and for its positions the perm and the unit.
type Owned = (String, usize, Vec<(usize, usize, usize)>);

/// Places of all units, with perms by number in the order of their first tensors: what two specs must have in common.
fn places(derived: &Derived, model: &MemoryModel) -> Vec<Owned> {
    let layout = Layout::new(derived.spec.clone(), model).unwrap();
    let mut numbers: Vec<usize> = Vec::new();
    let mut out = Vec::new();
    for tensor in &layout.tensors {
        for (axis, places) in tensor.axes.iter().enumerate() {
            let mut owned: Vec<(usize, usize, usize)> = Vec::new();
            let mut sorted: Vec<_> = places.iter().collect();
            sorted.sort_by_key(|p| p.slots.iter().min());
            for place in sorted {
                let number = numbers.iter().position(|n| *n == place.perm).unwrap_or_else(|| {
                    numbers.push(place.perm);
                    numbers.len() - 1
                });
                let slot = |(k, x): (usize, &u32)| (*x as usize, number, k / place.n_slots);
                owned.extend(place.slots.iter().enumerate().map(slot));
            }
            owned.sort_unstable();
            out.push((tensor.name.clone(), axis, owned));
        }
    }
    out
}

#[test]
fn a_chain_of_dense_layers() {
    let mut b = Builder::new(&[None, Some(7)]);
    let h = b.dense("x", "l0", 5, 7);
    let h = b.node("Relu", &[&h], "a0", &[]);
    let h = b.dense(&h, "l1", 6, 5);
    let h = b.node("Relu", &[&h], "a1", &[]);
    let y = b.dense(&h, "l2", 3, 6);
    let (graph, model) = b.finish(&y);
    let found = derive_from_graph(&graph, &model, false).unwrap();
    let named = derive(&model, None, false).unwrap();
    assert_eq!(found.spec, named.spec);
    assert!(found.notes.is_empty());
}

#[test]
fn matrices_under_other_names_are_found_by_value_even_transposed() {
    let mut b = Builder::new(&[None, Some(4), Some(7)]);
    let h = b.node("MatMul", &["x", "onnx::1"], "h", &[]);
    let h = b.node("Add", &["l0.bias", &h], "hb", &[]);
    let h = b.node("Relu", &[&h], "a", &[]);
    let y = b.node("MatMul", &[&h, "onnx::2"], "y", &[]);
    b.parameter("l0.bias", &[5]);
    let (mut graph, mut model) = b.finish(&y);
    let weights = random_model(&[("l0.weight", &[5, 7]), ("l1.weight", &[3, 5])], DType::F32, 2);
    for (name, parameter) in [("l0.weight", "onnx::1"), ("l1.weight", "onnx::2")] {
        let (t, [rows, columns]) =
            (&weights.tensors[name], [weights.tensors[name].shape[0], weights.tensors[name].shape[1]]);
        let values = t.view(name).to_f32();
        let turned: Vec<f32> = (0..values.len()).map(|k| values[k % rows * columns + k / rows]).collect();
        graph.parameters.push((parameter.into(), Tensor::from_f32(&[columns, rows], &turned, DType::F32)));
        model.tensors.insert(name.into(), t.clone());
    }
    let found = derive_from_graph(&graph, &model, false).unwrap();
    assert_eq!(found.spec, derive(&model, None, false).unwrap().spec);
}

#[test]
fn flattened_channels_in_both_orders() {
    for nhwc in [false, true] {
        let mut b = Builder::new(&[None, Some(3), Some(8), Some(8)]);
        let h = b.conv("x", "features.0", [4, 3, 3], 1);
        let h = b.norm(&h, "features.1", 4);
        let pool = [("kernel_shape", Attribute::Ints(vec![2, 2])), ("strides", Attribute::Ints(vec![2, 2]))];
        let h = b.node("MaxPool", &[&h], "p0", &pool);
        let h = b.conv(&h, "features.4", [6, 4, 3], 2);
        let h = match nhwc {
            false => h,
            true => b.node("Transpose", &[&h], "t", &[("perm", Attribute::Ints(vec![0, 2, 3, 1]))]),
        };
        let shape = b.integers("flat", &[-1, 24]);
        let h = b.node("Reshape", &[&h, &shape], "f", &[]);
        let h = b.dense(&h, "classifier.0", 8, 24);
        let h = b.node("Relu", &[&h], "a", &[]);
        let y = b.dense(&h, "classifier.3", 10, 8);
        let (graph, model) = b.finish(&y);
        let found = derive_from_graph(&graph, &model, false).unwrap();
        if nhwc {
            let flat = &found.spec.tensors["classifier.0.weight"][1];
            assert_eq!(flat, &vec![Piece { tile: 4, ..Piece::whole("features.4") }]);
        } else {
            assert_eq!(found.spec, derive(&model, None, false).unwrap().spec);
        }
    }
}

/// A residual network of three stages, shortcuts with convolutions or with padded channels.
fn resnet(projection: bool) -> (Graph, MemoryModel) {
    let mut b = Builder::new(&[Some(1), Some(3), Some(8), Some(8)]);
    let h = b.conv("x", "conv1", [4, 3, 3], 1);
    let h = b.norm(&h, "bn1", 4);
    let mut stream = b.node("Relu", &[&h], "a", &[]);
    let mut width = 4;
    for (stage, out) in [(1, 4), (2, 8), (3, 16)] {
        let block = format!("layer{stage}.0");
        let stride = if out == width { 1 } else { 2 };
        let h = b.conv(&stream, &format!("{block}.conv1"), [out, width, 3], stride);
        let h = b.norm(&h, &format!("{block}.bn1"), out);
        let h = b.node("Relu", &[&h], &format!("{block} a"), &[]);
        let h = b.conv(&h, &format!("{block}.conv2"), [out, out, 3], 1);
        let h = b.norm(&h, &format!("{block}.bn2"), out);
        let short = if out == width {
            stream
        } else if projection {
            let s = b.conv(&stream, &format!("{block}.downsample.0"), [out, width, 1], stride);
            b.norm(&s, &format!("{block}.downsample.1"), out)
        } else {
            let side = (out - width) as i64 / 2;
            let far = i64::MAX;
            let names = [("starts", vec![0, 0]), ("ends", vec![far, far]), ("axes", vec![2, 3]), ("steps", vec![2, 2])];
            let slices = names.map(|(n, v)| b.integers(&format!("{block} {n}"), &v));
            let inputs: Vec<&str> = std::iter::once(stream.as_str()).chain(slices.iter().map(String::as_str)).collect();
            let s = b.node("Slice", &inputs, &format!("{block} s"), &[]);
            let pads = b.integers(&format!("{block} pads"), &[0, side, 0, 0, 0, side, 0, 0]);
            b.node("Pad", &[&s, &pads], &format!("{block} p"), &[])
        };
        let sum = b.node("Add", &[&h, &short], &format!("{block} sum"), &[]);
        stream = b.node("Relu", &[&sum], &format!("{block} out"), &[]);
        width = out;
    }
    let h = b.node("GlobalAveragePool", &[&stream], "mean", &[]);
    let h = b.node("Flatten", &[&h], "flat", &[]);
    let y = b.dense(&h, "linear", 10, 16);
    b.finish(&y)
}

#[test]
fn residual_streams_are_what_names_say() {
    for projection in [true, false] {
        let (graph, model) = resnet(projection);
        let found = derive_from_graph(&graph, &model, false).unwrap();
        let named = derive(&model, None, false).unwrap();
        assert_eq!(places(&found, &model), places(&named, &model));
        let units = |d: &Derived| d.spec.perms.values().map(|p| p.size).sum::<usize>();
        assert_eq!(units(&found), units(&named));
    }
}

/// One block with attention over two heads of four; queries, keys and values together, normalised before.
fn transformer() -> (Graph, MemoryModel) {
    let mut b = Builder::new(&[None, Some(5)]);
    let table = b.parameter("wte", &[11, 8]);
    let stream = b.node("Gather", &[&table, "x"], "e", &[]);
    let n = [b.parameter("ln.weight", &[8]), b.parameter("ln.bias", &[8])];
    let h = b.node("LayerNormalization", &[&stream, &n[0], &n[1]], "n", &[]);
    let w = b.parameter("qkv.weight", &[8, 24]);
    let h = b.node("MatMul", &[&h, &w], "m", &[]);
    let split = b.integers("split", &[0, 0, 3, 2, 4]);
    let h = b.node("Reshape", &[&h, &split], "r", &[]);
    let h = b.node("Transpose", &[&h], "t", &[("perm", Attribute::Ints(vec![2, 0, 3, 1, 4]))]);
    let mut parts = Vec::new();
    for (k, name) in ["q", "k", "v"].iter().enumerate() {
        let i64s = DType::Opaque { name: "I64", size: 8 };
        let index = Tensor { dtype: i64s, shape: vec![], data: (k as i64).to_le_bytes().to_vec() };
        b.graph.parameters.push((format!("index {name}"), index));
        parts.push(b.node("Gather", &[&h, &format!("index {name}")], name, &[]));
    }
    let keys = b.node("Transpose", &[&parts[1]], "kt", &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
    let scores = b.node("MatMul", &[&parts[0], &keys], "scores", &[]);
    let p = b.node("Softmax", &[&scores], "p", &[]);
    let h = b.node("MatMul", &[&p, &parts[2]], "mixed", &[]);
    let h = b.node("Transpose", &[&h], "back", &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
    let joined = b.integers("joined", &[0, 0, 8]);
    let h = b.node("Reshape", &[&h, &joined], "heads", &[]);
    let w = b.parameter("out.weight", &[8, 8]);
    let h = b.node("MatMul", &[&h, &w], "o", &[]);
    let stream = b.node("Add", &[&stream, &h], "s1", &[]);
    let w = [b.parameter("up.weight", &[8, 20]), b.parameter("down.weight", &[20, 8])];
    let h = b.node("MatMul", &[&stream, &w[0]], "u", &[]);
    let h = b.node("Gelu", &[&h], "g", &[]);
    let h = b.node("MatMul", &[&h, &w[1]], "d", &[]);
    let stream = b.node("Add", &[&stream, &h], "s2", &[]);
    let head = b.parameter("head.weight", &[8, 11]);
    let y = b.node("MatMul", &[&stream, &head], "y", &[]);
    b.finish(&y)
}

#[test]
fn heads_move_as_wholes_and_the_residual_stream_is_held() {
    let (graph, model) = transformer();
    let found = derive_from_graph(&graph, &model, false).unwrap();
    let sizes: Vec<(usize, Solve)> = found.spec.perms.values().map(|p| (p.size, p.solve)).collect();
    assert!(
        sizes.contains(&(2, Solve::Match)) && sizes.contains(&(20, Solve::Match)) && sizes.contains(&(8, Solve::Fixed))
    );
    let qkv = &found.spec.tensors["qkv.weight"][1];
    assert_eq!(qkv.len(), 1);
    assert_eq!((qkv[0].block, qkv[0].tile, qkv[0].stride), (4, 3, None));
    assert_eq!(found.notes, ["the residual stream is fixed (--residual lets it move)"]);
    let free = derive_from_graph(&graph, &model, true).unwrap();
    assert!(free.spec.perms.values().all(|p| p.solve == Solve::Match));
    let layout = Layout::new(free.spec.clone(), &model).unwrap();
    let p = Permutations::random(&free.spec, 3, false);
    let moved = layout.apply(&model, &p);
    assert_eq!(layout.restore(&moved, &p), model);
    assert!(compare(&layout, &model, &moved, &Permutations::identity(&free.spec)).unwrap().distance() > 0.0);
}

#[test]
fn groups_of_channels_keep_to_themselves() {
    let mut b = Builder::new(&[None, Some(3), Some(6), Some(6)]);
    let h = b.conv("x", "a", [8, 3, 3], 1);
    let w = b.parameter("b.weight", &[8, 1, 3, 3]);
    let pads = ("pads", Attribute::Ints(vec![1; 4]));
    let h = b.node("Conv", &[&h, &w], "depthwise", &[("group", Attribute::Int(8)), pads.clone()]);
    let w = b.parameter("c.weight", &[12, 4, 3, 3]);
    let h = b.node("Conv", &[&h, &w], "grouped", &[("group", Attribute::Int(2)), pads]);
    let y = b.conv(&h, "d", [5, 12, 1], 1);
    let (graph, model) = b.finish(&y);
    let found = derive_from_graph(&graph, &model, false).unwrap();
    // Inputs of the two groups move alike; its outputs within their group of six.
    let sizes: Vec<usize> = found.spec.perms.values().map(|p| p.size).collect();
    assert_eq!(sizes, [4, 6, 6]);
    assert_eq!(found.spec.tensors["a.weight"][0], found.spec.tensors["b.weight"][0]);
    assert_eq!(found.spec.tensors["c.weight"][1], vec![Piece::whole("a")]);
}

#[test]
fn what_the_graph_does_not_tell_is_refused_with_the_tensors_name() {
    let chain = |b: &mut Builder, op: &str| {
        let h = b.dense("x", "l0", 5, 7);
        let h = b.node(op, &[&h], "a0", &[]);
        b.dense(&h, "l1", 3, 5)
    };
    let mut b = Builder::new(&[None, Some(7)]);
    let y = chain(&mut b, "Frobnicate");
    let (mut graph, model) = b.finish(&y);
    let error = derive_from_graph(&graph, &model, false).unwrap_err().to_string();
    assert!(error.contains("tensor a0 comes from Frobnicate, which is not known"), "{error}");
    // With its shape stated everything it touches stays, and nothing is left to move.
    graph.shapes.insert("a0".into(), vec![Some(1), Some(5)]);
    assert!(matches!(derive_from_graph(&graph, &model, false), Err(MergeError::NoSpec { .. })));

    let mut b = Builder::new(&[None, Some(7)]);
    let y = chain(&mut b, "Relu");
    let (graph, mut model) = b.finish(&y);
    model.tensors.insert("extra.weight".into(), random_model(&[("e", &[4, 4])], DType::F32, 9).tensors["e"].clone());
    let error = derive_from_graph(&graph, &model, false).unwrap_err().to_string();
    assert!(error.contains("tensor extra.weight is no parameter of the graph"), "{error}");
    model.tensors.insert("extra.weight".into(), model.tensors["l1.weight"].clone());
    let found = derive_from_graph(&graph, &model, false).unwrap();
    assert_eq!(found.spec.tensors["extra.weight"], found.spec.tensors["l1.weight"]);
    model.tensors.remove("extra.weight");
    model.tensors.get_mut("l0.weight").unwrap().shape = vec![7, 5];
    let error = derive_from_graph(&graph, &model, false).unwrap_err().to_string();
    assert!(error.contains("tensor l0.weight has shape [7, 5], in the graph [5, 7]"), "{error}");

    let mut b = Builder::new(&[None, Some(8)]);
    let y = chain(&mut b, "Relu");
    let (graph, model) = b.finish(&y);
    let error = derive_from_graph(&graph, &model, false).unwrap_err().to_string();
    assert!(error.contains("tensor l0 out comes from Gemm, whose operands have 8 and 7 units"), "{error}");
}

#[test]
fn a_unit_that_is_looked_at_alone_stays() {
    let mut b = Builder::new(&[None, Some(7)]);
    let h = b.dense("x", "l0", 5, 7);
    let names = [("s", vec![2]), ("e", vec![3]), ("a", vec![1])].map(|(n, v)| b.integers(n, &v));
    let one = b.node("Slice", &[&h, &names[0], &names[1], &names[2]], "one", &[]);
    let h = b.node("Mul", &[&h, &one], "gated", &[]);
    let y = b.dense(&h, "l1", 3, 5);
    let (graph, model) = b.finish(&y);
    let found = derive_from_graph(&graph, &model, false).unwrap();
    assert_eq!(found.spec.perms["l0"].size, 4);
    let pieces = &found.spec.tensors["l0.bias"][0];
    assert_eq!(pieces, &vec![Piece::whole("l0").at(0).units(0, 2), Piece::whole("l0").at(3).units(2, 2)]);
}
