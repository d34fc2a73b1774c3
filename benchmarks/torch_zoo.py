"""Architectures of transformers, torchvision and timm, and recurrent ones, small and with random weights: through
`gc.from_torch` their outputs, and their losses after ten AdamW steps, are to be those of PyTorch."""
from __future__ import annotations

import argparse
import copy
import importlib.util
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
from graphc import nn, optim

STEPS, RATE, TOLERANCE = 10, 1e-3, 1e-4
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
IMAGES = "ViT DeiT Beit ConvNext ConvNextV2 ResNet RegNet Swin Segformer PoolFormer Dinov2 MobileViT ViTMAE".split()
VISION = ("resnet18 resnet50 resnext50_32x4d wide_resnet50_2 regnet_y_400mf regnet_x_400mf efficientnet_b0 "
          "efficientnet_v2_s mobilenet_v2 mobilenet_v3_small mobilenet_v3_large convnext_tiny vit_b_32 swin_t "
          "swin_v2_t densenet121 googlenet inception_v3 shufflenet_v2_x0_5 squeezenet1_1 mnasnet0_5 "
          "vgg11_bn alexnet maxvit_t").split()
TIMM = ("mixer_s32_224 gmlp_ti16_224 resmlp_12_224 deit_tiny_patch16_224 cait_xxs24_224 levit_128s pit_ti_224 "
        "convmixer_768_32 poolformer_s12 edgenext_xx_small ghostnet_050 hardcorenas_a hrnet_w18_small dla34 "
        "repvgg_a0 resnest14d rexnet_100 selecsls42 skresnet18 tresnet_m tinynet_e mobilevit_xxs xcit_nano_12_p8_224 "
        "efficientformer_l1 coat_lite_tiny fbnetc_100 crossvit_tiny_240 eva02_tiny_patch14_224 nf_resnet26").split()


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


def of_transformers(family: str, pairs: bool, image: bool) -> Model:
    """A small model of a family of transformers."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        import transformers
        config = getattr(transformers, f"{family}Config")()
        quiet = {n: 0.0 for n in vars(config) if "drop" in n and isinstance(getattr(config, n), int | float)
                 and not isinstance(getattr(config, n), bool)}
        known = {n: v for n, v in SIZES.items() if n in vars(config) or n in getattr(config, "attribute_map", {})}
        if image and family not in ("ViT", "DeiT", "Beit", "Dinov2", "ViTMAE"):       # with sizes for each stage
            known = {"image_size": 64, "window_size": 4} if family == "Swin" else {}
        elif image:
            sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
            known = {n: v for n, v in known.items() if n in sizes and isinstance(getattr(config, n), int)}
            known |= {"image_size": 64} if "image_size" in vars(config) else {}
        config = type(config)(**{n: v for n, v in {**known, **quiet}.items() if v is not None})
        model = without_dropout(getattr(transformers, f"{family}Model")(config))
        if image and family not in ("ViT", "DeiT", "Beit", "Dinov2", "ViTMAE"):       # with sizes for each stage
            known = {"image_size": 64, "window_size": 4} if family == "Swin" else {}
        elif image:
            return First(model, ("pixel_values",)), [torch.randn(2, 3, 64, 64)]
        ids = torch.randint(3, 90, (2, 12))
        names = ("input_ids", "decoder_input_ids") if pairs else ("input_ids",)
        return First(model, names), [ids, ids.clone()][:len(names)]
    return Model(f"transformers {family}", make)


def of_vision(name: str) -> Model:
    """A model of torchvision, on small images."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        import torchvision
        size = {"inception_v3": 299, "maxvit_t": 224, "vit_b_32": 224}.get(name, 64)
        inception = name in ("googlenet", "inception_v3")
        options: dict[str, Any] = {"init_weights": True, "aux_logits": False} if inception else {}
        model = getattr(torchvision.models, name)(num_classes=10, **options)
        return First(without_dropout(model)), [torch.randn(2, 3, size, size)]
    return Model(f"torchvision {name}", make)


def of_timm(name: str) -> Model:
    """A model of timm."""
    def make() -> tuple[tnn.Module, list[torch.Tensor]]:
        import timm
        model = timm.create_model(name, num_classes=10, drop_rate=0.0)
        size = model.default_cfg["input_size"][-1]
        return First(without_dropout(model)), [torch.randn(2, 3, size, size)]
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
        yield from (of_transformers(f, False, False) for f in TEXT)
        yield from (of_transformers(f, True, False) for f in PAIRS)
        yield from (of_transformers(f, False, True) for f in IMAGES)
    if importlib.util.find_spec("torchvision"):
        yield from map(of_vision, VISION)
    if importlib.util.find_spec("timm"):
        yield from map(of_timm, TIMM)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, as a share of the largest number."""
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


def check(model: Model) -> tuple[float, float, dict[str, float]]:
    """Differences of outputs and of losses after the steps, and seconds."""
    torch.manual_seed(0)
    module, inputs = model.make()
    arrays, took, start = [t.numpy() for t in inputs], {}, time.perf_counter()
    net = gc.from_torch(module.eval(), *inputs)
    took["read"], start = time.perf_counter() - start, time.perf_counter()
    run = gc.compile(net)
    took["compile"] = time.perf_counter() - start
    with torch.no_grad():
        wanted = module(*inputs).numpy()
    output = difference(run(*arrays), wanted)
    target = torch.randn(wanted.shape) * float(wanted.std() + 1e-3)
    start = time.perf_counter()
    loss = losses_differ(module, inputs, target)
    took["train and steps"] = time.perf_counter() - start
    if loss > TOLERANCE:            # whether it is rounding that is amplified: in f64 there is none to speak of
        inputs = [t.double() if t.is_floating_point() else t for t in inputs]
        took["losses in f64"] = losses_differ(module.double(), inputs, target.double())
    return output, loss, took


def losses_differ(module: tnn.Module, inputs: list[torch.Tensor], target: torch.Tensor) -> float:
    """The largest difference of the losses of ten steps, relative."""
    trained, arrays = copy.deepcopy(module).train(), [t.numpy() for t in inputs]
    y = (gc.f64 if target.dtype is torch.float64 else gc.f32)[tuple(target.shape)]
    step = gc.train_step(gc.from_torch(copy.deepcopy(module).train(), *inputs), loss=nn.mse,
                         optimizer=optim.AdamW(RATE), y=y)
    optimizer = torch.optim.AdamW(trained.parameters(), RATE)
    losses = []
    for _ in range(STEPS):
        loss = tnn.functional.mse_loss(trained(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((float(step(*arrays, target.numpy())), float(loss.detach())))
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in losses)


def main(arguments: list[str]) -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch zoo")
    parser.add_argument("--only", action="append", help="models whose name contains it")
    parser.add_argument("--trace", action="store_true", help="the whole traceback of what fails")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    options = parser.parse_args(arguments)
    part, parts = map(int, options.part.split("/"))
    right, tried = 0, 0
    for model in list(all_models())[part::parts]:
        if options.only and not any(text in model.name for text in options.only):
            continue
        tried += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                output, loss, took = check(model)
            good = output <= TOLERANCE and loss <= TOLERANCE
            right += good
            print(f"{'ok ' if good else 'BAD'} {model.name}: output {output:.1e}, losses {loss:.1e}, "
                  + ", ".join(f"{k} {v:.2g}" for k, v in took.items()), flush=True)
        except Exception as error:
            if options.trace:
                traceback.print_exc()
            print(f"BAD {model.name}: {type(error).__name__}: {str(error)[:700]}", flush=True)
    print(f"{right} of {tried} models agree", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
