"""Attribution: axioms, shapiq as oracle, games with known answers, sampled coalitions."""

import numpy as np
import pytest
import shapiq
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics import contributions as c
from mm_metrics.modalities import Modalities, sampled_coalitions

scores_in_0_1 = st.floats(0, 1, allow_subnormal=False)
games = st.integers(1, 4).flatmap(lambda M: arrays(np.float64, 2**M, elements=scores_in_0_1))
LINEAR = (c.leave_one_out, c.unimodal_gain, c.shapley_values, c.shapley_interactions, c.cooperation)


def members(M: int) -> np.ndarray:
    """``(2**M, M)``: which modality is in which coalition."""
    return np.arange(2**M)[:, None] >> np.arange(M) & 1


def close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), atol=1e-9)


@settings(deadline=None)
@given(games)
def test_efficiency(v):
    close(c.shapley_values(v).sum(), v[-1] - v[0])


@settings(deadline=None)
@given(games, st.randoms(use_true_random=False))
def test_symmetry_a_modality_has_no_place(v, random):
    """Renaming the modalities renames the answers: for two that are alike, equal answers."""
    M = len(v).bit_length() - 1
    order = list(range(M))
    random.shuffle(order)  # new modality i is old modality order[i]
    old_index = (members(M) << np.array(order)).sum(1)
    renamed = v[old_index]
    for function in (c.leave_one_out, c.unimodal_gain, c.shapley_values):
        close(function(renamed), function(v)[order])
    close(c.shapley_interactions(renamed), c.shapley_interactions(v)[order][:, order])
    close(c.cooperation(renamed), c.cooperation(v))


@settings(deadline=None)
@given(games)
def test_dummy_a_modality_that_changes_nothing_gets_nothing(v):
    with_dummy = np.concatenate([v, v])  # the new last modality is of no effect
    for function in (c.leave_one_out, c.unimodal_gain, c.shapley_values):
        result = function(with_dummy)
        close(result[-1], 0)
        close(result[:-1], function(v))
    close(c.shapley_interactions(with_dummy)[-1], 0)


@settings(deadline=None)
@given(games, st.floats(-2, 2), st.floats(-2, 2))
def test_linearity_over_games_and_over_any_trailing_axes(v, a, b):
    other = np.flip(v).copy()
    both = torch.as_tensor(np.stack([v, other], axis=1))
    for function in LINEAR:
        close(function(a * v + b * other), a * function(v) + b * function(other))
        for column in (0, 1):
            close(function(both)[..., column], function(both[:, column]))


@pytest.mark.parametrize("M", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_shapiq_agrees(M, seed):
    v = np.random.default_rng(seed).random(2**M)

    def game(coalitions):
        return v[(np.asarray(coalitions) << np.arange(M)).sum(1)]

    computer = shapiq.ExactComputer(n_players=M, game=game)
    close(c.shapley_values(v), computer("SV").get_n_order_values(1))
    if M > 1:
        close(c.shapley_interactions(v), computer("SII", order=2).get_n_order_values(2))


def test_xor_needs_both():
    """Published for XOR data: InterSHAP 99.7%."""
    v = np.array([0.5, 0.5, 0.5, 1.0])
    assert c.unimodal_gain(v).tolist() == [0, 0]
    close(c.leave_one_out(v), [0.5, 0.5])
    close(c.shapley_values(v), [0.25, 0.25])
    close(c.shapley_interactions(v), [[0, 0.5], [0.5, 0]])
    assert c.cooperation(v) == 0.5
    assert c.interaction_share(v) == 1


def test_redundancy_either_tells_all():
    v = np.array([0.5, 1.0, 1.0, 1.0])
    close(c.leave_one_out(v), [0, 0])
    close(c.unimodal_gain(v), [0.5, 0.5])
    close(c.shapley_values(v), [0.25, 0.25])
    assert c.shapley_interactions(v)[0, 1] == c.cooperation(v) == -0.5
    assert 0 < c.interaction_share(v) < 1


def test_an_additive_game_has_no_interaction():
    weights = np.array([0.3, 0.1, -0.05])
    v = 0.2 + members(3) @ weights
    for function in (c.leave_one_out, c.unimodal_gain, c.shapley_values):
        close(function(v), weights)
    close(c.shapley_interactions(v), np.zeros((3, 3)))
    close(c.cooperation(v), 0)
    close(c.interaction_share(v), 0)


def test_a_game_without_any_effect_has_no_share():
    assert c.interaction_share(torch.full((8,), 0.5)).isnan()


def test_conditional_utilisation_as_wu_et_al_define_it():
    v = np.array([0.1, 0.6, 0.2, 0.8])
    u = c.conditional_utilisation(v)
    close(u, [(0.8 - 0.2) / 0.8, (0.8 - 0.6) / 0.8])
    close(u[0] - u[1], (0.6 - 0.2) / 0.8)  # d_util


def test_the_majority_stands_in_for_a_model_without_inputs():
    table = members(2).astype(bool)[1:]
    v = np.array([0.7, 0.6, 0.9])
    assert c.unimodal_gain(v, table).isnan().all()
    close(c.unimodal_gain(v, table, empty=0.5), [0.2, 0.1])
    close(c.cooperation(v, table, empty=0.5), 0.1)
    whole = np.array([0.4, 0.7, 0.6, 0.9])
    close(c.cooperation(whole, empty=0.5), c.cooperation(whole))  # only where the table lacks it


def test_what_a_table_lacks_is_nan_and_the_rest_is_not():
    v = np.random.default_rng(0).random(8)
    rows = [0, 3, 5, 7]  # none, all but 2, all but 1, all
    close(c.leave_one_out(v[rows], members(3)[rows].astype(bool)), [np.nan, v[7] - v[5], v[7] - v[3]])
    assert c.unimodal_gain(v[rows], members(3)[rows].astype(bool)).isnan().all()
    assert c.shapley_values(v[rows], members(3)[rows].astype(bool)).isnan().all()
    assert c.shapley_error(v[rows], members(3)[rows].astype(bool)).isnan().all()
    assert c.shapley_interactions(v[rows], members(3)[rows].astype(bool))[0, 1].isnan()
    v[4] = np.nan  # audio alone was never scored
    assert c.unimodal_gain(v).isnan().tolist() == [False, False, True]
    assert not c.leave_one_out(v).isnan().any()
    assert c.shapley_values(v).isnan().all()


def test_a_table_in_another_order_gives_the_same():
    v = np.random.default_rng(1).random(8)
    order = np.random.default_rng(2).permutation(8)
    table = members(3).astype(bool)[order]
    for function in (*LINEAR, c.interaction_share, c.conditional_utilisation, c.shapley_error):
        close(function(v[order], table), function(v))


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros(1), 0.5, np.zeros(())])
def test_values_that_are_no_game_are_refused(wrong):
    with pytest.raises(ValueError, match="values"):
        c.shapley_values(wrong)


@pytest.mark.parametrize("table", [np.zeros((3, 2), bool), np.zeros((4, 2)), np.zeros(4, bool)])
def test_a_table_that_does_not_fit_is_refused(table):
    with pytest.raises(ValueError, match=r"coalitions is a \(4, M\) bool table"):
        c.shapley_values(np.zeros(4), table)


def nonlinear(M: int) -> np.ndarray:
    """A game with strong, weak and interacting modalities, saturating as accuracies do."""
    random = np.random.default_rng(M)
    weights = random.normal(size=M)
    pairs = random.normal(size=(M, M)) / M
    shown = members(M)
    return 1 / (1 + np.exp(-(shown @ weights + np.einsum("ki,ij,kj->k", shown, pairs, shown))))


@pytest.mark.parametrize("M", [7, 9, 12])
def test_sampled_coalitions_are_unbiased_and_their_error_is_honest(M):
    v = nonlinear(M)
    exact = c.shapley_values(v)
    estimates, errors = [], []
    for seed in range(40):
        masks = list(sampled_coalitions(M, seed))
        table = members(M)[masks].astype(bool)
        estimates.append(c.shapley_values(v[masks], table))
        errors.append(c.shapley_error(v[masks], table))
    estimates, errors = torch.stack(estimates), torch.stack(errors)
    miss = estimates - exact
    standard_error = estimates.std(0) / len(estimates) ** 0.5
    assert (miss.mean(0).abs() < 4 * standard_error).all()
    assert 0.8 < errors.square().mean().sqrt() / miss.square().mean().sqrt() < 1.25
    assert 0.88 < (miss.abs() < 1.96 * errors).double().mean() < 0.99
    close(estimates.sum(1), np.full(len(estimates), v[-1] - v[0]))  # efficient all the same
    assert miss.square().mean().sqrt() < 0.2 * exact.abs().mean()


def test_twelve_modalities_that_only_add_up_are_exact_from_134_coalitions():
    weights = np.random.default_rng(0).normal(size=12)
    table = Modalities([f"m{i}" for i in range(12)]).table(sampled_coalitions(12))
    assert table.shape == (134, 12)
    close(c.shapley_values(table @ weights, table), weights)
    close(c.shapley_error(table @ weights, table), np.zeros(12))
    for function in (c.leave_one_out, c.unimodal_gain):
        close(function(table @ weights, table), weights)


def test_more_rounds_bring_a_smaller_error():
    v = nonlinear(9)
    errors = []
    for rounds in (1, 4):
        masks = list(sampled_coalitions(9, seed=0, rounds=rounds))
        errors.append(c.shapley_error(v[masks], members(9)[masks].astype(bool)).mean())
    assert errors[1] < 0.6 * errors[0]
    assert (c.shapley_error(v) == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_modality_confusion_sample_by_sample(seed):
    """VGGSounder's μ from a histogram against the definition on the samples themselves."""
    random = np.random.default_rng(seed)
    M = 2 + seed % 2
    right = random.random((2**M, 300)) < 0.5  # (K, N)
    patterns = np.bincount((right << np.arange(2**M)[:, None]).sum(0), minlength=2**2**M)
    ours = c.modality_confusion(torch.as_tensor(patterns))
    alone = [1 << m for m in range(M)]
    close(ours[0], (right[alone].all(0) & ~right[-1]).mean())
    for m in range(M):
        close(ours[1 + m], (right[1 << m] & ~right[-1]).mean())
    with pytest.raises(ValueError, match="alone and all"):
        c.modality_confusion(torch.zeros(4), np.array([[0, 1], [1, 1]], bool))


def test_robustness_areas():
    levels = np.array([0.0, 0.5, 1.0])
    assert c.relative_robustness(np.array([0.8, 0.8, 0.8]), levels) == pytest.approx(0.8)
    scores = np.array([[0.9, 0.5], [0.7, 0.5], [0.5, 0.5]])
    close(c.relative_robustness(scores, levels), [0.7, 0.5])
    reference = np.array([0.7, 0.6, 0.5])
    # Gaps .2, .1, 0 less .2: 0, -.1, -.2
    close(c.effective_robustness(scores[:, 0], reference, levels), -0.1)
    close(c.effective_robustness(scores[:, 0], reference), -0.3)  # as MultiBench's code sums it


def heads(bootstrap: int, unequal: bool = True):
    """Late fusion: a head answers the samples that have its modality; all answer alike, so none is worth more."""
    random = torch.Generator().manual_seed(0)
    n = 600
    target = torch.randint(2, (n,), generator=random)
    presence = torch.ones(n, 2, dtype=torch.bool)
    if unequal:
        presence[:200, 0], presence[200:400, 1] = False, False  # as many have one modality as have the other
    hard = torch.arange(n) % 200 < 100 if unequal else torch.rand(n, generator=random) < 0.2
    answer = torch.where(hard & (torch.arange(n) < 200), 1 - target, target)
    counted = torch.stack([presence[:, 0], presence[:, 1], torch.ones(n, dtype=torch.bool)])
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), num_classes=2, bootstrap=bootstrap, coalitions=["text", "audio", "all"]
    )
    metric.update(answer.expand(3, n), target, presence, index=torch.arange(n), counted=counted)
    return metric.scorecard()


@pytest.mark.parametrize("bootstrap", [0, 100])
def test_heads_are_compared_over_the_samples_that_both_answered(bootstrap):
    apart, together = heads(bootstrap), heads(bootstrap, unequal=False)
    for name, other in (("text", "audio"), ("audio", "text")):
        assert apart.score("accuracy", other) != apart.score("accuracy")  # of other samples
        given = apart.contributions("accuracy")[name]
        assert given.drop.value == together.contributions("accuracy")[name].drop.value == 0
        for part, slice in (("drop", other), ("unimodal_gain", name)):  # the samples that both answered
            expected = getattr(apart.contributions("accuracy", slice=slice)[name], part)
            assert getattr(given, part) == pytest.approx(expected, nan_ok=True)
    assert apart.shared() == 200
    assert any("share 200 of 600" in note for note in apart.verdict().notes)
    assert not any("the same samples" in note for note in together.verdict().notes)


@pytest.mark.parametrize("bootstrap", [0, 100])
def test_what_was_not_answered_by_both_is_no_difference(bootstrap):
    """Runs without ids, of which each lacks other rows: nothing tells which samples they share."""
    target = torch.arange(600) % 2
    answer = torch.where(torch.arange(600) < 100, 1 - target, target)
    counted = torch.ones(3, 600, dtype=torch.bool)
    counted[0, 300:], counted[1, :300] = False, False  # as many, of the same classes
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), num_classes=2, bootstrap=bootstrap, coalitions=["text", "audio", "all"]
    )
    metric.update(answer.expand(3, 600), target, index=torch.arange(600), counted=counted)
    card = metric.scorecard()
    for name in ("text", "audio"):
        drop = card.contributions("accuracy")[name].drop
        assert np.isnan(drop).all()
    assert any("share 0 of 600" in note for note in card.verdict().notes)
