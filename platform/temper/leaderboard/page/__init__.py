"""The pages: ``index.html`` and a card for each model, both pure functions of what was collected."""

from temper.leaderboard.page.cards import render_cards
from temper.leaderboard.page.index import render_index

__all__ = ["render_cards", "render_index"]
