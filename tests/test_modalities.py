"""The vocabulary: names, masks, slices, presence, sampled coalitions."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_metrics.modalities import UNHIDDEN, Modalities, sampled_coalitions

THREE = Modalities(("text", "image", "audio"))


def test_bit_m_of_a_coalition_is_modality_m():
    assert [THREE.name(mask) for mask in range(8)] == [
        "none",
        "text",
        "image",
        "text-image",
        "audio",
        "text-audio",
        "image-audio",
        "text-image-audio",
    ]
    np.testing.assert_array_equal(THREE.table([0, 1, 6]), [[0, 0, 0], [1, 0, 0], [0, 1, 1]])


def test_a_coalition_is_understood_in_any_order():
    for order in permutations(THREE.names):
        assert THREE.mask("-".join(order)) == 7 == THREE.mask("all")
    assert THREE.mask("audio-text") == 5
    assert THREE.mask("none") == 0
    assert THREE.mask(6) == 6


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda M: st.tuples(st.just(M), st.integers(0, 2**M - 1))))
def test_name_and_mask_are_inverse(case):
    M, mask = case
    modalities = Modalities(f"m{i}" for i in range(M))
    assert modalities.mask(modalities.name(mask)) == mask
    assert modalities.masks(modalities.table([mask])) == (mask,)


@pytest.mark.parametrize("typed", ["", "text-", "text-text", "smell", "-audio", 9, -1, None, 1.0])
def test_an_unknown_coalition_is_refused_with_what_was_typed(typed):
    with pytest.raises(ValueError, match="coalition"):
        THREE.mask(typed)


def test_a_near_miss_is_named():
    with pytest.raises(ValueError, match="did you mean 'audio'"):
        THREE.mask("audoi")
    with pytest.raises(ValueError, match="did you mean 'image'"):
        THREE.slice_weights("imgae")


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("text", TypeError),
        ((), ValueError),
        (("a", "a"), ValueError),
        (("all",), ValueError),
        (("none",), ValueError),
        (("a-b",), ValueError),
        (("1a",), ValueError),
        (("",), ValueError),
        ((3,), ValueError),
        (("é",), ValueError),
        (("a\n",), ValueError),
        (("val/x",), ValueError),
    ],
)
def test_names_that_would_break_keys_or_files_are_refused(names, error):
    with pytest.raises(error, match="modalit"):
        Modalities(names)


def test_modalities_of_modalities_is_the_same_value():
    assert Modalities(THREE) == THREE
    assert hash(Modalities(THREE)) == hash(THREE)


def test_which_coalitions_a_word_stands_for():
    assert THREE.masks("all") == tuple(range(8))
    assert THREE.masks("leave_one_out") == (0, 3, 5, 6, 7)
    assert THREE.masks("single") == (0, 1, 2, 4, 7)
    assert THREE.masks(["audio-text", "none"]) == (5, 0)
    assert len(Modalities(list("abcdef")).masks("all")) == 64
    assert len(Modalities(list("abcdefg")).masks("all")) == 2 + 7 * 6


def test_the_models_own_predictions_stand_last():
    assert THREE.masks([UNHIDDEN, "none", "all"]) == (0, 7, 8)
    assert THREE.name(8) == UNHIDDEN


@pytest.mark.parametrize("wrong", ["some", [], ["text", "text"], np.zeros((2, 2), bool), np.zeros((1, 3)), [[0, 1, 1]]])
def test_coalitions_that_are_no_table_are_refused(wrong):
    with pytest.raises(ValueError, match="coalition"):
        THREE.masks(wrong)


def test_a_slice_is_a_sum_of_slices():
    assert THREE.slices == ("all", "text", "image", "audio")
    np.testing.assert_array_equal(THREE.slice_weights("image"), [0, 0, 1, 0])
    np.testing.assert_array_equal(THREE.slice_weights("-audio"), [1, 0, 0, -1])
    for wrong in ("-all", "smell", "", "-"):
        with pytest.raises(ValueError, match="slice"):
            THREE.slice_weights(wrong)


def test_presence_by_name_is_presence_by_column():
    table = torch.tensor([[1, 0, 1], [0, 1, 1]])
    by_name = {name: table[:, m] for m, name in enumerate(THREE.names)}
    shuffled = dict(reversed(by_name.items()))
    device = torch.device("cpu")
    assert torch.equal(THREE.presence(shuffled, 2, device).long(), table)
    assert THREE.presence(None, 2, device) is None
    mixed = by_name | {"audio": by_name["audio"].bool()}
    assert torch.equal(THREE.presence(mixed, 2, device).long(), table)


@pytest.mark.parametrize(
    ("presence", "error", "match"),
    [
        ([[1, 1, 1]], TypeError, "list"),
        (np.ones((1, 3), bool), TypeError, "ndarray"),
        (torch.ones(1, 3), TypeError, "float32"),
        (torch.ones(1, 3, dtype=torch.complex64), TypeError, "complex"),
        (torch.ones(3, dtype=torch.bool), ValueError, r"\(3,\)"),
        (torch.ones(1, 2, dtype=torch.bool), ValueError, r"\(1, 2\)"),
        (torch.ones((), dtype=torch.bool), ValueError, r"\(\)"),
        ({"text": torch.ones(1, dtype=torch.bool)}, ValueError, "image"),
        ({name: torch.ones(2, dtype=torch.bool) for name in THREE.names}, ValueError, r"presence\['text'\]"),
        ({name: torch.ones(1) for name in THREE.names}, TypeError, r"presence\['text'\]"),
        (torch.ones(1, 3, dtype=torch.bool, device="meta"), ValueError, "meta"),
    ],
)
def test_presence_of_a_wrong_kind_is_refused(presence, error, match):
    with pytest.raises(error, match=match):
        THREE.presence(presence, 1, torch.device("cpu"))


@pytest.mark.parametrize("M", [1, 2, 3, 7, 12])
def test_sampled_coalitions_hold_all_singles_and_all_but_one(M):
    masks = sampled_coalitions(M, seed=3)
    full = 2**M - 1
    assert {0, full, *(1 << m for m in range(M)), *(full ^ 1 << m for m in range(M))} <= set(masks)
    assert masks == tuple(sorted(set(masks)))
    assert masks == sampled_coalitions(M, seed=3)
    if M > 3:
        assert masks != sampled_coalitions(M, seed=4)


def test_sampled_coalitions_treat_all_of_a_size_alike():
    """Unbiased just if each subset of a size is as likely as any other: chi-square over 3,000 seeds."""
    M, size, seeds = 5, 2, 3000
    seen = Counter(mask for seed in range(seeds) for mask in sampled_coalitions(M, seed) if mask.bit_count() == size)
    expected = seeds * M / 10
    assert len(seen) == 10
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 27.9  # 9 degrees, p = 0.001
