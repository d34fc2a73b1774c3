"""Known networks, each declared in a few lines of public names. `names` translates the parameters' names of other
programs."""
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.models.alexnet import ALEXNET_NAMES, alexnet
from graphc.models.bert import BERT_NAMES, bert, bert_large
from graphc.models.gpt import GPT_NAMES, gpt, gpt2, gpt3
from graphc.models.lenet import lenet
from graphc.models.mobilenet import mobilenet
from graphc.models.names import in_order, renamed
from graphc.models.resnet import BasicBlock, Bottleneck, resnet, resnet18, resnet50


def __getattr__(name: str) -> _Any:
    return _other_name("models", name)
