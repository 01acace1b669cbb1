"""The engine: one loop for every recipe. See docs/training.md."""

from fourdface.training.config import TrainOptions
from fourdface.training.loop import train
from fourdface.training.recipe import Adam, Phase, Recipe, RecipeFactory, TrainState

__all__ = ["Adam", "Phase", "Recipe", "RecipeFactory", "TrainOptions", "TrainState", "train"]
