use serde_json::json;

use super::super::tests::random_model;
use super::super::{Axes, DType, Layout, MemoryModel, Permutations, Piece};
use super::*;

fn whole(perm: &str) -> Vec<Piece> {
    vec![Piece::whole(perm)]
}

fn model(shapes: &[(&str, &[usize])]) -> MemoryModel {
    random_model(shapes, DType::F32, 1)
}

fn axes<'a>(derived: &'a Derived, tensor: &str) -> &'a Axes {
    &derived.spec.tensors[tensor]
}

const LLAMA: &[(&str, &[usize])] = &[
    ("model.embed_tokens.weight", &[11, 8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("model.layers.0.post_attention_layernorm.weight", &[8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.q_proj.bias", &[8]),
    ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.v_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.gate_proj.weight", &[12, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[12, 8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 12]),
    ("model.norm.weight", &[8]),
    ("lm_head.weight", &[11, 8]),
];

#[test]
fn llama_with_grouped_queries() {
    let model = model(LLAMA);
    let config = json!({"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8});
    let derived = derive(&model, Some(&config), false).unwrap();
    assert_eq!(derived.family, "a Llama-style transformer");
    assert_eq!(
        derived.spec.perms["heads0"],
        super::super::PermInfo { groups: Some(2), ..super::super::PermInfo::new(4) }
    );
    let q = axes(&derived, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(q, &vec![vec![Piece::blocks("heads0", 2)], whole("resid")]);
    let v = axes(&derived, "model.layers.0.self_attn.v_proj.weight");
    assert_eq!(v[0], vec![Piece::blocks("heads0.outer", 2)]);
    assert_eq!(axes(&derived, "model.layers.0.mlp.down_proj.weight"), &vec![whole("resid"), whole("ff0")]);
    let layout = Layout::new(derived.spec.clone(), &model).unwrap();
    assert!(layout.untouched(&model).is_empty());
    let p = Permutations::random(&derived.spec, 3, true);
    assert_eq!(layout.restore(&layout.apply(&model, &p), &p), model);
    assert_eq!(derived.spec.perms["resid"].solve, Solve::Fixed);
    let free = derive(&model, Some(&config), true).unwrap();
    assert_eq!(free.spec.perms["resid"].solve, Solve::Match);
}

#[test]
fn without_a_config_heads_stay_and_it_is_said() {
    let derived = derive(&model(LLAMA), None, false).unwrap();
    assert_eq!(derived.spec.perms.keys().collect::<Vec<_>>(), ["ff0", "resid"]);
    assert!(derived.notes[0].contains("config.json"));
}

#[test]
fn a_tensor_that_is_not_of_the_family_is_named() {
    let mut shapes = LLAMA.to_vec();
    shapes.push(("model.layers.0.self_attn.sinks", &[4]));
    let error = derive(&model(&shapes), None, false).unwrap_err().to_string();
    assert_eq!(
        error,
        "read as a Llama-style transformer, but tensor model.layers.0.self_attn.sinks is none of its tensors"
    );
    let mut shapes = LLAMA.to_vec();
    shapes[9].1 = &[13, 8];
    let error = derive(&model(&shapes), None, false).unwrap_err().to_string();
    assert!(error.contains("model.layers.0.mlp.up_proj.weight has 13 units of ff0 on axis 0"), "{error}");
    let config = json!({"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 8});
    let error = derive(&model(LLAMA), Some(&config), false).unwrap_err().to_string();
    assert!(error.contains("k_proj.weight has 4 positions on axis 0, 8 are expected"), "{error}");
}

#[test]
fn gpt2_is_stored_the_other_way_round() {
    let model = model(&[
        ("wte.weight", &[11, 6]),
        ("wpe.weight", &[5, 6]),
        ("h.0.ln_1.weight", &[6]),
        ("h.0.ln_1.bias", &[6]),
        ("h.0.attn.bias", &[1, 1, 5, 5]),
        ("h.0.attn.c_attn.weight", &[6, 18]),
        ("h.0.attn.c_attn.bias", &[18]),
        ("h.0.attn.c_proj.weight", &[6, 6]),
        ("h.0.attn.c_proj.bias", &[6]),
        ("h.0.mlp.c_fc.weight", &[6, 24]),
        ("h.0.mlp.c_fc.bias", &[24]),
        ("h.0.mlp.c_proj.weight", &[24, 6]),
        ("h.0.mlp.c_proj.bias", &[6]),
        ("ln_f.weight", &[6]),
    ]);
    let derived = derive(&model, Some(&json!({"n_head": 3, "n_embd": 6})), false).unwrap();
    let head = |at: usize| Piece::blocks("heads0", 2).at(at);
    assert_eq!(axes(&derived, "h.0.attn.c_attn.weight"), &vec![whole("resid"), vec![head(0), head(6), head(12)]]);
    assert_eq!(axes(&derived, "h.0.mlp.c_fc.weight"), &vec![whole("resid"), whole("ff0")]);
    Layout::new(derived.spec.clone(), &model).unwrap();
}

/// Shapes of a residual network of three stages with one block each, option A or with projections.
fn resnet(projection: bool) -> MemoryModel {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut conv = |name: &str, shape: [usize; 4], norm: &str| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{norm}.{part}"), vec![shape[0]]));
        }
        shapes.push((format!("{norm}.num_batches_tracked"), vec![]));
    };
    conv("conv1", [4, 3, 3, 3], "bn1");
    let mut width = 4;
    for (stage, out) in [(1, 4), (2, 8), (3, 16)] {
        let block = format!("layer{stage}.0");
        conv(&format!("{block}.conv1"), [out, width, 3, 3], &format!("{block}.bn1"));
        conv(&format!("{block}.conv2"), [out, out, 3, 3], &format!("{block}.bn2"));
        if projection && out != width {
            conv(&format!("{block}.downsample.0"), [out, width, 1, 1], &format!("{block}.downsample.1"));
        }
        width = out;
    }
    shapes.push(("linear.weight".into(), vec![10, 16]));
    shapes.push(("linear.bias".into(), vec![10]));
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    model(&shapes)
}

#[test]
fn residual_streams_with_and_without_projections() {
    let plain = resnet(false);
    let derived = derive(&plain, None, false).unwrap();
    let second =
        vec![Piece::whole("r1").at(2), Piece::whole("r2").at(0).units(0, 2), Piece::whole("r2").at(6).units(2, 2)];
    assert_eq!(axes(&derived, "layer2.0.bn2.weight"), &vec![second.clone()]);
    let third: Vec<Piece> = second
        .into_iter()
        .map(|p| Piece { at: p.at + 4, ..p })
        .chain([Piece::whole("r3").at(0).units(0, 4), Piece::whole("r3").at(12).units(4, 4)])
        .collect();
    assert_eq!(axes(&derived, "linear.weight"), &vec![vec![], third]);
    Layout::new(derived.spec.clone(), &plain).unwrap();
    assert_eq!(derived.notes.len(), 1);

    let projected = resnet(true);
    let derived = derive(&projected, None, false).unwrap();
    assert_eq!(axes(&derived, "layer2.0.downsample.0.weight")[..2], [whole("r2"), whole("r1")]);
    assert_eq!(axes(&derived, "linear.weight"), &vec![vec![], whole("r3")]);
    Layout::new(derived.spec, &projected).unwrap();
}

#[test]
fn chains_of_layers() {
    let mlp = model(&[
        ("layer10.weight", &[3, 5]),
        ("layer10.bias", &[3]),
        ("layer2.weight", &[5, 4]),
        ("layer2.bias", &[5]),
        ("layer1.weight", &[4, 7]),
    ]);
    let derived = derive(&mlp, None, false).unwrap();
    assert_eq!(axes(&derived, "layer10.weight"), &vec![vec![], whole("layer2")]);
    assert_eq!(axes(&derived, "layer2.weight"), &vec![whole("layer2"), whole("layer1")]);
    assert_eq!(axes(&derived, "layer2.bias"), &vec![whole("layer2")]);

    let vgg = model(&[
        ("features.0.weight", &[4, 3, 3, 3]),
        ("features.0.bias", &[4]),
        ("features.1.weight", &[4]),
        ("features.1.running_mean", &[4]),
        ("features.1.num_batches_tracked", &[]),
        ("features.4.weight", &[6, 4, 3, 3]),
        ("classifier.0.weight", &[8, 24]),
        ("classifier.3.weight", &[10, 8]),
    ]);
    let derived = derive(&vgg, None, false).unwrap();
    assert_eq!(axes(&derived, "features.1.running_mean"), &vec![whole("features.0")]);
    assert_eq!(
        axes(&derived, "classifier.0.weight"),
        &vec![whole("classifier.0"), vec![Piece::blocks("features.4", 4)]]
    );
    assert_eq!(derived.notes.len(), 2);
    Layout::new(derived.spec, &vgg).unwrap();
}

#[test]
fn what_forms_no_chain_is_refused() {
    let gap = model(&[("a.1.weight", &[4, 7]), ("a.2.weight", &[3, 5])]);
    let error = derive(&gap, None, false).unwrap_err().to_string();
    assert_eq!(
        error,
        "read as a chain of layers, but tensor a.2.weight reads 5 inputs, but a.1.weight before it has 4 outputs"
    );
    let lost = model(&[("a.1.weight", &[4, 7]), ("a.2.weight", &[3, 4]), ("scale.weight", &[4])]);
    assert!(derive(&lost, None, false).unwrap_err().to_string().contains("scale.weight belongs to no layer"));
    let both = model(&[
        ("conv1.weight", &[4, 1, 3, 3]),
        ("fc1.weight", &[4, 4]),
        ("bn1.weight", &[4]),
        ("fc2.weight", &[4, 4]),
    ]);
    assert!(derive(&both, None, false).unwrap_err().to_string().contains("bn1.weight belongs to no layer"));
    let alone = model(&[("w", &[4])]);
    let error = derive(&alone, None, false).unwrap_err();
    assert!(matches!(error, MergeError::NoSpec { .. }) && error.hint().unwrap().contains("--no-match"));
}
