"""What every model of the family shares with transformers: initialisation, attention kernels, strict loading."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from midway_hub import hub
from midway_hub.config import MidwayConfig, checked_precision
from midway_hub.devices import checked_device
from midway_hub.hub.weight_files import PREPROCESSOR
from midway_hub.models._heads import Head
from midway_hub.models._loading import LoadReport, align, check_keys, check_numbers, quiet_loading, without_bars
from midway_hub.models.dynamics import Dynamics
from midway_hub.models.encoder import REGISTER_STD, MidwayEncoder
from midway_hub.processing import MidwayImageProcessor, read_processor


class MidwayPreTrainedModel(PreTrainedModel):
    """Base of all models with a `MidwayConfig`."""

    config_class = MidwayConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    load_report: LoadReport | None = None
    encoder_alone = False
    """Whether an encoder is all that a model of this class holds."""
    _image_processor: MidwayImageProcessor | None = None

    @property
    def image_processor(self) -> MidwayImageProcessor:
        """How frames are made for this network: as its checkpoint says, by ImageNet's normalisation where it does not.

        `net.image_processor.with_short_side(224)` does the same for frames at another size. A network that is trained
        on frames made otherwise is told so by setting it; `save_pretrained` keeps it.
        """
        return self._image_processor or MidwayImageProcessor(multiple=self.config.patch_size)

    @image_processor.setter
    def image_processor(self, processor: MidwayImageProcessor) -> None:
        self._image_processor = processor

    def post_init(self) -> None:
        """Initialise weights and choose between fused and eager attention (`attn_implementation="eager"`)."""
        super().post_init()
        fused = self.config._attn_implementation != "eager"
        for module in self.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal weights, zero biases, unit norms, zero motion tokens and dynamics positions (spec 3).

        Heads draw their own.
        """
        for head in self.children():
            if isinstance(head, Head) and head.holds(module):
                head.initialise_module(module)
                return
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MidwayEncoder):
            if module.pos_embed is not None:
                nn.init.trunc_normal_(module.pos_embed, std=std)
            if module.reg_token is not None:
                nn.init.normal_(module.reg_token, std=REGISTER_STD)
            nn.init.trunc_normal_(module.cls_token, std=std)
        elif isinstance(module, Dynamics):
            nn.init.zeros_(module.motion_tokens)
            nn.init.zeros_(module.position_embedding)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *model_args: Any,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        strict: bool = True,
        torch_dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load weights, in eval mode, refusing any that do not fit the architecture.

        Args:
            pretrained_model_name_or_path: Registry name, Hub repo `org/repo[@revision]`, directory, or
                `.safetensors` file; an existing path wins.
            revision: Branch, tag or commit of the Hub repo.
            cache_dir: Where downloads are kept; default: the Hugging Face cache.
            local_files_only: Never ask the network.
            dtype: Precision of the weights, such as `torch.bfloat16` or `"bfloat16"`; default float32. `"auto"` keeps
                the stored one.
            device: Where to put the network; default: CPU.
            strict: Whether missing or unexpected keys are an error; otherwise they are listed in `load_report`.
            torch_dtype: Older name of `dtype`.
            *model_args: Passed on to transformers.
            **kwargs: Passed on to transformers (`attn_implementation`, `device_map`, `token`, ...).

        Returns:
            The network; `load_report` says where it came from.

        Raises:
            FileNotFoundError: Something that looks like a path does not exist.
            ValueError: Unknown name (close ones are listed), numbers or keys that do not fit (listed), a precision or a
                device that there is not, `dtype` and `torch_dtype` that differ, or a `preprocessor_config.json` that
                says what no processor takes.
            OSError: The Hub cannot be reached, has no such revision, or a file is truncated or corrupted.
        """
        started = time.perf_counter()
        precision = _precision(dtype, torch_dtype)
        device = None if device is None else checked_device(device)
        resolved = hub.resolve(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=kwargs.pop("token", None),
        )
        config, kwargs = _configuration(resolved.directory, kwargs)
        check_numbers(
            cls,
            config,
            hub.shapes_of(resolved.directory),
            source=resolved.source,
            strict=strict,
            encoder_alone=cls.encoder_alone,
        )
        kwargs.pop("output_loading_info", None)
        kwargs.setdefault("use_safetensors", True)
        with quiet_loading():  # transformers' own report comes as a warning; ours is an error or `load_report`
            model, info = super().from_pretrained(
                str(resolved.directory),
                *model_args,
                config=config,
                dtype=precision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        check_keys(info, source=resolved.source, strict=strict)
        align(model)
        model._weights_loaded()
        model.image_processor = read_processor(
            hub.beside(resolved.directory, pretrained_model_name_or_path), patch_size=model.config.patch_size
        )
        if device is not None:
            model = model.to(device)
        model.load_report = LoadReport.of(model, resolved, info, seconds=time.perf_counter() - started)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write weights, configuration, and how frames are made for the network (`preprocessor_config.json`).

        Args:
            save_directory: Folder, made if there is none. A network that nothing is known of but ImageNet's default
                leaves a processor alone that is there already.
            **kwargs: Passed on to transformers (`max_shard_size`, ...).
        """
        there = (Path(save_directory) / PREPROCESSOR).is_file()
        if kwargs.get("is_main_process", True) and (self._image_processor is not None or not there):
            self.image_processor.save_pretrained(save_directory)
        with without_bars():
            super().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload weights, configuration, processor and card to the Hub; a hand-written card in the repo is kept.

        Args:
            repo_id: `org/repo`; made if there is none.
            **kwargs: As `midway_hub.hub.push_to_hub` (processor, private, revision, commit_message, create_pr, token).

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            OSError: The Hub cannot be reached, or the token may not write there.
        """
        return hub.push_to_hub(self, repo_id, **kwargs)

    def _weights_loaded(self) -> None:
        """Set up what loading leaves as transformers wants it."""


def _configuration(directory: Path, kwargs: dict[str, Any]) -> tuple[MidwayConfig, dict[str, Any]]:
    """Read the configuration as transformers would, changed by what the caller says, and give what is left of that."""
    given = kwargs.pop("config", None)
    if isinstance(given, MidwayConfig):
        return given, kwargs
    place = directory if given is None else given
    try:
        return MidwayConfig.from_pretrained(place, return_unused_kwargs=True, **kwargs)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:  # ours, or transformers' own
        raise ValueError(
            f"the configuration in {place} describes no network: {error}. Correct its config.json, or fetch it again"
        ) from error


def _precision(dtype: torch.dtype | str | None, torch_dtype: torch.dtype | str | None) -> torch.dtype | str:
    """The precision that either of two names asks for."""
    asked = {
        value if value == "auto" else checked_precision(value, name=name)
        for name, value in (("dtype", dtype), ("torch_dtype", torch_dtype))
        if value is not None
    }
    if len(asked) > 1:
        raise ValueError(
            f"dtype={dtype} and torch_dtype={torch_dtype}, its older name, ask for two precisions; pass dtype alone"
        )
    name = asked.pop() if asked else "float32"
    return name if name == "auto" else getattr(torch, name)
