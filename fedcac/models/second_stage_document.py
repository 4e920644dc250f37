"""XGBoost's JSON of a second stage, read as data and checked before any of it is executed.

The schema is that of XGBoost 3 (its documentation, 'Introduction to Model IO'), narrowed to what a
second stage can be: a `gbtree` booster of scalar leaves and numerical splits over the named
features. What XGBoost then parses is this module's own canonical writing of the checked document,
never the bytes that arrived: two parsers cannot read one file in two ways.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.errors import PackageError
from fedcac.models.second_stage_features import FEATURE_NAMES

__all__ = ["MAXIMUM_BYTES", "N_CATEGORIES", "BoosterDocument", "read_booster"]

MAXIMUM_BYTES = 16 * 1024**2
"""Largest accepted file; a hundred rounds of five trees of depth three are about 0.5 MB."""

N_CATEGORIES = 5
"""Risk categories of Eng 2021 (I-V)."""

_MAXIMUM_TREES = 10_000
_MAXIMUM_NODES = 4095
_NO_PARENT = 2**31 - 1
_FLOAT32_MAX = 3.4028234e38
# Leaves may not sum to more: exp() of it is still finite, and real boosters stay below 100.
_LARGEST_MARGIN = 700.0

_Number = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]
_Integer = Annotated[int, Field(ge=-1, le=_NO_PARENT)]
_Zero = Annotated[int, Field(ge=0, le=0)]
_Flag = Annotated[int, Field(ge=0, le=1)]
_Count = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
_Empty = Annotated[tuple[int, ...], Field(max_length=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _TreeParameters(_Part):
    num_deleted: Literal["0"]
    num_feature: _Count
    num_nodes: _Count
    size_leaf_vector: Literal["1"]


class _Tree(_Part):
    """One tree as parallel arrays over its nodes; a leaf's value stands in `split_conditions`."""

    base_weights: tuple[_Number, ...]
    categories: _Empty
    categories_nodes: _Empty
    categories_segments: _Empty
    categories_sizes: _Empty
    default_left: tuple[_Flag, ...]
    id: _Integer
    left_children: tuple[_Integer, ...]
    loss_changes: tuple[_Number, ...]
    parents: tuple[_Integer, ...]
    right_children: tuple[_Integer, ...]
    split_conditions: tuple[_Number, ...]
    split_indices: tuple[_Integer, ...]
    split_type: tuple[_Zero, ...]
    sum_hessian: tuple[_Number, ...]
    tree_param: _TreeParameters


class _NoCategories(_Part):
    enc: _Empty
    feature_segments: _Empty
    sorted_idx: _Empty


class _BoosterParameters(_Part):
    num_parallel_tree: Literal["1"]
    num_trees: _Count


class _Trees(_Part):
    cats: _NoCategories
    gbtree_model_param: _BoosterParameters
    iteration_indptr: tuple[_Integer, ...]
    tree_info: tuple[_Integer, ...]
    trees: Annotated[tuple[_Tree, ...], Field(min_length=1, max_length=_MAXIMUM_TREES)]


class _Booster(_Part):
    model: _Trees
    name: Literal["gbtree"]


class _LearnerParameters(_Part):
    base_score: Annotated[str, Field(pattern=r"^\[[-+0-9.eE,]{1,400}\]$")]
    boost_from_average: Literal["0", "1"]
    num_class: _Count
    num_feature: _Count
    num_target: Literal["1"]


class _SoftmaxParameters(_Part):
    num_class: Literal["5"]


class _Softmax(_Part):
    name: Literal["multi:softprob"]
    softmax_multiclass_param: _SoftmaxParameters


class _AbsoluteError(_Part):
    name: Literal["reg:absoluteerror"]


class _Attributes(_Part):
    """What the fit adds to the booster: the slice increment of the exams it was fitted on, mm."""

    slice_increment_mm: Annotated[str, Field(pattern=r"^[0-9]{1,2}(\.[0-9]{1,4})?$")]


class _Learner(_Part):
    attributes: _Attributes
    feature_names: tuple[str, ...]
    feature_types: Annotated[tuple[Literal["float"], ...], Field(max_length=len(FEATURE_NAMES))]
    gradient_booster: _Booster
    learner_model_param: _LearnerParameters
    objective: Annotated[_Softmax | _AbsoluteError, Field(discriminator="name")]


class BoosterDocument(_Part):
    """A whole booster file. Only `read_booster` returns one that was checked."""

    learner: _Learner
    version: tuple[Literal[3], _Integer, _Integer]

    @property
    def is_classifier(self) -> bool:
        """Whether the trees give the probabilities of the five risk categories."""
        return self.learner.objective.name == "multi:softprob"

    @property
    def slice_increment_mm(self) -> float:
        """The slice increment that the trees were fitted on, in mm."""
        return float(self.learner.attributes.slice_increment_mm)

    def to_bytes(self) -> bytes:
        """Return canonical JSON of the checked document, for XGBoost to load."""
        return canonical_bytes(self.model_dump(mode="json"))


def read_booster(payload: bytes) -> BoosterDocument:
    """Return the checked document of an XGBoost JSON file; nothing is executed.

    Raises
    ------
    PackageError
        `second_stage_too_large`; `second_stage_malformed` if it is no JSON of the schema (unknown
        or missing keys, NaN, another kind of booster); `second_stage_objective` if the objective
        is neither `multi:softprob` of five categories nor `reg:absoluteerror`;
        `second_stage_features` if the features are not `FEATURE_NAMES` in order;
        `second_stage_trees` if a tree is not one rooted binary tree over these features or the
        trees do not make whole rounds.
    """
    if len(payload) > MAXIMUM_BYTES:
        raise _refused("too_large", f"over {MAXIMUM_BYTES} bytes")
    try:
        document = BoosterDocument.model_validate_json(payload)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = problem["loc"]
        code = "objective" if place[:2] == ("learner", "objective") else "malformed"
        raise _refused(code, f"{'.'.join(map(str, place))}: {problem['msg']}") from error
    _check_features(document)
    _check_rounds(document)
    n_groups = N_CATEGORIES if document.is_classifier else 1
    margins = np.abs(_base_scores(document, n_groups))
    for number, tree in enumerate(document.learner.gradient_booster.model.trees):
        margins[number % n_groups] += _largest_leaf(tree, number)
    if not np.all(margins <= _LARGEST_MARGIN):
        raise _refused("trees", "the leaves sum to more than any score")
    return document


def _refused(code: str, reason: str) -> PackageError:
    return PackageError(
        f"The second stage is not acceptable: {reason}.",
        code=f"second_stage_{code}",
        cure="Ask whoever made the package for trees fitted with this release.",
    )


def _check_features(document: BoosterDocument) -> None:
    learner = document.learner
    count = str(len(FEATURE_NAMES))
    counts = {tree.tree_param.num_feature for tree in learner.gradient_booster.model.trees}
    if learner.feature_names != FEATURE_NAMES or learner.learner_model_param.num_feature != count:
        raise _refused("features", "its features are not this release's, in order")
    if counts != {count} or len(learner.feature_types) not in (0, len(FEATURE_NAMES)):
        raise _refused("features", "its trees were fitted on another number of features")
    if not document.slice_increment_mm > 0:
        raise _refused("malformed", "its slice increment is not positive")


def _check_rounds(document: BoosterDocument) -> None:
    """Every round holds one tree per category, or the one tree of a regression."""
    model = document.learner.gradient_booster.model
    n_groups = N_CATEGORIES if document.is_classifier else 1
    n_trees = len(model.trees)
    has_groups = document.learner.learner_model_param.num_class == (
        str(N_CATEGORIES) if document.is_classifier else "0"
    )
    if (
        not has_groups
        or n_trees % n_groups
        or model.gbtree_model_param.num_trees != str(n_trees)
        or model.tree_info != tuple(number % n_groups for number in range(n_trees))
        or model.iteration_indptr != tuple(range(0, n_trees + 1, n_groups))
    ):
        raise _refused("trees", "its trees do not make whole rounds")


def _base_scores(document: BoosterDocument, n_groups: int) -> NDArray[np.float64]:
    try:
        values: Any = json.loads(document.learner.learner_model_param.base_score)
    except ValueError as error:
        raise _refused("malformed", "base_score is no list of numbers") from error
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (n_groups,) or not np.all(np.abs(scores) <= _LARGEST_MARGIN):
        raise _refused("malformed", "base_score does not fit the objective")
    return scores


def _largest_leaf(tree: _Tree, number: int) -> float:
    """Return the largest absolute leaf of a sound tree."""
    n_nodes = int(tree.tree_param.num_nodes)
    arrays = (
        tree.base_weights,
        tree.default_left,
        tree.left_children,
        tree.loss_changes,
        tree.parents,
        tree.right_children,
        tree.split_conditions,
        tree.split_indices,
        tree.split_type,
        tree.sum_hessian,
    )
    is_sized = 1 <= n_nodes <= _MAXIMUM_NODES and {len(array) for array in arrays} == {n_nodes}
    if not is_sized or tree.id != number:
        raise _refused("trees", f"the arrays of tree {number} do not fit together")
    left, right = np.array(tree.left_children), np.array(tree.right_children)
    is_leaf = left < 0
    indices = np.array(tree.split_indices)
    if np.any((indices < 0) | (indices >= len(FEATURE_NAMES))):
        raise _refused("trees", f"a node of tree {number} splits on no feature")
    if not _is_one_tree(left, right, np.array(tree.parents)):
        raise _refused("trees", f"tree {number} is not one binary tree from its root")
    return float(np.abs(np.array(tree.split_conditions)[is_leaf]).max())


def _is_one_tree(
    left: NDArray[np.int64], right: NDArray[np.int64], parents: NDArray[np.int64]
) -> bool:
    n_nodes = left.size
    inner = np.flatnonzero(left >= 0)
    children = np.concatenate([left[inner], right[inner]])
    # Each node but the root has exactly one parent, which says the same. A -1 on one side of an
    # inner node fails here too.
    if not np.array_equal(np.sort(children), np.arange(1, n_nodes)):
        return False
    expected = np.full(n_nodes, _NO_PARENT)
    expected[children] = np.concatenate([inner, inner])
    if not np.array_equal(parents, expected):
        return False
    # Nodes off the root could still close a ring among themselves.
    n_reached, level = 0, np.array([0])
    while level.size:
        n_reached += level.size
        level = level[left[level] >= 0]
        level = np.concatenate([left[level], right[level]])
    return n_reached == n_nodes
