"""Matching against a coordinate descent on NumPy and SciPy, and aligned transformers against what they computed before."""

import json

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment


def save(path, tensors):
    """A safetensors file of single-precision tensors."""
    header, at, blobs = {}, 0, []
    for name, value in tensors.items():
        blob = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(np.shape(value)), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def load(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            kind = "<i8" if entry["dtype"] == "I64" else "<f4"
            out[name] = np.frombuffer(data[8 + length + start : 8 + length + end], kind).reshape(entry["shape"])
    return out


def mlp(seed, sizes):
    rng = np.random.default_rng(seed)
    out = {}
    for k, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
        out[f"layer{k}.weight"] = (rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)
        out[f"layer{k}.bias"] = (0.1 * rng.standard_normal(n_out)).astype(np.float32)
    return out


def moved(model, perms):
    """The MLP whose hidden unit i of layer k is unit perms[k][i]."""
    out = dict(model)
    for k, perm in enumerate(perms):
        out[f"layer{k}.weight"] = out[f"layer{k}.weight"][perm]
        out[f"layer{k}.bias"] = out[f"layer{k}.bias"][perm]
        out[f"layer{k + 1}.weight"] = out[f"layer{k + 1}.weight"][:, perm]
    return out


def objective(a, b):
    """The sum of inner products of everything that has a hidden axis."""
    last = max(a)[:6]
    names = [n for n in a if n != f"{last}.bias"]
    return sum(float(np.vdot(a[n].astype(float), b[n].astype(float))) for n in names)


def descend(a, b, n_hidden, seed):
    """Coordinate descent as published, one assignment per layer, in double precision."""
    sizes = [len(a[f"layer{k}.bias"]) for k in range(n_hidden)]
    perms = [np.arange(n) for n in sizes]
    order = np.random.default_rng(seed)
    f64 = lambda m, n: m[n].astype(float)
    for _ in range(100):
        changed = False
        for k in order.permutation(n_hidden):
            rest = moved(b, [p if j != k else np.arange(len(p)) for j, p in enumerate(perms)])
            gram = f64(a, f"layer{k}.weight") @ f64(rest, f"layer{k}.weight").T
            gram += np.outer(f64(a, f"layer{k}.bias"), f64(rest, f"layer{k}.bias"))
            gram += f64(a, f"layer{k + 1}.weight").T @ f64(rest, f"layer{k + 1}.weight")
            _, columns = linear_sum_assignment(gram, maximize=True)
            rows = np.arange(len(columns))
            gain = gram[rows, columns].sum() - gram[rows, perms[k]].sum()
            if gain > 1e-7 * np.abs(gram[rows, perms[k]]).sum():
                perms[k], changed = columns, True
        if not changed:
            break
    return perms


@pytest.mark.parametrize("width", [5, 64, 300])
def test_one_hidden_layer_has_the_value_of_scipys_assignment(cli, width):
    a, b = mlp(1, (40, width, 9)), mlp(2, (40, width, 9))
    save(cli.folder / "a.safetensors", a)
    save(cli.folder / "b.safetensors", b)
    results = cli.json("match", "a.safetensors", "b.safetensors", "-o", "out")["results"]
    best = objective(a, moved(b, descend(a, b, 1, 0)))
    assert results["certified"] and results["certificate_scope"] == "global"
    assert abs(results["objective_after"] - best) <= 1e-6 * abs(best)


def test_several_layers_are_as_good_as_plain_descents(cli):
    sizes = (30, 60, 50, 40, 10)
    for seed in range(3):
        a, b = mlp(2 * seed, sizes), mlp(2 * seed + 1, sizes)
        save(cli.folder / "a.safetensors", a)
        save(cli.folder / "b.safetensors", b)
        out = f"out{seed}"
        results = cli.json("match", "a.safetensors", "b.safetensors", "--restarts", "5", "-o", out)["results"]
        plain = sorted(objective(a, moved(b, descend(a, b, 3, order))) for order in range(3))
        assert results["certified"] and results["objective_after"] >= plain[-1] * (1 - 1e-6)
        # What the record says is what the files hold.
        aligned = load(cli.folder / out / "b.safetensors")
        assert abs(objective(a, aligned) - results["objective_after"]) <= 1e-9 * abs(plain[-1])
        perms = load(cli.folder / out / "permutations.safetensors")
        again = moved(b, [perms[f"layer{k}"] for k in range(3)])
        assert all(np.array_equal(again[n], aligned[n]) for n in again)


def test_a_planted_order_comes_back_bit_for_bit(cli):
    rng = np.random.default_rng(3)
    a = mlp(0, (30, 60, 50, 40, 10))
    b = moved(a, [rng.permutation(n) for n in (60, 50, 40)])
    save(cli.folder / "a.safetensors", a)
    save(cli.folder / "b.safetensors", b)
    results = cli.json("match", "a.safetensors", "b.safetensors", "-o", "out")["results"]
    aligned = load(cli.folder / "out" / "b.safetensors")
    assert results["distance_after"] == 0 and all(aligned[n].tobytes() == a[n].tobytes() for n in a)


# Transformers, one forward pass each: width D, heads H of size D / H in G groups, hidden size F.
D, H, G, F, WORDS, LENGTH = 24, 6, 3, 40, 19, 7


def rms(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w


def norm(x, w, b):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * w + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def rotated(x):
    """Rotary positions, halves paired."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[-2])[:, None] / 100.0 ** (np.arange(half) / half)
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([x[..., :half] * c - x[..., half:] * s, x[..., half:] * c + x[..., :half] * s], -1)


def attention(q, k, v, rotary=False, causal=True):
    """Of (length, width) arrays; keys and values may have fewer heads."""
    split = lambda x: x.reshape(len(x), -1, D // H).transpose(1, 0, 2)
    q, k, v = split(q), split(k), split(v)
    if rotary:
        q, k = rotated(q), rotated(k)
    k, v = (np.repeat(x, len(q) // len(x), 0) for x in (k, v))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(D // H)
    if causal:
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(p[0]), -1)


def llama(m, words, experts=False):
    x = m["model.embed_tokens.weight"][words]
    for i in range(2):
        p = f"model.layers.{i}."
        h = rms(x, m[p + "input_layernorm.weight"])
        q, k, v = (h @ m[p + f"self_attn.{n}_proj.weight"].T for n in "qkv")
        x = x + attention(q, k, v, rotary=True) @ m[p + "self_attn.o_proj.weight"].T
        h = rms(x, m[p + "post_attention_layernorm.weight"])
        if experts:
            gate = np.exp(h @ m[p + "block_sparse_moe.gate.weight"].T)
            gate /= gate.sum(-1, keepdims=True)
            for e in range(2):
                w1, w2, w3 = (m[p + f"block_sparse_moe.experts.{e}.w{n}.weight"] for n in (1, 2, 3))
                x = x + gate[:, e : e + 1] * ((silu(h @ w1.T) * (h @ w3.T)) @ w2.T)
        else:
            gate, up = (h @ m[p + f"mlp.{n}_proj.weight"].T for n in ("gate", "up"))
            x = x + (silu(gate) * up) @ m[p + "mlp.down_proj.weight"].T
    return rms(x, m["model.norm.weight"]) @ m["lm_head.weight"].T


def mixtral(m, words):
    return llama(m, words, experts=True)


def llama_shapes(experts=False):
    out = {"model.embed_tokens.weight": (WORDS, D), "model.norm.weight": (D,), "lm_head.weight": (WORDS, D)}
    for i in range(2):
        p = f"model.layers.{i}."
        for n, rows in (("q", D), ("k", G * D // H), ("v", G * D // H)):
            out[p + f"self_attn.{n}_proj.weight"] = (rows, D)
        out[p + "self_attn.o_proj.weight"] = (D, D)
        for n in ("input", "post_attention"):
            out[p + f"{n}_layernorm.weight"] = (D,)
        if experts:
            out[p + "block_sparse_moe.gate.weight"] = (2, D)
            for e in range(2):
                for n, shape in ((1, (F, D)), (2, (D, F)), (3, (F, D))):
                    out[p + f"block_sparse_moe.experts.{e}.w{n}.weight"] = shape
        else:
            for n, shape in (("gate", (F, D)), ("up", (F, D)), ("down", (D, F))):
                out[p + f"mlp.{n}_proj.weight"] = shape
    return out


def gpt2(m, words):
    x = m["wte.weight"][words] + m["wpe.weight"][: len(words)]
    for i in range(2):
        p = f"h.{i}."
        h = norm(x, m[p + "ln_1.weight"], m[p + "ln_1.bias"]) @ m[p + "attn.c_attn.weight"] + m[p + "attn.c_attn.bias"]
        x = x + attention(*np.split(h, 3, -1)) @ m[p + "attn.c_proj.weight"] + m[p + "attn.c_proj.bias"]
        h = norm(x, m[p + "ln_2.weight"], m[p + "ln_2.bias"])
        h = gelu(h @ m[p + "mlp.c_fc.weight"] + m[p + "mlp.c_fc.bias"])
        x = x + h @ m[p + "mlp.c_proj.weight"] + m[p + "mlp.c_proj.bias"]
    return norm(x, m["ln_f.weight"], m["ln_f.bias"]) @ m["wte.weight"].T


def gpt2_shapes():
    out = {"wte.weight": (WORDS, D), "wpe.weight": (LENGTH, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for i in range(2):
        for n in ("ln_1", "ln_2"):
            out |= {f"h.{i}.{n}.weight": (D,), f"h.{i}.{n}.bias": (D,)}
        for n, (a, b) in (("attn.c_attn", (D, 3 * D)), ("attn.c_proj", (D, D)), ("mlp.c_fc", (D, F)), ("mlp.c_proj", (F, D))):
            out |= {f"h.{i}.{n}.weight": (a, b), f"h.{i}.{n}.bias": (b,)}
    return out


def dense(m, x, name):
    return x @ m[name + ".weight"].T + m[name + ".bias"]


def neox(m, words):
    x = m["gpt_neox.embed_in.weight"][words]
    layer_norm = lambda x, n: norm(x, m[n + ".weight"], m[n + ".bias"])
    for i in range(2):
        p = f"gpt_neox.layers.{i}."
        h = dense(m, layer_norm(x, p + "input_layernorm"), p + "attention.query_key_value")
        q, k, v = h.reshape(len(x), H, 3, D // H).transpose(2, 0, 1, 3).reshape(3, len(x), D)
        a = dense(m, attention(q, k, v, rotary=True), p + "attention.dense")
        h = gelu(dense(m, layer_norm(x, p + "post_attention_layernorm"), p + "mlp.dense_h_to_4h"))
        x = x + a + dense(m, h, p + "mlp.dense_4h_to_h")
    return layer_norm(x, "gpt_neox.final_layer_norm") @ m["embed_out.weight"].T


def neox_shapes():
    out = {"gpt_neox.embed_in.weight": (WORDS, D), "embed_out.weight": (WORDS, D)}
    norms = ["gpt_neox.final_layer_norm"]
    for i in range(2):
        p = f"gpt_neox.layers.{i}."
        norms += [p + "input_layernorm", p + "post_attention_layernorm"]
        for n, (a, b) in (
            ("attention.query_key_value", (3 * D, D)), ("attention.dense", (D, D)),
            ("mlp.dense_h_to_4h", (F, D)), ("mlp.dense_4h_to_h", (D, F)),
        ):  # fmt: skip
            out |= {p + n + ".weight": (a, b), p + n + ".bias": (a,)}
    return out | {f"{n}.{part}": (D,) for n in norms for part in ("weight", "bias")}


def encoder(m, x, prefix, attend, before):
    """Layers of BERT (normalised after) and ViT (normalised before)."""
    layer_norm = lambda x, n: norm(x, m[n + ".weight"], m[n + ".bias"])
    for i in range(2):
        p = f"{prefix}encoder.layer.{i}."
        h = layer_norm(x, p + "layernorm_before") if before else x
        q, k, v = (dense(m, h, f"{p}attention.{attend}.{n}") for n in ("query", "key", "value"))
        x = x + dense(m, attention(q, k, v, causal=False), p + "attention.output.dense")
        x = x if before else layer_norm(x, p + "attention.output.LayerNorm")
        h = layer_norm(x, p + "layernorm_after") if before else x
        x = x + dense(m, gelu(dense(m, h, p + "intermediate.dense")), p + "output.dense")
        x = x if before else layer_norm(x, p + "output.LayerNorm")
    return x


def encoder_shapes(prefix, attend, norms):
    out = {}
    for i in range(2):
        p = f"{prefix}encoder.layer.{i}."
        for n in ("query", "key", "value"):
            out |= {f"{p}attention.{attend}.{n}.weight": (D, D), f"{p}attention.{attend}.{n}.bias": (D,)}
        for n, (a, b) in (("attention.output", (D, D)), ("intermediate", (F, D)), ("output", (D, F))):
            out |= {f"{p}{n}.dense.weight": (a, b), f"{p}{n}.dense.bias": (a,)}
        out |= {f"{p}{n}.{part}": (D,) for n in norms for part in ("weight", "bias")}
    return out


def bert(m, words):
    e = "bert.embeddings."
    x = m[e + "word_embeddings.weight"][words] + m[e + "position_embeddings.weight"][: len(words)]
    x = norm(x + m[e + "token_type_embeddings.weight"][0], m[e + "LayerNorm.weight"], m[e + "LayerNorm.bias"])
    x = encoder(m, x, "bert.", "self", before=False)
    h = gelu(dense(m, x, "cls.predictions.transform.dense"))
    n = "cls.predictions.transform.LayerNorm"
    return norm(h, m[n + ".weight"], m[n + ".bias"]) @ m[e + "word_embeddings.weight"].T + m["cls.predictions.bias"]


def bert_shapes():
    e, t = "bert.embeddings.", "cls.predictions.transform."
    out = {f"{e}{n}_embeddings.weight": (k, D) for n, k in (("word", WORDS), ("position", LENGTH), ("token_type", 2))}
    out |= {f"{n}LayerNorm.{part}": (D,) for n in (e, t) for part in ("weight", "bias")}
    out |= {t + "dense.weight": (D, D), t + "dense.bias": (D,), "cls.predictions.bias": (WORDS,)}
    return out | encoder_shapes("bert.", "self", ("attention.output.LayerNorm", "output.LayerNorm"))


def vit(m, words):
    patches = np.random.default_rng(8).standard_normal((4, 3 * 4 * 4))
    p = "vit.embeddings.patch_embeddings.projection."
    x = patches @ m[p + "weight"].reshape(D, -1).T + m[p + "bias"]
    x = np.concatenate([m["vit.embeddings.cls_token"][0], x]) + m["vit.embeddings.position_embeddings"][0]
    x = encoder(m, x, "vit.", "attention", before=True)
    return dense(m, norm(x, m["vit.layernorm.weight"], m["vit.layernorm.bias"])[0], "classifier")


def vit_shapes():
    p = "vit.embeddings."
    out = {p + "cls_token": (1, 1, D), p + "position_embeddings": (1, 5, D), "classifier.weight": (9, D), "classifier.bias": (9,)}
    out |= {p + "patch_embeddings.projection.weight": (D, 3, 4, 4), p + "patch_embeddings.projection.bias": (D,)}
    out |= {"vit.layernorm.weight": (D,), "vit.layernorm.bias": (D,)}
    return out | encoder_shapes("vit.", "attention", ("layernorm_before", "layernorm_after"))


FAMILIES = {
    "llama": (llama, llama_shapes(), G), "mixtral": (mixtral, llama_shapes(experts=True), G), "gpt2": (gpt2, gpt2_shapes(), H),
    "neox": (neox, neox_shapes(), H), "bert": (bert, bert_shapes(), H), "vit": (vit, vit_shapes(), H),
}  # fmt: skip


def random_model(shapes, seed):
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) / np.sqrt(s[-1] if len(s) > 1 else 1)).astype(np.float32) for n, s in shapes.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("residual", [False, True])
def test_an_aligned_transformer_computes_what_it_computed(cli, family, residual):
    forward, shapes, groups = FAMILIES[family]
    a, b = random_model(shapes, 1), random_model(shapes, 2)
    save(cli.folder / "a.safetensors", a)
    save(cli.folder / "b.safetensors", b)
    config = {"num_attention_heads": H, "num_key_value_heads": groups, "hidden_size": D}
    (cli.folder / "config.json").write_text(json.dumps(config))
    flags = ["--residual"] if residual else []
    results = cli.json("match", "a.safetensors", "b.safetensors", *flags, "-o", "out")["results"]
    assert results["moved"][0] > 2 * F and results["objective_after"] > results["objective_before"]
    assert (results["certificate_scope"] == "global") != residual
    words = np.random.default_rng(5).integers(0, WORDS, LENGTH)
    double = lambda m: {n: v.astype(float) for n, v in m.items()}
    before, after = forward(double(b), words), forward(double(load(cli.folder / "out" / "b.safetensors")), words)
    assert np.abs(before - after).max() <= 1e-10 * np.abs(before).max()
    # What is planted without the residual stream is undone exactly.
    if not residual:
        save(cli.folder / "c.safetensors", load(cli.folder / "out" / "b.safetensors"))
        back = cli.json("match", "b.safetensors", "c.safetensors", "-o", "back")["results"]
        assert back["certified"] and back["distance_after"] == 0
