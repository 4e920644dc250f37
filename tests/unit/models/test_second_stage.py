"""The second stage: its trees against a plain walk, and hostile files refused by code."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

import fedcac.models.second_stage_document as document_module
from fedcac.canonical import canonical_bytes
from fedcac.errors import PackageError
from fedcac.models.second_stage import RISK_CATEGORIES, SecondStage
from fedcac.models.second_stage_document import read_booster
from fedcac.models.second_stage_features import FEATURE_NAMES

N_EXAMS = 60
INCREMENTS_MM = np.full(N_EXAMS, 5.0)
Document = dict[str, Any]


def exams() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(8)
    features = np.where(rng.random((N_EXAMS, 20)) < 0.3, 0.0, rng.gamma(1.0, 150.0, (N_EXAMS, 20)))
    return features, features[:, 0] * rng.lognormal(0, 0.4, N_EXAMS)


def booster_bytes(objective: str) -> bytes:
    features, scores = exams()
    is_classifier = objective == "multi:softprob"
    labels = RISK_CATEGORIES.categorise(scores) if is_classifier else np.log1p(scores)
    booster = xgboost.train(
        {"objective": objective, "max_depth": 3, "min_child_weight": 0.01, "nthread": 1}
        | ({"num_class": 5} if is_classifier else {}),
        xgboost.DMatrix(features, label=labels, feature_names=list(FEATURE_NAMES)),
        num_boost_round=4,
    )
    booster.set_attr(slice_increment_mm="5")
    return bytes(booster.save_raw("json"))


CLASSIFIER, REGRESSION = booster_bytes("multi:softprob"), booster_bytes("reg:absoluteerror")


def walk(tree: Document, row: NDArray[np.float32]) -> float:
    node = 0
    while tree["left_children"][node] >= 0:
        is_left = row[tree["split_indices"][node]] < np.float32(tree["split_conditions"][node])
        node = tree["left_children" if is_left else "right_children"][node]
    return float(tree["split_conditions"][node])


def margins(payload: bytes, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of leaves of every exam and group, by a walk in Python."""
    learner = json.loads(payload)["learner"]
    model = learner["gradient_booster"]["model"]
    base = np.array(json.loads(learner["learner_model_param"]["base_score"]))
    found = np.tile(base, (len(features), 1))
    for tree, group in zip(model["trees"], model["tree_info"], strict=True):
        found[:, group] += [walk(tree, row) for row in features.astype(np.float32)]
    return found


def test_a_classifier_gives_the_softmax_of_its_leaves() -> None:
    features, scores = exams()
    verdicts = SecondStage.from_bytes(CLASSIFIER).predict(features, INCREMENTS_MM)
    leaves = np.exp(margins(CLASSIFIER, features))
    expected = leaves / leaves.sum(axis=1, keepdims=True)
    assert verdicts.probabilities is not None
    np.testing.assert_allclose(verdicts.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(verdicts.categories, expected.argmax(axis=1))
    assert verdicts.scores is None
    assert np.mean(verdicts.categories == RISK_CATEGORIES.categorise(scores)) > 0.6


def test_a_regression_gives_scores_and_their_categories() -> None:
    features, scores = exams()
    verdicts = SecondStage.from_bytes(REGRESSION).predict(features, INCREMENTS_MM)
    expected = np.maximum(np.expm1(margins(REGRESSION, features)[:, 0]), 0)
    assert verdicts.scores is not None
    assert verdicts.probabilities is None
    np.testing.assert_allclose(verdicts.scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(verdicts.categories, RISK_CATEGORIES.categorise(verdicts.scores))
    assert np.corrcoef(verdicts.scores, scores)[0, 1] > 0.5


def test_a_score_is_never_negative() -> None:
    document = json.loads(REGRESSION)
    document["learner"]["learner_model_param"]["base_score"] = "[-3E1]"
    verdicts = SecondStage.from_bytes(canonical_bytes(document)).predict(exams()[0], INCREMENTS_MM)
    assert verdicts.scores is not None
    np.testing.assert_array_equal(verdicts.scores, 0.0)


@pytest.mark.parametrize("payload", [CLASSIFIER, REGRESSION])
def test_an_exam_is_judged_alike_alone_and_among_others(payload: bytes) -> None:
    features, _ = exams()
    together = SecondStage.from_bytes(payload).predict(features, INCREMENTS_MM)
    again = SecondStage.from_bytes(payload)
    for index in range(0, N_EXAMS, 7):
        alone = again.predict(features[index : index + 1], INCREMENTS_MM[:1])
        assert alone.categories[0] == together.categories[index]
        if together.scores is not None and alone.scores is not None:
            assert alone.scores[0] == together.scores[index]
    assert again.predict(features[:0], INCREMENTS_MM[:0]).categories.shape == (0,)


@pytest.mark.parametrize(("increment_mm", "is_known"), [(4.5, True), (5.5, True), (3.0, False)])
def test_exams_of_another_slice_increment_are_refused(increment_mm: float, is_known: bool) -> None:
    stage = SecondStage.from_bytes(CLASSIFIER)
    increments = np.array([5.0, increment_mm])
    if is_known:
        assert stage.predict(exams()[0][:2], increments).categories.shape == (2,)
        return
    with pytest.raises(PackageError) as caught:
        stage.predict(exams()[0][:2], increments)
    assert caught.value.code == "package.second_stage_increment"


def test_features_that_are_not_twenty_finite_numbers_are_refused() -> None:
    stage = SecondStage.from_bytes(CLASSIFIER)
    with pytest.raises(ValueError, match="20"):
        stage.predict(np.zeros((2, 19)), INCREMENTS_MM[:2])
    with pytest.raises(ValueError, match="finite"):
        stage.predict(np.full((1, 20), np.nan), INCREMENTS_MM[:1])


def tree_of(document: Document) -> Document:
    """Return a tree whose node 2 is neither its root nor a leaf."""
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    tree: Document = next(tree for tree in trees if (tree["left_children"] + [-1] * 2)[2] >= 0)
    return tree


def ring_beside_the_root(document: Document) -> None:
    """Every node but the root has exactly one parent, and yet 3 and 4 are each other's child."""
    tree = tree_of(document)
    for name, array in tree.items():
        if isinstance(array, list) and array:
            tree[name] = [0] * 7
    tree["left_children"] = [1, -1, -1, 4, 3, -1, -1]
    tree["right_children"] = [2, -1, -1, 5, 6, -1, -1]
    tree["parents"] = [2**31 - 1, 0, 0, 4, 3, 3, 4]
    tree["tree_param"]["num_nodes"] = "7"


def cycle_to_root(document: Document) -> None:
    tree_of(document)["left_children"][2] = 0


def cycle_to_itself(document: Document) -> None:
    tree_of(document)["right_children"][0] = 0


def shared_child(document: Document) -> None:
    tree = tree_of(document)
    tree["right_children"][0] = tree["left_children"][0]


def child_out_of_range(document: Document) -> None:
    tree_of(document)["left_children"][0] = 10_000_000


def half_leaf(document: Document) -> None:
    tree_of(document)["left_children"][0] = -1


def wrong_parent(document: Document) -> None:
    tree_of(document)["parents"][1] = 2


def split_on_feature_20(document: Document) -> None:
    tree_of(document)["split_indices"][0] = 20


def short_array(document: Document) -> None:
    tree_of(document)["split_conditions"].pop()


def more_nodes_than_arrays(document: Document) -> None:
    tree_of(document)["tree_param"]["num_nodes"] = "999999999"


def categorical_split(document: Document) -> None:
    tree_of(document)["split_type"][0] = 1


def huge_leaf(document: Document) -> None:
    tree = tree_of(document)
    tree["split_conditions"][tree["left_children"].index(-1)] = 1e30


def beyond_float32(document: Document) -> None:
    tree_of(document)["split_conditions"][0] = 1e39


def leaf_as_text(document: Document) -> None:
    tree_of(document)["split_conditions"][0] = "1.0"


def wrong_group(document: Document) -> None:
    document["learner"]["gradient_booster"]["model"]["tree_info"][3] = 4_000_000


def missing_tree(document: Document) -> None:
    document["learner"]["gradient_booster"]["model"]["trees"].pop()


def rounds_out_of_range(document: Document) -> None:
    document["learner"]["gradient_booster"]["model"]["iteration_indptr"][-1] = 10**9


def no_trees(document: Document) -> None:
    document["learner"]["gradient_booster"]["model"]["trees"] = []


def dart(document: Document) -> None:
    document["learner"]["gradient_booster"]["name"] = "dart"


def unknown_objective(document: Document) -> None:
    document["learner"]["objective"] = {"name": "binary:logistic", "reg_loss_param": {}}


def squared_error(document: Document) -> None:
    """Of the mean of a logarithm `expm1` would make something else than a median score."""
    document["learner"]["objective"]["name"] = "reg:squarederror"


def three_categories(document: Document) -> None:
    document["learner"]["objective"]["softmax_multiclass_param"]["num_class"] = "3"


def mixed_objective(document: Document) -> None:
    document["learner"]["learner_model_param"]["num_class"] = "0"


def nineteen_features(document: Document) -> None:
    document["learner"]["learner_model_param"]["num_feature"] = "19"


def tree_of_nineteen_features(document: Document) -> None:
    tree_of(document)["tree_param"]["num_feature"] = "19"


def features_in_another_order(document: Document) -> None:
    document["learner"]["feature_names"].reverse()


def unnamed_features(document: Document) -> None:
    document["learner"]["feature_names"] = []


def half_typed_features(document: Document) -> None:
    document["learner"]["feature_types"] = ["float"] * 10


def extra_key(document: Document) -> None:
    document["learner"]["callbacks"] = "os.system"


def extra_attribute(document: Document) -> None:
    document["learner"]["attributes"]["scikit_learn"] = "{}"


def no_increment(document: Document) -> None:
    document["learner"]["attributes"] = {}


def zero_increment(document: Document) -> None:
    document["learner"]["attributes"]["slice_increment_mm"] = "0.0"


def short_base_score(document: Document) -> None:
    document["learner"]["learner_model_param"]["base_score"] = "[0.5]"


def huge_base_score(document: Document) -> None:
    document["learner"]["learner_model_param"]["base_score"] = "[1e999,0,0,0,0]"


def broken_base_score(document: Document) -> None:
    document["learner"]["learner_model_param"]["base_score"] = "[1,,2]"


def old_version(document: Document) -> None:
    document["version"] = [1, 7, 0]


FAULTS: list[tuple[Callable[[Document], None], str]] = [
    *(
        (fault, "trees")
        for fault in (ring_beside_the_root, cycle_to_root, cycle_to_itself, shared_child)
    ),
    *((fault, "trees") for fault in (child_out_of_range, half_leaf, wrong_parent, short_array)),
    *((fault, "trees") for fault in (split_on_feature_20, more_nodes_than_arrays, huge_leaf)),
    *((fault, "trees") for fault in (wrong_group, missing_tree, rounds_out_of_range)),
    (mixed_objective, "trees"),
    *((fault, "malformed") for fault in (categorical_split, beyond_float32)),
    *((fault, "malformed") for fault in (leaf_as_text, no_trees, dart, extra_key, old_version)),
    *((fault, "malformed") for fault in (extra_attribute, no_increment, zero_increment)),
    *((fault, "malformed") for fault in (short_base_score, huge_base_score, broken_base_score)),
    *((fault, "objective") for fault in (unknown_objective, squared_error, three_categories)),
    *((fault, "features") for fault in (nineteen_features, tree_of_nineteen_features)),
    *((fault, "features") for fault in (features_in_another_order, unnamed_features)),
    (half_typed_features, "features"),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_file_with_one_fault_is_refused_by_its_code(
    fault: Callable[[Document], None], code: str
) -> None:
    document = json.loads(CLASSIFIER)
    before = copy.deepcopy(document)
    fault(document)
    assert document != before
    with pytest.raises(PackageError) as caught:
        read_booster(canonical_bytes(document))
    assert caught.value.code == f"package.second_stage_{code}"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_leaf_that_is_no_number_is_refused(number: str) -> None:
    leaf = json.loads(CLASSIFIER)["learner"]["gradient_booster"]["model"]["trees"][0]
    text = json.dumps(leaf["split_conditions"]).replace(" ", "")
    payload = canonical_bytes(json.loads(CLASSIFIER)).decode()
    assert text in payload
    broken = payload.replace(text, f"[{number},{text.split(',', 1)[1]}")
    with pytest.raises(PackageError) as caught:
        read_booster(broken.encode())
    assert caught.value.code == "package.second_stage_malformed"


def test_files_that_are_no_json_of_the_schema_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ubj = xgboost.Booster()
    ubj.load_model(bytearray(CLASSIFIER))
    for payload in (
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"learner":' * 50_000,
        b"\xff\xfe" + CLASSIFIER,
        CLASSIFIER + b"{}",
        bytes(ubj.save_raw("ubj")),
        *(CLASSIFIER[:length] for length in range(1, len(CLASSIFIER), len(CLASSIFIER) // 40)),
    ):
        with pytest.raises(PackageError) as caught:
            SecondStage.from_bytes(payload)
        assert caught.value.code == "package.second_stage_malformed"
    monkeypatch.setattr(document_module, "MAXIMUM_BYTES", len(CLASSIFIER) - 1)
    with pytest.raises(PackageError) as caught:
        read_booster(CLASSIFIER)
    assert caught.value.code == "package.second_stage_too_large"


def test_a_key_given_twice_is_read_one_way_only() -> None:
    """Of two equal keys, one written with an escape, XGBoost takes another than the checks."""
    hostile = REGRESSION.replace(b'"base_score":"[', b'"base_score":"[5E0]","b\\u0061se_score":"[')
    features, _ = exams()
    unchecked = xgboost.Booster()
    unchecked.load_model(bytearray(hostile))
    matrix = xgboost.DMatrix(features, feature_names=list(FEATURE_NAMES))
    found, expected = (
        SecondStage.from_bytes(payload).predict(features, INCREMENTS_MM).scores
        for payload in (hostile, REGRESSION)
    )
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    assert np.abs(np.log1p(found) - unchecked.predict(matrix)).min() > 1


@pytest.mark.parametrize("payload", [CLASSIFIER, REGRESSION])
def test_damaged_files_are_refused_or_still_give_sound_verdicts(payload: bytes) -> None:
    features, _ = exams()
    rng = np.random.default_rng(4)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(payload)
        for position in rng.integers(0, len(payload), rng.integers(1, 4)):
            damaged[position] = int(rng.choice(list(b'0123456789-.eE,:[]{}"aZ \x00\xff')))
        try:
            verdicts = SecondStage.from_bytes(bytes(damaged)).predict(features, INCREMENTS_MM)
        except PackageError:
            n_refused += 1
            continue
        assert set(verdicts.categories.tolist()) <= set(range(5))
        numbers = verdicts.scores if verdicts.scores is not None else verdicts.probabilities
        assert numbers is not None
        assert np.isfinite(numbers).all()
        assert (numbers >= 0).all()
    assert 50 < n_refused < 150
