"""Assignment and detection loss against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.networks.detector import locations  # noqa: E402
from perception.training.data.boxes import BoxLabels  # noqa: E402
from perception.training.losses.assignment import assign  # noqa: E402
from perception.training.losses.detection import DetectionLoss  # noqa: E402
from perception.training.recipes.detection import DetectionLossConfig  # noqa: E402

CLASSES = 3


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow_assign(
    places: list[list[float]], boxes: list[list[float]], scores: list[list[float]],
    truth: list[list[float]], ids: list[int], candidates: int,
) -> tuple[list[int], list[float]]:  # fmt: skip
    def good(m: int, k: int) -> float:
        return (scores[k][ids[m]] + 1e-9) ** 0.5 * slow_iou(truth[m], boxes[k]) ** 6 + 1e-9

    owner, quality = [-1] * len(places), [0.0] * len(places)
    for m, (x0, y0, x1, y1) in enumerate(truth):
        inside = [k for k, (x, y) in enumerate(places) if x0 <= x <= x1 and y0 <= y <= y1]
        for k in sorted(inside, key=lambda k: -good(m, k))[:candidates]:
            if owner[k] < 0 or slow_iou(truth[m], boxes[k]) > slow_iou(truth[owner[k]], boxes[k]):
                owner[k] = m
    for m in range(len(truth)):
        mine = [k for k in range(len(places)) if owner[k] == m]
        if mine:
            best = max(good(m, k) for k in mine)
            top = max(slow_iou(truth[m], boxes[k]) for k in mine)
            for k in mine:
                quality[k] = good(m, k) / best * top
    return owner, quality


def scene(seed: int, objects: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Locations, boxes, class logits, true boxes, class ids; some boxes overlap each other."""
    g = torch.Generator().manual_seed(seed)
    places = torch.cat([locations((6, 8), 8), locations((3, 4), 16)])
    reach = torch.rand(len(places), 4, generator=g) * 20 + 2
    boxes = torch.cat((places - reach[:, :2], places + reach[:, 2:]), 1)
    logits = torch.randn(len(places), CLASSES, generator=g)
    corner = torch.rand(objects, 2, generator=g) * 35
    truth = torch.cat((corner, corner + 9 + torch.rand(objects, 2, generator=g) * 20), 1)
    return places, boxes, logits, truth, torch.randint(0, CLASSES, (objects,), generator=g)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("candidates", [1, 4, 100])
def test_assignment_equals_a_slow_loop(seed: int, candidates: int) -> None:
    places, boxes, logits, truth, ids = scene(seed, 5)
    result = assign(places, boxes, logits.sigmoid(), truth, ids, candidates)
    expected = slow_assign(
        places.tolist(), boxes.tolist(), logits.sigmoid().tolist(), truth.tolist(), ids.tolist(), candidates
    )
    assert result.objects.tolist() == expected[0]
    assert result.quality.tolist() == pytest.approx(expected[1], rel=1e-3, abs=1e-6)
    assert (result.objects >= 0).any()


def test_an_object_that_no_box_touches_yet_still_gets_locations() -> None:
    places = locations((4, 4), 8)
    boxes = torch.cat((places + 100, places + 110), 1)
    result = assign(places, boxes, torch.full((16, 3), 0.01), torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([1]), 10)
    assert (result.objects >= 0).nonzero().squeeze(1).tolist() == [0, 1, 4, 5]
    assert result.quality.tolist() == [0.0] * 16


def test_no_objects_no_assignment() -> None:
    places, boxes, logits, _, _ = scene(0, 1)
    result = assign(places, boxes, logits.sigmoid(), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 10)
    assert set(result.objects.tolist()) == {-1}
    assert result.quality.sum() == 0


def labelled(truth: torch.Tensor, ids: list[int], known: list[bool], unsure: np.ndarray | None = None) -> BoxLabels:
    unsure = np.zeros((len(ids), CLASSES), bool) if unsure is None else unsure
    return BoxLabels(truth.numpy(), np.array(ids, np.int64), unsure, np.array(known))


def outputs_of(scenes: list[tuple[torch.Tensor, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "box_locations": scenes[0][0],
        "boxes": torch.stack([s[1] for s in scenes]).requires_grad_(),
        "box_class_logits": torch.stack([s[2] for s in scenes]).requires_grad_(),
        "box_confidence_logits": torch.randn(len(scenes), len(scenes[0][0]), generator=g).requires_grad_(),
    }


def slow_loss(outputs: dict[str, torch.Tensor], pictures: list[BoxLabels | None], config: DetectionLossConfig) -> float:
    class_loss = box_loss = confidence_loss = total = 0.0
    places = outputs["box_locations"].tolist()

    def entropy(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    for n, picture in enumerate(pictures):
        if picture is None:
            continue
        boxes, logits = outputs["boxes"][n].tolist(), outputs["box_class_logits"][n].tolist()
        scores = outputs["box_class_logits"][n].sigmoid().tolist()
        real = [m for m, i in enumerate(picture.class_ids.tolist()) if i >= 0]
        regions = [picture.boxes[m].tolist() for m, i in enumerate(picture.class_ids.tolist()) if i < 0]
        truth, ids = [picture.boxes[m].tolist() for m in real], [int(picture.class_ids[m]) for m in real]
        owner, quality = slow_assign(places, boxes, scores, truth, ids, config.candidates)
        total += sum(quality)
        for k, (x, y) in enumerate(places):
            ignored = any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in regions)
            for c in range(CLASSES):
                own = owner[k] >= 0 and ids[owner[k]] == c
                if owner[k] < 0:
                    counted = picture.known[c] and not ignored
                else:
                    counted = own or (picture.known[c] and not picture.unsure[real[owner[k]], c])
                target = quality[k] if own else 0.0
                if counted:
                    class_loss += abs(scores[k][c] - target) ** config.focus * entropy(logits[k][c], target)
            if owner[k] >= 0:
                a, b = boxes[k], truth[owner[k]]
                hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
                iou = slow_iou(a, b)
                area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
                union = (area_a + area_b) / (1 + iou)
                box_loss += quality[k] * (1 - iou + (hull - union) / hull)
                confidence_loss += quality[k] * entropy(outputs["box_confidence_logits"][n, k].item(), iou)
    parts = ((config.class_weight, class_loss), (config.box_weight, box_loss))
    parts += ((config.confidence_weight, confidence_loss),)
    return sum(weight * part for weight, part in parts) / max(total, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_equals_a_slow_loop(seed: int) -> None:
    scenes = [scene(10 * seed + i, 4) for i in range(4)]
    unsure = np.zeros((4, CLASSES), bool)
    unsure[:2, 1] = True
    pictures = [
        labelled(scenes[0][3], scenes[0][4].tolist(), [True] * 3),
        None,
        labelled(scenes[2][3], [0, -1, 2, -1], [True, False, True], unsure),
        labelled(scenes[3][3][:0], [], [True] * 3),
    ]
    config = DetectionLossConfig(class_weight=0.7, box_weight=1.3, confidence_weight=0.4, candidates=5)
    outputs = outputs_of(scenes, seed)
    loss = DetectionLoss(config)(outputs, pictures)
    assert float(loss.detach()) == pytest.approx(slow_loss(outputs, pictures, config), rel=1e-3)
    loss.backward()
    for name in ("boxes", "box_class_logits", "box_confidence_logits"):
        gradient = outputs[name].grad
        assert gradient is not None and torch.isfinite(gradient).all()
        assert gradient[1].abs().sum() == 0  # nobody labelled this one
        assert gradient[0].abs().sum() > 0
    assert outputs["boxes"].grad[3].abs().sum() == 0  # nothing there
    assert outputs["box_class_logits"].grad[3].abs().min() > 0


def test_a_class_that_is_not_labelled_is_teacher_nothing() -> None:
    s = scene(3, 3)
    outputs = outputs_of([s])
    DetectionLoss(DetectionLossConfig())(outputs, [labelled(s[3], [0, 0, 2], [True, False, True])]).backward()
    gradient = outputs["box_class_logits"].grad[0]
    assert gradient[:, 1].abs().sum() == 0
    assert gradient[:, 0].abs().min() > 0


def test_pictures_without_box_labels_alone_cost_nothing_and_can_be_trained_on() -> None:
    outputs = outputs_of([scene(0, 1)])
    loss = DetectionLoss(DetectionLossConfig())(outputs, [None])
    loss.backward()
    assert float(loss) == 0
    assert outputs["box_class_logits"].grad.abs().sum() == 0


def test_gradient_steps_find_the_objects() -> None:
    """Boxes and scores as free parameters: after some steps every object is the best of its class."""
    places, _, _, truth, ids = scene(1, 2)
    reach = torch.full((len(places), 4), 2.0, requires_grad=True)
    scores = torch.full((len(places), CLASSES), -4.0, requires_grad=True)
    confidence = torch.zeros(1, len(places), requires_grad=True)
    optimiser = torch.optim.Adam([reach, scores, confidence], 0.05)
    loss = DetectionLoss(DetectionLossConfig())
    picture = labelled(truth, ids.tolist(), [True] * 3)
    for _ in range(300):
        distances = reach.exp()
        boxes = torch.cat((places - distances[:, :2], places + distances[:, 2:]), 1)
        outputs = {"box_locations": places, "boxes": boxes[None], "box_class_logits": scores[None]}
        value = loss({**outputs, "box_confidence_logits": confidence}, [picture])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    for box, class_id in zip(truth.tolist(), ids.tolist(), strict=True):
        overlaps = [slow_iou(box, b) for b in boxes.tolist()]
        good = [k for k, overlap in enumerate(overlaps) if overlap > 0.9]
        assert good and max(scores[good, class_id].sigmoid().tolist()) > 0.7
