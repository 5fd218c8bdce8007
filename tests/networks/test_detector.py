"""The detection head: where its locations are, what its boxes mean, what it costs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from perception.networks.camera import CameraGraph, normalise  # noqa: E402
from perception.networks.detector import DetectionHead, locations  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork  # noqa: E402

WIDTHS = {4: 8, 8: 12, 16: 16, 32: 16}


def small(**options: object) -> SegmentationDetectionNetwork:
    torch.manual_seed(0)
    return SegmentationDetectionNetwork(5, WIDTHS, detection=lambda c: DetectionHead(c, 3, width=16, **options)).eval()


def test_locations_are_the_centres_of_cells_row_by_row() -> None:
    expected = [((x + 0.5) * 8, (y + 0.5) * 8) for y in range(3) for x in range(5)]
    assert locations((3, 5), 8).tolist() == [list(pair) for pair in expected]


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (65, 99)])
def test_every_cell_of_every_level_is_a_location(size: tuple[int, int]) -> None:
    network = small()
    with torch.inference_mode():
        results = network(torch.randn(2, 3, *size))
    cells = [(-(-size[0] // s), -(-size[1] // s), s) for s in (8, 16, 32)]
    count = sum(h * w for h, w, _ in cells)
    assert results["boxes"].shape == (2, count, 4)
    assert results["scores"].shape == results["box_class_logits"].shape == (2, count, 3)
    assert results["box_confidence_logits"].shape == (2, count)
    expected = torch.cat([locations((h, w), s) for h, w, s in cells])
    assert torch.equal(results["box_locations"], expected)
    boxes = results["boxes"]
    assert (boxes[..., :2] < expected).all() and (boxes[..., 2:] > expected).all()


def test_boxes_are_distances_from_the_location_in_strides() -> None:
    network = small(strides=(16,))
    head = network.detector
    with torch.no_grad():
        head.measure.weight.zero_()
        head.measure.bias.copy_(torch.tensor([1.0, 2.0, 4.0, 8.0, 0.5]).log())
        head.log_scales.fill_(1.0)
        head.classify.weight.zero_()
        head.classify.bias.copy_(torch.tensor([0.2, 0.5, 0.9]).logit())
        results = network(torch.zeros(1, 3, 64, 64))
    x, y = 8.0, 8.0
    assert results["boxes"][0, 0].tolist() == pytest.approx([x - 32, y - 64, x + 128, y + 256], rel=1e-5)
    confidence = 0.5 / 1.5  # the sigmoid of log(0.5)
    expected = np.sqrt(np.array([0.2, 0.5, 0.9]) * confidence)
    assert results["scores"][0, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
def test_levels_are_decoded_as_a_slow_loop_does(seed: int, size: tuple[int, int]) -> None:
    network = small()
    head = network.detector
    draw = torch.Generator().manual_seed(seed)
    scales = [0.6, 1.1, 1.7]
    raw: dict[str, list[np.ndarray]] = {"classify": [], "measure": []}
    for name, results in raw.items():
        layer = getattr(head, name)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * 0.4)
        layer.register_forward_hook(lambda _m, _a, result, kept=results: kept.append(result.numpy()))
    with torch.no_grad():
        head.log_scales.copy_(torch.tensor(scales))
    with torch.inference_mode():
        found = {name: value.numpy() for name, value in network(torch.randn(2, 3, *size, generator=draw)).items()}
    place = 0
    for level, stride in enumerate((8, 16, 32)):
        named, measured = raw["classify"][level].astype(float), raw["measure"][level].astype(float)
        for y, x in np.ndindex(*named.shape[2:]):
            for n in range(2):
                reach = np.exp(np.minimum(measured[n, :4, y, x] * scales[level], 5.0)) * 2 * stride
                centre = (np.array([x, y, x, y]) + 0.5) * stride
                box = centre + reach * (-1, -1, 1, 1)
                np.testing.assert_allclose(found["boxes"][n, place], box, rtol=1e-4, atol=1e-3)
                confidence = 1 / (1 + np.exp(-measured[n, 4, y, x]))
                scores = np.sqrt(confidence / (1 + np.exp(-named[n, :, y, x])))
                np.testing.assert_allclose(found["scores"][n, place], scores, rtol=1e-4)
                assert found["box_confidence_logits"][n, place] == np.float32(measured[n, 4, y, x])
                assert (found["box_class_logits"][n, place] == named[n, :, y, x].astype(np.float32)).all()
            place += 1
    assert place == found["boxes"].shape[1]


def test_scores_start_low() -> None:
    with torch.inference_mode():
        results = small()(torch.randn(1, 3, 64, 96))
    assert 0.005 < float(results["box_class_logits"].sigmoid().mean()) < 0.02


def test_strides_must_be_in_the_pyramid() -> None:
    with pytest.raises(ValueError, match=r"no level of stride \[64\], only \[4, 8, 16, 32\]"):
        DetectionHead(WIDTHS, 3, (8, 64))


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8)])
def test_masks_of_some_pictures_are_those_of_all(strides: tuple[int, ...]) -> None:
    network = small(strides=strides)
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        whole, part, none = network(images), network(images, 2), network(images, 0)
    torch.testing.assert_close(part["class_logits"], whole["class_logits"][:2])
    for name in ("boxes", "scores"):
        torch.testing.assert_close(part[name], whole[name])
        torch.testing.assert_close(none[name], whole[name])
    assert "class_logits" not in none


def test_without_a_detection_head_nothing_changes() -> None:
    network = SegmentationDetectionNetwork(5, WIDTHS)
    assert network.outputs == ("class_logits",)
    assert not [name for name in network.state_dict() if name.startswith("detector")]


def test_each_level_has_its_own_statistics() -> None:
    network = small().train()
    network(torch.randn(4, 3, 64, 96))
    norms = network.detector.box_tower.filter_norms[0]
    assert len(norms) == 3
    assert not torch.allclose(norms[0].running_mean, norms[2].running_mean)


def test_the_deployed_graph_gives_boxes_and_scores() -> None:
    network = small()
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(normalise(frames.flip(3).permute(0, 3, 1, 2).float()))
        results = CameraGraph(network, network.first_convolution, network.outputs).eval()(frames)
    assert network.outputs == ("class_logits", "boxes", "scores")
    for name, result in zip(network.outputs, results, strict=True):
        torch.testing.assert_close(result, expected[name], rtol=1e-3, atol=1e-3)


def test_both_heads_cost_at_most_a_third_more_than_one() -> None:
    images = torch.zeros(1, 3, 360, 480)
    counts = []
    for detection in (None, lambda c: DetectionHead(c, 6, width=128)):
        network = SegmentationDetectionNetwork(11, detection=detection).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(images)
        counts.append(counter.get_total_flops())
    assert counts[0] < counts[1] < 1.35 * counts[0]
