"""Properties of resampled embeddings."""

import pytest
import torch
import torch.nn.functional as F

from timesformer_zoo.model.embedding import resample_pos_embed, resample_time_embed

GRIDS = [(4, 4), (2, 6), (7, 3)]


def smooth(frames: int, dim: int = 6) -> torch.Tensor:
    """(1, T, D): slow waves, as learned time embeddings are."""
    t = (torch.arange(frames) + 0.5) / frames
    return torch.sin(t[:, None] * torch.arange(1, dim + 1)).unsqueeze(0)


@pytest.mark.parametrize("grid", GRIDS)
def test_same_grid_is_the_identity(grid):
    x = torch.randn(1, 1 + grid[0] * grid[1], 8)
    assert torch.equal(resample_pos_embed(x, grid, grid), x)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_same_number_of_frames_is_the_identity(mode):
    x = torch.randn(1, 5, 8)
    assert torch.equal(resample_time_embed(x, 5, mode), x)


@pytest.mark.parametrize("old", GRIDS)
@pytest.mark.parametrize("new", [(8, 8), (3, 5), (14, 2), (1, 1)])
def test_constant_grid_stays_constant(old, new):
    cls, patch = torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    x = torch.cat([cls, patch.expand(1, old[0] * old[1], 8)], 1)
    y = resample_pos_embed(x, old, new)
    assert torch.equal(y[:, :1], cls)
    torch.testing.assert_close(y[:, 1:], patch.expand(1, new[0] * new[1], 8))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("old", "new"), [(8, 16), (16, 8), (8, 96), (96, 8), (1, 4), (4, 1), (8, 5)])
def test_constant_time_stays_constant(mode, old, new):
    x = torch.randn(1, 1, 8)
    torch.testing.assert_close(resample_time_embed(x.expand(1, old, 8), new, mode), x.expand(1, new, 8))


def test_same_count_on_another_grid_is_not_the_identity():
    x = torch.randn(1, 17, 8)
    assert not torch.allclose(resample_pos_embed(x, (4, 4), (2, 8)), x)


def test_rows_stay_rows():
    """A grid that varies down the rows only still does so after resampling to another, non-square grid."""
    rows = torch.arange(4.0).view(4, 1, 1).expand(4, 3, 2).reshape(1, 12, 2)
    y = resample_pos_embed(torch.cat([torch.zeros(1, 1, 2), rows], 1), (4, 3), (8, 5))[:, 1:].reshape(8, 5, 2)
    torch.testing.assert_close(y, y[:, :1].expand(8, 5, 2))
    assert (y[1:, 0, 0] > y[:-1, 0, 0]).all()


def test_there_and_back_is_close():
    x = smooth(8)
    back = resample_time_embed(resample_time_embed(x, 16), 8)
    torch.testing.assert_close(back, x, atol=0.1, rtol=0)  # of waves between -1 and 1
    grid = torch.cat([torch.randn(1, 1, 6), smooth(36)], 1)
    up = resample_pos_embed(resample_pos_embed(grid, (6, 6), (12, 12)), (12, 12), (6, 6))
    assert (up - grid).abs().mean() < 0.05 * grid.abs().mean()


def test_nearest_is_the_authors():
    x = torch.randn(1, 8, 4)
    expected = F.interpolate(x.transpose(1, 2), size=12, mode="nearest").transpose(1, 2)
    assert torch.equal(resample_time_embed(x, 12, "nearest"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    assert resample_time_embed(torch.zeros(1, 8, 4, dtype=dtype), 16).dtype is dtype
    assert resample_pos_embed(torch.zeros(1, 5, 4, dtype=dtype), (2, 2), (3, 3)).dtype is dtype
