//! Transformers with the names of the Hugging Face library.
//!
//! Every family has inner perms (hidden units of the feed-forward part, attention heads) and the residual stream, which is fixed
//! unless asked for. Heads move as wholes, so rotary position encodings do not matter; with grouped queries they move within and
//! with their group. How many heads there are only `config.json` tells: without it they stay.

use serde_json::Value;

use super::super::error::{MergeError, Result};
use super::super::model::Model;
use super::table::{Row, Table};
use super::{Derived, RESIDUAL};

/// A family: its name, a tensor that gives it away, prefixes its names may have, and its lines.
struct Family {
    name: &'static str,
    sign: &'static str,
    prefixes: &'static [&'static str],
    lines: &'static [(&'static str, &'static str)],
}

/// Marks a tensor that stays.
const STAYS: &str = "";

const FAMILIES: &[Family] = &[
    Family {
        name: "a Llama-style transformer",
        sign: "layers.0.mlp.down_proj.weight",
        prefixes: &["model.", ""],
        lines: &[
            ("embed_tokens.weight", "- | resid"),
            (
                "layers.{i}.{input_layernorm,post_attention_layernorm,pre_feedforward_layernorm,post_feedforward_layernorm}.weight",
                "resid",
            ),
            ("layers.{i}.self_attn.q_proj.weight", "heads{i}*d | resid"),
            ("layers.{i}.self_attn.q_proj.bias", "heads{i}*d"),
            ("layers.{i}.self_attn.{k_proj,v_proj}.weight", "heads{i}.outer*d | resid"),
            ("layers.{i}.self_attn.{k_proj,v_proj}.bias", "heads{i}.outer*d"),
            ("layers.{i}.self_attn.qkv_proj.weight", "heads{i}*d + heads{i}.outer*d + heads{i}.outer*d | resid"),
            ("layers.{i}.self_attn.o_proj.weight", "resid | heads{i}*d"),
            ("layers.{i}.self_attn.o_proj.bias", "resid"),
            ("layers.{i}.self_attn.{q_norm,k_norm}.weight", "-*d"),
            ("layers.{i}.self_attn.rotary_emb.inv_freq", STAYS),
            ("layers.{i}.mlp.{gate_proj,up_proj}.weight", "ff{i} | resid"),
            ("layers.{i}.mlp.{gate_proj,up_proj}.bias", "ff{i}"),
            ("layers.{i}.mlp.gate_up_proj.weight", "ff{i} + ff{i} | resid"),
            ("layers.{i}.mlp.down_proj.weight", "resid | ff{i}"),
            ("layers.{i}.mlp.down_proj.bias", "resid"),
            ("rotary_emb.inv_freq", STAYS),
            ("norm.weight", "resid"),
            ("lm_head.weight", "- | resid"),
            ("score.weight", "- | resid"),
        ],
    },
    Family {
        name: "a Mixtral-style transformer",
        sign: "layers.0.block_sparse_moe.gate.weight",
        prefixes: &["model.", ""],
        lines: &[
            ("embed_tokens.weight", "- | resid"),
            ("layers.{i}.{input_layernorm,post_attention_layernorm}.weight", "resid"),
            ("layers.{i}.self_attn.q_proj.weight", "heads{i}*d | resid"),
            ("layers.{i}.self_attn.{k_proj,v_proj}.weight", "heads{i}.outer*d | resid"),
            ("layers.{i}.self_attn.o_proj.weight", "resid | heads{i}*d"),
            ("layers.{i}.self_attn.rotary_emb.inv_freq", STAYS),
            ("layers.{i}.block_sparse_moe.gate.weight", "- | resid"),
            ("layers.{i}.block_sparse_moe.experts.{i}.{w1,w3}.weight", "ff{i} | resid"),
            ("layers.{i}.block_sparse_moe.experts.{i}.w2.weight", "resid | ff{i}"),
            ("norm.weight", "resid"),
            ("lm_head.weight", "- | resid"),
        ],
    },
    Family {
        name: "GPT-2",
        sign: "h.0.attn.c_attn.weight",
        prefixes: &["transformer.", ""],
        // Its linear layers are stored (in, out), with queries, keys and values side by side.
        lines: &[
            ("{wte,wpe}.weight", "- | resid"),
            ("h.{i}.{ln_1,ln_2}.{weight,bias}", "resid"),
            ("h.{i}.attn.{bias,masked_bias}", STAYS),
            ("h.{i}.attn.c_attn.weight", "resid | heads{i}*d + heads{i}*d + heads{i}*d"),
            ("h.{i}.attn.c_attn.bias", "heads{i}*d + heads{i}*d + heads{i}*d"),
            ("h.{i}.attn.c_proj.weight", "heads{i}*d | resid"),
            ("h.{i}.attn.c_proj.bias", "resid"),
            ("h.{i}.mlp.c_fc.weight", "resid | ff{i}"),
            ("h.{i}.mlp.c_fc.bias", "ff{i}"),
            ("h.{i}.mlp.c_proj.weight", "ff{i} | resid"),
            ("h.{i}.mlp.c_proj.bias", "resid"),
            ("ln_f.{weight,bias}", "resid"),
            ("lm_head.weight", "- | resid"),
        ],
    },
    Family {
        name: "GPT-NeoX",
        sign: "layers.0.attention.query_key_value.weight",
        prefixes: &["gpt_neox.", ""],
        // Queries, keys and values of a head lie together.
        lines: &[
            ("embed_in.weight", "- | resid"),
            ("layers.{i}.{input_layernorm,post_attention_layernorm}.{weight,bias}", "resid"),
            ("layers.{i}.attention.query_key_value.weight", "heads{i}*3d | resid"),
            ("layers.{i}.attention.query_key_value.bias", "heads{i}*3d"),
            ("layers.{i}.attention.dense.weight", "resid | heads{i}*d"),
            ("layers.{i}.attention.dense.bias", "resid"),
            ("layers.{i}.attention.{bias,masked_bias,rotary_emb.inv_freq}", STAYS),
            ("layers.{i}.mlp.dense_h_to_4h.weight", "ff{i} | resid"),
            ("layers.{i}.mlp.dense_h_to_4h.bias", "ff{i}"),
            ("layers.{i}.mlp.dense_4h_to_h.weight", "resid | ff{i}"),
            ("layers.{i}.mlp.dense_4h_to_h.bias", "resid"),
            ("final_layer_norm.{weight,bias}", "resid"),
            ("embed_out.weight", "- | resid"),
        ],
    },
    Family {
        name: "BERT",
        sign: "encoder.layer.0.attention.self.query.weight",
        prefixes: &["bert.", "roberta.", ""],
        lines: &[
            ("embeddings.{word_embeddings,position_embeddings,token_type_embeddings}.weight", "- | resid"),
            ("embeddings.position_ids", STAYS),
            ("embeddings.LayerNorm.{weight,bias,gamma,beta}", "resid"),
            ("encoder.layer.{i}.attention.self.{query,key,value}.weight", "heads{i}*d | resid"),
            ("encoder.layer.{i}.attention.self.{query,key,value}.bias", "heads{i}*d"),
            ("encoder.layer.{i}.attention.output.dense.weight", "resid | heads{i}*d"),
            ("encoder.layer.{i}.attention.output.dense.bias", "resid"),
            ("encoder.layer.{i}.{attention.output,output}.LayerNorm.{weight,bias,gamma,beta}", "resid"),
            ("encoder.layer.{i}.intermediate.dense.weight", "ff{i} | resid"),
            ("encoder.layer.{i}.intermediate.dense.bias", "ff{i}"),
            ("encoder.layer.{i}.output.dense.weight", "resid | ff{i}"),
            ("encoder.layer.{i}.output.dense.bias", "resid"),
            ("pooler.dense.weight", "- | resid"),
            ("pooler.dense.bias", "-"),
            // The decoder may be tied to the word embeddings, so what it reads moves with the stream.
            ("cls.predictions.transform.dense.weight", "resid | resid"),
            ("cls.predictions.transform.dense.bias", "resid"),
            ("cls.predictions.transform.LayerNorm.{weight,bias,gamma,beta}", "resid"),
            ("cls.predictions.decoder.weight", "- | resid"),
            ("cls.predictions.{bias,decoder.bias}", "-"),
            ("cls.seq_relationship.{weight,bias}", STAYS),
            ("lm_head.dense.weight", "resid | resid"),
            ("lm_head.{dense.bias,layer_norm.weight,layer_norm.bias}", "resid"),
            ("lm_head.decoder.weight", "- | resid"),
            ("lm_head.{bias,decoder.bias}", "-"),
        ],
    },
    Family {
        name: "ViT",
        sign: "encoder.layer.0.attention.attention.query.weight",
        prefixes: &["vit.", ""],
        lines: &[
            ("embeddings.{cls_token,position_embeddings,mask_token}", "- | - | resid"),
            ("embeddings.patch_embeddings.projection.weight", "resid | - | - | -"),
            ("embeddings.patch_embeddings.projection.bias", "resid"),
            ("encoder.layer.{i}.{layernorm_before,layernorm_after}.{weight,bias}", "resid"),
            ("encoder.layer.{i}.attention.attention.{query,key,value}.weight", "heads{i}*d | resid"),
            ("encoder.layer.{i}.attention.attention.{query,key,value}.bias", "heads{i}*d"),
            ("encoder.layer.{i}.attention.output.dense.weight", "resid | heads{i}*d"),
            ("encoder.layer.{i}.attention.output.dense.bias", "resid"),
            ("encoder.layer.{i}.intermediate.dense.weight", "ff{i} | resid"),
            ("encoder.layer.{i}.intermediate.dense.bias", "ff{i}"),
            ("encoder.layer.{i}.output.dense.weight", "resid | ff{i}"),
            ("encoder.layer.{i}.output.dense.bias", "resid"),
            ("layernorm.{weight,bias}", "resid"),
            ("pooler.dense.weight", "- | resid"),
            ("pooler.dense.bias", "-"),
            ("classifier.weight", "- | resid"),
            ("classifier.bias", "-"),
        ],
    },
];

/// A spec if the names are those of a family.
pub(super) fn derive(model: &dyn Model, config: Option<&Value>) -> Result<Option<Derived>> {
    for family in FAMILIES {
        for prefix in family.prefixes {
            let sign = format!("{prefix}{}", family.sign);
            if let Some(view) = model.tensor(&sign) {
                let width = view.shape.iter().copied().min().unwrap_or(1);
                return of_family(family, prefix, model, config, width).map(Some);
            }
        }
    }
    Ok(None)
}

/// Heads, groups of heads and the length of a head, if `config` tells.
fn heads(config: &Value, width: usize) -> Result<Option<(usize, usize, usize)>> {
    let number = |keys: &[&str]| {
        let found = keys.iter().find_map(|k| config.get(k)).and_then(Value::as_u64);
        found.and_then(|v| usize::try_from(v).ok())
    };
    let Some(heads) = number(&["num_attention_heads", "n_head"]) else { return Ok(None) };
    let groups = number(&["num_key_value_heads"]).unwrap_or(heads);
    let width = number(&["hidden_size", "n_embd"]).unwrap_or(width);
    if heads == 0 || groups == 0 || !heads.is_multiple_of(groups) || width < heads {
        let what = format!("config.json gives {heads} attention heads, {groups} groups of them and width {width}");
        return Err(MergeError::Unsupported {
            what,
            hint: Some("correct it, or write a spec (--spec SPEC.toml)".into()),
        });
    }
    Ok(Some((heads, groups, number(&["head_dim"]).unwrap_or(width / heads))))
}

fn of_family(
    family: &Family,
    prefix: &str,
    model: &dyn Model,
    config: Option<&Value>,
    width: usize,
) -> Result<Derived> {
    let heads = config.map(|c| heads(c, width)).transpose()?.flatten();
    let row = |(pattern, axes): &(&str, &str)| Row {
        pattern: (*pattern).into(),
        axes: (*axes != STAYS).then(|| (*axes).to_string()),
    };
    let table = Table {
        family: family.name.into(),
        rows: family.lines.iter().map(row).collect(),
        blocks: heads.iter().flat_map(|(_, _, d)| [("d", *d), ("3d", 3 * d)]).collect(),
        heads: heads.map(|(heads, groups, _)| (heads, groups)),
    };
    let spec = table.apply(model, prefix)?;
    let mut notes = Vec::new();
    if heads.is_none() {
        notes.push("attention heads stay: config.json beside the checkpoint would tell how many there are".into());
    }
    if spec.perms.contains_key(RESIDUAL) {
        notes.push("the residual stream is fixed (--residual lets it move)".into());
    }
    Ok(Derived { spec, family: family.name.into(), notes })
}
