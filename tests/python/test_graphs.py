"""Specs derived from ONNX graphs: an aligned model computes in ONNX Runtime what it computed before."""

import numpy as np
import onnxruntime
import pytest
from test_matching import load, save

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


class Builder:
    """A graph with parameters by name; the same nodes serve any model."""

    def __init__(self, shape):
        self.nodes, self.shapes, self.constants, self.input = [], {}, [], shape

    def node(self, op, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def parameter(self, name, *shape):
        self.shapes[name] = shape
        return name

    def ints(self, *values):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def dense(self, x, name, out, into):
        return self.node("Gemm", x, self.parameter(name + ".weight", out, into), self.parameter(name + ".bias", out), transB=1)

    def conv(self, x, name, out, into, k=3, stride=1, **more):
        w = self.parameter(name + ".weight", out, into, k, k)
        return self.node("Conv", x, w, pads=[k // 2] * 4, strides=[stride] * 2, **more)

    def norm(self, x, name, n):
        parts = [self.parameter(f"{name}.{p}", n) for p in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", x, *parts)

    def model(self, seed):
        rng = np.random.default_rng(seed)
        draw = lambda n, s: rng.random(s) + 0.5 if n.endswith("_var") else rng.standard_normal(s) / np.sqrt(np.prod(s[1:]) or 1)
        return {n: draw(n, s).astype(np.float32) for n, s in self.shapes.items()}

    def file(self, path, model, output):
        initializers = [numpy_helper.from_array(v, n) for n, v in model.items()] + self.constants
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.input])
        graph = helper.make_graph(self.nodes, "g", [x], [y], initializers)
        file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(file, path)

    def run(self, path, model, output):
        self.file(path, model, output)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).standard_normal((2, *self.input)).astype(np.float32)
        return session.run([output], {"x": x})[0]


def multilayer():
    b = Builder([11])
    h = b.node("Relu", b.dense("x", "a", 16, 11))
    h = b.node("Tanh", b.dense(h, "b", 12, 16))
    return b, b.dense(h, "c", 4, 12), 28


def vgg(channels_last):
    b = Builder([3, 8, 8])
    h = b.node("Relu", b.norm(b.conv("x", "c0", 6, 3), "n0", 6))
    h = b.node("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = b.node("Relu", b.conv(h, "c1", 8, 6, stride=2))
    if channels_last:
        h = b.node("Reshape", b.node("Transpose", h, perm=[0, 2, 3, 1]), b.ints(0, -1))
    else:
        h = b.node("Flatten", h)
    h = b.node("Relu", b.dense(h, "f0", 10, 32))
    return b, b.dense(h, "f1", 4, 10), 24


def resnet(projection):
    b = Builder([3, 8, 8])
    stream, width, units = b.node("Relu", b.norm(b.conv("x", "conv1", 4, 3), "bn1", 4)), 4, 4
    for k, out in enumerate((4, 8)):
        stride = 1 if out == width else 2
        h = b.node("Relu", b.norm(b.conv(stream, f"l{k}.conv1", out, width, stride=stride), f"l{k}.bn1", out))
        h = b.norm(b.conv(h, f"l{k}.conv2", out, out), f"l{k}.bn2", out)
        units += out
        if out != width and projection:
            stream = b.norm(b.conv(stream, f"l{k}.down", out, width, 1, stride), f"l{k}.downbn", out)
            units += out
        elif out != width:
            far = np.iinfo(np.int64).max
            stream = b.node("Slice", stream, b.ints(0, 0), b.ints(far, far), b.ints(2, 3), b.ints(2, 2))
            side = (out - width) // 2
            stream = b.node("Pad", stream, b.ints(0, side, 0, 0, 0, side, 0, 0))
            units += out - width
        stream, width = b.node("Relu", b.node("Add", h, stream)), out
    h = b.node("Flatten", b.node("GlobalAveragePool", stream))
    return b, b.dense(h, "fc", 5, width), units


def separable():
    """Depthwise and grouped convolutions, a gate, channels joined and split."""
    b = Builder([3, 6, 6])
    h = b.node("Relu", b.conv("x", "a", 8, 3))
    h = b.conv(h, "depth", 8, 1, group=8)
    h = b.node("Relu", b.conv(h, "grouped", 12, 4, group=2))
    gate = b.node("Sigmoid", b.conv(b.node("GlobalAveragePool", h), "gate", 12, 12, 1))
    h = b.node("Mul", h, gate)
    left, right = b.conv(h, "left", 6, 12), b.conv(h, "right", 4, 12)
    h = b.node("Relu", b.conv(b.node("Concat", left, right, axis=1), "joined", 7, 10))
    h = b.node("ReduceMean", h, axes=[2, 3], keepdims=0)
    return b, b.dense(h, "fc", 5, 7), 4 + 6 + 6 + 6 + 4 + 7


def transformer():
    """Two heads of four on vectors of eight, a feed-forward part of twenty."""
    b = Builder([5, 3])
    stream = b.node("MatMul", "x", b.parameter("embed", 3, 8))
    h = b.node("LayerNormalization", stream, b.parameter("n.weight", 8), b.parameter("n.bias", 8))
    parts = []
    for name in "qkv":
        y = b.node("Add", b.node("MatMul", h, b.parameter(name + ".weight", 8, 8)), b.parameter(name + ".bias", 8))
        parts.append(b.node("Transpose", b.node("Reshape", y, b.ints(0, 0, 2, 4)), perm=[0, 2, 1, 3]))
    q, k, v = parts
    p = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    h = b.node("Transpose", b.node("MatMul", p, v), perm=[0, 2, 1, 3])
    h = b.node("MatMul", b.node("Reshape", h, b.ints(0, 0, -1)), b.parameter("o.weight", 8, 8))
    stream = b.node("Add", stream, h)
    h = b.node("Relu", b.node("MatMul", stream, b.parameter("up.weight", 8, 20)))
    stream = b.node("Add", stream, b.node("MatMul", h, b.parameter("down.weight", 20, 8)))
    return b, b.node("MatMul", stream, b.parameter("head.weight", 8, 4)), 2 + 20


GRAPHS = {
    "mlp": multilayer, "vgg": lambda: vgg(False), "vgg, channels last": lambda: vgg(True),
    "resnet, projection": lambda: resnet(True), "resnet, padding": lambda: resnet(False), "separable": separable,
    "transformer": transformer,
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_an_aligned_model_computes_what_it_computed(cli, name):
    builder, output, units = GRAPHS[name]()
    a, b = builder.model(1), builder.model(2)
    save(cli.folder / "a.safetensors", a)
    save(cli.folder / "b.safetensors", b)
    before = builder.run(cli.folder / "m.onnx", b, output)
    for flags in [[], ["--residual"]] if name == "transformer" else [[]]:
        out = "out" + "".join(flags)
        record = cli.json("match", "a.safetensors", "b.safetensors", "--spec", "m.onnx", *flags, "-o", out)
        # Every unit that may move was found: perms that must stay are counted too.
        assert record["results"]["units"] == units + (8 if name == "transformer" else 0)
        assert record["results"]["moved"][0] > 0.6 * units
        after = builder.run(cli.folder / "aligned.onnx", load(cli.folder / out / "b.safetensors"), output)
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())


def test_a_graph_of_another_model_is_refused(cli):
    builder, output, _ = multilayer()
    save(cli.folder / "a.safetensors", builder.model(1) | {"more.weight": np.ones((3, 3), np.float32)})
    builder.file(cli.folder / "m.onnx", builder.model(1), output)
    done = cli.run("match", "a.safetensors", "a.safetensors", "--spec", "m.onnx", "-o", "out")
    assert done.returncode == 1 and "tensor more.weight is no parameter of the graph" in done.stderr


def test_what_pytorch_exports_is_understood(cli):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.inner, self.out = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
            self.up, self.fc = nn.Linear(8 * 16, 20), nn.Linear(20, 4)

        def forward(self, x):
            h = torch.relu(self.bn(self.stem(x)))
            h = h + self.out(torch.relu(self.inner(h)))
            h = nn.functional.max_pool2d(h, 2)
            return self.fc(torch.nn.functional.gelu(self.up(torch.flatten(h, 1))))

    torch.manual_seed(0)
    a, b = Block().eval(), Block().eval()
    tensors = lambda m: {n: v.numpy() for n, v in m.state_dict().items() if v.is_floating_point()}
    save(cli.folder / "a.safetensors", tensors(a))
    save(cli.folder / "b.safetensors", tensors(b))
    x = torch.randn(2, 3, 8, 8)
    export = dict(do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE, dynamo=False)
    torch.onnx.export(a, (x[:1],), str(cli.folder / "m.onnx"), input_names=["x"], **export)
    record = cli.json("match", "a.safetensors", "b.safetensors", "--spec", "m.onnx", "-o", "out")
    assert record["results"]["units"] == 8 + 12 + 20
    aligned = {n: torch.tensor(v) for n, v in load(cli.folder / "out" / "b.safetensors").items()}
    before = b(x)
    b.load_state_dict(aligned, strict=False)
    torch.testing.assert_close(b(x), before)
