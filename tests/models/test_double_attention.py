from __future__ import annotations

import pytest
import torch
from reference import double_attention as reference
from torch.utils.checkpoint import checkpoint

from a2video.models import DoubleAttention, double_attention

FORMS = ["auto", "reassociated", "textbook"]
SHAPES = {1: (7,), 2: (3, 4), 3: (2, 3, 4)}


def random_block(dims: int = 3, channels: int = 6, c_m: int = 5, c_n: int = 4, form: str = "auto") -> DoubleAttention:
    """A block in float64 whose norm passes its input on, so that it computes x + W_out Z + b_out."""
    torch.manual_seed(0)
    block = DoubleAttention(channels, c_m, c_n, dims, form).double().eval()
    torch.nn.init.ones_(block.norm.weight)
    block.norm.eps = 0.0
    return block


def arrays(block: DoubleAttention) -> list[tuple]:
    convolutions = (block.phi, block.theta, block.rho, block.out)
    return [(conv.weight.flatten(1).detach().numpy(), conv.bias.detach().numpy()) for conv in convolutions]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equals_the_equations(dims: int, form: str) -> None:
    block = random_block(dims, form=form)
    x = torch.randn(3, 6, *SHAPES[dims], dtype=torch.float64)
    expected = x.flatten(2).numpy() + reference(x.flatten(2).numpy(), *arrays(block))
    actual = block(x).flatten(2).detach()
    assert torch.allclose(actual, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)
    assert (actual - x.flatten(2)).abs().max() > 0.05  # the block does something here


def two_attentions(block: DoubleAttention, x: torch.Tensor) -> torch.Tensor:
    """n learned queries attend over the positions, then the positions attend over n learned keys (torch's own)."""
    (w_phi, b_phi), (w_theta, b_theta), (w_rho, b_rho), (w_out, b_out) = (
        (conv.weight.flatten(1), conv.bias) for conv in (block.phi, block.theta, block.rho, block.out)
    )
    attention = torch.nn.functional.scaled_dot_product_attention
    positions = x.flatten(2).transpose(1, 2)  # (B, L, c)
    with_one = torch.cat([positions, torch.ones_like(positions[..., :1])], dim=2)  # (B, L, c + 1), for the biases
    queries = torch.cat([w_theta, b_theta[:, None]], dim=1).expand(len(x), -1, -1)  # (B, c_n, c + 1)
    gathered = attention(queries, with_one, positions, scale=1.0)  # (B, c_n, c)
    values = (gathered @ w_phi.T + b_phi) @ w_out.T  # (B, c_n, c)
    keys = torch.cat([w_rho, b_rho[:, None]], dim=1).expand(len(x), -1, -1)
    y = attention(with_one, keys, values, scale=1.0) + b_out  # (B, L, c)
    return x + y.transpose(1, 2).view(x.shape)


def right_association(block: DoubleAttention, x: torch.Tensor) -> torch.Tensor:
    """phi(X) · [softmax(B)^T softmax(V)], with an L x L map."""
    gather, distribute = block.theta(x).flatten(2).softmax(2), block.rho(x).flatten(2).softmax(1)
    z = block.phi(x).flatten(2) @ (gather.transpose(1, 2) @ distribute)
    return x + block.out(z.view(*z.shape[:2], *x.shape[2:]))


def test_all_forms_are_one_function_with_one_gradient() -> None:
    results = []
    for form in (*FORMS, two_attentions, right_association):
        block = random_block(form=form if isinstance(form, str) else "auto")
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
        y = block(x) if isinstance(form, str) else form(block, x)
        y.pow(3).sum().backward()
        used = [p.grad for name, p in block.named_parameters() if not name.startswith("norm")]
        results.append([y.detach(), x.grad, *used])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert (one - another).norm() <= 1e-10 * one.norm() + 1e-13


def step(block: DoubleAttention, x: torch.Tensor, layout: torch.memory_format) -> list[torch.Tensor]:
    """Output, gradients and running statistics of a training step."""
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    block.zero_grad()
    y = block(x)
    y.mul(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    gradients = [parameter.grad for parameter in block.parameters()]
    return [y.detach(), x.grad, *gradients, block.norm.running_mean, block.norm.running_var]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_fused_training_is_the_same_function(layout: torch.memory_format, momentum: float | None) -> None:
    x = torch.randn(3, 6, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for form in FORMS:
        block = random_block(form=form).train()
        block.norm.eps, block.norm.momentum = 1e-3, momentum
        torch.nn.init.normal_(block.norm.weight)
        torch.nn.init.normal_(block.norm.bias)
        assert block._can_fuse(x) == (form == "auto")
        step(block, 2 * x, layout)
        results.append(step(block, x, layout))
        assert block.norm.num_batches_tracked == 2
        assert results[-1][0].is_contiguous(memory_format=layout)
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert (one - another).abs().max() <= 1e-10 * one.abs().max() + 1e-12


def test_fused_evaluation_is_the_same_function() -> None:
    x = torch.randn(3, 6, 2, 3, 4, dtype=torch.float64)
    results = []
    for form in FORMS:
        block = random_block(form=form).train()
        block.norm.eps = 1e-3
        torch.nn.init.normal_(block.norm.bias)
        block(x)
        with torch.no_grad():
            assert block.eval()._can_fuse(x) == (form == "auto")
            results.append(block(x + 1))
    assert all(torch.allclose(results[0], other, rtol=1e-10, atol=1e-12) for other in results[1:])


def test_fused_in_float32_is_no_less_exact() -> None:
    """Also where attention is nearly even, and batch norm divides by what little is left."""
    x = torch.randn(2, 32, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.05 + 1
    results = []
    for form, dtype in (("textbook", torch.float64), ("textbook", torch.float32), ("auto", torch.float32)):
        block = random_block(channels=32, c_m=16, c_n=16, form=form).to(dtype)
        block.norm.eps = 1e-5
        results.append(step(block.train(), x.to(dtype), torch.contiguous_format)[:2])
    exact, plain, fused = results
    for e, p, f in zip(exact, plain, fused, strict=True):
        assert (f - e).norm() <= 2 * (p - e).norm()
        assert (f - e).norm() <= 1e-3 * e.norm()


def test_fused_gradcheck() -> None:
    block = random_block(channels=3, c_m=2, c_n=2).train()
    block.norm.eps = 1e-2
    x = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert block._can_fuse(x)
    assert torch.autograd.gradcheck(block, x)


def test_fused_keeps_little_for_the_backward_pass() -> None:
    """Beside x and the weights: P and Q, (c_n x positions) each, and small matrices."""
    kept: dict[str, int] = {}
    for form in ("auto", "textbook"):
        block = DoubleAttention(64, form=form)
        x = torch.randn(2, 64, 8, 14, 14, requires_grad=True)
        tensors: dict[int, int] = {}

        def note(tensor: torch.Tensor, tensors: dict[int, int] = tensors) -> torch.Tensor:
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            y = block(x)
        tensors.pop(x.untyped_storage().data_ptr(), None)
        del y
        kept[form] = sum(tensors.values())
    assert kept["auto"] < 0.5 * kept["textbook"]


def test_watched_or_changed_layers_are_not_fused() -> None:
    block, x = random_block().train(), torch.randn(2, 6, 2, 3, 4, dtype=torch.float64)
    assert block._can_fuse(x)
    handle = block.theta.register_forward_hook(lambda *_: None)
    assert not block._can_fuse(x)
    handle.remove()
    assert not block._can_fuse(x.float())
    assert not block._can_fuse(x[:1, :, :1, :1, :1])  # torch's batch norm refuses it
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block(x[:1, :, :1, :1, :1])
    block.norm = torch.nn.SyncBatchNorm(6)
    assert not block._can_fuse(x)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form: str) -> None:
    block = random_block(channels=3, c_m=2, c_n=2, form=form)
    assert torch.autograd.gradcheck(block, torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("form", FORMS)
def test_new_block_is_the_identity_and_can_learn(form: str) -> None:
    block = DoubleAttention(8, form=form)
    x = torch.randn(2, 8, 2, 3, 3)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.norm.weight.grad is not None
    assert block.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_a_sample_does_not_depend_on_its_batch_mates(form: str) -> None:
    block = random_block(form=form)
    x = torch.randn(4, 6, 2, 3, 4, dtype=torch.float64)
    assert torch.allclose(block(x)[2], block(x[2:3])[0], rtol=1e-12)


def test_permuting_positions_permutes_the_output() -> None:
    block = random_block(dims=1)
    x = torch.randn(2, 6, 7, dtype=torch.float64)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(block(x[:, :, order]), block(x)[:, :, order], rtol=1e-12)


def test_gather_sums_to_one_over_positions_and_distribute_over_descriptors() -> None:
    """With X, phi and out chosen so that sums come out: features of one stay one."""
    generator = torch.Generator().manual_seed(0)
    scores = [3 * torch.randn(2, 4, 24, dtype=torch.float64, generator=generator) for _ in range(2)]
    ones = torch.ones(2, 6, 24, dtype=torch.float64)
    identity, zero = torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for textbook in (False, True):
        y = double_attention(ones, *scores, identity, zero, identity, textbook)
        assert torch.allclose(y, ones, rtol=1e-12)


def test_auto_takes_the_form_with_fewer_multiply_adds() -> None:
    block = DoubleAttention(16)
    assert block._use_textbook(torch.zeros(1, 16, 1, 3, 5))  # 15 positions, 16 channels
    assert not block._use_textbook(torch.zeros(1, 16, 1, 4, 4))
    assert not DoubleAttention(256, c_m=256, c_n=16)._use_textbook(torch.zeros(1, 256, 2, 10, 10))


def test_reassociated_form_keeps_nothing_of_size_c_m_times_positions() -> None:
    c_m, positions = 5, 2 * 8 * 9
    kept: dict[str, set[int]] = {}
    for form in ("reassociated", "textbook"):
        block, kept[form] = random_block(form=form), set()
        x = torch.randn(1, 6, 2, 8, 9, dtype=torch.float64, requires_grad=True)

        def note(tensor: torch.Tensor, sizes: set[int] = kept[form]) -> torch.Tensor:
            sizes.add(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            block(x)
    assert c_m * positions in kept["textbook"]
    assert c_m * positions not in kept["reassociated"]


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 5, 2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 6, then 3 position dimensions: dims=3\), got \(2, "):
        DoubleAttention(6)(torch.zeros(shape))


def test_defaults_to_half_the_channels() -> None:
    block = DoubleAttention(12)
    assert block.phi.weight.shape == (6, 12, 1, 1, 1)
    assert block.theta.weight.shape == block.rho.weight.shape == (6, 12, 1, 1, 1)
    assert block.out.weight.shape == (12, 6, 1, 1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_autocast_stays_close(form: str) -> None:
    block = random_block(form=form).float()
    x = torch.randn(2, 6, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert torch.allclose(y, block(x), atol=0.05)


def test_channels_last_checkpointing_and_meta() -> None:
    block = random_block().train()
    block.norm.eps = 1e-5
    x = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    expected = block(x)
    assert torch.allclose(block(x.to(memory_format=torch.channels_last_3d)), expected, rtol=1e-12)
    assert torch.allclose(checkpoint(block, x, use_reentrant=False), expected, rtol=1e-12)
    assert block.to("meta")(x.to("meta")).shape == x.shape


def test_compiles_and_exports_with_every_size_dynamic() -> None:
    block = random_block().float()
    inputs = [torch.randn(shape) for shape in ((2, 6, 3, 4, 5), (3, 6, 2, 7, 6), (1, 6, 5, 3, 3))]
    compiled = torch.compile(block, dynamic=True, backend="aot_eager")
    dim = torch.export.Dim
    sizes = {0: dim("batch"), 2: dim("frames"), 3: dim("height"), 4: dim("width")}
    exported = torch.export.export(block, (inputs[0],), dynamic_shapes=(sizes,)).module()
    for x in inputs:
        assert torch.allclose(compiled(x), block(x), atol=1e-5)
        assert torch.allclose(exported(x), block(x), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "at least 1, got 0"),
        ((8, 0), "got 8, 0"),
        ((8, 4, 4, 4), "dims must be 1, 2 or 3"),
        ((8, 4, 4, 3, "fast"), "form must be"),
    ],
)
def test_wrong_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DoubleAttention(*arguments)
