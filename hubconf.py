"""Entry points for torch.hub: `torch.hub.load("org/midway", "midway_vits")`.

Every entry imports what it needs when it is called, and needs the base dependencies alone.
"""

dependencies = ["torch", "timm", "transformers", "huggingface_hub", "safetensors"]


def _network(name, pretrained, **kwargs):
    from midway_hub import MidwayConfig, MidwayNetwork
    from midway_hub.registry import get_entry

    if pretrained:
        return MidwayNetwork.from_pretrained(name, **kwargs)
    return MidwayNetwork(MidwayConfig(**{**get_entry(name).architecture, **kwargs}))


def _with_head(task, size, pretrained, **kwargs):
    from midway_hub import list_models
    from midway_hub.models.network import MissingHeadError

    names = list_models(f"*{size}*", task=task)
    if not names:
        have = ", ".join(list_models(task=task)) or "none yet"
        raise MissingHeadError(
            f"no {size} checkpoint with a {task} head is published; checkpoints that have one: {have}"
        )
    return _network(names[0], pretrained, **kwargs)


def midway_vits(pretrained=True, **kwargs):
    """ViT-S/16 Midway Network, pretrained on BDD100K (300 epochs; weights of the paper's authors, CC-BY-4.0).

    Args:
        pretrained: Load weights; otherwise initialise at random.
        **kwargs: For `MidwayNetwork.from_pretrained` (device, dtype, revision, cache_dir, local_files_only), or, when
            not pretrained, numbers of `MidwayConfig`.

    Returns:
        A `MidwayNetwork`. Frames are (B, 3, H, W), normalised, with H and W multiples of 16; `midway_processor` makes
        them. Pretrained networks come in eval mode.

    Example:
        >>> net = torch.hub.load("org/midway", "midway_vits")
        >>> net.encode(torch.randn(1, 3, 224, 224)).last.shape
        torch.Size([1, 384, 14, 14])
        >>> net.infer_motion(frame, next_frame).latents[0].shape
        torch.Size([1, 10, 192])
    """
    return _network("midway_vits_bdd100k", pretrained, **kwargs)


def midway_vitb(pretrained=True, **kwargs):
    """ViT-B/16 Midway Network, pretrained on BDD100K (300 epochs; weights of the paper's authors, CC-BY-4.0).

    Args:
        pretrained: Load weights; otherwise initialise at random.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` of width 768: `encode(images).last` is (B, 768, H/16, W/16).

    Example:
        >>> net = torch.hub.load("org/midway", "midway_vitb", device="cuda")
    """
    return _network("midway_vitb_bdd100k", pretrained, **kwargs)


def midway_vits_wt(pretrained=True, **kwargs):
    """ViT-S/16 Midway Network, pretrained on Walking Tours Venice (100 epochs; authors' weights, CC-BY-4.0).

    Args:
        pretrained: Load weights; otherwise initialise at random.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` of width 384: `encode(images).last` is (B, 384, H/16, W/16).

    Example:
        >>> net = torch.hub.load("org/midway", "midway_vits_wt")
    """
    return _network("midway_vits_wtvenice", pretrained, **kwargs)


def midway_pico(pretrained=True, **kwargs):
    """Very small Midway Network with flow and segmentation heads that ships with the code and loads offline.

    Args:
        pretrained: Load the bundled weights, trained on synthetic worlds; otherwise random ones, without heads.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` of width 64: `encode(images).last` is (B, 64, H/8, W/8).

    Example:
        >>> net = torch.hub.load("org/midway", "midway_pico")
        >>> net.flow(torch.randn(1, 3, 96, 128), torch.randn(1, 3, 96, 128)).flow.shape
        torch.Size([1, 2, 96, 128])
    """
    return _network("midway_pico", pretrained, **kwargs)


def midway_pico_untrained(pretrained=True, **kwargs):
    """Small Midway Network of seeded random numbers that ships with the code, for trying shapes and plumbing out.

    Args:
        pretrained: Load the bundled numbers; otherwise draw others.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` of width 128: `encode(images).last` is (B, 128, H/16, W/16).

    Example:
        >>> net = torch.hub.load("org/midway", "midway_pico_untrained")
        >>> net.infer_motion(torch.randn(1, 3, 96, 96), torch.randn(1, 3, 96, 96)).levels
        (8, 5, 2)
    """
    return _network("midway_pico_untrained", pretrained, **kwargs)


def midway_vits_flow(pretrained=True, **kwargs):
    """ViT-S/16 Midway Network with an optical flow head; none is published yet, so this says so.

    Args:
        pretrained: Load weights; otherwise initialise at random.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` whose `flow(source, target).flow` is (B, 2, H, W) in pixels.

    Raises:
        MissingHeadError: No such checkpoint is published; the message names those with a flow head.

    Example:
        >>> net = torch.hub.load("org/midway", "midway_vits_flow")
    """
    return _with_head("flow", "vits", pretrained, **kwargs)


def midway_vits_seg(pretrained=True, **kwargs):
    """ViT-S/16 Midway Network with a segmentation head; none is published yet, so this says so.

    Args:
        pretrained: Load weights; otherwise initialise at random.
        **kwargs: As for `midway_vits`.

    Returns:
        A `MidwayNetwork` whose `segment(images).logits` is (B, K, H, W).

    Raises:
        MissingHeadError: No such checkpoint is published; the message names those with a segmentation head.

    Example:
        >>> net = torch.hub.load("org/midway", "midway_vits_seg")
    """
    return _with_head("segmentation", "vits", pretrained, **kwargs)


def midway_processor(checkpoint=None, **kwargs):
    """Processor that turns frames of any kind and size into what the networks take.

    Args:
        checkpoint: Registry name, Hub repo, folder or file of the network that it is for, whose normalisation and patch
            size it takes; default: ImageNet's normalisation, which the authors' checkpoints have, and patches of 16.
        **kwargs: For `MidwayImageProcessor` (fit, size, ...); by default frames keep their size and are padded to whole
            patches.

    Returns:
        A `MidwayImageProcessor`: `processor(images)["pixel_values"]` is (B, 3, H, W).

    Example:
        >>> processor = torch.hub.load("org/midway", "midway_processor", "midway_vits_bdd100k")
        >>> net.encode(processor(["frame.jpg"])["pixel_values"])
    """
    from midway_hub import MidwayImageProcessor

    if checkpoint is None:
        return MidwayImageProcessor(**kwargs)
    return MidwayImageProcessor.from_pretrained(checkpoint, **kwargs)
