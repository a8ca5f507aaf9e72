//! `subspan match` and `subspan merge`.

use std::collections::BTreeMap;

use crate::npy::npy;
use crate::place::Place;

/// Name, dtype, shape and bytes of tensors.
type Tensors = Vec<(String, &'static str, Vec<usize>, Vec<u8>)>;

fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut entries, mut at) = (Vec::new(), 0);
    for (name, dtype, shape, data) in tensors {
        let end = at + data.len();
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!(r#"{{"__metadata__":{{"normalize":"0.5/0.5"}},{}}}"#, entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    tensors.iter().for_each(|t| bytes.extend(&t.3));
    bytes
}

/// What a file written by the program holds: shape and bytes by name.
fn read(bytes: &[u8]) -> BTreeMap<String, (String, Vec<u8>)> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let at = |k: usize| entry["data_offsets"][k].as_u64().unwrap() as usize;
            (name.clone(), (entry["dtype"].as_str().unwrap().to_string(), data[at(0)..at(1)].to_vec()))
        })
        .collect()
}

fn noise(k: usize, seed: usize) -> f32 {
    // The finalizer of SplitMix64.
    let mut h = (k as u64 + 1 + ((seed as u64) << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^= h >> 31;
    (h >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

const SIZES: [usize; 4] = [30, 40, 32, 8];

/// An MLP whose hidden units are in the order `units[layer]`, as f32 or as bf16.
fn mlp(seed: usize, units: [&dyn Fn(usize) -> usize; 2], half: bool) -> Tensors {
    let mut tensors = Tensors::new();
    let identity = |i: usize| i;
    let order = |layer: usize| -> &dyn Fn(usize) -> usize {
        match layer {
            1 => units[0],
            2 => units[1],
            _ => &identity,
        }
    };
    for layer in 0..3 {
        let (n_in, n_out) = (SIZES[layer], SIZES[layer + 1]);
        let bytes = |values: Vec<f32>| -> Vec<u8> {
            match half {
                true => values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
                false => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            }
        };
        let dtype = if half { "BF16" } else { "F32" };
        let (rows, columns) = (order(layer + 1), order(layer));
        let weight =
            (0..n_out * n_in).map(|k| noise(rows(k / n_in) * n_in + columns(k % n_in), 3 * seed + layer)).collect();
        let bias = (0..n_out).map(|i| noise(1000 + rows(i), 3 * seed + layer)).collect();
        tensors.push((format!("layer{layer}.weight"), dtype, vec![n_out, n_in], bytes(weight)));
        tensors.push((format!("layer{layer}.bias"), dtype, vec![n_out], bytes(bias)));
    }
    tensors
}

fn moved(i: usize, n: usize) -> usize {
    (7 * i + 3) % n
}

/// `a.safetensors`, and `b.safetensors`: the same network with its hidden units in another order.
fn planted(half: bool) -> Place {
    let same = |i: usize| i;
    let (first, second) = (|i: usize| moved(i, SIZES[1]), |i: usize| moved(i, SIZES[2]));
    Place::new()
        .file("a.safetensors", safetensors(&mlp(1, [&same, &same], half)))
        .file("b.safetensors", safetensors(&mlp(1, [&first, &second], half)))
        .file("c.safetensors", safetensors(&mlp(2, [&same, &same], half)))
}

#[test]
fn a_planted_order_is_undone_bit_for_bit() {
    for half in [false, true] {
        let place = planted(half);
        let record = place.run("match a.safetensors b.safetensors -o out --json").succeeds().record();
        let results = &record["results"];
        assert_eq!((&results["certified"], &results["distance_after"]), (&true.into(), &0.0.into()), "{results}");
        assert_eq!(results["distance_reduction"], 1.0);
        assert!(results["objective_after"].as_f64() > results["objective_before"].as_f64());
        assert_eq!(place.files_in("out"), ["b.safetensors", "permutations.safetensors", "run.json", "spec.toml"]);
        assert!(read(&place.read("out/b.safetensors")) == read(&place.read("a.safetensors")));
        let permutations = read(&place.read("out/permutations.safetensors"));
        assert_eq!(permutations["layer0"].0, "I64");
        assert_eq!(permutations["layer0"].1.len(), 8 * SIZES[1]);
        // Aligned unit i is unit perm[i] of b; unit 0 of b is unit 3 of a.
        let third = &permutations["layer0"].1[8 * 3..8 * 4];
        assert_eq!(third, 0i64.to_le_bytes());
        let saved: serde_json::Value = serde_json::from_slice(&place.read("out/run.json")).unwrap();
        assert_eq!(saved, record);
        // The spec that was written gives the same again.
        place.run("match a.safetensors b.safetensors --spec out/spec.toml -o again").succeeds();
        assert!(place.read("again/permutations.safetensors") == place.read("out/permutations.safetensors"));
        assert_eq!(place.read("again/spec.toml"), place.read("out/spec.toml"));
    }
}

#[test]
fn merging_a_model_with_its_reordered_self_gives_it_back() {
    for half in [false, true] {
        let place = planted(half);
        place.run("merge a.safetensors b.safetensors -o m.safetensors").succeeds();
        assert!(read(&place.read("m.safetensors")) == read(&place.read("a.safetensors")));
        place.run("merge a.safetensors c.safetensors --no-match --weights 1,0 -o m.safetensors").succeeds();
        assert!(read(&place.read("m.safetensors")) == read(&place.read("a.safetensors")));
        place.run("merge a.safetensors b.safetensors --rule slerp -o s.safetensors").succeeds();
        assert!(read(&place.read("s.safetensors")) == read(&place.read("a.safetensors")));
    }
}

#[test]
fn a_plain_mean_is_that_of_the_numbers() {
    let place = planted(false);
    place.run("merge a.safetensors c.safetensors --no-match --weights 3,1 -o m.safetensors").succeeds();
    place.run("merge a.safetensors c.safetensors --no-match --weights 3,1 --no-sync -o n.safetensors").succeeds();
    assert_eq!(place.read("n.safetensors"), place.read("m.safetensors"));
    let values = |name: &str| -> Vec<f32> {
        let bytes = read(&place.read(name))["layer1.weight"].1.clone();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (a, c, m) = (values("a.safetensors"), values("c.safetensors"), values("m.safetensors"));
    for ((a, c), m) in a.iter().zip(&c).zip(&m) {
        assert_eq!(*m, (0.75 * f64::from(*a) + 0.25 * f64::from(*c)) as f32);
    }
}

#[test]
fn threads_do_not_change_the_files() {
    let place = planted(false);
    for threads in [1, 3] {
        place.run(&format!("match a.safetensors c.safetensors --threads {threads} -o t{threads}")).succeeds();
        place
            .run(&format!("merge a.safetensors c.safetensors --threads {threads} -o m{threads}.safetensors"))
            .succeeds();
    }
    for name in ["c.safetensors", "permutations.safetensors"] {
        assert_eq!(place.read(&format!("t1/{name}")), place.read(&format!("t3/{name}")));
    }
    assert_eq!(place.read("m1.safetensors"), place.read("m3.safetensors"));
}

#[test]
fn three_models_are_matched_to_the_first_and_merged_to_their_mean() {
    let place = planted(false);
    place.run("match a.safetensors b.safetensors c.safetensors -o out").succeeds();
    assert!(read(&place.read("out/b.safetensors")) == read(&place.read("a.safetensors")));
    let permutations = read(&place.read("out/permutations.safetensors"));
    assert!(permutations.contains_key("b.safetensors/layer0") && permutations.contains_key("c.safetensors/layer1"));
    let record =
        place.run("merge a.safetensors b.safetensors c.safetensors -o m.safetensors --json").succeeds().record();
    assert_eq!(record["config"]["many"], "merge-many");
    assert_eq!(record["results"]["pairs"].as_array().unwrap().len(), 2);
    assert!(record["results"]["distance_reduction"].as_f64().unwrap() > 0.0);
}

#[test]
fn shards_go_in_and_come_out() {
    let same = |i: usize| i;
    let tensors = mlp(1, [&same, &same], false);
    let place = planted(false);
    std::fs::create_dir(place.path("dir")).unwrap();
    let index: Vec<String> =
        tensors.iter().enumerate().map(|(k, t)| format!(r#""{}":"part-{}.safetensors""#, t.0, k / 3)).collect();
    let place = place
        .file("dir/part-0.safetensors", safetensors(&tensors[..3].to_vec()))
        .file("dir/part-1.safetensors", safetensors(&tensors[3..].to_vec()))
        .file("dir/model.safetensors.index.json", format!("{{\"weight_map\":{{{}}}}}", index.join(",")));
    place.run("match b.safetensors dir -o out").succeeds();
    assert_eq!(place.files_in("out/dir"), ["model.safetensors.index.json", "part-0.safetensors", "part-1.safetensors"]);
    place.run("merge b.safetensors out/dir --no-match -o m.safetensors").succeeds();
    assert!(read(&place.read("m.safetensors")) == read(&place.read("b.safetensors")));
    place.run("merge dir a.safetensors --no-match -o merged").succeeds();
    assert!(read(&place.read("merged/part-1.safetensors")) == read(&place.read("dir/part-1.safetensors")));
}

#[test]
fn what_cannot_be_matched_is_said_in_one_line() {
    let same = |i: usize| i;
    let mut short = mlp(1, [&same, &same], false);
    short.remove(1);
    let mut wide = mlp(1, [&same, &same], false);
    wide[5] = ("layer2.bias".into(), "F32", vec![1], vec![0; 4]);
    let mut nan = mlp(1, [&same, &same], false);
    nan[2].3[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut cut = safetensors(&mlp(1, [&same, &same], false));
    cut.truncate(cut.len() - 7);
    let place = planted(false)
        .file("short.safetensors", safetensors(&short))
        .file("wide.safetensors", safetensors(&wide))
        .file("nan.safetensors", safetensors(&nan))
        .file("cut.safetensors", cut)
        .file("bad.toml", "version = 1\nperm = { h = 23 }\n[tensors]\n\"layer0.weight\" = [[\"h\"], []]\n");
    for (call, expected) in [
        ("short.safetensors", "error: short.safetensors: no tensor layer0.bias, which a.safetensors has"),
        ("wide.safetensors", "error: tensor layer2.bias has shape [8] in a.safetensors and [1] in wide.safetensors"),
        ("nan.safetensors", "error: nan.safetensors: tensor layer1.weight is not finite at element 2"),
        ("cut.safetensors", "error: cut.safetensors: corrupt file, tensor layer2.bias: ends at byte"),
        (
            "b.safetensors --spec bad.toml",
            "error: perm h covers 23 positions of axis 0 of tensor layer0.weight, which has 40",
        ),
        ("none.safetensors", "error: cannot open none.safetensors"),
    ] {
        for verb in ["match", "merge"] {
            let text = place.run(&format!("{verb} a.safetensors {call} -o o.safetensors")).fails().stderr();
            assert!(text.starts_with(expected), "{text}");
        }
    }
    assert!(!place.path("o.safetensors").exists());
    for call in [
        "match a.safetensors c.safetensors --method activations -o o",
        "match a.safetensors -o o",
        "merge a.safetensors c.safetensors --weights 1 -o o",
        "merge a.safetensors c.safetensors -o a.safetensors",
        "match a.safetensors b.safetensors b.safetensors -o o",
        "match a.safetensors c.safetensors -o .",
    ] {
        place.run(call).misuses();
    }
    assert!(!place.path("o").exists());
}

/// Rows of random numbers as a `.npy` file of `<f4`.
fn samples(n_rows: usize, n_cols: usize) -> Vec<u8> {
    let values: Vec<f32> = (0..n_rows * n_cols).map(|k| noise(k, 99)).collect();
    npy(&values, n_cols)
}

#[test]
fn units_that_fire_together_are_found_too() {
    let place = planted(false).file("x.npy", samples(400, SIZES[0]));
    let call = "match a.safetensors b.safetensors --method activations --data x.npy -o out --json";
    let record = place.run(call).succeeds().record();
    assert_eq!(record["results"]["distance_after"], 0.0, "{}", record["results"]);
    assert_eq!((&record["config"]["method"], &record["results"]["certified"]), (&"activations".into(), &false.into()));
    assert!(read(&place.read("out/b.safetensors")) == read(&place.read("a.safetensors")));
}

/// The values of a tensor of a file.
fn values(place: &Place, file: &str, tensor: &str) -> Vec<f32> {
    let bytes = read(&place.read(file))[tensor].1.clone();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Classes of 400 samples.
fn classes() -> String {
    (0..400).fold(String::from("y\n"), |text, i| text + &format!("{}\n", i * i % 8))
}

#[test]
fn estimators_never_do_worse_than_weights_half_way() {
    let place = planted(false).file("x.npy", samples(400, SIZES[0])).file("y.csv", classes());
    let call = "match a.safetensors c.safetensors --method ste --data x.npy --labels y.csv:y";
    for form in ["projected", "latent"] {
        let record = place.run(&format!("{call} --ste {form} --steps 12 -o {form} --json")).succeeds().record();
        assert_eq!((&record["config"]["method"], &record["config"]["ste"]), (&"ste".into(), &form.into()));
        let found = &record["results"]["ste"][0];
        assert!(found["loss"].as_f64() <= found["loss_by_weights"].as_f64(), "{found}");
        assert_eq!(found["steps"], 12);
        place.run(&format!("{call} --ste {form} --steps 12 --threads 1 -o again-{form}")).succeeds();
        let file = "permutations.safetensors";
        assert_eq!(place.read(&format!("again-{form}/{file}")), place.read(&format!("{form}/{file}")));
    }
    // A third model goes to the first as well; what weights solve exactly stays.
    let three = call.replace("c.safe", "b.safetensors c.safe");
    let record = place.run(&format!("{three} --steps 3 -o three --json")).succeeds().record();
    assert_eq!(record["results"]["ste"].as_array().unwrap().len(), 2);
    for flags in ["--method ste --data x.npy", "--method ste", "--ste latent", "--method weights --steps 3"] {
        place.run(&format!("match a.safetensors c.safetensors {flags} -o o")).misuses();
    }
}

#[test]
fn repair_keeps_the_units_moments() {
    let place = planted(false).file("x.npy", samples(400, SIZES[0]));
    // Without BatchNorm and --repair samples have no part.
    for flags in ["", "--no-match"] {
        let call = format!("merge a.safetensors c.safetensors --data x.npy {flags} -o m.safetensors");
        let text = place.run(&call).misuses().stderr();
        assert!(text.starts_with("error: --data would change nothing"), "{text}");
    }
    assert!(!place.path("m.safetensors").exists());
    let record = place
        .run("merge a.safetensors c.safetensors --data x.npy --repair -o m.safetensors --json")
        .succeeds()
        .record();
    assert_eq!((&record["results"]["repair"]["still_units"], &record["config"]["repair"]), (&0.into(), &true.into()));
    place.run("merge a.safetensors c.safetensors -o plain.safetensors").succeeds();
    // The deviations of the first layer's units are the means of those of the models.
    let x: Vec<f32> = (0..400 * SIZES[0]).map(|k| noise(k, 99)).collect();
    let deviations = |file: &str| -> Vec<f64> {
        let w = values(&place, file, "layer0.weight");
        w.chunks(SIZES[0])
            .map(|row| {
                let z: Vec<f64> =
                    x.chunks(SIZES[0]).map(|x| row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum()).collect();
                let mean = z.iter().sum::<f64>() / 400.0;
                (z.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 400.0).sqrt()
            })
            .collect()
    };
    place.run("match a.safetensors c.safetensors -o out").succeeds();
    let (a, c, m) = (deviations("a.safetensors"), deviations("out/c.safetensors"), deviations("m.safetensors"));
    for ((a, c), m) in a.iter().zip(&c).zip(&m) {
        assert!((m - (a + c) / 2.0).abs() < 1e-4 * m, "{m} {a} {c}");
    }
    let plain = deviations("plain.safetensors");
    assert!(plain.iter().sum::<f64>() < 0.9 * m.iter().sum::<f64>());
    // Outputs are not hidden units.
    assert_eq!(values(&place, "m.safetensors", "layer2.weight"), values(&place, "plain.safetensors", "layer2.weight"));
    place.run("merge a.safetensors c.safetensors --repair -o o.safetensors").misuses();
}

#[test]
fn differences_from_a_base_are_added_and_rows_keep_their_norms() {
    let place = planted(false);
    let call = "merge b.safetensors c.safetensors --rule task --base a.safetensors";
    place.run(&format!("{call} --weights 0,0 -o base.safetensors")).succeeds();
    assert!(read(&place.read("base.safetensors")) == read(&place.read("a.safetensors")));
    place.run(&format!("{call} --no-match --weights 0.5,2 -o t.safetensors")).succeeds();
    let of = |file: &str| values(&place, file, "layer1.weight");
    let (a, b, c, t) = (of("a.safetensors"), of("b.safetensors"), of("c.safetensors"), of("t.safetensors"));
    for k in 0..t.len() {
        let [a, b, c] = [a[k], b[k], c[k]].map(f64::from);
        assert!((f64::from(t[k]) - (a + 0.5 * (b - a) + 2.0 * (c - a))).abs() < 1e-5);
    }
    // One model and its base, which is the same in another order.
    place.run("merge b.safetensors --rule task --base a.safetensors -o one.safetensors").succeeds();
    assert!(read(&place.read("one.safetensors")) == read(&place.read("a.safetensors")));
    place.run("merge a.safetensors c.safetensors --no-match --rule row-norm -o r.safetensors").succeeds();
    let norm = |file: &str| of(file)[..SIZES[1]].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    assert!((norm("r.safetensors") - (norm("a.safetensors") + norm("c.safetensors")) / 2.0).abs() < 1e-5);
    for call in [
        "merge a.safetensors c.safetensors --rule task -o o",
        "merge a.safetensors c.safetensors --base b.safetensors -o o",
    ] {
        place.run(call).misuses();
    }
}

/// A field of a protocol buffer: its bytes behind number and length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(bytes);
    out
}

/// The MLP as an ONNX file with these activations.
fn onnx(activation: &str) -> Vec<u8> {
    let mut graph = Vec::new();
    let same = |i: usize| i;
    for (name, _, shape, data) in mlp(1, [&same, &same], false) {
        let dims: Vec<u8> = shape.iter().flat_map(|n| [0x08, *n as u8]).collect();
        graph.extend(field(5, &[dims, vec![0x10, 1], field(8, name.as_bytes()), field(9, &data)].concat()));
    }
    let mut from = "x".to_string();
    for layer in 0..3 {
        let names = [from.clone(), format!("layer{layer}.weight"), format!("layer{layer}.bias")];
        let inputs: Vec<u8> = names.iter().flat_map(|n| field(1, n.as_bytes())).collect();
        let transposed = [field(1, b"transB"), vec![0x18, 1, 0xA0, 1, 2]].concat();
        let out = format!("z{layer}");
        graph.extend(field(1, &[inputs, field(2, out.as_bytes()), field(4, b"Gemm"), field(5, &transposed)].concat()));
        from = format!("a{layer}");
        let act = if layer == 2 { "Identity" } else { activation };
        graph.extend(field(
            1,
            &[field(1, out.as_bytes()), field(2, from.as_bytes()), field(4, act.as_bytes())].concat(),
        ));
    }
    let dims = [field(1, &[0x08, 1]), field(1, &[0x08, SIZES[0] as u8])].concat();
    let described = |name: &str| [field(1, name.as_bytes()), field(2, &field(1, &field(2, &dims)))].concat();
    graph.extend([field(11, &described("x")), field(12, &described("a2"))].concat());
    field(7, &graph)
}

#[test]
fn a_graph_tells_what_names_tell() {
    let place = planted(false).file("m.onnx", onnx("Relu")).file("odd.onnx", onnx("Frobnicate"));
    for verb in ["match", "merge"] {
        let out = if verb == "match" { "" } else { ".safetensors" };
        place.run(&format!("{verb} a.safetensors c.safetensors -o by-names{out}")).succeeds();
        let call = format!("{verb} a.safetensors c.safetensors --spec m.onnx -o by-graph{out} --json");
        let record = place.run(&call).succeeds().record();
        assert_eq!(record["results"]["spec_source"], "derived for a computation graph");
        let text = place.run(&format!("{verb} a.safetensors c.safetensors --spec odd.onnx -o o{out}")).fails().stderr();
        assert!(text.starts_with("error: read as a computation graph, but tensor a0 comes from Frobnicate"), "{text}");
    }
    for file in ["permutations.safetensors", "spec.toml", "c.safetensors"] {
        assert!(place.read(&format!("by-names/{file}")) == place.read(&format!("by-graph/{file}")));
    }
    assert!(place.read("by-names.safetensors") == place.read("by-graph.safetensors"));
    place.run("analyze a.safetensors c.safetensors --spec m.onnx --no-intervention -o analysis").succeeds();
    place.run("match a.safetensors c.safetensors --spec m.onnx --residual -o o").succeeds();
}

#[test]
fn the_specs_of_the_documents_are_specs() {
    let text = include_str!("../../../../docs/merge.md");
    let specs: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert!(specs.len() >= 3);
    for spec in specs {
        subspan_io::parse_spec(spec, "docs/merge.md").unwrap();
    }
}

#[test]
fn merged_values_that_are_not_finite_are_said() {
    let tensor = |value: f32| vec![("w".to_string(), "F32", vec![2, 2], [value; 4].map(f32::to_le_bytes).concat())];
    let place =
        Place::new().file("a.safetensors", safetensors(&tensor(3e38))).file("b.safetensors", safetensors(&tensor(1.0)));
    let ran = place.run("merge a.safetensors b.safetensors --no-match --weights=100,-99 -o m.safetensors").succeeds();
    assert!(ran.stderr().contains("not finite: w"), "{}", ran.stderr());
    place
        .run("merge a.safetensors b.safetensors --no-match --weights=1e308,1e308 -o n.safetensors")
        .misuses()
        .naming(&["finite"]);
}
