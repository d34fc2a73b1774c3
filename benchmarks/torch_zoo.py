"""Small models of transformers, torchvision and timm, and recurrent ones, with random weights: through `gc.from_torch`
their outputs, and their losses after ten AdamW steps, are to be those of PyTorch."""
from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn as tnn

import graphc as gc
from benchmarks.torch_rounding import LastBits
from graphc import nn, optim
from graphc.doors.torch.read import TYPES

STEPS, RATE, TOLERANCE, TOLERANCE_F64, FURTHER = 10, 1e-3, 1e-4, 1e-5, 3.0
ROUNDINGS = 8       # runs of PyTorch whose last bits are drawn: how far one of them goes says little
BATCH = 8           # of images: batch norms over fewer numbers amplify rounding more
SIZES = dict(
    hidden_size=32, d_model=32, n_embd=32, dim=32, embedding_size=32, num_hidden_layers=2, n_layer=2, n_layers=2,
    num_layers=2, encoder_layers=2, decoder_layers=2, num_decoder_layers=2, num_attention_heads=4, n_head=4, n_heads=4,
    num_heads=4, encoder_attention_heads=4, decoder_attention_heads=4, num_key_value_heads=2, head_dim=8, d_kv=8,
    intermediate_size=48, n_inner=48, hidden_dim=48, d_ff=48, ffn_dim=48, encoder_ffn_dim=48, decoder_ffn_dim=48,
    vocab_size=99, max_position_embeddings=64, n_positions=64, n_ctx=64, word_embed_proj_dim=32, rotary_dim=4,
    decoder_vocab_size=99, attention_types=[[["global", "local"], 1]], window_size=8, type_vocab_size=2,
    embedding_dim=32, use_cache=False, max_source_positions=64, max_target_positions=64, projection_dim=16,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, rotary_pct=0.5,
    attention_window=8, n_groups=2, layer_types=None, share_att_key=True)
TEXT = ("Bert Roberta DistilBert Albert Electra DebertaV2 MPNet RoFormer XLMRoberta Camembert Ernie MobileBert "
        "ConvBert SqueezeBert Nystromformer MegatronBert GPT2 GPTNeo GPTJ GPTNeoX OPT Bloom Llama Mistral Qwen2 Qwen3 "
        "Gemma Gemma2 Phi Phi3 StableLm Falcon Olmo Olmo2 Cohere Starcoder2 Granite CodeGen CTRL XGLM BioGpt Persimmon "
        "Helium SmolLM3 FNet ModernBert Funnel Splinter").split()
PAIRS = "T5 Bart MBart Pegasus Marian Blenderbot M2M100 ProphetNet".split()
STAGES = dict(embedding_size=8, depths=[1, 1, 1, 1])
IMAGES: dict[str, dict[str, Any]] = {
    "ViT": {}, "DeiT": {}, "Beit": {}, "Dinov2": {}, "ViTMSN": {}, "Dinov2WithRegisters": {},
    "ConvNext": dict(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
    "ConvNextV2": dict(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
    "ResNet": dict(STAGES, hidden_sizes=[16, 24, 32, 48]), "RegNet": dict(STAGES, hidden_sizes=[16, 24, 32, 48],
                                                                        groups_width=8),
    "Swin": dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=64),
    "Swinv2": dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=64),
    "Segformer": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]),
    "PoolFormer": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "MobileViT": dict(image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 48])}
VISION: dict[str, dict[str, Any]] = {
    "resnet18": {}, "regnet_y_400mf": {}, "efficientnet_b0": {}, "mobilenet_v2": dict(width_mult=0.25),
    "mobilenet_v3_small": dict(width_mult=0.5), "convnext_tiny": {}, "vit_b_32": {}, "swin_t": {}, "swin_v2_t": {},
    "densenet121": {}, "googlenet": dict(init_weights=True, aux_logits=False),
    "inception_v3": dict(init_weights=True, aux_logits=False), "shufflenet_v2_x0_5": {}, "squeezenet1_1": {},
    "mnasnet0_5": {}, "vgg11_bn": {}, "alexnet": {}, "resnext50_32x4d": {}, "maxvit_t": {}, "efficientnet_v2_s": {}}
SIDES = {"inception_v3": 96, "maxvit_t": 224, "vit_b_32": 224}
SHORT, THIN = dict(img_size=64, depth=2), dict(depths=(1, 1, 1, 1))
TIMM: dict[str, dict[str, Any]] = {
    "mixer_s32_224": dict(img_size=64), "gmlp_ti16_224": dict(img_size=64),
    "resmlp_12_224": dict(img_size=64), "deit_tiny_patch16_224": SHORT,
    "cait_xxs24_224": SHORT, "xcit_nano_12_p8_224": SHORT, "eva02_tiny_patch14_224": dict(img_size=56, depth=2),
    "poolformer_s12": {},
    "edgenext_xx_small": dict(depths=(2, 2, 2, 2)), "convnext_atto": dict(THIN, dims=(16, 24, 32, 48)),
    "swin_tiny_patch4_window7_224": dict(img_size=64, window_size=4, depths=(2, 2), embed_dim=24, num_heads=(2, 4)),
    "skresnet18": dict(layers=(1, 1, 1, 1)), "resnest14d": {}, "res2net50_26w_4s": dict(layers=(1, 1, 1, 1)),
    "resnet10t": {}, "seresnet18": dict(layers=(1, 1, 1, 1)), "densenet121": dict(block_config=(2, 2, 2, 2)),
    "ghostnet_050": {}, "tinynet_e": {}, "mobilenetv3_small_050": {}, "regnetx_002": {}, "repvgg_a0": {},
    "mobilevit_xxs": {}, "coat_lite_tiny": dict(img_size=64),
    "pit_ti_224": dict(img_size=64), "levit_128s": {}, "nf_resnet26": {}, "legacy_seresnet18": dict(
        layers=(1, 1, 1, 1)), "hrnet_w18_small": {}, "dla34": {}, "rexnet_100": {}, "efficientformer_l1": {}}
WHOLE = frozenset({"levit_128s", "efficientformer_l1"})           # of the size that their tables of positions have


class First(tnn.Module):
    """A model that returns the first tensor of its result."""

    def __init__(self, model: tnn.Module, named: tuple[str, ...] = ()):
        super().__init__()
        self.model, self.named = model, named

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        found = self.model(**dict(zip(self.named, arrays))) if self.named else self.model(*arrays)
        while not isinstance(found, torch.Tensor):
            found = found[0] if isinstance(found, tuple | list) else next(iter(found.values()))
        return found


@dataclass(frozen=True)
class Model:
    """How to make a model, and what it is called with."""
    name: str
    make: Callable[[], tuple[tnn.Module, list[torch.Tensor]]]


def without_dropout(model: tnn.Module) -> tnn.Module:
    """The same model, deterministic in training mode too."""
    for part in model.modules():
        if isinstance(part, tnn.Dropout | tnn.Dropout1d | tnn.Dropout2d):
            part.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "drop_prob", "hidden_dropout", "dropout_p",
                     "layerdrop", "drop_path", "dropout_prob", "attn_dropout", "attention_dropout_prob", "attn_drop"):
            if isinstance(vars(part).get(name), float):
                setattr(part, name, 0.0)
        if type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    return model


def of_text(family: str, pairs: bool) -> Model:
    """A small model of a family of transformers, on tokens; with `pairs` one that has a decoder."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        model = _of_transformers(family, lambda config: {
            n: v for n, v in SIZES.items() if n in vars(config) or n in getattr(config, "attribute_map", {})})
        ids = torch.randint(3, 90, (2, 12))
        names = ("input_ids", "decoder_input_ids") if pairs else ("input_ids",)
        return First(model, names), [ids, ids.clone()][:len(names)]
    return Model(f"transformers {family}", make)


def of_images(family: str, sizes: dict[str, Any]) -> Model:
    """The same on images; those whose sizes are not given have layers of one width."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        wanted = sizes or {n: SIZES[n] for n in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                                 "intermediate_size")} | {"image_size": 64}
        model = _of_transformers(family, lambda config: {n: v for n, v in wanted.items() if n in vars(config)})
        return First(model, ("pixel_values",)), [torch.randn(BATCH, 3, 64, 64)]
    return Model(f"transformers {family}", make)


def _of_transformers(family: str, sizes: Callable[[Any], dict[str, Any]]) -> tnn.Module:
    """The model of a family with these sizes, and nothing dropped."""
    import transformers
    config = getattr(transformers, f"{family}Config")()
    quiet = {n: 0.0 for n, v in vars(config).items() if "drop" in n and isinstance(v, int | float)
             and not isinstance(v, bool)}
    config = type(config)(**{n: v for n, v in {**sizes(config), **quiet}.items() if v is not None})
    return without_dropout(getattr(transformers, f"{family}Model")(config))


def of_vision(name: str, options: dict[str, Any]) -> Model:
    """A model of torchvision, on small images."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        import torchvision
        model = getattr(torchvision.models, name)(num_classes=10, **options)
        return First(without_dropout(model)), [torch.randn(BATCH, 3, SIDES.get(name, 64), SIDES.get(name, 64))]
    return Model(f"torchvision {name}", make)


def of_timm(name: str, options: dict[str, Any]) -> Model:
    """A model of timm, on small images."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        import timm
        model = timm.create_model(name, num_classes=10, drop_rate=0.0, **options)
        for part in model.modules():            # a last layer of zeros gives nothing to compare
            if isinstance(part, tnn.Linear) and not part.weight.any():
                tnn.init.normal_(part.weight, std=0.1)
        side = model.default_cfg["input_size"][-1] if name in WHOLE else options.get("img_size", 64)
        return First(without_dropout(model)), [torch.randn(BATCH, 3, side, side)]
    return Model(f"timm {name}", make)


class Tagger(tnn.Module):
    """Embedding, a recurrent layer, a linear one."""

    def __init__(self, layer: tnn.Module, width: int):
        super().__init__()
        self.embed, self.layer, self.out = tnn.Embedding(50, 16), layer, tnn.Linear(width, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(self.embed(ids))
        return self.out(y)


class Translator(tnn.Module):
    """An encoder whose last state starts a decoder, with attention over what the encoder said."""

    def __init__(self, kind: type[tnn.Module], attends: bool):
        super().__init__()
        self.source, self.target = tnn.Embedding(50, 16), tnn.Embedding(50, 16)
        self.encoder, self.decoder = kind(16, 24, batch_first=True), kind(16, 24, batch_first=True)
        self.attends, self.out = attends, tnn.Linear(48 if attends else 24, 50)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(self.source(source))
        y, _ = self.decoder(self.target(target), state)
        if self.attends:
            weights = torch.softmax(y @ memory.transpose(1, 2), -1)
            y = torch.cat([y, weights @ memory], -1)
        return self.out(y)


class Cells(tnn.Module):
    """A loop in Python over a cell."""

    def __init__(self, kind: type[tnn.Module]):
        super().__init__()
        self.cell, self.out = kind(6, 12), tnn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.out(state[0] if isinstance(state, tuple) else state)


class ConvRecurrent(tnn.Module):
    """Convolutions before a recurrent layer, as for speech."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = tnn.Conv1d(8, 16, 3, padding=1, stride=2), tnn.BatchNorm1d(16)
        self.layer, self.out = tnn.GRU(16, 12, batch_first=True, bidirectional=True), tnn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(x))).transpose(1, 2)
        return self.out(self.layer(y)[0]).log_softmax(-1)


def recurrent() -> Iterator[Model]:
    """Recurrent and sequence-to-sequence models."""
    ids = lambda: [torch.randint(0, 50, (3, 9))]
    pair = lambda: [torch.randint(0, 50, (3, 9)), torch.randint(0, 50, (3, 7))]
    rows: dict[str, tuple[Callable[[], tnn.Module], Callable[[], list[torch.Tensor]]]] = {
        "LSTM": (lambda: Tagger(tnn.LSTM(16, 24, batch_first=True), 24), ids),
        "LSTM, 2 layers, both directions": (
            lambda: Tagger(tnn.LSTM(16, 24, 2, batch_first=True, bidirectional=True), 48), ids),
        "LSTM with projections": (lambda: Tagger(tnn.LSTM(16, 24, batch_first=True, proj_size=10), 10), ids),
        "GRU": (lambda: Tagger(tnn.GRU(16, 24, batch_first=True), 24), ids),
        "GRU, 2 layers, both directions, time first": (lambda: Tagger(tnn.GRU(16, 24, 2, bidirectional=True), 48), ids),
        "RNN tanh": (lambda: Tagger(tnn.RNN(16, 24, batch_first=True), 24), ids),
        "RNN relu without biases": (lambda: Tagger(tnn.RNN(16, 24, nonlinearity="relu", bias=False), 24), ids),
        "LSTMCell loop": (lambda: Cells(tnn.LSTMCell), lambda: [torch.randn(3, 5, 6)]),
        "GRUCell loop": (lambda: Cells(tnn.GRUCell), lambda: [torch.randn(3, 5, 6)]),
        "encoder-decoder LSTM": (lambda: Translator(tnn.LSTM, False), pair),
        "encoder-decoder GRU with attention": (lambda: Translator(tnn.GRU, True), pair),
        "convolutions and GRU": (ConvRecurrent, lambda: [torch.randn(3, 8, 20)]),
        "nn.Transformer": (lambda: without_dropout(tnn.Transformer(16, 2, 1, 1, 32, batch_first=True)),
                           lambda: [torch.randn(2, 7, 16), torch.randn(2, 5, 16)])}
    for name, (make, inputs) in rows.items():
        yield Model(f"recurrent {name}", lambda make=make, inputs=inputs: (make(), inputs()))


def all_models() -> Iterator[Model]:
    """Those whose packages are there."""
    yield from recurrent()
    if importlib.util.find_spec("transformers"):
        yield from (of_text(f, False) for f in TEXT)
        yield from (of_text(f, True) for f in PAIRS)
        yield from (of_images(f, sizes) for f, sizes in IMAGES.items())
    if importlib.util.find_spec("torchvision"):
        yield from (of_vision(name, options) for name, options in VISION.items())
    if importlib.util.find_spec("timm"):
        yield from (of_timm(name, options) for name, options in TIMM.items())


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, as a share of the largest number."""
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


@dataclass
class Found:
    """Of one model: the differences of outputs and of losses, relative, and seconds. Where losses in f32 differ, those
    of f64, and how far rounding alone moves PyTorch's: f32 from f64, or all numbers changed in their last bit."""
    output: float
    losses: float
    took: dict[str, float]
    losses_f64: float | None = None
    own: float = 0.0

    @property
    def good(self) -> bool:
        """Losses agree in f32; or in f64, where rounding moves PyTorch's own f32 further than the tolerance, and
        graphc's are not much further off: batch norms on a few numbers, and AdamW's first steps, which divide a
        gradient near zero by its own size, amplify it."""
        if self.output > TOLERANCE or self.losses <= TOLERANCE or self.losses_f64 is None:
            return max(self.output, self.losses) <= TOLERANCE
        return self.losses_f64 <= TOLERANCE_F64 and self.own > TOLERANCE and self.losses <= FURTHER * self.own

    def __str__(self) -> str:
        text = f"output {self.output:.1e}, losses {self.losses:.1e}"
        if self.losses_f64 is not None:
            text += f", in f64 {self.losses_f64:.1e}, where rounding moves PyTorch's by {self.own:.1e}"
        return text + "".join(f", {k} {v:.2g} s" for k, v in self.took.items())


def check(model: Model) -> Found:
    """A model against PyTorch."""
    torch.manual_seed(0)
    module, inputs = model.make()
    arrays, took, start = [t.numpy() for t in inputs], {}, time.perf_counter()
    net = gc.from_torch(module.eval(), *inputs)
    took["read"], start = time.perf_counter() - start, time.perf_counter()
    run = gc.compile(net, threads=1)
    took["compile"] = time.perf_counter() - start
    with torch.no_grad():
        wanted = module(*inputs).numpy()
    found = Found(difference(run(*arrays), wanted), 0.0, took)
    target, start = torch.randn(wanted.shape) * float(wanted.std() + 1e-3), time.perf_counter()
    eager, ours = eager_losses(module, inputs, target), our_losses(module, inputs, target)
    took["train and steps"] = time.perf_counter() - start
    found.losses = apart(ours, eager)
    if found.losses > TOLERANCE:
        with LastBits():
            beside = [eager_losses(module, inputs, target) for _ in range(ROUNDINGS)]
        inputs = [t.double() if t.is_floating_point() else t for t in inputs]
        exact, ours = (f(module.double(), inputs, target.double()) for f in (eager_losses, our_losses))
        found.losses_f64 = apart(ours, exact)
        found.own = max(apart(eager, exact), *(apart(losses, eager) for losses in beside))
    return found


def our_losses(module: tnn.Module, inputs: list[torch.Tensor], target: torch.Tensor) -> list[float]:
    """graphc's losses of the steps."""
    arrays, y = [t.numpy() for t in inputs], TYPES[target.dtype][tuple(target.shape)]
    step = gc.train_step(gc.from_torch(copy.deepcopy(module).train(), *inputs), loss=nn.mse,
                         optimizer=optim.AdamW(RATE), threads=1, y=y)
    return [float(step(*arrays, target.numpy())) for _ in range(STEPS)]


def eager_losses(module: tnn.Module, inputs: list[torch.Tensor], target: torch.Tensor) -> list[float]:
    """PyTorch's."""
    trained, found = copy.deepcopy(module).train(), list[float]()
    optimizer = torch.optim.AdamW(trained.parameters(), RATE)
    for _ in range(STEPS):
        loss = tnn.functional.mse_loss(trained(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def apart(a: list[float], b: list[float]) -> float:
    """The largest difference, relative."""
    return max(abs(x - y) / max(abs(y), 1e-6) for x, y in zip(a, b))


def verdict(model: Model, traced: bool) -> tuple[bool, str]:
    """Whether a model agrees, and what is to be said of it. `traced`: prints the whole traceback of what fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = check(model)
        return found.good, str(found)
    except Exception as error:
        if traced:
            traceback.print_exc()
        return False, f"{type(error).__name__}: {str(error)[:700]}"


def _kept(path: str | None) -> dict[str, bool]:
    """The models that a file of an earlier run has, and whether they agreed."""
    if path is None or not os.path.exists(path):
        return {}
    with open(path) as file:
        return {name: good for name, good, _ in map(json.loads, file)}


def main(arguments: list[str]) -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch zoo")
    parser.add_argument("--only", action="append", help="models whose name contains it")
    parser.add_argument("--trace", action="store_true", help="the whole traceback of what fails")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    parser.add_argument("--out", help="a file of verdicts: models that are in it are not tried again, others added")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new model after so long")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)            # models are small, and other work may stand beside this
    part, parts = map(int, options.part.split("/"))
    end, done = time.perf_counter() + 60 * options.minutes, _kept(options.out)
    models = [m for m in list(all_models())[part::parts]
              if not options.only or any(text in m.name for text in options.only)]
    for model in models:
        if model.name in done or time.perf_counter() > end:
            continue
        good, text = verdict(model, options.trace)
        done[model.name] = good
        print(f"{'ok ' if good else 'BAD'} {model.name}: {text}", flush=True)
        if options.out:
            with open(options.out, "a") as file:
                file.write(json.dumps([model.name, good, text]) + "\n")
    tried = [done[m.name] for m in models if m.name in done]
    print(f"{sum(tried)} of {len(tried)} models agree, of {len(models)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
