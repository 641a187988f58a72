"""Divergences against torch's own over the whole vocabulary, the bucket of the rest, and a teacher that is the student."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import small
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from genwright.base.errors import RecipeError
from genwright.objectives.distill import Distill, divergence, student_classes, with_the_rest

V = small.VOCABULARY


def top(logits_NV: Tensor, number: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The K likeliest tokens and their log-probabilities: what a teacher stores."""
    values_NK, ids_NK = (logits_NV / temperature).log_softmax(-1).topk(number, dim=-1)
    return ids_NK, values_NK


def taught(prompt: int, answer: int, seed: int, number: int, temperature: float = 1.0) -> Any:
    item = small.answers(prompt, [answer], seed)
    torch.manual_seed(100 + seed)
    ids_NK, values_NK = top(torch.randn(answer, V) * 2, number, temperature)
    return replace(item, columns={"teacher_ids_NK": ids_NK.tolist(), "teacher_log_probs_NK": values_NK.tolist()})


def rows(number: int) -> list[Any]:
    return [taught(5, 3, 1, number), taught(2, 6, 2, number), taught(7, 2, 3, number)]


def losses(
    teacher_NV: Tensor, student_NV: Tensor, number: int, *, temperature: float = 1.0, beta: float = 0.0
) -> Tensor:
    ids_NK, values_NK = top(teacher_NV, number, temperature)
    return divergence(with_the_rest(values_NK, V), student_classes(student_NV, ids_NK, temperature), beta)


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, V) * 2, torch.randn(6, V) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_whole_vocabulary_gives_the_full_kl(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    """torch.distributions' KL, forward and reverse."""
    teacher, student = logits
    p, q = Categorical(logits=teacher / temperature), Categorical(logits=student / temperature)
    forward, reverse = (losses(teacher, student, V, temperature=temperature, beta=beta) for beta in (0.0, 1.0))
    torch.testing.assert_close(forward, kl_divergence(p, q), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(reverse, kl_divergence(q, p), atol=1e-6, rtol=1e-5)


def test_fewer_tokens_by_hand() -> None:
    """Teacher (1/2, 1/4, 1/8, 1/8), student uniform, K = 2: classes (1/2, 1/4, 1/4) against (1/4, 1/4, 1/2).

    KL = 1/2 ln 2 + 0 - 1/4 ln 2 = (ln 2) / 4.
    """
    teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    ids_NK, values_NK = top(teacher, 2)
    found = divergence(with_the_rest(values_NK, 4), student_classes(torch.zeros(1, 4), ids_NK, 1.0), 0.0)
    assert found.item() == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_more_tokens_see_more_of_the_difference(logits: tuple[Tensor, Tensor], beta: float) -> None:
    """Merging classes never raises a divergence, so K goes up to the full one; and it is never below zero."""
    found = torch.stack([losses(*logits, number, beta=beta) for number in (1, 4, 16, V - 1, V)])
    assert (found >= -1e-6).all() and (found.diff(dim=0) >= -1e-5).all()
    assert (found[-1] - found[0]).min() > 0.01


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("number", [1, 5, V])
def test_equal_distributions_have_no_loss_and_no_gradient(
    logits: tuple[Tensor, Tensor], beta: float, number: int
) -> None:
    student = logits[0].double().requires_grad_()
    found = losses(student.detach(), student, number, temperature=2.0, beta=beta)
    found.sum().backward()
    assert found.abs().max() < 1e-12 and student.grad.abs().max() < 1e-12


def test_jsd_is_symmetric_at_a_half_and_at_most_ln_2(logits: tuple[Tensor, Tensor]) -> None:
    teacher, student = (one.log_softmax(-1) for one in logits)
    torch.testing.assert_close(divergence(teacher, student, 0.5), divergence(student, teacher, 0.5))
    apart = torch.tensor([[0.0, -80.0]]), torch.tensor([[-80.0, 0.0]])
    assert divergence(*apart, 0.5).item() == pytest.approx(math.log(2))
    assert (divergence(teacher * 9, student * 9, 0.5) <= math.log(2)).all()


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_written_out(logits: tuple[Tensor, Tensor], beta: float) -> None:
    p, q = (one.softmax(-1) for one in logits)
    mixed = beta * p + (1 - beta) * q
    expected = beta * F.kl_div(mixed.log(), p, reduction="none").sum(-1) + (1 - beta) * F.kl_div(
        mixed.log(), q, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(losses(*logits, V, beta=beta), expected, atol=1e-6, rtol=1e-5)


def test_jsd_becomes_the_kl_at_its_ends(logits: tuple[Tensor, Tensor]) -> None:
    """JSD_beta / beta tends to KL(p || q) as beta goes to 0, and JSD_beta / (1 - beta) to KL(q || p) as it goes to 1."""
    doubles = [one.double() for one in logits]
    near = 1e-6
    torch.testing.assert_close(
        losses(*doubles, V, beta=near) / near, losses(*doubles, V, beta=0.0), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        losses(*doubles, V, beta=1 - near) / near, losses(*doubles, V, beta=1.0), rtol=1e-3, atol=1e-4
    )


def test_a_teacher_with_nothing_left_over_is_finite() -> None:
    """Rounded log-probabilities may add up to more than 1: nothing is left over, and nothing is not a number."""
    stored = torch.tensor([[math.log(0.7) + 1e-3, math.log(0.3) + 1e-3]])
    student = torch.randn(1, V, requires_grad=True)
    for beta in (0.0, 0.5, 1.0):
        found = divergence(with_the_rest(stored, V), student_classes(student, torch.tensor([[3, 4]]), 1.0), beta)
        found.sum().backward()
        assert found.isfinite().all() and student.grad.isfinite().all()


def test_a_small_rest_keeps_its_digits() -> None:
    """The student's rest is e^-30 of the whole: far below what 1 - the given could say in float32."""
    student = torch.tensor([[30.0, 0.0, 0.0]])
    assert student_classes(student, torch.tensor([[0]]), 1.0)[0, 1].item() == pytest.approx(math.log(2) - 30, rel=1e-6)


@pytest.mark.parametrize("number", [3, V])
def test_loss_is_a_mean_over_learned_tokens_times_the_temperature_squared(number: int) -> None:
    ready, items = small.model(), rows(number)
    plain = small.model(attention="eager")
    found, count = 0.0, 0
    for item in items:
        with torch.no_grad():
            logits_NV = plain(input_ids=torch.tensor([item.input_ids])).logits[0, item.positions]
        q = (logits_NV / 3).softmax(-1)
        p_NK = torch.tensor(item.columns["teacher_log_probs_NK"]).exp()
        q_NK = q.gather(1, torch.tensor(item.columns["teacher_ids_NK"]))
        found += float((p_NK * (p_NK / q_NK).log()).sum())
        rest = 1 - p_NK.sum(-1)
        found += float((rest * (rest / (1 - q_NK.sum(-1))).log()).sum()) if number < V else 0.0
        count += len(item.labels)
    assert small.value(Distill(temperature=3.0), ready, small.one_batch(items)) == pytest.approx(
        9 * found / count, rel=1e-4
    )


def test_the_temperature_squared_keeps_the_gradients_size() -> None:
    """Hinton 2015, section 2.1: at high T the gradient in the logits tends to (z - v) / V for centred logits, whatever T."""
    torch.manual_seed(0)
    teacher, student = (one - one.mean() for one in torch.randn(2, 1, V, dtype=torch.float64))
    student.requires_grad_()
    (1000.0**2 * losses(teacher, student, V, temperature=1000.0)).sum().backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / V, rtol=1e-2, atol=1e-4)


ALL = [(Distill(), 5), (Distill(temperature=2.0, beta=0.4), 5), (Distill(beta=1.0), 5), (Distill(), V)]
NAMES = ["forward", "jsd", "reverse", "whole"]


@pytest.mark.parametrize(("objective", "number"), ALL, ids=NAMES)
def test_gradient_is_the_finite_difference(objective: Distill, number: int) -> None:
    small.check_gradient(objective, small.model("gpt2").double(), small.one_batch(rows(number)))


@pytest.mark.parametrize(("objective", "number"), ALL, ids=NAMES)
def test_loss_does_not_depend_on_how_a_step_is_cut(objective: Distill, number: int) -> None:
    small.check_cut(objective, small.model(), rows(number))


@pytest.mark.parametrize(("objective", "number"), ALL, ids=NAMES)
def test_it_runs_on_fake_tensors(objective: Distill, number: int) -> None:
    small.check_fake(objective, rows(number))


def test_a_student_becomes_its_teacher() -> None:
    """From 4 stored tokens of 40 the student learns their chances and the rest's."""
    torch.manual_seed(0)
    teacher, student = torch.randn(3, V) * 2, torch.zeros(3, V, requires_grad=True)
    optimizer = torch.optim.LBFGS([student], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = losses(teacher, student, 4).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    ids_NK, values_NK = top(teacher, 4)
    torch.testing.assert_close(student.detach().log_softmax(-1).gather(1, ids_NK), values_NK, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Distill(temperature=0.0), r"distillation\.temperature is out of range"),
        (lambda: Distill(beta=1.1), r"distillation\.beta is out of range"),
    ],
)
def test_a_constant_out_of_range_is_refused(make: Any, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        make()
