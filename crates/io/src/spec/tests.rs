use super::*;

const LLAMA: &str = r#"
version = 1
range = { i = [0, 2] }
[perm]
resid = { size = 8, solve = "fixed" }
"ff{i}" = 12
"heads{i}" = { size = 4, groups = 2 }
[tensors]
"model.layers.{i}.{input,post_attention}_layernorm.weight" = [["resid"]]
"model.layers.{i}.self_attn.q_proj.weight" = [[{ perm = "heads{i}", block = 2 }], ["resid"]]
"model.layers.{i}.self_attn.{k,v}_proj.weight" = [[{ perm = "heads{i}.outer", block = 2 }], ["resid"]]
"model.layers.{i}.mlp.{gate,up}_proj.weight" = [["ff{i}"], ["resid"]]
"lm_head.weight" = [[], ["resid"]]
"#;

#[test]
fn templates_expand_and_the_text_reads_back() {
    let spec = parse_spec(LLAMA, "s.toml").unwrap();
    assert_eq!(spec.perms.len(), 5);
    assert_eq!(spec.tensors.len(), 2 * 7 + 1);
    assert_eq!(spec.perms["heads1"].groups, Some(2));
    assert_eq!(spec.tensors["model.layers.1.mlp.up_proj.weight"][0], vec![Piece::whole("ff1")]);
    assert_eq!(spec.tensors["model.layers.0.self_attn.v_proj.weight"][0], vec![Piece::blocks("heads0.outer", 2)]);
    assert_eq!(parse_spec(&spec_text(&spec), "again").unwrap(), spec);
}

#[test]
fn every_piece_reads_back() {
    let mut spec = Spec::default();
    spec.perms.insert("a\"b".into(), PermInfo::new(6));
    let pieces = [
        Piece::whole("a\"b"),
        Piece::whole("a\"b").at(0),
        Piece::blocks("a\"b", 3),
        Piece::blocks("a\"b", 3).at(7).units(2, 2),
        Piece { tile: 4, stride: Some(99), ..Piece::whole("a\"b").at(0) },
    ];
    spec.tensors.insert("w".into(), pieces.iter().map(|p| vec![p.clone()]).collect());
    assert_eq!(parse_spec(&spec_text(&spec), "again").unwrap(), spec);
}

#[test]
fn what_is_wrong_is_named() {
    let base = |perm: &str, tensors: &str| format!("version = 1\n[perm]\n{perm}\n[tensors]\n{tensors}\n");
    for (text, expected) in [
        (base("h = 4", "w = [[\"g\"]]"), "tensor w uses perm g, which is not declared"),
        (base("h = 0", ""), "perm h has size 0"),
        (base("h = { size = 4, groups = 3 }", ""), "4 units do not make 3 groups"),
        (base("h = 4", "\"w{i}\" = [[\"h\"]]"), "no range i is declared"),
        (base("h = 4", "\"w{a\" = [[\"h\"]]"), "an opening brace without a closing one"),
        (base("h = 4", "w = [[\"h{i}\"]]"), "uses a range"),
        (base("h = 4", "w = [[{ perm = \"h\", from = 3, len = 2 }]]"), "units from 3 on, 2 of them"),
        (base("h = 4", "w = [[{ perm = \"h\", blok = 3 }]]"), "s.toml: corrupt file, line 5"),
        (base("h = 4", "w = [[{ perm = \"h\", tile = 2, stride = 3 }]]"), "distance 3 overlap"),
        (base("h = 4", "\"{a,a}\" = [[\"h\"]]"), "described twice"),
        (base("h = 4", "w = [[{ perm = \"h\", block = 4000000000 }]]"), "beyond any axis"),
        ("version = 2\nperm = {}\ntensors = {}".into(), "version 2 of specs"),
        ("version = 1\nperm = {".into(), "corrupt file, line 2"),
    ] {
        let error = parse_spec(&text, "s.toml").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
