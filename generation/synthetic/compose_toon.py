"""stub"""
def compose_toon(recipe, data): raise NotImplementedError
