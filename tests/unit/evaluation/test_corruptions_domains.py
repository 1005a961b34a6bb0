"""The corruptions of a domain against what their light and their drops say, and the sets that hold them."""

import numpy as np
import pytest
import torch

from temper.errors import RecipeError
from temper.evaluation import CascadePlan, EvaluationPlan, EvaluationSpec, evaluate_images, suite_for
from temper.evaluation.corruptions import GROUPS, corrupt, lighting, weather
from temper.evaluation.corruptions.draws import Draws
from temper.spec import Threat, validate


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(torch.arange(count), seed, "test")


def test_darkness_is_a_share_of_the_light() -> None:
    images = torch.randint(
        0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    dark = corrupt("darkness", 5, images, torch.arange(2), 0).numpy()
    assert np.abs(dark - 0.3 * images.numpy()).max() <= 0.51


def test_uneven_lighting_is_a_plane_of_the_strength_said() -> None:
    images = torch.full((40, 3, 12, 20), 0.4)
    lit = lighting.uneven_lighting(images, draws(40), strength=0.5).double() / 0.4
    # Second differences of a plane vanish, in both directions.
    assert lit.diff(n=2, dim=2).abs().max() < 1e-5
    assert lit.diff(n=2, dim=3).abs().max() < 1e-5
    assert lit.amin((1, 2, 3)).tolist() == pytest.approx([0.5] * 40, abs=1e-5)
    assert lit.amax((1, 2, 3)).tolist() == pytest.approx([1.5] * 40, abs=1e-5)
    # Any side may be the dark one.
    right = lit[:, 0, :, -1].mean(1) > lit[:, 0, :, 0].mean(1)
    below = lit[:, 0, -1].mean(1) > lit[:, 0, 0].mean(1)
    for one in (right, below):
        assert 8 < int(one.sum()) < 32


def test_rain_falls_in_light_streaks_on_a_darker_picture() -> None:
    black, grey = torch.zeros(16, 3, 64, 64), torch.full((16, 3, 64, 64), 0.5)
    wet = weather.rain(black, draws(16), share=0.004, length_px=12, opacity=0.5, kept=0.8)
    assert wet.min() >= 0
    assert wet.max() == pytest.approx(0.5 * weather.RAIN_LIGHT, abs=1e-3)
    touched = (wet[:, 0] > 0.02).float()
    assert 0.01 < touched.mean() < 0.2
    # Down more than across: neighbours below each other are much more alike.
    field = wet[:, 0] - wet[:, 0].mean()
    down = (field[:, 1:] * field[:, :-1]).mean() / field.square().mean()
    across = (field[:, :, 1:] * field[:, :, :-1]).mean() / field.square().mean()
    assert down > across + 0.2
    dry = weather.rain(grey, draws(16), share=0.0, length_px=12, opacity=0.5, kept=0.8)
    assert torch.allclose(dry, grey * 0.8)
    # A streak hides half of the grey behind it and shows half of its own light.
    rained = weather.rain(grey, draws(16), share=0.004, length_px=12, opacity=0.5, kept=0.8)
    assert torch.allclose(rained, 0.4 + wet * (1 - 0.4 / weather.RAIN_LIGHT), atol=1e-5)


def test_the_sets_hold_what_their_domain_is_about() -> None:
    assert {"shot_noise", "gaussian_noise", "contrast_down", "gamma_up", "jpeg_compression"} <= set(
        GROUPS["xray"]
    )
    assert {"uneven_lighting", "brightness", "defocus_blur", "motion_blur"} <= set(GROUPS["lighting"])
    assert set(GROUPS["weather"]) == {"fog", "snow", "rain", "brightness", "motion_blur"}


@pytest.mark.parametrize("group", ["xray", "lighting", "weather"])
def test_a_recipe_asks_for_a_set_and_gets_its_record(group: str) -> None:
    spec = validate(EvaluationSpec, {"corruptions": [group]}, "test")
    plan = EvaluationPlan(
        main=CascadePlan(threat=Threat(eps=0.01), suite=suite_for("quick", "linf")),
        corruptions=spec.corruptions,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=generator)
    weight = torch.randn(768, 3, generator=generator) / 16

    class Planes(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images - 0.5).flatten(1) @ weight

    labels = Planes()(images.float() / 255).argmax(1)
    evaluation = evaluate_images(
        Planes(), images.numpy(), labels.numpy(), np.arange(12), classes=["a", "b", "c"], plan=plan
    )
    (record,) = evaluation.corruptions
    assert record.group == group
    assert list(record.kinds) == list(GROUPS[group])
    rows = torch.arange(12)
    expected = [
        float(
            (Planes()(corrupt(kind, severity, images, rows, 0).float() / 255).argmax(1) == labels)
            .double()
            .mean()
        )
        for kind in GROUPS[group]
        for severity in range(1, 6)
    ]
    assert [value for values in record.kinds.values() for value in values] == pytest.approx(expected)
    assert record.mean_acc == pytest.approx(np.mean(expected))
    assert f"{group}/brightness/1/correct" in evaluation.outcomes.column_names or group == "xray"


def test_an_unknown_set_is_answered_with_those_that_exist() -> None:
    with pytest.raises(RecipeError, match="'xray', 'lighting' or 'weather'"):
        validate(EvaluationSpec, {"corruptions": ["rainy"]}, "test")
