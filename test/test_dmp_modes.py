# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The layer in every mode of torch: it works, or it says why not; nothing is silently wrong."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, vmap

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.constant import Constant
from ndp_ros.dmp.layer import DmpLayer, product, traceable_product
from ndp_ros.dmp.learned_alpha import ALPHA_RANGE
from ndp_ros.dmp.response import response
from ndp_ros.errors import ConfigError

DOF, N, K = 3, 4, 5


def layer(k: int = K, alpha_range: object = ALPHA_RANGE, forcing: str = "outside") -> DmpLayer:
    return DmpLayer(DmpConfig(n_basis=N, forcing=forcing), k, alpha_range)


forcings = pytest.mark.parametrize("forcing", ["outside", "free"])


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


@forcings
@pytest.mark.parametrize("rows", [3, 40])
def test_first_and_second_derivatives_are_those_of_finite_differences(rows, forcing) -> None:
    made, times = layer(forcing=forcing), torch.linspace(0.1, 1.2, rows)

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


@forcings
def test_vmap_gives_what_a_loop_gives(forcing) -> None:
    made = layer(forcing=forcing)
    many = [torch.stack([t, 2.0 * t, -t]) for t in inputs()]
    expected = torch.stack([made(*(t[i] for t in many)) for i in range(3)])
    torch.testing.assert_close(vmap(made)(*many), expected)
    shared = vmap(made, in_dims=(None, None, 0, 0))(many[0][0], many[1][0], *many[2:])
    assert shared.shape == expected.shape
    torch.testing.assert_close(shared[0], expected[0])


@forcings
def test_func_grad_and_jacrev_give_what_backward_gives(forcing) -> None:
    made, tensors = layer(forcing=forcing), inputs()
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
    """Phi before a layer, with a learned alpha or without."""

    def __init__(self, learned: bool = False, k: int = K, forcing: str = "outside") -> None:
        super().__init__()
        self.phi, self.learned = nn.Linear(DOF, DOF * (1 + N) + 1), learned
        self.dmp = layer(k, forcing=forcing)

    def forward(self, y0: torch.Tensor) -> torch.Tensor:
        out = self.phi(y0)
        parts, raw_alpha = out[:, :-1].view(-1, DOF, 1 + N), out[:, -1] if self.learned else None
        return self.dmp(y0, torch.zeros_like(y0), parts[..., 0], parts[..., 1:], raw_alpha)


def test_autocast_computes_the_motion_in_single_precision() -> None:
    net, y0 = Net(), torch.randn(8, DOF)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(y0)
        out = net.phi(y0)[:, :-1].reshape(-1, DOF, 1 + N)
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


@forcings
@pytest.mark.parametrize("learned", [False, True])
def test_compiled_whole_it_gives_the_same(learned, forcing) -> None:
    net, y0 = Net(learned, forcing=forcing), torch.randn(8, DOF)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y0), net(y0))
    compiled(y0).sum().backward()
    got = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(y0).sum().backward()
    for a, p in zip(got, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


@forcings
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("strict", [True, False])
def test_exported_it_gives_the_same(strict, learned, forcing) -> None:
    net, y0 = Net(learned, forcing=forcing).eval(), torch.randn(8, DOF)
    program = torch.export.export(net, (y0,), strict=strict)
    torch.testing.assert_close(program.module()(y0), net(y0))


@pytest.mark.parametrize("learned", [False, True])
def test_layers_of_several_k_are_compiled_beside_each_other(learned) -> None:
    y0 = torch.randn(8, DOF)
    for k in (3, 7, 40):
        net = Net(learned, k)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(y0), net(y0))


class RollOuts(Net):
    def forward(self, y0: torch.Tensor) -> torch.Tensor:
        w = torch.ones(*y0.shape, N)
        return torch.cat(self.dmp.rollout(y0, y0, -y0, w, (0.25, 1.5)))


def test_a_roll_out_at_other_times_is_exported_right_or_refused() -> None:
    net, y0 = RollOuts().eval(), torch.randn(8, DOF)
    program = torch.export.export(net, (y0,), strict=False)
    torch.testing.assert_close(program.module()(y0), net(y0))
    with pytest.raises(Exception, match="Explanation"):
        torch.export.export(net, (y0,), strict=True)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_meta_device_computes_shapes(learned, dtype, autocast) -> None:
    tensors = [t.to(dtype=dtype, device="meta") for t in inputs()]
    raw_alpha = torch.zeros(6, device="meta") if learned else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        Y = layer()(*tensors, raw_alpha)
    assert (Y.device.type, Y.dtype, tuple(Y.shape)) == ("meta", dtype, (6, K, DOF))


def test_a_layer_made_on_the_meta_device_keeps_its_response() -> None:
    with torch.device("meta"):
        made = layer()
    tensors = inputs()
    torch.testing.assert_close(made(*tensors), layer()(*tensors))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_matrix_is_made_once_for_each_device(device) -> None:
    constant, tensor = Constant(np.eye(2)), torch.zeros(1, device=device)
    assert constant.like(tensor) is constant.like(tensor)
    assert constant.like(tensor).device == tensor.device


def test_raw_alpha_of_another_precision_is_converted() -> None:
    tensors, raw_alpha = inputs(dtype=torch.float32), torch.linspace(-1, 1, 6)
    expected = layer()(*tensors, raw_alpha)
    torch.testing.assert_close(layer()(*tensors, raw_alpha.double()), expected)


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
        (lambda t: [u.numpy() for u in t], "expected a tensor"),
    ],
)
def test_shapes_that_would_only_broadcast_are_refused(change, why) -> None:
    with pytest.raises(ConfigError) as caught:
        layer()(*change(inputs()))
    assert why in str(caught.value)


def test_raw_alpha_has_one_value_a_sample() -> None:
    with pytest.raises(ConfigError, match="raw_alpha has shape"):
        layer()(*inputs(), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("k", [2.5, "3", None, 0, -1, 10**9, 10**30])
def test_k_is_a_whole_number_within_memory(k) -> None:
    with pytest.raises(ConfigError, match="k is"):
        DmpLayer(DmpConfig(n_basis=N), k)


@pytest.mark.parametrize(
    "alpha_range",
    [
        "ab",
        (1,),
        (1, 2, 3),
        5,
        ((1, 2), 3),
        (torch.zeros(2), 3),
        (0, 1),
        (2, 1),
        (1, float("nan")),
        (1, float("inf")),
    ],
)
def test_a_range_of_alpha_is_two_positive_increasing_numbers(alpha_range) -> None:
    with pytest.raises(ConfigError, match="alpha_range is"):
        layer(alpha_range=alpha_range)


@pytest.mark.parametrize(
    "times",
    [
        "soon",
        [[1], [1, 2]],
        0.5,
        [[0.1, 0.2]],
        [1j],
        {},
        [1e300],
        [-1.0],
        [float("nan")],
        torch.ones(1, requires_grad=True),
    ],
)
def test_times_are_a_row_of_numbers_from_zero_on(times) -> None:
    with pytest.raises(ConfigError, match="times"):
        layer().rollout(*inputs(), times)


@forcings
def test_layouts_of_memory_do_not_matter(forcing) -> None:
    made, tensors = layer(forcing=forcing), inputs()
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in tensors]
    torch.testing.assert_close(made(*strided), made(*tensors))
    B = torch.from_numpy(response(made.config, np.arange(1, K + 1) / K)[0])
    scaled = made.config.scaled
    for computed in (product(B, scaled, *strided), traceable_product(B, scaled, *strided)):
        torch.testing.assert_close(computed, made(*tensors))
    params = dict(Net().named_parameters())
    assert functional_call(Net(), params, (torch.randn(2, DOF),)).shape == (2, K, DOF)


def test_a_layer_without_a_range_refuses_a_raw_alpha() -> None:
    fixed = layer(alpha_range=None)
    for learn in (lambda: fixed(*inputs(), torch.zeros(6)), lambda: fixed.raw_alpha(15.0)):
        with pytest.raises(ConfigError, match="made with an alpha_range"):
            learn()
