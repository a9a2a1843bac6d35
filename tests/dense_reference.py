"""TimeSformer a second time, straight from its definition: dense attention over all tokens under a boolean mask.

It shares nothing with the package but the names of the weights: float64, no grouping, no fused attention.

Legend: B batch, T frames, h w patch rows and columns, N = T·h·w patches, L = 1 + N tokens, D width, A heads, G groups.
"""

import torch
import torch.nn.functional as F

STEPS = {
    "space_only": ["space"],
    "joint": ["space_time"],
    "divided": ["time", "space"],
    "local_global": ["local", "sparse_global"],
    "axial": ["time", "width", "height"],
    "frozen": ["time", "space"],
}


def group_of_patches(step, grid):
    """(N,): a number for each patch; patches of one number attend to each other."""
    _, rows, columns = grid
    t, y, x = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    number = {
        "space": t,
        "space_time": 0 * t,
        "time": y * columns + x,
        "local": (y >= (rows + 1) // 2) * 2 + (x >= (columns + 1) // 2),
        "sparse_global": t % 2 * 4 + y % 2 * 2 + x % 2,
        "width": t * rows + y,
        "height": t * columns + x,
    }[step]
    return number.flatten()


def mask(step, grid):
    """Queries × tokens, (G + N, L): one query of the class token for each group, then the patches; and G.

    In a step that the class token does not join, nobody sees it and it asks nothing: G is 0.
    """
    group = group_of_patches(step, grid)
    joins = step != "time"
    same = group[:, None] == group[None, :]
    patches = torch.cat([torch.full((len(group), 1), joins), same], 1)
    if not joins:
        return patches, 0
    numbers = group.unique()
    cls = torch.cat([torch.ones(len(numbers), 1, dtype=torch.bool), group[None, :] == numbers[:, None]], 1)
    return torch.cat([cls, patches]), len(numbers)


def linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def frozen_attention(x, weights, name, step, grid, heads):
    """Attention and projection of one step of Frozen in Time: (B, L, D), without a residual; and (B, A, L, L).

    From its paper's figure and its code's behaviour: the class token's row and column are not masked, in either step.
    """
    group = group_of_patches(step, grid)
    allowed = torch.ones(1 + len(group), 1 + len(group), dtype=torch.bool)
    allowed[1:, 1:] = group[:, None] == group[None, :]
    q, k, v = linear(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.qkv").chunk(3, -1)
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k, v))  # B A L d
    attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
    return linear((attention @ v).transpose(1, 2).flatten(2), weights, f"{name}.proj"), attention


def attention_step(x, weights, name, step, grid, heads):
    """x (B, L, D) after one step, and its attention as one matrix over tokens, (B, A, L, L)."""
    allowed, groups = mask(step, grid)
    q, k, v = linear(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.qkv").chunk(3, -1)
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k, v))  # B A L d
    q = torch.cat([q[:, :, :1].expand(-1, -1, groups, -1), q[:, :, 1:]], 2)  # B A G+N d
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    attention = scores.masked_fill(~allowed, -torch.inf).softmax(-1)  # B A G+N L
    if groups:
        matrix = torch.cat([attention[:, :, :groups].mean(2, keepdim=True), attention[:, :, groups:]], 2)
    else:  # the class token stays as it is
        stays = torch.zeros_like(attention[:, :, :1])
        stays[..., 0] = 1
        matrix = torch.cat([stays, attention], 2)
    # Of the mean over the class token's queries, which is that of their outputs: all that follows is linear.
    y = linear((matrix @ v).transpose(1, 2).flatten(2), weights, f"{name}.proj")
    if f"{name}.fc.weight" in weights:
        y = linear(y, weights, f"{name}.fc")
    if not groups:
        y = torch.cat([torch.zeros_like(y[:, :1]), y[:, 1:]], 1)
    return x + y, matrix


def dense(model, x):
    """A whole forward pass at the model's own size.

    Args:
        model: only its state dict and its sizes are used.
        x: (B, C, T, H, W).

    Returns:
        logits (B, num_classes); tokens before the head (B, L, D); blocks, each block's output, and matrices, each
        step's attention. In space-only the last two are of frames, (B·T, …).
    """
    weights = {key: value.double() for key, value in model.state_dict().items()}
    x = x.double()
    batch, _, frames = x.shape[:3]
    mode = str(model.attention)
    x = x.transpose(1, 2).flatten(0, 1)
    proj = weights["patch_embed.proj.weight"]
    x = F.conv2d(x, proj, weights["patch_embed.proj.bias"], stride=proj.shape[-2:])  # (B T) D h w
    grid = (frames, *x.shape[-2:])
    x = x.flatten(2).transpose(1, 2) + weights["pos_embed"][:, 1:]
    if mode == "space_only":
        grid = (1, *grid[1:])
    else:
        x = (x.unflatten(0, (batch, frames)) + weights["time_embed"][:, :, None]).flatten(1, 2)
    cls = weights["cls_token"] + weights["pos_embed"][:, :1]
    x = torch.cat([cls.expand(len(x), -1, -1), x], 1)

    blocks, matrices = [], []
    for i in range(model.depth):
        looked_at = x
        for step in STEPS[mode]:
            place = (weights, f"blocks.{i}.steps.{step}", step, grid, model.num_heads)
            if mode == "frozen":
                seen, matrix = frozen_attention(looked_at, *place)
                looked_at = x + seen
            else:
                looked_at, matrix = attention_step(looked_at, *place)
            matrices.append(matrix)
        x = looked_at
        y = layer_norm(x, weights, f"blocks.{i}.norm")
        x = x + linear(F.gelu(linear(y, weights, f"blocks.{i}.mlp.fc1")), weights, f"blocks.{i}.mlp.fc2")
        blocks.append(x)
    if mode == "space_only":
        x = x.unflatten(0, (batch, frames))
        x = torch.cat([x[:, :, 0].mean(1, keepdim=True), x[:, :, 1:].flatten(1, 2)], 1)
    tokens = layer_norm(x, weights, "norm")
    return {"logits": linear(tokens[:, 0], weights, "head"), "tokens": tokens, "blocks": blocks, "matrices": matrices}
