"""stub"""
from .valid_busts import compose_valid
def compose_bust(recipe, data): return compose_valid(data, recipe.identity)
