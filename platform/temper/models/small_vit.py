"""A vision transformer for images of 8 to 64 px. Dosovitskiy et al. 2020, arXiv:2010.11929."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.backbone import Groups, NoClassifier, groups_by_cuts

GRID = 8
"""Tokens per side, whatever the image size: a model's cost does not depend on it."""


class SmallAttention(nn.Module):
    """Self-attention of tokens (B,N,D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out


class SmallMlp(nn.Module):
    """Two linear layers with a GELU between, on each token alone."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class SmallBlock(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to them."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SmallAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SmallMlp(dim, 4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class SmallViT(nn.Module):
    """Images (B,3,H,H), already normalised, to features (B,D): the class token after the last block."""

    def __init__(self, image_size: int, *, dim: int = 96, depth: int = 4, num_heads: int = 4) -> None:
        super().__init__()
        patch_size = image_size // GRID
        self.patch_embed = nn.Conv2d(3, dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, dim))
        self.blocks = nn.Sequential(*(SmallBlock(dim, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = NoClassifier()
        self.num_features = dim
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        # Not len(images): torch.export would take it for a number that never changes.
        first = self.cls_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.pos_embed
        out: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return out

    def groups(self) -> Groups:
        """``stem`` (patches, class token, positions), and one for each block."""
        return groups_by_cuts(self, [f"blocks.{index}" for index in range(len(self.blocks))])


def small_vit(image_size: int) -> SmallViT:
    """0.45 M parameters; 8 x 8 patches of an image of ``image_size`` px.

    Raises:
        ModelError: ``image_size`` is not a multiple of 8.
    """
    if image_size <= 0 or image_size % GRID != 0:
        raise ModelError(f"data.image_size: small_vit needs a multiple of {GRID} px, got {image_size}")
    return SmallViT(image_size)
