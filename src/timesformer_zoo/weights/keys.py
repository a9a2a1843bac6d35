"""How projects name their parameters: their key -> ours, a table each. What a format is beside its keys: `formats`.

`{i}` is a block's index, `{p}` weight or bias, `{last}` the mode's last attention step, `[…]` a prefix that some files
leave out (and that the inverse writes).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "AUTHORS",
    "AUTHORS_SPACE_ONLY",
    "CLIP_TOWER",
    "FROZEN",
    "IMAGE_VIT",
    "MMACTION2_DIVIDED",
    "MMACTION2_SINGLE",
    "TRANSFORMERS",
    "after",
]


def after(prefix: str, table: Mapping[str, str], optional: str = "") -> dict[str, str]:
    """A table whose keys stand behind a prefix, and behind no other that they may have had.

    Args:
        prefix: that every key of theirs begins with.
        table: the keys.
        optional: a prefix in brackets in the table, which goes.
    """
    return {prefix + theirs.removeprefix(optional): ours for theirs, ours in table.items()}


# The authors' code and timm's image ViT share these names; one has an optional prefix, the other none.
VIT_NAMES = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "patch_embed.proj.{p}": "patch_embed.proj.{p}",
    "blocks.{i}.norm1.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "blocks.{i}.attn.qkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "blocks.{i}.attn.proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "blocks.{i}.norm2.{p}": "blocks.{i}.norm.{p}",
    "blocks.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.fc1.{p}",
    "blocks.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.fc2.{p}",
    "norm.{p}": "norm.{p}",
    "head.{p}": "head.{p}",
}

# Without their prefix, the authors' space-only models have an image ViT's keys, and mean the same.
AUTHORS_SPACE_ONLY = {f"model.{theirs}": ours for theirs, ours in VIT_NAMES.items()}
AUTHORS = {f"[model.]{theirs}": ours for theirs, ours in VIT_NAMES.items()} | {
    "[model.]time_embed": "time_embed",
    "[model.]blocks.{i}.temporal_norm1.{p}": "blocks.{i}.steps.time.norm.{p}",
    "[model.]blocks.{i}.temporal_attn.qkv.{p}": "blocks.{i}.steps.time.qkv.{p}",
    "[model.]blocks.{i}.temporal_attn.proj.{p}": "blocks.{i}.steps.time.proj.{p}",
    "[model.]blocks.{i}.temporal_fc.{p}": "blocks.{i}.steps.time.fc.{p}",
}

TRANSFORMERS = {
    "[timesformer.]embeddings.cls_token": "cls_token",
    "[timesformer.]embeddings.position_embeddings": "pos_embed",
    "[timesformer.]embeddings.time_embeddings": "time_embed",
    "[timesformer.]embeddings.patch_embeddings.projection.{p}": "patch_embed.proj.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_layernorm.{p}": "blocks.{i}.steps.time.norm.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_attention.attention.qkv.{p}": "blocks.{i}.steps.time.qkv.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_attention.output.dense.{p}": "blocks.{i}.steps.time.proj.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_dense.{p}": "blocks.{i}.steps.time.fc.{p}",
    "[timesformer.]encoder.layer.{i}.layernorm_before.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "[timesformer.]encoder.layer.{i}.attention.attention.qkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "[timesformer.]encoder.layer.{i}.attention.output.dense.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "[timesformer.]encoder.layer.{i}.layernorm_after.{p}": "blocks.{i}.norm.{p}",
    "[timesformer.]encoder.layer.{i}.intermediate.dense.{p}": "blocks.{i}.mlp.fc1.{p}",
    "[timesformer.]encoder.layer.{i}.output.dense.{p}": "blocks.{i}.mlp.fc2.{p}",
    "[timesformer.]layernorm.{p}": "norm.{p}",
    "classifier.{p}": "head.{p}",
}

MMACTION2 = {
    "backbone.cls_token": "cls_token",
    "backbone.pos_embed": "pos_embed",
    "backbone.time_embed": "time_embed",
    "backbone.patch_embed.projection.{p}": "patch_embed.proj.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.layers.0.0.{p}": "blocks.{i}.mlp.fc1.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.layers.1.{p}": "blocks.{i}.mlp.fc2.{p}",
    "backbone.norm.{p}": "norm.{p}",
    "cls_head.fc_cls.{p}": "head.{p}",
}

# mmaction2 keeps the norms inside the attentions in divided models, and beside them in the others.
MMACTION2_DIVIDED = MMACTION2 | {
    "backbone.transformer_layers.layers.{i}.attentions.0.norm.{p}": "blocks.{i}.steps.time.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.in_proj_{p}": "blocks.{i}.steps.time.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.out_proj.{p}": "blocks.{i}.steps.time.proj.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.temporal_fc.{p}": "blocks.{i}.steps.time.fc.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.norm.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.attn.in_proj_{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.attn.out_proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.norm.{p}": "blocks.{i}.norm.{p}",
}
MMACTION2_SINGLE = MMACTION2 | {
    "backbone.transformer_layers.layers.{i}.norms.0.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.in_proj_{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.out_proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "backbone.transformer_layers.layers.{i}.norms.1.{p}": "blocks.{i}.norm.{p}",
}

# What an image ViT may have beyond the space-only model; inflation folds it in or says that it cannot.
IMAGE_VIT = VIT_NAMES | {
    "norm_pre.{p}": "norm_pre.{p}",  # CLIP
    "blocks.{i}.ls1.gamma": "blocks.{i}.ls1.gamma",  # DINOv2, DeiT III
    "blocks.{i}.ls2.gamma": "blocks.{i}.ls2.gamma",
}

# Frozen-in-Time's block, and that of all who took it over: both steps, and no layer between them.
FROZEN = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "temporal_embed": "time_embed",
    "patch_embed.proj.{p}": "patch_embed.proj.{p}",
    "ln_pre.{p}": "norm_pre.{p}",
    "blocks.{i}.norm3.{p}": "blocks.{i}.steps.time.norm.{p}",
    "blocks.{i}.timeattn.qkv.{p}": "blocks.{i}.steps.time.qkv.{p}",
    "blocks.{i}.timeattn.proj.{p}": "blocks.{i}.steps.time.proj.{p}",
    "blocks.{i}.norm1.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "blocks.{i}.attn.qkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "blocks.{i}.attn.proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "blocks.{i}.norm2.{p}": "blocks.{i}.norm.{p}",
    "blocks.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.fc1.{p}",
    "blocks.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.fc2.{p}",
    "norm.{p}": "norm.{p}",
}

# CLIP's vision tower and a time embedding, in the names of torch's own attention and of flash-attn's modules.
CLIP_TOWER = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "temporal_embedding": "time_embed",
    "temporal_positional_embedding": "time_embed",
    "conv1.{p}": "patch_embed.proj.{p}",
    "ln_pre.{p}": "norm_pre.{p}",
    "transformer.resblocks.{i}.ln_1.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "transformer.resblocks.{i}.attn.in_proj_{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "transformer.resblocks.{i}.attn.Wqkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "transformer.resblocks.{i}.attn.out_proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "transformer.resblocks.{i}.ln_2.{p}": "blocks.{i}.norm.{p}",
    "transformer.resblocks.{i}.mlp.c_fc.{p}": "blocks.{i}.mlp.fc1.{p}",
    "transformer.resblocks.{i}.mlp.c_proj.{p}": "blocks.{i}.mlp.fc2.{p}",
    "transformer.resblocks.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.fc1.{p}",
    "transformer.resblocks.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.fc2.{p}",
    "ln_post.{p}": "norm.{p}",
}
