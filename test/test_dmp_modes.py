"""The layer in every mode of torch: it works, or it says why not; nothing is silently wrong."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, vmap

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer, _product
from ndp_ros.errors import ConfigError

DOF, N, K = 3, 4, 5


def layer(**kwargs) -> DmpLayer:
    return DmpLayer(DmpConfig(n_basis=N), K, **kwargs)


def inputs(batch: int = 6, dtype=torch.float64, requires_grad: bool = False):
    torch.manual_seed(0)
    shapes = (batch, DOF), (batch, DOF), (batch, DOF), (batch, DOF, N)
    return [torch.randn(s, dtype=dtype, requires_grad=requires_grad) for s in shapes]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("rows", [None, 60])
def test_an_empty_batch_goes_forward_and_backward(learned, rows) -> None:
    tensors = inputs(0, requires_grad=True)
    raw = torch.zeros(0, dtype=torch.float64, requires_grad=True) if learned else None
    if rows is None:
        Y = layer()(*tensors, raw)
        assert Y.shape == (0, K, DOF)
    else:
        Y = torch.cat(layer().rollout(*tensors, torch.linspace(0, 1, rows), raw))
    Y.sum().backward()
    assert all(t.grad is not None and t.grad.shape == t.shape for t in tensors)


@pytest.mark.parametrize("rows", [3, 40])
def test_first_and_second_derivatives_are_those_of_finite_differences(rows) -> None:
    made, times = layer(), torch.linspace(0.1, 1.2, rows)

    def y(*tensors):
        return made.rollout(*tensors, times)[0]

    tensors = inputs(2, requires_grad=True)
    assert torch.autograd.gradcheck(y, tensors)
    assert torch.autograd.gradgradcheck(y, tensors)


@pytest.mark.parametrize("wanted", range(4))
def test_each_input_alone_gets_its_gradient(wanted) -> None:
    tensors = inputs()
    tensors[wanted].requires_grad_()
    layer()(*tensors).square().sum().backward()
    every = inputs(requires_grad=True)
    layer()(*every).square().sum().backward()
    torch.testing.assert_close(tensors[wanted].grad, every[wanted].grad)


def test_vmap_gives_what_a_loop_gives() -> None:
    made = layer()
    many = [torch.stack([t, 2.0 * t, -t]) for t in inputs()]
    expected = torch.stack([made(*(t[i] for t in many)) for i in range(3)])
    torch.testing.assert_close(vmap(made)(*many), expected)
    shared = vmap(made, in_dims=(None, None, 0, 0))(many[0][0], many[1][0], *many[2:])
    assert shared.shape == expected.shape
    torch.testing.assert_close(shared[0], expected[0])


def test_func_grad_and_jacrev_give_what_backward_gives() -> None:
    made, tensors = layer(), inputs()
    w = tensors[3].clone().requires_grad_()
    made(*tensors[:3], w).square().sum().backward()
    result = grad(lambda w: made(*tensors[:3], w).square().sum())(tensors[3])
    torch.testing.assert_close(result, w.grad)
    jacobian = jacrev(lambda w: made(*tensors[:3], w))(tensors[3])
    expected = torch.autograd.functional.jacobian(lambda w: made(*tensors[:3], w), tensors[3])
    torch.testing.assert_close(jacobian, expected)
    per_sample = vmap(grad(lambda w, *s: made(*(t[None] for t in s), w[None]).square().sum()))
    torch.testing.assert_close(per_sample(tensors[3], *tensors[:3]), w.grad)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.phi, self.dmp = nn.Linear(DOF, DOF * (1 + N)), layer()

    def forward(self, y0: torch.Tensor) -> torch.Tensor:
        out = self.phi(y0).view(-1, DOF, 1 + N)
        return self.dmp(y0, torch.zeros_like(y0), out[..., 0], out[..., 1:])


def test_autocast_computes_the_motion_in_single_precision() -> None:
    net, y0 = Net(), torch.randn(8, DOF)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(y0)
        out = net.phi(y0).view(-1, DOF, 1 + N)
    assert mixed.dtype == torch.float32
    assert out.dtype == torch.bfloat16
    single = net.dmp(y0, torch.zeros_like(y0), out[..., 0].float(), out[..., 1:].float())
    torch.testing.assert_close(mixed, single)
    mixed.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_in_half_and_is_computed_in_single(dtype) -> None:
    halves = [t.to(dtype) for t in inputs(dtype=torch.float32)]
    Y = layer()(*halves)
    assert Y.dtype == dtype
    torch.testing.assert_close(Y, layer()(*(t.float() for t in halves)).to(dtype))


def test_compiled_whole_it_gives_the_same() -> None:
    net, y0 = Net(), torch.randn(8, DOF)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y0), net(y0))
    compiled(y0).sum().backward()
    got = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(y0).sum().backward()
    for a, p in zip(got, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


@pytest.mark.parametrize("strict", [True, False])
def test_exported_it_gives_the_same(strict) -> None:
    net, y0 = Net().eval(), torch.randn(8, DOF)
    program = torch.export.export(net, (y0,), strict=strict)
    torch.testing.assert_close(program.module()(y0), net(y0))


def test_a_mode_leaves_nothing_in_the_layer_that_another_cannot_use() -> None:
    made, tensors = layer(), inputs(dtype=torch.float32)
    with FakeTensorMode() as mode:
        assert made(*(mode.from_tensor(t) for t in tensors)).shape == (6, K, DOF)
    first = made(*tensors)
    assert type(first) is torch.Tensor
    fresh = layer()
    grad(lambda w: fresh(*tensors[:3], w).sum())(tensors[3])
    torch.testing.assert_close(fresh(*tensors), first)
    third = layer()
    with torch.inference_mode():
        third(*tensors)
    trained = [t.clone().requires_grad_() for t in tensors]
    third(*trained).sum().backward()
    assert trained[3].grad is not None
    for copied in (copy.deepcopy(third), pickle.loads(pickle.dumps(third))):
        torch.testing.assert_close(copied(*tensors), first)


def test_a_change_of_the_output_in_place_is_right_or_refused() -> None:
    tensors = inputs(requires_grad=True)
    Y = layer()(*tensors)
    try:
        Y.mul_(2.0)
    except RuntimeError as error:
        assert "inplace" in str(error) or "in-place" in str(error)
        return
    Y.sum().backward()
    doubled = inputs(requires_grad=True)
    (2.0 * layer()(*doubled)).sum().backward()
    torch.testing.assert_close(tensors[3].grad, doubled[3].grad)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: [t[0][:1], *t[1:]], "yd0 has shape (6, 3), expected (1, 3)"),
        (lambda t: [t[0], t[1], t[2][:, :1], t[3]], "g has shape (6, 1), expected (6, 3)"),
        (lambda t: [*t[:3], t[3][..., :1]], "w has shape (6, 3, 1), expected (6, 3, 4)"),
        (lambda t: [t[0][0], *t[1:]], "y0 has shape (3,), expected (batch, dof)"),
        (lambda t: [u.long() for u in t], "w holds torch.int64"),
    ],
)
def test_shapes_that_would_only_broadcast_are_refused(change, why) -> None:
    with pytest.raises(ConfigError) as caught:
        layer()(*change(inputs()))
    assert why in str(caught.value)


def test_raw_alpha_has_one_value_a_sample() -> None:
    with pytest.raises(ConfigError, match="raw_alpha has shape"):
        layer()(*inputs(), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("k", [2.5, "3", None, 0, -1])
def test_k_is_a_whole_number(k) -> None:
    with pytest.raises(ConfigError, match="k is"):
        DmpLayer(DmpConfig(n_basis=N), k)


def test_layouts_of_memory_do_not_matter() -> None:
    made, tensors = layer(), inputs()
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in tensors]
    torch.testing.assert_close(made(*strided), made(*tensors))
    B = made._matrix(made._times, 1, tensors[0])
    torch.testing.assert_close(_product(B, *tensors), made(*tensors))
    params = dict(Net().named_parameters())
    assert functional_call(Net(), params, (torch.randn(2, DOF),)).shape == (2, K, DOF)
