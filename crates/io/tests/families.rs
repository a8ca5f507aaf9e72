//! Specs derived from names against specs written by hand, for checkpoints shaped as published models are.

use serde_json::{Value, json};
use subspan::Silent;
use subspan::draw::Stream;
use subspan::merge::{
    DType, Layout, MatchConfig, MemoryModel, Model, Permutations, Spec, Tensor, derive, match_weights,
};
use subspan_io::parse_spec;

/// Hidden size, heads, groups of heads, hidden units of the feed-forward part; two layers.
const D: usize = 12;
const HEADS: usize = 6;
const GROUPS: usize = 3;
const FF: usize = 20;
const VOCABULARY: usize = 17;

/// Random tensors; `{i}` runs over two layers.
fn model(tensors: &[(&str, &[usize])]) -> MemoryModel {
    let mut out = MemoryModel::new("a model");
    for (name, shape) in tensors {
        for layer in 0..if name.contains("{i}") { 2 } else { 1 } {
            let name = name.replace("{i}", &layer.to_string());
            let mut rng = Stream::new(1, &name).rng(0);
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
            out.tensors.insert(name, Tensor::from_f32(shape, &values, DType::F32));
        }
    }
    out
}

/// Which position of which axis belongs to which unit, whatever the pieces look like.
fn places(spec: &Spec, model: &MemoryModel) -> Vec<String> {
    let layout = Layout::new(spec.clone(), model).unwrap();
    let tensor = |t: &subspan::merge::BoundTensor| {
        let axis = |places: &Vec<subspan::merge::Place>| {
            let place = |p: &subspan::merge::Place| {
                format!("{}{} {:?}", layout.perms[p.perm].0, if p.outer { ".outer" } else { "" }, p.slots)
            };
            places.iter().map(place).collect::<Vec<_>>().join("; ")
        };
        format!("{}: {}", t.name, t.axes.iter().map(axis).collect::<Vec<_>>().join(" | "))
    };
    layout.tensors.iter().map(tensor).collect()
}

/// The derived spec has the places of the one written by hand, covers every tensor but `plain` ones, and undoes what it plants.
fn agrees(model: &MemoryModel, config: &Value, toml: &str, plain: &[&str]) {
    let derived = derive(model, Some(config), false).unwrap();
    let by_hand = parse_spec(&format!("version = 1\nrange = {{ i = [0, 2] }}\n{toml}"), "by hand").unwrap();
    assert_eq!(places(&derived.spec, model), places(&by_hand, model));
    assert_eq!(derived.spec.perms, by_hand.perms);
    let layout = Layout::new(derived.spec.clone(), model).unwrap();
    assert_eq!(layout.untouched(model), plain);
    let planted = layout.apply(model, &Permutations::random(&derived.spec, 3, false));
    let found = match_weights(&layout, model, &planted, None, &MatchConfig::default(), 0, &Silent).unwrap();
    assert_eq!(layout.apply(&planted, &found.permutations).tensors, model.tensors);
    assert_eq!((found.certified, found.after.distance()), (true, 0.0));
}

#[test]
fn mixtral_has_experts_and_grouped_queries() {
    let kv = D / HEADS * GROUPS;
    let model = model(&[
        ("model.embed_tokens.weight", &[VOCABULARY, D]),
        ("model.layers.{i}.input_layernorm.weight", &[D]),
        ("model.layers.{i}.post_attention_layernorm.weight", &[D]),
        ("model.layers.{i}.self_attn.q_proj.weight", &[D, D]),
        ("model.layers.{i}.self_attn.k_proj.weight", &[kv, D]),
        ("model.layers.{i}.self_attn.v_proj.weight", &[kv, D]),
        ("model.layers.{i}.self_attn.o_proj.weight", &[D, D]),
        ("model.layers.{i}.block_sparse_moe.gate.weight", &[2, D]),
        ("model.layers.{i}.block_sparse_moe.experts.0.w1.weight", &[FF, D]),
        ("model.layers.{i}.block_sparse_moe.experts.0.w2.weight", &[D, FF]),
        ("model.layers.{i}.block_sparse_moe.experts.0.w3.weight", &[FF, D]),
        ("model.layers.{i}.block_sparse_moe.experts.1.w1.weight", &[FF, D]),
        ("model.layers.{i}.block_sparse_moe.experts.1.w2.weight", &[D, FF]),
        ("model.layers.{i}.block_sparse_moe.experts.1.w3.weight", &[FF, D]),
        ("model.norm.weight", &[D]),
        ("lm_head.weight", &[VOCABULARY, D]),
    ]);
    let config = json!({"num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "hidden_size": D});
    let toml = r#"
[perm]
resid = { size = 12, solve = "fixed" }
"heads{i}" = { size = 6, groups = 3 }
"ff{i}_{0,1}" = 20
[tensors]
"model.embed_tokens.weight" = [[], ["resid"]]
"model.layers.{i}.{input,post_attention}_layernorm.weight" = [["resid"]]
"model.layers.{i}.self_attn.q_proj.weight" = [[{ perm = "heads{i}", block = 2 }], ["resid"]]
"model.layers.{i}.self_attn.{k,v}_proj.weight" = [[{ perm = "heads{i}.outer", block = 2 }], ["resid"]]
"model.layers.{i}.self_attn.o_proj.weight" = [["resid"], [{ perm = "heads{i}", block = 2 }]]
"model.layers.{i}.block_sparse_moe.gate.weight" = [[], ["resid"]]
"model.layers.{i}.block_sparse_moe.experts.0.{w1,w3}.weight" = [["ff{i}_0"], ["resid"]]
"model.layers.{i}.block_sparse_moe.experts.0.w2.weight" = [["resid"], ["ff{i}_0"]]
"model.layers.{i}.block_sparse_moe.experts.1.{w1,w3}.weight" = [["ff{i}_1"], ["resid"]]
"model.layers.{i}.block_sparse_moe.experts.1.w2.weight" = [["resid"], ["ff{i}_1"]]
"model.norm.weight" = [["resid"]]
"lm_head.weight" = [[], ["resid"]]
"#;
    agrees(&model, &config, toml, &[]);
}

#[test]
fn gpt_neox_fuses_queries_keys_and_values_head_by_head() {
    let model = model(&[
        ("gpt_neox.embed_in.weight", &[VOCABULARY, D]),
        ("gpt_neox.layers.{i}.input_layernorm.weight", &[D]),
        ("gpt_neox.layers.{i}.input_layernorm.bias", &[D]),
        ("gpt_neox.layers.{i}.post_attention_layernorm.weight", &[D]),
        ("gpt_neox.layers.{i}.post_attention_layernorm.bias", &[D]),
        ("gpt_neox.layers.{i}.attention.query_key_value.weight", &[3 * D, D]),
        ("gpt_neox.layers.{i}.attention.query_key_value.bias", &[3 * D]),
        ("gpt_neox.layers.{i}.attention.dense.weight", &[D, D]),
        ("gpt_neox.layers.{i}.attention.dense.bias", &[D]),
        ("gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight", &[FF, D]),
        ("gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias", &[FF]),
        ("gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight", &[D, FF]),
        ("gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias", &[D]),
        ("gpt_neox.final_layer_norm.weight", &[D]),
        ("gpt_neox.final_layer_norm.bias", &[D]),
        ("embed_out.weight", &[VOCABULARY, D]),
    ]);
    let toml = r#"
[perm]
resid = { size = 12, solve = "fixed" }
"heads{i}" = 6
"ff{i}" = 20
[tensors]
"gpt_neox.embed_in.weight" = [[], ["resid"]]
"gpt_neox.layers.{i}.{input,post_attention}_layernorm.{weight,bias}" = [["resid"]]
"gpt_neox.layers.{i}.attention.query_key_value.weight" = [[{ perm = "heads{i}", block = 6 }], ["resid"]]
"gpt_neox.layers.{i}.attention.query_key_value.bias" = [[{ perm = "heads{i}", block = 6 }]]
"gpt_neox.layers.{i}.attention.dense.weight" = [["resid"], [{ perm = "heads{i}", block = 2 }]]
"gpt_neox.layers.{i}.{attention.dense,mlp.dense_4h_to_h}.bias" = [["resid"]]
"gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight" = [["ff{i}"], ["resid"]]
"gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias" = [["ff{i}"]]
"gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight" = [["resid"], ["ff{i}"]]
"gpt_neox.final_layer_norm.{weight,bias}" = [["resid"]]
"embed_out.weight" = [[], ["resid"]]
"#;
    agrees(&model, &json!({"num_attention_heads": HEADS, "hidden_size": D}), toml, &[]);
}

const ENCODER: [(&str, &[usize]); 10] = [
    ("query.weight", &[D, D]),
    ("query.bias", &[D]),
    ("key.weight", &[D, D]),
    ("key.bias", &[D]),
    ("value.weight", &[D, D]),
    ("value.bias", &[D]),
    ("intermediate.dense.weight", &[FF, D]),
    ("intermediate.dense.bias", &[FF]),
    ("output.dense.weight", &[D, FF]),
    ("output.dense.bias", &[D]),
];

/// The names of an encoder layer; `attention` is where its queries are.
fn encoder(attention: &str) -> Vec<(String, &'static [usize])> {
    let name = |(name, shape): &(&str, &'static [usize])| {
        let inner = if name.starts_with(['q', 'k', 'v']) {
            format!("attention.{attention}.{name}")
        } else {
            (*name).to_string()
        };
        (inner, *shape)
    };
    ENCODER.iter().map(name).collect()
}

#[test]
fn bert_ties_its_decoder_to_the_word_embeddings() {
    let layers = encoder("self");
    let mut tensors: Vec<(String, &[usize])> =
        layers.into_iter().map(|(n, s)| (format!("bert.encoder.layer.{{i}}.{n}"), s)).collect();
    for (name, shape) in [
        ("bert.embeddings.word_embeddings.weight", &[VOCABULARY, D][..]),
        ("bert.embeddings.position_embeddings.weight", &[9, D]),
        ("bert.embeddings.token_type_embeddings.weight", &[2, D]),
        ("bert.embeddings.LayerNorm.weight", &[D]),
        ("bert.embeddings.LayerNorm.bias", &[D]),
        ("bert.encoder.layer.{i}.attention.output.dense.weight", &[D, D]),
        ("bert.encoder.layer.{i}.attention.output.dense.bias", &[D]),
        ("bert.encoder.layer.{i}.attention.output.LayerNorm.weight", &[D]),
        ("bert.encoder.layer.{i}.output.LayerNorm.bias", &[D]),
        ("bert.pooler.dense.weight", &[D, D]),
        ("bert.pooler.dense.bias", &[D]),
        ("cls.predictions.transform.dense.weight", &[D, D]),
        ("cls.predictions.transform.dense.bias", &[D]),
        ("cls.predictions.transform.LayerNorm.weight", &[D]),
        ("cls.predictions.decoder.weight", &[VOCABULARY, D]),
        ("cls.predictions.bias", &[VOCABULARY]),
    ] {
        tensors.push((name.into(), shape));
    }
    let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let toml = r#"
[perm]
resid = { size = 12, solve = "fixed" }
"heads{i}" = 6
"ff{i}" = 20
[tensors]
"bert.embeddings.{word,position,token_type}_embeddings.weight" = [[], ["resid"]]
"bert.embeddings.LayerNorm.{weight,bias}" = [["resid"]]
"bert.encoder.layer.{i}.attention.self.{query,key,value}.weight" = [[{ perm = "heads{i}", block = 2 }], ["resid"]]
"bert.encoder.layer.{i}.attention.self.{query,key,value}.bias" = [[{ perm = "heads{i}", block = 2 }]]
"bert.encoder.layer.{i}.attention.output.dense.weight" = [["resid"], [{ perm = "heads{i}", block = 2 }]]
"bert.encoder.layer.{i}.{attention.output,output}.dense.bias" = [["resid"]]
"bert.encoder.layer.{i}.attention.output.LayerNorm.weight" = [["resid"]]
"bert.encoder.layer.{i}.output.LayerNorm.bias" = [["resid"]]
"bert.encoder.layer.{i}.intermediate.dense.weight" = [["ff{i}"], ["resid"]]
"bert.encoder.layer.{i}.intermediate.dense.bias" = [["ff{i}"]]
"bert.encoder.layer.{i}.output.dense.weight" = [["resid"], ["ff{i}"]]
"bert.pooler.dense.weight" = [[], ["resid"]]
"cls.predictions.transform.dense.weight" = [["resid"], ["resid"]]
"cls.predictions.transform.{dense.bias,LayerNorm.weight}" = [["resid"]]
"cls.predictions.decoder.weight" = [[], ["resid"]]
"#;
    let model = model(&tensors);
    let config = json!({"num_attention_heads": HEADS, "hidden_size": D});
    agrees(&model, &config, toml, &["bert.pooler.dense.bias", "cls.predictions.bias"]);
}

#[test]
fn vit_reads_patches() {
    let layers = encoder("attention");
    let mut tensors: Vec<(String, &[usize])> =
        layers.into_iter().map(|(n, s)| (format!("vit.encoder.layer.{{i}}.{n}"), s)).collect();
    for (name, shape) in [
        ("vit.embeddings.cls_token", &[1, 1, D][..]),
        ("vit.embeddings.position_embeddings", &[1, 5, D]),
        ("vit.embeddings.patch_embeddings.projection.weight", &[D, 3, 4, 4]),
        ("vit.embeddings.patch_embeddings.projection.bias", &[D]),
        ("vit.encoder.layer.{i}.attention.output.dense.weight", &[D, D]),
        ("vit.encoder.layer.{i}.attention.output.dense.bias", &[D]),
        ("vit.encoder.layer.{i}.layernorm_before.weight", &[D]),
        ("vit.encoder.layer.{i}.layernorm_after.bias", &[D]),
        ("vit.layernorm.weight", &[D]),
        ("classifier.weight", &[7, D]),
        ("classifier.bias", &[7]),
    ] {
        tensors.push((name.into(), shape));
    }
    let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let toml = r#"
[perm]
resid = { size = 12, solve = "fixed" }
"heads{i}" = 6
"ff{i}" = 20
[tensors]
"vit.embeddings.{cls_token,position_embeddings}" = [[], [], ["resid"]]
"vit.embeddings.patch_embeddings.projection.weight" = [["resid"], [], [], []]
"vit.embeddings.patch_embeddings.projection.bias" = [["resid"]]
"vit.encoder.layer.{i}.attention.attention.{query,key,value}.weight" = [[{ perm = "heads{i}", block = 2 }], ["resid"]]
"vit.encoder.layer.{i}.attention.attention.{query,key,value}.bias" = [[{ perm = "heads{i}", block = 2 }]]
"vit.encoder.layer.{i}.attention.output.dense.weight" = [["resid"], [{ perm = "heads{i}", block = 2 }]]
"vit.encoder.layer.{i}.{attention.output,output}.dense.bias" = [["resid"]]
"vit.encoder.layer.{i}.layernorm_before.weight" = [["resid"]]
"vit.encoder.layer.{i}.layernorm_after.bias" = [["resid"]]
"vit.encoder.layer.{i}.intermediate.dense.weight" = [["ff{i}"], ["resid"]]
"vit.encoder.layer.{i}.intermediate.dense.bias" = [["ff{i}"]]
"vit.encoder.layer.{i}.output.dense.weight" = [["resid"], ["ff{i}"]]
"vit.layernorm.weight" = [["resid"]]
"classifier.weight" = [[], ["resid"]]
"#;
    let model = model(&tensors);
    agrees(&model, &json!({"num_attention_heads": HEADS, "hidden_size": D}), toml, &["classifier.bias"]);
}

#[test]
fn llama_with_biases_fused_projections_and_tied_embeddings() {
    let kv = D / HEADS * GROUPS;
    let model = model(&[
        ("model.embed_tokens.weight", &[VOCABULARY, D]),
        ("model.layers.{i}.input_layernorm.weight", &[D]),
        ("model.layers.{i}.self_attn.qkv_proj.weight", &[D + 2 * kv, D]),
        ("model.layers.{i}.self_attn.o_proj.weight", &[D, D]),
        ("model.layers.{i}.mlp.gate_up_proj.weight", &[2 * FF, D]),
        ("model.layers.{i}.mlp.down_proj.weight", &[D, FF]),
        ("model.norm.weight", &[D]),
    ]);
    let config = json!({"num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "hidden_size": D});
    let toml = r#"
[perm]
resid = { size = 12, solve = "fixed" }
"heads{i}" = { size = 6, groups = 3 }
"ff{i}" = 20
[tensors]
"model.embed_tokens.weight" = [[], ["resid"]]
"model.layers.{i}.input_layernorm.weight" = [["resid"]]
"model.layers.{i}.self_attn.qkv_proj.weight" = [[{ perm = "heads{i}", at = 0, block = 2 }, { perm = "heads{i}.outer", at = 12, block = 2 }, { perm = "heads{i}.outer", at = 18, block = 2 }], ["resid"]]
"model.layers.{i}.self_attn.o_proj.weight" = [["resid"], [{ perm = "heads{i}", block = 2 }]]
"model.layers.{i}.mlp.gate_up_proj.weight" = [[{ perm = "ff{i}", at = 0 }, { perm = "ff{i}", at = 20 }], ["resid"]]
"model.layers.{i}.mlp.down_proj.weight" = [["resid"], ["ff{i}"]]
"model.norm.weight" = [["resid"]]
"#;
    agrees(&model, &config, toml, &[]);
    assert!(model.tensor("lm_head.weight").is_none());
}
