"""The passes that leave fewer operators, of fewer kinds, in their order."""
from __future__ import annotations

from functools import partial

from graphc.passes.canonicalize import Canonicalize
from graphc.passes.compute_stored import ComputeStored
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.fold_batch_norm import FoldBatchNorm
from graphc.passes.fold_constants import FoldConstants
from graphc.passes.fuse_loops import FuseLoops
from graphc.passes.gather_one_hot import GatherOneHot
from graphc.passes.integer_weights import ScaleProducts
from graphc.passes.join_concats import JoinConcats
from graphc.passes.licm import LoopInvariantCodeMotion
from graphc.passes.pads_to_concat import PadsToConcat
from graphc.passes.pipeline import Pass
from graphc.passes.read_stored import ReadStored
from graphc.passes.recognize_attention import RecognizeAttention
from graphc.passes.sparse_gradients import SparseGradients
from graphc.passes.visible_keys import VisibleKeys
from graphc.schedule.attention_forms import is_kept
from graphc.schedule.target import Target

SIMPLIFY = (
    Canonicalize(),                     # before folding and cse: one form of equal things
    FoldConstants(),
    EliminateCommonSubexpressions(),    # after canonicalize: forward and backward meet in the same form
    PadsToConcat(),                     # before licm and fusion: the gradient of a split is then one node
    JoinConcats(),                      # after that, which makes some; after cse: slices of one array are of one value
    FuseLoops(),                        # after cse: equal operands are one value; before licm, which hides equal bodies
    LoopInvariantCodeMotion(),          # after cse: what does not depend on the carries is then one node, moved once
    Canonicalize(),                     # hoisting stacks and reshapes
    EliminateCommonSubexpressions(),
    SparseGradients(),                  # after cse, when readers can be counted
    ScaleProducts(),                    # before dce: what products no longer read; before `read_stored`
    EliminateDeadCode(),                # before fusion: a dead reader would keep a value in memory
    FoldBatchNorm(),                    # after all that makes chains of factors simpler; before `split_state`
)


def simplification(target: Target) -> tuple[Pass, ...]:
    """The passes that leave fewer operators, of fewer kinds."""
    keep = partial(is_kept, target=target)
    return (
        EliminateDeadCode(),            # first: differentiation leaves much that nobody reads
        ComputeStored(),                # before all that joins operators or takes them apart: each rounds its result
        GatherOneHot(),                 # before decompose, which takes one_hot apart
        RecognizeAttention(keep),       # before decompose, which takes softmax apart; after dce: no dead readers
        EliminateCommonSubexpressions(),    # before decompose, which asks of attention what gradient is beside it
        VisibleKeys(),                  # before decompose, which takes attention apart
        Decompose(keep),                # before the rest: composites hide equal and constant parts
        *SIMPLIFY,
        ReadStored(target),             # after all that knows products or moves what loops need; before `split_state`
        EliminateDeadCode(),            # conversions that no product needs any more
    )
