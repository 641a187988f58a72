"""A Setup to the pieces of its step: the model its config builds, as its framework runs it, on fake tensors.

The modules are those that `apply` loads; what differs between frameworks (attention's kernel, where adapters stand and in
which type, how the loss reads the head, what is recomputed) is put in place from the framework's row. Three layers of
each stack are traced; a test holds them equal to the whole.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from transformers.initialization import no_init_weights

from genwright.base.errors import RecipeError
from genwright.catalogue.parts import ADAPTERS
from genwright.models.families import family_of
from genwright.models.load import build_model, config_from
from genwright.models.surgery import layers_of
from genwright.plan.here.trace import fake_weights_can_be_cast
from genwright.plan.published.profile import Profile
from genwright.plan.traced.adapters import experts_of, is_wrapped
from genwright.plan.traced.attention import attention_name
from genwright.plan.traced.depth import depths, shrunk
from genwright.plan.traced.heads import head_of, loss_at, read, train_heads_, value_at
from genwright.plan.traced.losses import loss_of
from genwright.plan.traced.pieces import Pieces, Segment, Weight
from genwright.plan.traced.recorder import Cuts, Recorder
from genwright.plan.traced.sequence import split_sequence_
from genwright.plan.traced.setup import PAIRED, TRAINS_BASE, Setup
from genwright.plan.traced.surgery import BITS_OF_BASE, FIRST_PROMPTED, adapt_, fuse_gates_, fuse_norms_, quantize_
from genwright.plan.traced.trace_forward import cache_bytes, forward_peaks

TRACED_LAYERS = 3
"""Of each stack: the first, one that stands for all in the middle, the last."""
UNLIKE_LAYERS = {"llama-adapter": FIRST_PROMPTED, "llama-adapter-v2": FIRST_PROMPTED}
"""First layers that an adapter leaves as they are: traced apart."""
COMPUTE = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "bf16-true": torch.bfloat16, "fp16": torch.float16, "fp16-true": torch.float16,
}  # fmt: skip


def trace_pieces(setup: Setup, profile: Profile, config: dict[str, Any], *, depth: int = TRACED_LAYERS) -> Pieces:
    """`config` is a plain config with its `model_type`. `depth` layers are traced, or all where there are fewer."""
    full = _config(config)
    tail = _tail(full, setup)
    small, stacks = shrunk(full, depth + UNLIKE_LAYERS.get(setup.adapter, 0) + tail - 1)
    splits = _split(small, setup.tensor_degree)
    with fake_weights_can_be_cast(), FakeTensorMode(allow_non_fake_inputs=True), no_init_weights():
        model = _model(small, setup, profile)
        sequence = _splits_sequence(model, setup, profile) and splits
        if sequence:
            split_sequence_(model, setup.tensor_degree, keeps=not profile.fused_qkv)
        lists = _lists(model, stacks)
        weights, parameters = _weights(model, lists, setup)
        if setup.tensor_degree > 1 and setup.adapter != "full":
            weights = _with_wholes(weights, _model(shrunk(full, min(stacks))[0], setup, profile))
        known = [*model.parameters(), *model.buffers()]
        vocabulary = small.get_text_config().vocab_size
        recorder = Recorder(known, vocabulary=vocabulary)
        for number, parameter in enumerate(parameters):
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(partial(_completed, recorder, number))
        for layer in itertools.chain(*lists):
            _recompute_(layer, setup.recompute, recorder)
        cuts = Cuts(recorder, lists)
        batch = _batch(small, setup, profile)
        if sequence:
            batch["position_ids"] = batch["input_ids"]  # of all tokens: the model sees a share of them
        with recorder:
            _microbatch(model, batch, setup, profile, recorder)
        cuts.remove()
        segments = recorder.finish()
        for parameter in model.parameters():
            parameter.grad = None
        layer_peak, head_peak = forward_peaks(model, partial(_evaluate, model, batch, setup, profile), vocabulary)
    if not splits:
        stream = (
            setup.micro_batch * setup.seq_len * full.get_text_config().hidden_size * COMPUTE[setup.precision].itemsize
        )
        whole = 0 if profile.sequence_parallel else stream // setup.context_degree
        segments, weights = _divided(segments, weights, setup.tensor_degree, whole)
    text = full.get_text_config()
    heads = getattr(text, "num_attention_heads", 0) or getattr(text, "n_head", 0) or 1
    width = text.hidden_size
    return Pieces(
        segments, weights, depths(full), [len(layers) for layers in lists], width, getattr(text, "head_dim", None) or width // heads,
        heads, text.vocab_size, getattr(text, "max_position_embeddings", 0) or 0, recorder.left_out,
        sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()), layer_peak, head_peak,
        cache_bytes(full, COMPUTE[setup.precision].itemsize) // setup.tensor_degree, tail,
    )  # fmt: skip


def _tail(config: Any, setup: Setup) -> int:
    """Last layers that are unlike those before them: traced apart. Errors: RecipeError where the model has fewer."""
    if setup.adapter != "last-layers":
        return 1
    trained, whole = int(setup.settings.get("layers", ADAPTERS["last-layers"]().layers)), sum(depths(config))
    if not 1 <= trained <= whole:
        raise RecipeError(
            "last-layers trains more layers than the model has.", wanted=f"1 to {whole}", found=str(trained),
            do='lower it, or plan adapter "full"',
        )  # fmt: skip
    return trained


def _completed(recorder: Recorder, number: int, parameter: nn.Parameter) -> None:
    if parameter.grad is not None:
        recorder.complete(parameter.grad, number)


def _config(values: dict[str, Any]) -> Any:
    """With `genwright_unties`: transformers 5 ties every T5's head on paper, and loads it untied where its config says so."""
    config = config_from(copy.deepcopy(values), "The config")
    unties = family_of(config) == "encoder-decoder" and values.get("tie_word_embeddings") is False
    config.genwright_unties = unties
    return config


def _split(config: Any, degree: int) -> bool:
    """What one of `degree` tensor-parallel ranks has: fewer heads, a narrower feed-forward, a part of the vocabulary.

    False where the config cannot say so: a width of heads of its own is what it takes.
    """
    text = config.get_text_config()
    if degree == 1:
        return True
    heads = getattr(text, "num_attention_heads", 0)
    if not hasattr(text, "head_dim") or not hasattr(text, "intermediate_size") or heads % degree:
        return False
    text.head_dim = text.head_dim or text.hidden_size // heads
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        if getattr(text, name, None):
            setattr(text, name, max(1, getattr(text, name) // degree))
    return True


def _splits_sequence(model: Any, setup: Setup, profile: Profile) -> bool:
    """Whether norms and residuals are split over tokens. Virtual tokens are not counted among those that are."""
    return setup.tensor_degree > 1 and profile.sequence_parallel and not hasattr(model, "genwright_length")


def _divided(
    segments: list[Segment], weights: list[Weight], degree: int, whole: int
) -> tuple[list[Segment], list[Weight]]:
    """A rank's share of a trace that was not split: matrices, their work and what they make by `degree`.

    Activations of at most `whole` bytes stay so: a layer's input, what its norms read and give (the 10 of the 10 + 24 / t of
    Korthikanti 2022, arXiv 2205.05198, table 2). 0 where norms and residuals are split over tokens too.
    """
    widest = max(weight.numel for weight in weights) ** 0.5
    less = [
        weight._replace(numel=max(1, weight.numel // degree)) if weight.numel > 16 * widest else weight
        for weight in weights
    ]
    stays = lambda change: change.part == "activations" and change.bytes <= whole
    size = lambda change: change.bytes if stays(change) else math.ceil(change.bytes / degree)
    kept = 1 / degree if not whole else (10 + 24 / degree) / 34
    cut = [
        segment._replace(
            changes=[change._replace(bytes=size(change)) for change in segment.changes],
            ops=[op._replace(flops=op.flops / degree, bytes=op.bytes * kept) for op in segment.ops],
        )
        for segment in segments
    ]
    return cut, less


def _model(config: Any, setup: Setup, profile: Profile) -> Any:
    """Built, adapted, cast: what the step begins with."""
    compute = COMPUTE[setup.precision]
    full = setup.adapter in ("full", "qat")
    casts = casts_weights(setup, profile)
    masters = torch.float32 if casts else compute
    kept = torch.float32 if casts and (full or (profile.frozen == "fp32" and not setup.base)) else compute
    if experts_of(config):
        kept = masters = compute  # a grouped product is not among what autocast casts
    model = _built(config, kept, setup)
    for module in model.modules():  # an encoder-decoder's stacks have configs of their own
        if hasattr(module, "config"):
            module.config.use_cache = False
    if not profile.ties or config.genwright_unties:
        _untie_(model)
    _fused_gelu_(model, profile.gelu == "fused")
    if profile.norm == "fused" or setup.compile:
        fuse_norms_(model)
    if profile.gate == "fused":
        fuse_gates_(model)
    dtype = torch.float32 if profile.adapter_dtype == "fp32" and casts else compute
    if setup.adapter != "full":
        model.requires_grad_(False)
        if setup.base:
            quantize_(model, setup.base, profile)
        adapt_(model, setup, profile, dtype, masters)
    elif profile.fused_qkv:
        adapt_(model, setup, profile, dtype, masters)
    train_heads_(model)
    return model.train()


def casts_weights(setup: Setup, profile: Profile) -> bool:
    """Whether float32 weights are cast for each use. Where they are split, what is gathered is cast already."""
    return setup.precision in ("bf16", "fp16") and profile.masters == "model" and setup.shards == 1


def _autocast(model: Any, setup: Setup, profile: Profile) -> Any:
    """Where float32 masters are cast for products. Our own adapters cast theirs by themselves (`precision.policy.around`)."""
    own = profile.own_forward and setup.adapter not in TRAINS_BASE and is_wrapped(setup, profile, model.config)
    casts = casts_weights(setup, profile) and not own
    return torch.autocast("cpu", dtype=COMPUTE[setup.precision]) if casts else nullcontext()


def _built(config: Any, dtype: torch.dtype, setup: Setup) -> Any:
    names = [attention_name(setup.attention), "eager" if setup.attention == "eager" else "sdpa", "eager"]
    if family_of(config) == "encoder-decoder":
        names = names[1:]
    for name in names:
        try:
            return build_model(config, dtype, name, head_of(setup.objective))
        except (ValueError, KeyError, ImportError):
            if name == names[-1]:
                raise
    raise AssertionError


def _untie_(model: Any) -> None:
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(torch.empty_like(table.weight))


def _fused_gelu_(model: nn.Module, fused: bool) -> None:
    """The tanh approximation of GELU in one kernel; eager frameworks spell it out in eight operations."""
    if not fused:
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ in ("NewGELUActivation", "FastGELUActivation", "BloomGelu"):
                setattr(module, name, nn.GELU(approximate="tanh"))


def _lists(model: Any, stacks: list[int]) -> list[list[nn.Module]]:
    layers = layers_of(model)[0]
    return [layers[sum(stacks[:number]) : sum(stacks[: number + 1])] for number in range(len(stacks))]


def _weights(model: Any, lists: list[list[nn.Module]], setup: Setup) -> tuple[list[Weight], list[nn.Parameter]]:
    """Every parameter once, with the layer it stands in."""
    where = {
        id(parameter): (stack, number)
        for stack, layers in enumerate(lists) for number, layer in enumerate(layers) for parameter in layer.parameters()
    }  # fmt: skip
    text = model.config.get_text_config()
    experts = experts_of(model.config)
    share = getattr(text, "num_experts_per_tok", 1) / experts if experts else 1.0
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    heads = {id(head.weight)} if head is not None else set()
    rows, parameters = [], []
    for name, parameter in model.named_parameters():
        stack, number = where.get(id(parameter), (-1, 0))
        quantized = getattr(parameter, "genwright_base", "")
        each = BITS_OF_BASE[quantized] / 8 if quantized else parameter.element_size()
        routed = share if experts and "experts" in name and "shared" not in name else 1.0
        rows.append(
            Weight(name, stack, number, parameter.numel(), parameter.requires_grad, each, id(parameter) in tables - heads,
                   getattr(parameter, "genwright_adapter", False), routed)
        )  # fmt: skip
        parameters.append(parameter)
    return rows, parameters


def _with_wholes(weights: list[Weight], unsplit: Any) -> list[Weight]:
    """How many numbers each weight of an adapter has where nothing is split over tensor-parallel ranks."""
    numels = {name: parameter.numel() for name, parameter in unsplit.named_parameters()}
    return [weight._replace(whole=numels.get(weight.name, 0)) if weight.adapter else weight for weight in weights]


def _recompute_(layer: Any, choice: str, recorder: Recorder) -> None:
    """Keep the layer's input only ("full"), or also what every second product gives ("selective")."""
    if choice == "none":
        return
    inner = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        recorder.again = recorder.segments[-1].name == "backward"
        try:
            return inner(*args, **kwargs)
        finally:
            recorder.again = False

    more: dict[str, Any] = {"context_fn": _keeping_products} if choice == "selective" else {}
    layer.forward = lambda *args, **kwargs: checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False, **more, **kwargs
    )


def _keeping_products() -> Any:
    """Attention is kept, and every second product: the selective recomputation of large pre-trainings."""
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    counts = [0, 0]

    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> Any:
        name = operation._overloadpacket.__name__
        if "scaled_dot_product" in name:
            return CheckpointPolicy.MUST_SAVE
        if name in ("mm", "addmm"):
            counts[context.is_recompute] += 1
            if counts[context.is_recompute] % 2:
                return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def _batch(config: Any, setup: Setup, profile: Profile) -> dict[str, Tensor]:
    pairs = 2 if setup.objective in PAIRED else 1
    shape = (setup.micro_batch * pairs, max(2, setup.seq_len // setup.context_degree))
    ids = torch.zeros(shape, dtype=torch.long)
    batch = {"input_ids": ids, "labels": torch.zeros(shape, dtype=torch.long)}
    if family_of(config) == "encoder-decoder":
        batch["decoder_input_ids"] = ids
    elif profile.own_forward and setup.packing and family_of(config) == "decoder":
        batch["position_ids"] = ids  # laid end to end, each token has a position of its own
    return batch


def _microbatch(model: Any, batch: dict[str, Tensor], setup: Setup, profile: Profile, recorder: Recorder) -> None:
    """Forward, loss, backward."""
    with _autocast(model, setup, profile):
        with _saved_elsewhere(setup.offload_activations):
            read_of_it = _read(model, batch, setup)
        recorder.cut("loss", -1, 0)
        loss, logits = _loss(model, read_of_it, batch, setup, profile, lambda: recorder.cut("loss", -1, 0))
        del read_of_it
        held = logits if profile.holds_logits else None
        for tensor in held if isinstance(held, list) else [held]:
            recorder.hold(tensor)
        del logits
    recorder.cut("backward", -1, 0)
    loss.backward()
    del held


def _evaluate(model: Any, batch: dict[str, Tensor], setup: Setup, profile: Profile, recorder: Recorder) -> None:
    """A microbatch without gradients, as `validate` takes it."""
    with _autocast(model, setup, profile):
        read_of_it = _read(model, batch, setup)
        recorder.cut("loss", -1, 0)
        _loss(model, read_of_it, batch, setup, profile, lambda: None)


def _read(model: Any, batch: dict[str, Tensor], setup: Setup) -> Tensor:
    return read(model, head_of(setup.objective), {name: value for name, value in batch.items() if name != "labels"})


def _loss(
    model: Any, read_of_it: Tensor, batch: dict[str, Tensor], setup: Setup, profile: Profile, made: Callable[[], Any]
) -> tuple[Tensor, Any]:
    """Of the head that the objective names, and the logits where that is the language head's."""
    head = head_of(setup.objective)
    if head.kind not in ("language", "value"):
        return loss_at(model, head, read_of_it, setup), None
    loss, logits = loss_of(model, read_of_it, batch["labels"], profile, setup.compile, made)
    return (loss + value_at(model, read_of_it) if head.kind == "value" else loss), logits


@contextmanager
def _saved_elsewhere(active: bool) -> Iterator[None]:
    """Activations of more than a kilobyte wait in the host's memory."""
    if not active:
        yield
        return
    fresh = lambda tensor: tensor.numel() > 1024 and not isinstance(tensor, nn.Parameter)
    pack = lambda tensor: (tuple(tensor.shape), tensor.dtype) if fresh(tensor) else tensor
    unpack = lambda kept: torch.empty(kept[0], dtype=kept[1]) if isinstance(kept, tuple) else kept
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
